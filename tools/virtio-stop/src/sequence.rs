// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! In which order things are done and undone: freeze, stop, work, resume, thaw. Whatever fails,
//! what was done before is undone, in reverse.

use crate::error::{Error, Result};
use crate::refusal::Cause;

/// What is done. Everything between [`stop`](Self::stop) and [`resume`](Self::resume) must need
/// nothing of what stands still.
pub trait Steps {
    /// What the work comes to.
    type End;

    /// How many file systems are to be frozen.
    fn file_systems(&self) -> usize;
    /// Freezes one of them.
    fn freeze(&mut self, at: usize) -> Result<()>;
    /// Begins to thaw it.
    fn begin_thaw(&mut self, at: usize);
    /// Waits until another one of those is thawed: one whose disk does not answer is not.
    fn thawed(&mut self) -> Result<()>;
    /// Says what has failed before that is waited for, since it may be for ever.
    fn complain(&self, error: &Error);
    /// Stops all devices, or none.
    fn stop(&mut self) -> Result<()>;
    /// Looks at the devices right after the stop.
    fn look_first(&mut self) -> Result<()>;
    /// What the devices were stopped for. `None`: it has not come to an end, but they can't be
    /// stopped for it any longer.
    fn work(&mut self) -> Result<Option<Self::End>>;
    /// Looks at the devices right before the resume.
    fn look_last(&mut self) -> Result<()>;
    /// How many devices there are.
    fn devices(&self) -> usize;
    /// Resumes all devices that are stopped still, whatever fails. The error is the first one's. A
    /// stop that has ended before is told once.
    fn resume(&mut self) -> Result<()>;
    /// Waits for what [`work`](Self::work) has begun, and has come to no end, when all is undone.
    fn finish(&mut self) -> Result<Option<Self::End>>;
    /// The signal that asks to end, if one has come.
    fn interrupted(&self) -> Option<i32>;
}

/// What it has come to.
#[derive(Debug)]
pub struct Outcome<End> {
    /// So many file systems were frozen, the first ones.
    pub frozen: usize,
    /// All devices had stopped.
    pub stopped: bool,
    /// They had, and none of them is stopped any more.
    pub resumed: bool,
    /// Both looks have succeeded, so that they can be compared.
    pub looked: bool,
    /// What the work has come to, if it was done.
    pub end: Option<End>,
    /// What has failed, in that order.
    pub errors: Vec<Error>,
}

/// Does all of it.
pub fn run<S: Steps>(steps: &mut S) -> Outcome<S::End> {
    let mut outcome = Outcome {
        frozen: 0,
        stopped: false,
        resumed: false,
        looked: false,
        end: None,
        // For each step at most one, and for each device whose stop has ended, so that it does not
        // grow while everything stands still.
        errors: Vec::with_capacity(
            (steps.file_systems().saturating_mul(2))
                .saturating_add(steps.devices())
                .saturating_add(8),
        ),
    };
    let mut frozen = 0;
    let mut begun = false;
    let mut ready = Ok(());
    while frozen < steps.file_systems() {
        ready = go_on(steps).and_then(|()| steps.freeze(frozen));
        if ready.is_err() {
            break;
        }
        frozen += 1;
    }
    outcome.frozen = frozen;
    let asked = ready.and_then(|()| go_on(steps)).map(|()| steps.stop());
    // A disk may not answer.
    let mut in_doubt = false;
    match asked {
        Ok(Ok(())) => {
            outcome.stopped = true;
            begun = stand_still(steps, &mut outcome);
            in_doubt = !outcome.resumed;
        }
        Ok(Err(error)) => {
            outcome.errors.push(error);
            in_doubt = true;
        }
        Err(error) => outcome.errors.push(error),
    }
    thaw(steps, &mut outcome, in_doubt);
    if begun && outcome.end.is_none() {
        match steps.finish() {
            Ok(end) => outcome.end = end,
            Err(error) => outcome.errors.push(error),
        }
    }
    outcome
}

fn thaw<S: Steps>(steps: &mut S, outcome: &mut Outcome<S::End>, in_doubt: bool) {
    for at in (0..outcome.frozen).rev() {
        steps.begin_thaw(at);
    }
    if in_doubt && outcome.frozen > 0 {
        for error in &outcome.errors {
            steps.complain(error);
        }
    }
    for _ in 0..outcome.frozen {
        outcome.errors.extend(steps.thawed().err());
    }
}

/// Whether the work was begun.
fn stand_still<S: Steps>(steps: &mut S, outcome: &mut Outcome<S::End>) -> bool {
    let first = steps.look_first();
    // A look that has found that one does not stand has succeeded.
    let is_known = matches!(first, Ok(()) | Err(Error::NotStill { .. }));
    let ready = first.and_then(|()| go_on(steps));
    let begun = ready.is_ok();
    match ready.and_then(|()| steps.work()) {
        Ok(end) => outcome.end = end,
        Err(error) => outcome.errors.push(error),
    }
    let last = steps.look_last();
    outcome.looked = is_known && last.is_ok();
    outcome.errors.extend(last.err());
    outcome.resumed = resume(steps, &mut outcome.errors);
    begun
}

/// Whether none of the devices is stopped any more. A stop that has ended before does not stand
/// either, but tells nothing of the other devices: they are asked once more then.
fn resume<S: Steps>(steps: &mut S, errors: &mut Vec<Error>) -> bool {
    for _ in 0..=steps.devices() {
        let Err(error) = steps.resume() else {
            return true;
        };
        let has_ended = has_ended(&error);
        errors.push(error);
        if !has_ended {
            break;
        }
    }
    false
}

fn has_ended(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => matches!(refusal.cause(), Cause::Ended | Cause::Gone),
        _ => false,
    }
}

fn go_on<S: Steps>(steps: &S) -> Result<()> {
    steps
        .interrupted()
        .map_or(Ok(()), |signal| Err(Error::Interrupted(signal)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rustix::io::Errno;

    use crate::refusal::{Refusal, Request};

    use super::*;

    const ALL: [&str; 9] = [
        "freeze 0", "freeze 1", "stop", "first", "work", "last", "resume", "thaw 1", "thaw 0",
    ];

    #[derive(Default)]
    struct Fake {
        done: Vec<String>,
        fails: Vec<&'static str>,
        /// The work comes to no end while everything stands still.
        is_endless: bool,
        /// A signal comes while this is done.
        signal_at: Option<&'static str>,
        signal: Option<i32>,
        /// What the devices answer that are to resume, before all else: error numbers.
        answers: Vec<Errno>,
        thaws: Vec<Result<()>>,
        complaints: RefCell<Vec<String>>,
    }

    impl Fake {
        fn step(&mut self, name: &str) -> Result<()> {
            self.done.push(name.to_owned());
            if self.signal_at == Some(name) {
                self.signal = Some(15);
            }
            if self.fails.contains(&name) {
                return Err(Error::Unknown(name.to_owned()));
            }
            Ok(())
        }
    }

    impl Steps for Fake {
        type End = ();

        fn file_systems(&self) -> usize {
            2
        }
        fn freeze(&mut self, at: usize) -> Result<()> {
            self.step(&format!("freeze {at}"))
        }
        fn begin_thaw(&mut self, at: usize) {
            let begun = self.step(&format!("thaw {at}"));
            self.thaws.push(begun);
        }
        fn thawed(&mut self) -> Result<()> {
            self.thaws.remove(0)
        }
        fn complain(&self, error: &Error) {
            // All thaws have begun, and none was waited for.
            assert_eq!(self.thaws.len(), 2);
            self.complaints.borrow_mut().push(error.to_string());
        }
        fn stop(&mut self) -> Result<()> {
            self.step("stop")
        }
        fn look_first(&mut self) -> Result<()> {
            self.step("first")
        }
        fn work(&mut self) -> Result<Option<()>> {
            self.step("work")?;
            Ok((!self.is_endless).then_some(()))
        }
        fn finish(&mut self) -> Result<Option<()>> {
            self.step("finish")?;
            Ok(Some(()))
        }
        fn look_last(&mut self) -> Result<()> {
            self.step("last")
        }
        fn devices(&self) -> usize {
            20
        }
        fn resume(&mut self) -> Result<()> {
            if self.answers.is_empty() {
                return self.step("resume");
            }
            self.done.push("resume".to_owned());
            Err(Error::Refused(Refusal {
                device: String::new(),
                request: Request::Resume,
                errno: self.answers.remove(0).raw_os_error(),
                reason: String::new(),
            }))
        }
        fn interrupted(&self) -> Option<i32> {
            self.signal
        }
    }

    /// What undoes a step that has succeeded.
    fn undone(step: &str) -> Option<&'static str> {
        match step {
            "freeze 0" => Some("thaw 0"),
            "freeze 1" => Some("thaw 1"),
            "stop" => Some("resume"),
            _ => None,
        }
    }

    fn run_with(fails: &[&'static str], signal_at: Option<&'static str>) -> (Fake, Outcome<()>) {
        let fails = fails.to_vec();
        let mut fake = Fake {
            fails,
            signal_at,
            ..Fake::default()
        };
        let outcome = run(&mut fake);
        (fake, outcome)
    }

    /// All that was done and has succeeded is undone, in reverse; nothing else is.
    fn assert_undone(fake: &Fake) {
        let done = fake
            .done
            .iter()
            .filter(|step| !fake.fails.contains(&step.as_str()));
        let expected: Vec<_> = done.filter_map(|step| undone(step)).rev().collect();
        let undo = |step: &&String| step.starts_with("thaw") || *step == "resume";
        let actual: Vec<_> = fake.done.iter().filter(undo).collect();
        assert_eq!(actual, expected, "{:?}", fake.done);
    }

    #[test]
    fn everything_is_done_in_order() {
        let (fake, outcome) = run_with(&[], None);
        assert_eq!(fake.done, ALL);
        assert!(outcome.stopped && outcome.looked && outcome.end.is_some());
        assert!(outcome.errors.is_empty());
    }

    #[test]
    fn whatever_fails_what_was_done_is_undone() {
        for step in ALL {
            let (fake, outcome) = run_with(&[step], None);
            let (first, _) = ALL.split_at(ALL.iter().position(|other| *other == step).unwrap() + 1);
            assert!(fake
                .done
                .starts_with(&first.iter().map(ToString::to_string).collect::<Vec<_>>()));
            assert_undone(&fake);
            assert_eq!(outcome.errors.len(), 1, "{step}");
            assert_eq!(outcome.resumed, outcome.stopped && step != "resume");
            let frozen = match step {
                "freeze 0" => 0,
                "freeze 1" => 1,
                _ => 2,
            };
            assert_eq!(outcome.frozen, frozen, "{step}");
            let worked = fake.done.iter().any(|done| done == "work");
            assert_eq!(
                worked,
                !matches!(step, "freeze 0" | "freeze 1" | "stop" | "first")
            );
            assert_eq!(
                outcome.looked,
                outcome.stopped && step != "first" && step != "last"
            );
        }
    }

    #[test]
    fn whatever_fails_while_it_is_undone_the_rest_is_undone() {
        let (fake, outcome) = run_with(&["work", "last", "resume", "thaw 1", "thaw 0"], None);
        let (finish, undone) = fake.done.split_last().unwrap();
        assert_eq!(undone, ALL);
        assert_eq!(finish, "finish");
        assert_eq!(outcome.errors.len(), 5);
    }

    #[test]
    fn after_a_signal_nothing_new_is_begun_and_all_is_undone() {
        for step in ["freeze 0", "freeze 1", "stop", "first"] {
            let (fake, outcome) = run_with(&[], Some(step));
            assert_undone(&fake);
            assert!(!fake.done.iter().any(|done| done == "work"), "{step}");
            assert!(
                matches!(outcome.errors.as_slice(), [Error::Interrupted(15)]),
                "{step}"
            );
        }
    }

    #[test]
    fn what_comes_to_no_end_is_waited_for_when_all_is_undone() {
        let mut fake = Fake {
            is_endless: true,
            ..Fake::default()
        };
        let outcome = run(&mut fake);
        let (finish, undone) = fake.done.split_last().unwrap();
        assert_eq!(undone, ALL);
        assert_eq!(finish, "finish");
        assert_eq!(outcome.end, Some(()));
    }

    /// How often the devices are asked, whether none is stopped any more, and how many errors there
    /// are.
    fn resumed(answers: &[Errno]) -> (usize, bool, usize) {
        let mut fake = Fake {
            answers: answers.to_vec(),
            ..Fake::default()
        };
        let mut errors = Vec::new();
        let resumed = resume(&mut fake, &mut errors);
        (fake.done.len(), resumed, errors.len())
    }

    #[test]
    fn a_stop_that_has_ended_hides_no_device_that_does_not_answer() {
        assert_eq!(resumed(&[]), (1, true, 0));
        assert_eq!(resumed(&[Errno::STALE]), (2, true, 1));
        assert_eq!(resumed(&[Errno::NODEV, Errno::STALE]), (3, true, 2));
        assert_eq!(resumed(&[Errno::TIMEDOUT]), (1, false, 1));
        assert_eq!(resumed(&[Errno::STALE, Errno::TIMEDOUT]), (2, false, 2));
        // Whatever they say, they are not asked for ever.
        assert_eq!(resumed(&[Errno::STALE; 99]), (21, false, 21));
    }

    #[test]
    fn the_errors_have_their_memory_before() {
        let mut fake = Fake {
            fails: vec!["work", "last", "resume", "thaw 1", "thaw 0", "finish"],
            answers: vec![Errno::STALE; 20],
            ..Fake::default()
        };
        let outcome = run(&mut fake);
        assert_eq!(outcome.errors.len(), 26);
        assert_eq!(outcome.errors.capacity(), 2 * 2 + 20 + 8);
    }

    #[test]
    fn what_has_failed_is_said_before_a_thaw_is_waited_for() {
        for (step, complaints) in [
            ("freeze 1", 0),
            ("stop", 1),
            ("last", 0),
            ("resume", 1),
            ("thaw 0", 0),
        ] {
            let (fake, _) = run_with(&[step], None);
            assert_eq!(fake.complaints.borrow().len(), complaints, "{step}");
        }
    }
}
