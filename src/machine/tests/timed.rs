// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! How long things take.

use super::*;

/// How long after this it is looked at next.
fn wait(bench: &Bench) -> u64 {
    bench.machine.deadline().expect("it is looked at") - bench.now
}

fn with_timeout(protocol: Protocol, timeout_us: u64) -> Bench {
    let mut bench = bench(protocol);
    let settings = bench.machine.settings();
    bench.machine.set(Settings {
        timeout_us,
        ..settings
    });
    bench
}

/// Passes time to the end of a look.
fn pass_to_a_look(bench: &mut Bench, us: u64) {
    bench.pass(us);
    bench.pass(wait(bench));
}

#[test]
fn what_somebody_waits_for_is_looked_at_after_a_twenty_fifth_of_its_time() {
    for protocol in BOTH {
        let mut bench = with_timeout(protocol, 10 * SECOND);
        bench.device.stops_after = NEVER;
        assert!(bench.machine.ask_stop(0, ALL, false).is_ok());
        bench.run();
        assert_eq!(wait(&bench), 20, "at least");
        pass_to_a_look(&mut bench, 50 * MS);
        assert_eq!(wait(&bench), bench.now / 25);
        pass_to_a_look(&mut bench, SECOND);
        assert_eq!(wait(&bench), 10 * MS, "at most");
        // To the very end.
        bench.pass(10 * SECOND - bench.now - 1);
        assert_eq!(wait(&bench), 1);
    }
}

#[test]
fn what_nobody_waits_for_is_looked_at_less_often() {
    let mut bench = bench(S);
    bench.now = 7 * SECOND;
    let asked = bench.now;
    bench.device.stops_after = NEVER;
    assert_eq!(bench.stop(), Err(Error::TimedOut));
    for _ in 0..3 {
        pass_to_a_look(&mut bench, SECOND);
        assert_eq!(wait(&bench), (bench.now - asked) / 25);
    }
    pass_to_a_look(&mut bench, 60 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    assert_eq!(wait(&bench), SECOND, "at most");
    let mut bench = stopped(D);
    bench.device.resumes_after = NEVER;
    let asked = bench.now;
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    assert_eq!(wait(&bench), (bench.now - asked) / 25);
    let mut bench = stopped(D);
    bench.device.shows = Some(0xff);
    bench.pass(SECOND);
    bench.look();
    assert_eq!(wait(&bench), 10 * MS, "at least");
    let since = bench.now;
    pass_to_a_look(&mut bench, 5 * SECOND);
    assert_eq!(wait(&bench), (bench.now - since) / 25);
}

#[test]
fn a_device_that_can_not_be_called_off_is_held_for_ten_timeouts() {
    for (timeout_us, limit) in [
        (10 * MS, 10 * SECOND),
        (3 * SECOND, 30 * SECOND),
        (60 * SECOND, 120 * SECOND),
    ] {
        let mut bench = with_timeout(S, timeout_us);
        bench.device.stops_after = NEVER;
        assert_eq!(bench.stop(), Err(Error::TimedOut));
        bench.pass(limit - 1);
        bench.is(State::Aborting, Reason::StopTimeout);
        bench.pass(1);
        bench.is(State::Failed, Reason::StopUnanswered);
        bench.is_released();
        let mut bench = with_timeout(D, timeout_us);
        bench.stop().unwrap();
        bench.device.shows = Some(0xff);
        bench.look();
        let ends = bench.now + limit;
        bench.pass(limit.min(60 * SECOND) - 2 * SECOND);
        assert!(!bench.machine.is_lost());
        bench.pass(ends + SECOND - bench.now);
        if limit < 60 * SECOND {
            bench.is(State::Unavailable, Reason::Gone);
        }
    }
}

#[test]
fn a_device_that_shows_that_it_has_stopped_and_does_not_resume() {
    // Between two looks, and nobody wants it any more.
    let mut bench = bench(D);
    bench.device.stops_after = NEVER;
    bench.device.resumes_after = NEVER;
    let ask = bench.machine.ask_stop(0, ALL, false);
    bench.pass(MS);
    bench.device.status |= 32;
    bench.device.asked = None;
    bench.machine.killed(bench.now, ask.unwrap().unwrap());
    bench.pass(9 * SECOND);
    bench.is(State::Aborting, Reason::StopTimeout);
    bench.pass(2 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    bench.is_released();
    let mut bench = given_up(S);
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    bench.device.resumes_after = NEVER;
    bench.pass(5 * SECOND);
    bench.is(State::Aborting, Reason::StopTimeout);
    assert_eq!(bench.device.writes.last(), Some(&(READY & !4 | 4)));
    bench.pass(6 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert!(bench.machine.is_quiesced());
}

#[test]
fn a_device_that_shows_nonsense_instead_of_being_asked_is_to_blame() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.shows = Some(0xff);
        assert_eq!(bench.stop(), Err(Error::TimedOut));
        assert!(bench.device.writes.is_empty());
        bench.is(State::Running, Reason::None);
        assert!(bench.machine.is_answering(), "nobody asks any more");
        assert_eq!(bench.machine.deadline(), None);
    }
}

#[test]
fn a_look_at_a_stop_that_stands_changes_nothing() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        let generation = bench.machine.generation();
        let writes = bench.device.writes.len();
        for _ in 0..3 {
            bench.look();
            bench.pass(SECOND);
            bench.is(State::Stopped, Reason::None);
        }
        assert_eq!(bench.machine.generation(), generation);
        assert_eq!(bench.device.writes.len(), writes);
        assert_eq!(bench.device.reads, 5, "one each");
        let now = bench.now;
        assert_eq!(bench.resume(), Ok(()));
        assert_eq!(bench.now, now);
        assert_eq!(bench.device.writes.len(), writes + 1);
    }
}

#[test]
fn nothing_is_looked_at_before_its_time() {
    let mut bench = bench(D);
    bench.device.stops_after = NEVER;
    assert!(bench.machine.ask_stop(0, ALL, false).is_ok());
    bench.run();
    let at = bench.machine.deadline().unwrap();
    assert_eq!(bench.machine.next(at - 1), None);
    let read = Action::Access(Access::Read);
    assert_eq!(bench.machine.next(at), Some(read));
}

#[test]
fn a_device_with_which_nothing_is_negotiated_is_not_looked_at() {
    for protocol in BOTH {
        let mut bench = given_up(protocol);
        assert!(bench.machine.deadline() < Some(bench.now + SECOND));
        bench.field.negotiate(Err(Reason::Disabled));
        bench.run();
        let reads = bench.device.reads;
        bench.pass(100 * SECOND);
        assert_eq!(bench.machine.deadline(), None);
        assert_eq!(bench.device.reads, reads);
    }
}

#[test]
fn a_stop_that_comes_late_is_ended_in_the_other_form_after_three_quarters_of_a_timeout() {
    let mut bench = given_up(S);
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    bench.device.resumes_after = NEVER;
    while bench.device.writes.len() < 2 {
        bench.pass(MS);
    }
    bench.pass(SECOND * 3 / 4 - 2 * MS);
    assert_eq!(bench.device.writes, [READY | 16; 2]);
    bench.pass(40 * MS);
    assert_eq!(bench.device.writes, [READY | 16, READY | 16, READY]);
}

#[test]
fn a_resume_that_waits_for_a_stop_that_comes_and_does_not_end() {
    for after in [0, 20 * SECOND] {
        let mut bench = given_up(S);
        bench.pass(after);
        let before = bench.machine.state();
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        assert_eq!(bench.machine.state(), before, "it may yet stop");
        bench.device.asked = Some((0, true));
        bench.device.stops_after = 0;
        bench.device.resumes_after = NEVER;
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        bench.is(State::Failed, Reason::ResumeUnanswered);
    }
}

#[test]
fn a_resume_is_asked_for_in_the_other_form_in_the_last_quarter_of_its_own_time() {
    let terms = Holder {
        timeout_us: Some(4 * SECOND),
        ..holder(1)
    };
    let mut bench = bench(S);
    let ask = bench.machine.ask_stop(0, Asker::Holder(terms), false);
    assert_eq!(bench.wait(ask), Ok(()));
    bench.device.resumes_after = NEVER;
    let ask = bench.machine.ask_resume(0, Asker::Holder(terms), None);
    assert!(ask.is_ok());
    bench.pass(3 * SECOND - 20 * MS);
    assert_eq!(bench.device.writes.len(), 2);
    bench.pass(40 * MS);
    assert_eq!(bench.device.writes.len(), 3);
}

#[test]
fn a_device_that_is_about_to_run_is_asked_when_it_does() {
    let mut bench = bench(S);
    bench.device.shows = Some(READY | 16);
    let ask = bench.machine.ask_stop(0, ALL, false);
    bench.pass(SECOND / 2);
    bench.is(State::Stopping, Reason::None);
    assert!(bench.device.writes.is_empty());
    bench.device.shows = None;
    assert_eq!(bench.wait(ask), Ok(()));
}
