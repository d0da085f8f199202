// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Who asks, and who is told what.

use super::*;

const ONE: Asker = Asker::Holder(holder(1));

fn ticket(ask: Result<Option<Ticket>, Error>) -> Ticket {
    ask.unwrap().expect("something to wait for")
}

#[test]
fn what_is_about_another_request_changes_nothing() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        let first = ticket(bench.machine.ask_stop(0, ONE, false));
        bench.machine.called_off(0, 1);
        bench.device.stops_after = SECOND / 2;
        let ask = bench.machine.ask_stop(0, ONE, false);
        bench.machine.others_announced(0, first);
        bench.machine.killed(0, first);
        bench.machine.called_off(0, 2);
        bench.pass(MS);
        assert!(!bench.done.contains(&Action::Quiesce), "others wait");
        bench.machine.others_announced(bench.now, ticket(ask));
        bench.pass(MS);
        bench.machine.killed(bench.now, first);
        bench.is(State::Stopping, Reason::None);
        assert_eq!(bench.wait(ask), Ok(()));
        bench.device.resumes_after = SECOND / 2;
        let ask = bench.machine.ask_resume(bench.now, ONE, None);
        bench.machine.killed(bench.now, first);
        bench.is(State::Resuming, Reason::None);
        assert_eq!(bench.wait(ask), Ok(()));
        let answer = bench.machine.take_answer(first);
        assert_eq!(answer, Some(Err(Error::CalledOff)));
        assert_eq!(bench.machine.take_answer(first), None, "it was told");
    }
}

#[test]
fn a_resume_whose_agent_is_killed_is_given_up() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        let resume = ticket(bench.machine.ask_resume(bench.now, ALL, None));
        bench.pass(MS);
        bench.machine.killed(bench.now, resume);
        assert_eq!(bench.machine.take_answer(resume), Some(Err(Error::Killed)));
        bench.is(State::Failed, Reason::ResumeUnanswered);
        assert_eq!(bench.machine.stats().timeouts, 0);
    }
}

#[test]
fn an_agent_that_is_killed_before_the_device_was_asked() {
    let mut bench = bench(S);
    bench.attempt = Attempt::NotNow;
    let stop = ticket(bench.machine.ask_stop(0, ALL, false));
    bench.pass(MS);
    bench.machine.killed(bench.now, stop);
    bench.run();
    assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::Killed)));
    bench.is(State::Running, Reason::None);
}

#[test]
fn so_many_requests_wait_for_those_who_have_asked() {
    let mut bench = bench(D);
    assert!(!bench.machine.is_waiting());
    let mut tickets = Vec::new();
    for _ in 0..8 {
        let stop = ticket(bench.machine.ask_stop(0, ONE, false));
        assert!(!tickets.contains(&stop));
        tickets.push(stop);
        assert_eq!(bench.machine.take_answer(stop), None, "not yet");
        bench.machine.called_off(0, 1);
    }
    assert_eq!(bench.machine.ask_stop(0, ALL, false), Err(Error::Busy));
    bench.is(State::Running, Reason::None);
    let last = tickets.pop().unwrap();
    let answer = bench.machine.take_answer(last);
    assert_eq!(answer, Some(Err(Error::CalledOff)));
    assert_eq!(ticket(bench.machine.ask_stop(0, ONE, false)), last);
    bench.machine.called_off(0, 1);
    tickets.push(last);
    for stop in tickets {
        assert!(bench.machine.is_waiting());
        assert!(bench.machine.take_answer(stop).is_some());
    }
    assert!(!bench.machine.is_waiting());
}

#[test]
fn a_device_resumes_by_itself_when_nobody_has_asked_for_that() {
    for protocol in BOTH {
        for closes in [false, true] {
            let mut bench = bench(protocol);
            let ask = bench.machine.ask_stop(0, ONE, false);
            assert_eq!(bench.wait(ask), Ok(()));
            assert!(!bench.machine.resumes_by_itself());
            bench.device.resumes_after = SECOND / 2;
            if closes {
                bench.machine.closed(bench.now, 1);
            } else {
                assert!(bench.machine.ask_resume(bench.now, ONE, None).is_ok());
            }
            bench.pass(MS);
            bench.is(State::Resuming, Reason::None);
            assert_eq!(bench.machine.resumes_by_itself(), closes);
            bench.pass(SECOND);
            assert!(!bench.machine.resumes_by_itself());
        }
    }
}

/// On the terms of who has closed it.
#[test]
fn a_stop_that_is_closed_is_waited_for_as_long_as_its_holder_does() {
    let terms = Holder {
        timeout_us: Some(3 * SECOND),
        ..holder(1)
    };
    let mut bench = bench(D);
    let ask = bench.machine.ask_stop(0, Asker::Holder(terms), false);
    assert_eq!(bench.wait(ask), Ok(()));
    bench.device.resumes_after = NEVER;
    bench.machine.closed(0, 1);
    bench.pass(2 * SECOND);
    bench.is(State::Resuming, Reason::None);
    bench.pass(2 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
}

#[test]
fn a_pending_suspend_is_its_holder_s_when_that_adopts_it() {
    let mut bench = given_up(S);
    let sleeps = bench.machine.ask_stop(bench.now, ONE, true);
    assert_eq!(sleeps, Err(Error::Busy), "the system is going to sleep");
    bench.done.clear();
    let ask = bench.machine.ask_stop(bench.now, ONE, false);
    bench.pass(MS);
    bench.is(State::Stopping, Reason::None);
    assert_eq!(bench.machine.holder(), Some(1));
    assert_eq!(bench.stop(), Err(Error::Busy));
    let told = |action: &&Action| matches!(action, Action::AnnounceStop(_) | Action::Quiesce);
    assert_eq!(bench.done.iter().find(told), None, "that was done");
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    assert_eq!(bench.wait(ask), Ok(()));
    assert_eq!(bench.machine.holder(), Some(1));
}

#[test]
fn a_stop_and_its_resume_say_what_they_end() {
    let mut bench = stopped(S);
    bench.device.resumes_after = NEVER;
    let wait = |bench: &mut Bench, reason| {
        let ask = bench.machine.ask_resume(bench.now, ALL, None);
        bench.is(State::Resuming, reason);
        assert_eq!(
            bench.machine.ask_resume(bench.now, ALL, None),
            Err(Error::Busy)
        );
        assert!(bench.wait(ask).is_err());
    };
    wait(&mut bench, Reason::None);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    wait(&mut bench, Reason::ResumeUnanswered);
    let mut bench = given_up(S);
    wait(&mut bench, Reason::StopTimeout);
    bench.pass(20 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    wait(&mut bench, Reason::StopUnanswered);
    let mut bench = stopped(S);
    bench.device.shows = Some(READY | 16);
    bench.look();
    wait(&mut bench, Reason::StopDropped);
}

#[test]
fn what_is_not_there_says_so() {
    let mut bench = bench(D);
    bench.field.negotiate(Err(Reason::Disabled));
    assert!(!bench.machine.is_synced(bench.field.known()));
    let generation = bench.machine.generation();
    bench.run();
    assert!(bench.machine.is_synced(bench.field.known()));
    bench.is(State::Unavailable, Reason::Disabled);
    assert_eq!(bench.machine.generation(), generation + 1);
    assert_eq!(bench.stop(), Err(Error::NotSupported));
    assert_eq!(bench.resume(), Err(Error::NotSupported));
    let mut field = Field::new();
    field.negotiate(Ok(S));
    let settings = bench.machine.settings();
    let mut machine = Machine::new(Policy::of(5), settings, 0, &LIMITS, field.known());
    machine.bound();
    assert_eq!(machine.state(), (State::Unavailable, Reason::Reset));
    assert_eq!(machine.ask_stop(0, ALL, false), Err(Error::Gone));
}
