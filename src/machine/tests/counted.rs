// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What is counted, and what a request is said to have taken.

use super::*;

fn counts(bench: &Bench) -> [u64; 7] {
    let stats = bench.machine.stats();
    [
        stats.stops,
        stats.resumes,
        stats.timeouts,
        stats.failures,
        stats.late_acks,
        stats.dropped,
        stats.lease_expiries,
    ]
}

#[test]
fn a_stop_that_was_acknowledged_and_ended_counts_once() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        assert_eq!(counts(&bench), [1, 0, 0, 0, 0, 0, 0]);
        bench.resume().unwrap();
        bench.stop().unwrap();
        bench.resume().unwrap();
        assert_eq!(counts(&bench), [2, 2, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn a_stop_that_was_dropped_is_no_resume() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.status = READY;
        assert_eq!(bench.resume(), Err(Error::Stale));
        bench.is(State::Running, Reason::StopDropped);
        assert_eq!(counts(&bench), [1, 0, 0, 0, 0, 1, 0]);
    }
    let mut bench = stopped(S);
    bench.device.shows = Some(READY | 16);
    bench.look();
    bench.device.shows = Some(READY);
    bench.pass(SECOND);
    assert_eq!(counts(&bench), [1, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_stop_that_was_dropped_before_its_lease_was_over_was_dropped() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.status = READY;
        bench.pass(61 * SECOND);
        bench.is(State::Running, Reason::StopDropped);
        assert_eq!(counts(&bench), [1, 0, 0, 0, 0, 1, 0]);
        assert_eq!(bench.resume(), Err(Error::Stale));
    }
}

#[test]
fn a_lease_ends_once() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.pass(61 * SECOND);
        bench.is(State::Running, Reason::LeaseExpired);
        assert_eq!(counts(&bench), [1, 1, 0, 0, 0, 0, 1]);
        let mut bench = stopped(protocol);
        bench.device.resumes_after = 5 * SECOND;
        bench.pass(63 * SECOND);
        bench.is(State::Failed, Reason::ResumeUnanswered);
        assert_eq!(counts(&bench), [1, 0, 1, 0, 0, 0, 1]);
        bench.pass(5 * SECOND);
        bench.is(State::Running, Reason::None);
        assert_eq!(counts(&bench), [1, 0, 1, 0, 0, 0, 1]);
    }
}

#[test]
fn a_stop_that_comes_late_and_a_resume_that_waits_for_it() {
    for after in [0, 20 * SECOND] {
        let mut bench = given_up(S);
        bench.pass(after);
        let ask = bench.machine.ask_resume(bench.now, ALL, None);
        bench.pass(SECOND / 2);
        bench.device.asked = Some((0, true));
        bench.device.stops_after = 0;
        assert_eq!(bench.wait(ask), Ok(()));
        bench.is(State::Running, Reason::None);
        assert_eq!(counts(&bench), [0, 1, 1, 0, 1, 0, 0]);
    }
    // One that never comes is not counted.
    let mut bench = given_up(D);
    bench.pass(5 * SECOND);
    assert_eq!(counts(&bench), [0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_resume_that_comes_late_counts_as_one_that_was_not_in_time() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        assert_eq!(counts(&bench), [1, 0, 1, 0, 0, 0, 0]);
        bench.device.status = READY;
        bench.device.asked = None;
        bench.pass(2 * SECOND);
        bench.is(State::Running, Reason::None);
        assert_eq!(counts(&bench), [1, 0, 1, 0, 0, 0, 0]);
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        bench.device.status = READY;
        assert_eq!(bench.resume(), Ok(()));
        assert_eq!(counts(&bench), [1, 1, 1, 0, 0, 0, 0]);
    }
}

#[test]
fn a_fault_is_a_failure_of_whoever_waits() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.stops_after = NEVER;
        assert!(bench.machine.ask_stop(0, ALL, false).is_ok());
        bench.pass(MS);
        bench.device.shows = Some(READY | 64);
        bench.pass(SECOND);
        bench.is(State::Failed, Reason::NeedsReset);
        assert_eq!(counts(&bench), [0, 0, 0, 1, 0, 0, 0]);
        let mut bench = stopped(protocol);
        bench.device.shows = Some(READY | 64);
        bench.look();
        assert_eq!(counts(&bench), [1, 0, 0, 0, 0, 0, 0], "nobody waits");
    }
}

#[test]
fn a_request_takes_from_its_first_access_to_its_last() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.now = 7 * SECOND;
        bench.attempt = Attempt::NotNow;
        bench.device.stops_after = 5 * MS;
        let ask = bench.machine.ask_stop(bench.now, ALL, false);
        bench.pass(100 * MS);
        bench.attempt = Attempt::Done;
        let first = bench.now;
        assert_eq!(bench.wait(ask), Ok(()));
        let cost = bench.machine.stats().last_stop;
        assert_eq!(cost.elapsed_us, bench.now - first);
        assert!(cost.elapsed_us >= 5 * MS);
        assert_eq!(cost.reads, bench.device.reads);
        bench.pass(SECOND);
        bench.device.resumes_after = 3 * MS;
        let (before, begin) = (bench.device.reads, bench.now);
        assert_eq!(bench.resume(), Ok(()));
        let cost = bench.machine.stats().last_resume;
        assert_eq!(cost.elapsed_us, bench.now - begin);
        assert!((3 * MS..4 * MS).contains(&cost.elapsed_us), "{cost:?}");
        assert_eq!(cost.reads, bench.device.reads - before);
        bench.device.stops_after = NEVER;
        let before = bench.device.reads;
        assert_eq!(bench.stop(), Err(Error::TimedOut));
        let cost = bench.machine.stats().last_stop;
        assert_eq!(cost.elapsed_us, SECOND);
        // What comes after that is not its own.
        let later = if protocol == D { 2 } else { 1 };
        assert_eq!(cost.reads, bench.device.reads - before - later);
    }
    let mut bench = stopped(S);
    bench.device.resumes_after = NEVER;
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    assert_eq!(bench.machine.stats().last_resume.elapsed_us, SECOND);
}

#[test]
fn what_was_not_written_to_the_configuration_space() {
    let mut bench = bench(S);
    for count in 1..4 {
        bench.machine.configuration_dropped();
        assert_eq!(bench.machine.stats().config_writes_dropped, count);
    }
}
