// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The driver above: it is quiesced, waited for, let go, and may configure its device.

use super::*;

fn ask(bench: &mut Bench) -> Ticket {
    let ask = bench.machine.ask_stop(bench.now, ALL, false);
    ask.unwrap().expect("something to wait for")
}

fn settles(action: Action) -> bool {
    matches!(action, Action::Settle(_))
}

#[test]
fn a_driver_above_that_is_quiesced_too_late_is_let_go() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        let stop = ask(&mut bench);
        let last = bench.run_to(|action| action == Action::Quiesce);
        assert!(last.is_some() && !bench.machine.is_quiesced());
        bench.machine.killed(0, stop);
        bench.machine.quiesced(0, Attempt::Done);
        assert!(bench.machine.is_quiesced() && !bench.machine.has_left());
        bench.run();
        bench.is(State::Running, Reason::None);
        bench.is_released();
        assert!(bench.device.writes.is_empty());
    }
}

#[test]
fn what_was_done_for_another_stop_is_of_no_use_to_this_one() {
    let mut bench = bench(S);
    ask(&mut bench);
    let told = bench.run_to(|action| matches!(action, Action::AnnounceStop(_)));
    let Some(Action::AnnounceStop(generation)) = told else {
        panic!("not told of");
    };
    bench.machine.announced(0, generation + 1);
    assert_eq!(bench.machine.next(0), None);
    assert_eq!(bench.machine.deadline(), Some(SECOND));
    bench.machine.settled(0, generation, true);
    assert_eq!(bench.machine.next(0), None, "it is not that far");
    bench.machine.announced(0, generation);
    let Some(Action::Settle(generation)) = bench.run_to(settles) else {
        panic!("nobody is waited for");
    };
    bench.machine.settled(0, generation + 1, true);
    bench.machine.disturbed(0, generation + 1);
    assert_eq!(bench.machine.next(0), None);
    assert_eq!(bench.machine.deadline(), Some(SECOND));
    assert!(bench.machine.is_quiesced());
    bench.machine.settled(0, generation, true);
    assert_eq!(bench.machine.next(0), Some(Action::NotifyVirtqueues));
    assert_eq!(bench.machine.next(0), Some(Action::Access(Access::Stop)));
}

#[test]
fn a_device_whose_last_request_was_notified_of_is_not_notified_again() {
    let mut bench = bench(S);
    ask(&mut bench);
    let Some(Action::Settle(generation)) = bench.run_to(settles) else {
        panic!("nobody is waited for");
    };
    bench.machine.settled(0, generation, false);
    assert_eq!(bench.machine.next(0), Some(Action::Access(Access::Stop)));
}

#[test]
fn a_driver_above_that_was_disturbed_is_let_go_and_quiesced_once_more() {
    let mut bench = bench(S);
    ask(&mut bench);
    let Some(Action::Settle(generation)) = bench.run_to(settles) else {
        panic!("nobody is waited for");
    };
    bench.done.clear();
    bench.machine.disturbed(0, generation);
    bench.run();
    assert_eq!(bench.done, [Action::Unquiesce]);
    assert!(bench.machine.deadline() > Some(0), "not at once");
    bench.pass(MS);
    let rest = [Action::Quiesce, Action::Settle(generation)];
    assert_eq!(bench.done[1..3], rest);
    bench.is(State::Stopped, Reason::None);
}

#[test]
fn a_driver_above_that_is_being_let_go_keeps_the_device() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        assert!(bench.machine.ask_resume(0, ALL, None).is_ok());
        let last = bench.run_to(|action| action == Action::Unquiesce);
        assert!(last.is_some());
        bench.is(State::Running, Reason::None);
        assert!(bench.machine.is_quiesced() && !bench.machine.has_left());
        assert!(bench.machine.keeps_awake());
        assert_eq!(bench.machine.refuse_stops(), Err(Error::Busy));
        assert_eq!(bench.machine.next(0), None, "the end is not told yet");
        assert_eq!(bench.machine.configure_queue(), Permit::NotNow);
        // Another stop before that: user space knows still.
        ask(&mut bench);
        assert_eq!(bench.machine.next(0), Some(Action::Quiesce));
        bench.machine.quiesced(0, Attempt::NotFound);
        assert_eq!(bench.machine.next(0), None);
        bench.machine.unquiesced();
        assert!(!bench.machine.is_quiesced());
        let told = Action::Announce(State::Running);
        assert_eq!(bench.machine.next(0), Some(told));
        bench.machine.unquiesced();
        assert_eq!(bench.machine.next(0), None, "once");
    }
}

#[test]
fn who_says_to_have_let_go_what_is_held_is_not_believed() {
    let mut bench = stopped(D);
    bench.machine.unquiesced();
    assert!(bench.machine.is_quiesced());
}

#[test]
fn a_virtqueue_is_not_reset_while_the_driver_above_is_held() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        assert_eq!(bench.machine.configure_queue(), Permit::Granted);
        ask(&mut bench);
        bench.pass(SECOND / 2);
        let is_asked = protocol == D;
        assert_eq!(!bench.device.writes.is_empty(), is_asked);
        bench.machine.configured();
        bench.pass(SECOND / 4);
        bench.is(State::Stopped, Reason::None);
        assert_eq!(bench.machine.configure_queue(), Permit::NotNow);
    }
}

#[test]
fn as_many_have_to_end_as_have_begun_to_configure() {
    let mut bench = bench(S);
    for _ in 0..2 {
        assert_eq!(bench.machine.configure(), Permit::Granted);
    }
    ask(&mut bench);
    bench.machine.configured();
    bench.pass(SECOND / 4);
    assert!(bench.device.writes.is_empty());
    bench.machine.configured();
    bench.pass(SECOND / 4);
    bench.is(State::Stopped, Reason::None);
    bench.resume().unwrap();
    bench.machine.configured();
    assert_eq!(bench.stop(), Ok(()), "one too many does no harm");
}

#[test]
fn a_driver_above_that_is_held_does_not_configure_a_device_that_is_to_suspend() {
    let mut bench = bench(S);
    ask(&mut bench);
    let last = bench.run_to(settles);
    assert!(last.is_some() && bench.device.writes.is_empty());
    assert_eq!(bench.machine.configure(), Permit::NotNow);
}

#[test]
fn a_device_that_is_gone_is_not_protected() {
    let mut bench = stopped(S);
    bench.device.shows = Some(0xff);
    bench.look();
    bench.pass(12 * SECOND);
    bench.is(State::Unavailable, Reason::Gone);
    assert!(bench.machine.is_lost() && bench.machine.is_unanswered());
    assert!(!bench.machine.is_busy());
    assert_eq!(bench.machine.configure(), Permit::Granted);
}
