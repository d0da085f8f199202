// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! A stop that finds the device suspended, or about to be.

use super::*;

/// It was taken for running when it was not: nobody else would look.
#[test]
fn a_device_that_a_stop_finds_suspended_is_resumed() {
    let mut bench = bench(S);
    bench.device.status = READY & !4 | 16;
    bench.device.resumes_after = SECOND / 2;
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.is(State::Resuming, Reason::None);
    bench.pass(SECOND);
    bench.is(State::Running, Reason::None);
    assert_eq!((bench.device.status, bench.device.writes.len()), (READY, 1));
    bench.is_notified_and_released();
    assert_eq!(bench.machine.stats().late_acks, 0);
    assert_eq!(bench.resume(), Ok(()));
    assert_eq!(bench.stop(), Ok(()));
}

#[test]
fn a_device_that_does_not_come_to_run_is_not_forgotten() {
    let ends = |bench: &mut Bench, error| {
        bench.is(State::Resuming, Reason::None);
        bench.pass(SECOND / 2);
        bench.device.shows = None;
        bench.pass(SECOND);
        bench.is(State::Running, Reason::None);
        bench.is_notified_and_released();
        assert!(bench.device.writes.is_empty(), "{error:?}");
        let stats = bench.machine.stats();
        assert_eq!((stats.late_acks, stats.resumes), (0, 0));
    };
    // Its time is over; who waits is killed.
    for error in [Error::Busy, Error::Killed] {
        let mut bench = bench(S);
        bench.device.shows = Some(READY | 16);
        let ask = bench.machine.ask_stop(0, ALL, false);
        bench.pass(SECOND / 2);
        if error == Error::Killed {
            let ticket = ask.unwrap().expect("something to wait for");
            bench.machine.killed(bench.now, ticket);
            assert_eq!(bench.machine.take_answer(ticket), Some(Err(error)));
        } else {
            assert_eq!(bench.wait(ask), Err(error));
        }
        ends(&mut bench, error);
    }
    // It does stop, before or after somebody else has it resumed.
    for resumes in [false, true] {
        let mut bench = bench(S);
        bench.device.shows = Some(READY | 16);
        if resumes {
            assert!(bench.machine.ask_stop(0, ALL, false).is_ok());
            bench.pass(SECOND / 2);
            assert!(bench.machine.ask_resume(bench.now, ALL, None).is_ok());
            bench.pass(SECOND / 4);
        } else {
            assert_eq!(bench.stop(), Err(Error::Busy));
        }
        bench.is(State::Resuming, Reason::None);
        bench.device.status = READY & !4 | 16;
        bench.device.shows = None;
        bench.pass(SECOND / 10);
        bench.is(State::Running, Reason::None);
        assert_eq!(
            bench.device.writes,
            [READY | 16],
            "as the specification has it"
        );
        assert_eq!(bench.machine.stats().resumes, 1);
    }
    // First it shows nonsense, for longer than anybody waits.
    let mut bench = bench(S);
    let mut settings = bench.machine.settings();
    settings.timeout_us = 600 * SECOND;
    bench.machine.set(settings);
    bench.device.shows = Some(READY | 16);
    let ask = bench.machine.ask_stop(0, ALL, false);
    bench.pass(SECOND);
    bench.device.shows = Some(READY & !8);
    bench.pass(200 * SECOND);
    bench.is(State::Unavailable, Reason::Gone);
    assert_eq!(bench.wait(ask), Err(Error::Gone));
    bench.device.status = READY & !4 | 16;
    bench.device.shows = None;
    bench.pass(200 * SECOND);
    assert_eq!(bench.device.status, READY, "it is not left stopped");
}

/// Nobody has stopped it: that it runs again is no end of a stop.
#[test]
fn a_device_that_a_stop_finds_suspended_may_resume_by_itself() {
    let mut bench = bench(S);
    bench.device.status = READY & !4 | 16;
    let ask = bench.machine.ask_stop(0, ALL, false);
    bench.run_to(|action| matches!(action, Action::Access(Access::Stop)));
    let register = RefCell::new(&mut bench.device);
    let answer = bench
        .field
        .access(&register, bench.machine.epoch(), Access::Stop);
    bench.machine.answered(0, answer, true);
    bench.device.status = READY;
    assert_eq!(bench.wait(ask), Err(Error::Busy));
    bench.is(State::Running, Reason::None);
    assert_eq!(bench.machine.stats().dropped, 0);
    assert_eq!(bench.resume(), Ok(()));
}

#[test]
fn a_device_that_an_owner_finds_suspended_has_as_long_as_the_owner_grants() {
    let mut bench = bench(S);
    bench.device.status = READY & !4 | 16;
    bench.device.resumes_after = NEVER;
    let owner = Asker::Holder(Holder {
        timeout_us: Some(10 * MS),
        ..holder(1)
    });
    let ask = bench.machine.ask_stop(0, owner, false);
    assert_eq!(bench.wait(ask), Err(Error::Busy));
    bench.pass(20 * MS);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert_eq!(bench.machine.stats().timeouts, 1, "it was asked to resume");
}

/// It is to be asked if it stops; the other form of that has its time, too.
#[test]
fn a_device_that_suspends_late_has_time_to_resume() {
    for waits in [SECOND * 4 / 5, 10 * SECOND] {
        let mut bench = bench(S);
        bench.device.shows = Some(READY | 16);
        assert_eq!(bench.stop(), Err(Error::Busy));
        bench.is(State::Resuming, Reason::None);
        bench.pass(waits);
        bench.device.resumes_after = SECOND / 10;
        bench.device.status = READY & !4 | 16;
        bench.device.shows = None;
        bench.pass(3 * SECOND);
        bench.is(State::Running, Reason::None);
        assert_eq!(bench.device.writes, [READY | 16], "after {waits} us");
        let stats = bench.machine.stats();
        assert_eq!((stats.suspend_cleared, stats.late_acks), (0, 0));
        assert_eq!(stats.resumes, u64::from(waits < SECOND));
    }
}

/// Such as one that runs all the same: a stop of it leads to nothing.
#[test]
fn a_device_that_shows_suspend_for_ever_is_let_go() {
    let mut bench = bench(S);
    bench.device.shows = Some(READY | 16);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.is(State::Resuming, Reason::None);
    assert!(bench.machine.is_quiesced());
    bench.pass(2 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    bench.is_released();
    assert!(!bench.machine.keeps_awake());
    assert_eq!(bench.machine.stats().timeouts, 0);
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    bench.is_released();
    assert!(bench.device.writes.is_empty());
    assert!(bench.machine.is_busy(), "it is watched");
    bench.device.shows = None;
    bench.pass(2 * SECOND);
    bench.is(State::Running, Reason::None);
    assert!(!bench.machine.is_busy());
    let stats = bench.machine.stats();
    assert_eq!((stats.late_acks, stats.resumes), (0, 0));
}

/// It may have suspended meanwhile.
#[test]
fn a_device_that_shows_suspend_and_then_nonsense_is_not_let_go() {
    let mut bench = bench(S);
    bench.device.shows = Some(READY | 16);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.device.status = READY & !4 | 16;
    bench.device.shows = Some(READY & !8);
    bench.pass(2 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert!(bench.machine.is_quiesced() && bench.device.writes.is_empty());
    bench.device.shows = None;
    bench.pass(2 * SECOND);
    bench.is(State::Running, Reason::None);
    bench.is_released();
    assert_eq!(bench.device.status, READY);
}
