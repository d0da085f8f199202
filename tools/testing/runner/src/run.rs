// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Several guests at a time, until there are no more.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::guest::{Event, Running, Took};
use crate::plan::Guest;
use crate::screen::Screen;

/// How often to look whether somebody stands still.
const TICK: Duration = Duration::from_secs(1);
/// Who did not look for longer can't say that nobody has spoken.
const ABSENCE: Duration = Duration::from_secs(10);

/// Why not all guests were run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// One could not be started, or its log not be written.
    #[error("can't run the guest {0}")]
    Guest(String, #[source] io::Error),
    /// By the user, or the system.
    #[error("interrupted")]
    Interrupted,
}

/// How guests are run.
pub(crate) struct Conditions<'a> {
    /// How many at a time.
    pub(crate) slots: usize,
    /// A guest that says nothing for longer stands still.
    pub(crate) silence: Duration,
    /// Where the logs go.
    pub(crate) logs: &'a Path,
    /// The program that is a guest.
    pub(crate) command: &'a dyn Fn(&Guest) -> Command,
}

/// What all guests have come to.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Results that have passed.
    pub(crate) passed: usize,
    /// What has failed, with the guest that it has failed in.
    pub(crate) failures: Vec<String>,
    /// What has taken how long.
    pub(crate) times: Vec<Took>,
}

struct Run<'a> {
    conditions: Conditions<'a>,
    waiting: VecDeque<Guest>,
    running: BTreeMap<usize, Running>,
    logs: BTreeMap<usize, PathBuf>,
    results: Results,
    screen: &'a mut Screen,
    events: Sender<Event>,
}

/// Runs `guests`, in this order. Whoever has the other end of what `listen` is given ends that by [`Event::Interrupted`].
///
/// # Errors
///
/// What has kept them from being run.
pub(crate) fn run(
    guests: Vec<Guest>,
    conditions: Conditions<'_>,
    screen: &mut Screen,
    listen: impl FnOnce(Sender<Event>),
) -> Result<Results, Error> {
    let (sender, events) = mpsc::channel();
    listen(sender.clone());
    let mut run = Run {
        conditions,
        waiting: guests.into(),
        running: BTreeMap::new(),
        logs: BTreeMap::new(),
        results: Results::default(),
        screen,
        events: sender,
    };
    let mut looked = Instant::now();
    loop {
        run.fill_slots()?;
        if run.running.is_empty() {
            return Ok(run.results);
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Line(number, time, line)) => run.line(number, time, &line)?,
            Ok(Event::End(number)) => run.end(number)?,
            Ok(Event::Interrupted) => return Err(run.interrupted()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = Instant::now();
        if now.duration_since(looked) > ABSENCE {
            for running in run.running.values_mut() {
                running.excuse(now);
            }
        }
        looked = now;
        run.end_who_stands_still()?;
        run.screen.tick(&run.running);
    }
}

impl Run<'_> {
    fn fill_slots(&mut self) -> Result<(), Error> {
        while self.running.len() < self.conditions.slots {
            let Some(guest) = self.waiting.pop_front() else {
                break;
            };
            let number = self.logs.len() + 1;
            let log = self.conditions.logs.join(format!("guest-{number}.log"));
            let command = (self.conditions.command)(&guest);
            let name = guest.to_string();
            let running = Running::start(command, guest, number, &log, self.events.clone())
                .map_err(|error| Error::Guest(name, error))?;
            self.logs.insert(number, log);
            self.running.insert(number, running);
        }
        Ok(())
    }

    fn line(&mut self, number: usize, time: Instant, line: &str) -> Result<(), Error> {
        // One that was ended may have left some.
        let Some(running) = self.running.get_mut(&number) else {
            return Ok(());
        };
        let before = running.times.len();
        running
            .hear(time, line)
            .map_err(|error| Error::Guest(running.guest.to_string(), error))?;
        if let Some(program) = running
            .times
            .get(before)
            .filter(|took| took.result.is_none())
        {
            let results = |took: &&Took| took.program == program.program && took.result.is_some();
            let results: Vec<_> = running.times.iter().filter(results).cloned().collect();
            self.screen.program(program, &results);
        }
        Ok(())
    }

    fn end_who_stands_still(&mut self) -> Result<(), Error> {
        let limit = self.conditions.silence;
        let still = self
            .running
            .iter()
            .find(|(_, running)| running.silence() > limit);
        let Some(number) = still.map(|(number, _)| *number) else {
            return Ok(());
        };
        if let Some(running) = self.running.get_mut(&number) {
            let limit = limit.as_secs();
            let last_words = &running.last_words;
            let why = format!("stood still for {limit} s after '{last_words}', and was ended");
            running.tally.give_up(&why);
            running.kill();
        }
        self.end(number)
    }

    /// The guest prints no more.
    fn end(&mut self, number: usize) -> Result<(), Error> {
        let Some(mut running) = self.running.remove(&number) else {
            return Ok(());
        };
        running
            .end()
            .map_err(|error| Error::Guest(running.guest.to_string(), error))?;
        let rest: Vec<_> = running.tally.not_begun().cloned().collect();
        // A guest that does not get as far as to begin will not do so at another try.
        if running.tally.has_begun() && !rest.is_empty() {
            let mut again = running.guest.clone();
            again.steps.retain(|step| rest.contains(&step.name));
            self.waiting.push_front(again);
        } else {
            for program in rest {
                running.tally.flaw(format!("{program}: has not run"));
            }
        }
        let log = self
            .logs
            .get(&number)
            .map_or(Path::new(""), PathBuf::as_path);
        self.screen.guest(number, &running, log);
        self.results.passed += running.tally.passed();
        let guest = running.guest.to_string();
        let failures = running.tally.failures().iter();
        self.results
            .failures
            .extend(failures.map(|failure| format!("{guest}: {failure}")));
        self.results.times.append(&mut running.times);
        Ok(())
    }

    fn interrupted(&mut self) -> Error {
        for running in self.running.values_mut() {
            running.kill();
        }
        for running in self.running.values_mut() {
            // There is nobody left to tell.
            let _ = running.end();
        }
        Error::Interrupted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Kernel, Protocol, Step};

    fn guest(programs: &[&str]) -> Guest {
        let step = |name: &&str| Step {
            name: (*name).to_owned(),
            cycles: None,
            budget: Duration::from_secs(1),
        };
        Guest {
            suite: "virtio_device_stop",
            kernel: Kernel::Stock,
            protocol: Protocol::Suspend,
            steps: programs.iter().map(step).collect(),
        }
    }

    /// Runs a guest with these programs, which is a shell script that gets their names.
    fn results(script: &'static str, programs: &[&str]) -> Results {
        results_of_patience(script, programs, 60)
    }

    fn results_of_patience(script: &'static str, programs: &[&str], seconds: u64) -> Results {
        let logs = tempfile::tempdir().unwrap();
        let conditions = Conditions {
            slots: 2,
            silence: Duration::from_secs(seconds),
            logs: logs.path(),
            command: &|guest| {
                let mut command = Command::new("sh");
                command.args(["-c", script, "sh"]);
                command.args(guest.steps.iter().map(|step| &step.name));
                command
            },
        };
        run(
            vec![guest(programs)],
            conditions,
            &mut Screen::silent(),
            |_| {},
        )
        .unwrap()
    }

    const RUN: &str = r##"
        echo 1..$#
        number=0
        for program; do
            number=$((number + 1))
            echo "# 1..1"
            case $program in
            hang*) (trap '' TERM; sleep 1000) & sleep 1000 ;;
            die*) exit 3 ;;
            bad*) echo "# not ok 1 a"; echo "not ok $number $program"; continue ;;
            esac
            echo "# ok 1 a"
            echo "ok $number $program"
        done
        [ $number != 4 ]"##;

    #[test]
    fn all_programs_are_run() {
        let results = results(RUN, &["a", "b", "c"]);
        assert_eq!((results.passed, results.failures.len()), (3, 0));
        let programs = results
            .times
            .iter()
            .filter(|took| took.result.is_none() && took.program.is_some());
        assert_eq!(programs.count(), 3);
        assert_eq!(
            results
                .times
                .iter()
                .filter(|took| took.program.is_none())
                .count(),
            1
        );
    }

    #[test]
    fn a_failure_is_named_with_its_guest() {
        let results = results(RUN, &["a", "bad", "c"]);
        assert_eq!(results.passed, 2);
        assert_eq!(results.failures, ["stock suspend: bad: a"]);
    }

    #[test]
    fn a_program_that_stands_still_is_ended_and_the_others_run() {
        let results = results_of_patience(RUN, &["a", "hang", "c"], 5);
        assert_eq!(results.passed, 2);
        let failure = "stock suspend: hang: stood still for 5 s after '# 1..1', and was ended";
        assert_eq!(results.failures, [failure]);
    }

    #[test]
    fn after_a_guest_that_has_died_the_other_programs_run() {
        let results = results(RUN, &["a", "die", "c"]);
        assert_eq!(results.passed, 2);
        assert_eq!(results.failures, ["stock suspend: die: has not ended"]);
    }

    #[test]
    fn a_guest_that_does_not_begin_is_not_tried_again() {
        let results = results("exit 123", &["a", "b"]);
        assert_eq!(
            results.failures,
            [
                "stock suspend: a: has not ended",
                "stock suspend: b: has not run"
            ]
        );
    }

    #[test]
    fn a_guest_that_fails_without_a_failure_is_one() {
        let results = results(RUN, &["a", "b", "c", "d"]);
        assert_eq!(results.passed, 4);
        assert_eq!(
            results.failures,
            ["stock suspend: exit status: 1, although no result has failed"]
        );
    }
}
