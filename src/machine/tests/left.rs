// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Drivers and devices that come and go.

use super::*;

fn binds(bench: &mut Bench) {
    bench.machine.binding();
    bench.machine.bound();
}

#[test]
fn a_driver_that_was_unbound_is_followed_by_another() {
    let mut bench = bench(D);
    assert!(!bench.machine.is_leaving());
    bench.machine.leaves(0, Leaver::Driver);
    assert!(bench.machine.is_leaving());
    bench.is(State::Unavailable, Reason::NoDriver);
    bench.machine.unbound();
    assert!(!bench.machine.is_leaving());
    binds(&mut bench);
    bench.is(State::Running, Reason::None);
    // One that could not be unbound after all.
    bench.machine.leaves(0, Leaver::Driver);
    bench.machine.binding();
    assert!(!bench.machine.is_leaving());
    bench.is(State::Unavailable, Reason::NoDriver);
    bench.machine.bound();
    bench.is(State::Running, Reason::None);
}

#[test]
fn nothing_follows_a_device_that_was_removed() {
    let mut bench = bench(D);
    bench.machine.leaves(0, Leaver::Device);
    for _ in 0..2 {
        bench.machine.leaves(0, Leaver::Driver);
        bench.machine.unbound();
        assert!(bench.machine.is_leaving());
        binds(&mut bench);
        assert!(bench.machine.is_leaving());
        bench.is(State::Unavailable, Reason::NoDriver);
    }
}

#[test]
fn a_change_that_shows_is_a_generation() {
    let mut bench = bench(D);
    let generation = bench.machine.generation();
    bench.machine.bound();
    assert_eq!(bench.machine.generation(), generation, "it was");
    bench.machine.leaves(0, Leaver::Driver);
    assert_eq!(bench.machine.generation(), generation + 1);
    bench.machine.unbound();
    assert_eq!(bench.machine.generation(), generation + 1);
    binds(&mut bench);
    assert_eq!(bench.machine.generation(), generation + 2);
}

#[test]
fn a_driver_that_was_unbound_has_reset_the_device() {
    let mut bench = stopped(S);
    bench.device.shows = Some(READY | 64);
    bench.look();
    assert!(bench.machine.is_lost());
    bench.machine.unbound();
    assert!(!bench.machine.is_lost());
    binds(&mut bench);
    bench.is(State::Running, Reason::None);
    let mut bench = given_up(D);
    bench.device.shows = Some(0xff);
    bench.pass(SECOND);
    assert!(!bench.machine.is_answering() && bench.machine.deadline().is_some());
    bench.machine.unbound();
    assert!(bench.machine.is_answering());
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn whoever_waits_for_a_resume_is_told_that_the_driver_leaves() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        let ask = bench.machine.ask_resume(0, ALL, None);
        let ticket = ask.unwrap().expect("something to wait for");
        bench.pass(MS);
        bench.machine.leaves(bench.now, Leaver::Driver);
        assert_eq!(bench.machine.take_answer(ticket), Some(Err(Error::Gone)));
        assert!(!bench.machine.has_left(), "it is waited for");
        bench.pass(2 * SECOND);
        assert!(bench.machine.has_left());
    }
}

#[test]
fn a_driver_that_leaves_during_a_resume_knows_what_that_ends() {
    let mut bench = given_up(S);
    assert!(bench.machine.ask_resume(bench.now, ALL, None).is_ok());
    bench.pass(MS);
    bench.machine.leaves(bench.now, Leaver::Driver);
    bench.is(State::Resuming, Reason::StopTimeout);
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    bench.pass(SECOND / 2);
    assert!(bench.machine.has_left());
    assert_eq!(bench.device.status, READY);
    assert_eq!(bench.machine.stats().late_acks, 1);
}

#[test]
fn a_driver_that_leaves_waits_no_longer_than_it_may() {
    for (timeout_us, leaves_after) in [(SECOND, SECOND), (60 * SECOND, 5 * SECOND)] {
        let mut bench = stopped(S);
        let settings = bench.machine.settings();
        bench.machine.set(Settings {
            timeout_us,
            ..settings
        });
        bench.device.resumes_after = NEVER;
        bench.machine.leaves(bench.now, Leaver::Driver);
        bench.pass(leaves_after / 2);
        // Who says so twice waits once.
        bench.machine.leaves(bench.now, Leaver::Device);
        bench.pass(leaves_after / 2 - MS);
        assert!(!bench.machine.has_left());
        bench.pass(2 * MS);
        assert!(bench.machine.has_left());
        assert!(bench.done.contains(&Action::BreakVirtqueues));
    }
}

#[test]
fn a_driver_that_leaves_before_the_device_was_asked() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.attempt = Attempt::NotNow;
        let ask = bench.machine.ask_stop(0, ALL, false);
        let ticket = ask.unwrap().expect("something to wait for");
        bench.pass(MS);
        bench.machine.leaves(bench.now, Leaver::Driver);
        assert!(bench.machine.has_left());
        assert_eq!(bench.machine.take_answer(ticket), Some(Err(Error::Gone)));
        bench.run();
        assert!(bench.device.writes.is_empty());
    }
}

#[test]
fn a_driver_that_leaves_after_it_was_let_go_does_not_wait() {
    let mut bench = given_up(S);
    bench.pass(20 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    bench.machine.leaves(bench.now, Leaver::Driver);
    assert!(bench.machine.has_left());
    bench.is(State::Unavailable, Reason::NoDriver);
    assert!(bench.machine.is_busy(), "it may yet stop");
}

#[test]
fn virtqueues_are_not_broken_under_a_driver_that_works() {
    let mut bench = given_up(D);
    bench.device.shows = Some(READY | 64);
    bench.pass(SECOND);
    bench.is(State::Failed, Reason::NeedsReset);
    assert!(!bench.done.contains(&Action::BreakVirtqueues));
}

#[test]
fn what_is_asked_of_a_device_is_unanswered_until_it_shows() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        assert!(!bench.machine.is_unanswered());
        bench.stop().unwrap();
        assert!(bench.machine.is_unanswered(), "it has stopped");
        assert!(!bench.machine.is_busy(), "an unload ends that");
        bench.resume().unwrap();
        assert!(!bench.machine.is_unanswered());
        bench.device.stops_after = NEVER;
        assert!(bench.machine.ask_stop(bench.now, ALL, false).is_ok());
        bench.pass(MS);
        assert!(bench.machine.is_unanswered());
        bench.pass(2 * SECOND);
        assert_eq!(bench.machine.is_unanswered(), protocol == S);
    }
}

#[test]
fn a_device_of_which_nothing_is_to_be_expected_is_left_alone_when_it_is_found() {
    for seen in [Seen::NotReady, Seen::Reset, Seen::NeedsReset] {
        let mut bench = bench(S);
        bench.machine.found(0, seen);
        assert_eq!(bench.machine.deadline(), None);
        assert_eq!(bench.machine.next(0), None);
    }
    let mut bench = bench(S);
    bench.machine.found(0, Seen::Running);
    assert_eq!(bench.machine.deadline(), Some(0), "it is to be notified");
    bench.run();
    assert_eq!(bench.done, [Action::NotifyVirtqueues]);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn a_suspended_device_that_is_found_is_asked_once_to_resume() {
    for (shows, writes) in [(0xff, vec![READY | 16]), (READY | 16, vec![])] {
        let mut bench = bench(S);
        bench.device.status = READY & !4 | 16;
        bench.device.resumes_after = NEVER;
        bench.device.shows = Some(shows);
        bench.machine.found(0, Status(shows).seen(S));
        bench.pass(SECOND / 4);
        bench.device.shows = None;
        bench.pass(SECOND / 4);
        assert_eq!(bench.device.writes, writes, "unless it shows that it was");
    }
}

#[test]
fn an_access_that_meets_a_reset_says_nothing() {
    let mut bench = bench(S);
    let ask = bench.machine.ask_stop(0, ALL, false);
    let ticket = ask.unwrap().expect("something to wait for");
    let last = bench.run_to(|action| matches!(action, Action::Access(_)));
    assert_eq!(last, Some(Action::Access(Access::Stop)));
    bench.field.reset_begins();
    let register = RefCell::new(&mut bench.device);
    let epoch = bench.machine.epoch();
    let answer = bench.field.access(&register, epoch, Access::Stop);
    bench.machine.answered(0, answer, true);
    bench.is(State::Stopping, Reason::None);
    assert_eq!(bench.machine.next(0), None, "not in a circle");
    bench.run();
    assert_eq!(bench.machine.take_answer(ticket), Some(Err(Error::Gone)));
    assert!(bench.device.writes.is_empty());
}
