// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The rows of the table of outcomes, one after the other. What can come in between is for the
//! model checker (tools/core/tests).

use super::super::field::{
    Field,
    Register, //
};
use super::super::status::{
    Access,
    Seen,
    Status, //
};
use super::*;
use std::cell::RefCell;

mod above;
mod asked;
mod counted;
mod found;
mod left;
mod moved;
mod timed;

const D: Protocol = Protocol::DeviceStop;
const S: Protocol = Protocol::Suspend;
const BOTH: [Protocol; 2] = [D, S];
const READY: u8 = 15;
const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
const NEVER: u64 = u64::MAX;
const ALL: Asker = Asker::Anybody;

/// A device that does so long after it was asked what it is asked for.
#[derive(Clone)]
struct Device {
    protocol: Protocol,
    status: u8,
    stops_after: u64,
    resumes_after: u64,
    /// It takes a request to resume that has SUSPEND set for another one to suspend.
    wants_cleared: bool,
    asked: Option<(u64, bool)>,
    shows: Option<u8>,
    now: u64,
    reads: u32,
    writes: Vec<u8>,
}

impl Device {
    fn own(&self) -> u8 {
        match self.protocol {
            D => 32,
            S => 16,
        }
    }

    fn read(&mut self) -> u8 {
        self.reads += 1;
        if let Some((since, stop)) = self.asked {
            let after = if stop {
                self.stops_after
            } else {
                self.resumes_after
            };
            if self.now - since >= after {
                self.asked = None;
                self.status = match (stop, self.protocol) {
                    (true, D) => self.status | 32,
                    (true, S) => self.status & !4 | 16,
                    (false, _) => self.status & !self.own() | 4,
                };
            }
        }
        self.shows.unwrap_or(self.status)
    }

    fn write(&mut self, new: u8) {
        self.writes.push(new);
        let stopped = self.status & self.own() != 0;
        let asks = match self.protocol {
            D => Some(new & 32 != 0),
            S if stopped => {
                let resumes = !self.wants_cleared || new & 16 == 0;
                (new & 4 != 0 && resumes).then_some(false)
            }
            S => (new & 16 != 0).then_some(true),
        };
        match asks {
            Some(stop) if stop != stopped => self.asked = Some((self.now, stop)),
            // Called off, which it may take for nothing.
            Some(false) if self.stops_after != NEVER => {}
            _ => self.asked = None,
        }
    }
}

impl Register for RefCell<&mut Device> {
    fn read(&self) -> Status {
        Status(self.borrow_mut().read())
    }

    fn write(&self, status: Status) {
        self.borrow_mut().write(status.0);
    }
}

const fn holder(id: u64) -> Holder {
    Holder {
        id,
        timeout_us: None,
        lease_us: Some(60 * SECOND),
    }
}

struct Bench {
    machine: Machine,
    field: Field,
    device: Device,
    attempt: Attempt,
    present: bool,
    done: Vec<Action>,
    now: u64,
    /// How often the machine was asked what to do.
    steps: u32,
}

fn bench(protocol: Protocol) -> Bench {
    let mut field = Field::new();
    field.negotiate(Ok(protocol));
    field.found_ready();
    let settings = Settings {
        timeout_us: SECOND,
        lease_us: 60 * SECOND,
        force: true,
    };
    let mut machine = Machine::new(Policy::of(5), settings, 100, &LIMITS, field.known());
    machine.bound();
    Bench {
        machine,
        field,
        device: Device {
            protocol,
            status: READY,
            stops_after: 0,
            resumes_after: 0,
            wants_cleared: false,
            asked: None,
            shows: None,
            now: 0,
            reads: 0,
            writes: Vec::new(),
        },
        attempt: Attempt::Done,
        present: true,
        done: Vec::new(),
        now: 0,
        steps: 0,
    }
}

impl Bench {
    fn run(&mut self) {
        let last = self.run_to(|_| false);
        assert_eq!(last, None);
    }

    /// Until there is nothing to be done, or an action of which `stops` is true: that one is not
    /// carried out.
    fn run_to(&mut self, stops: impl Fn(Action) -> bool) -> Option<Action> {
        self.device.now = self.now;
        loop {
            self.steps += 1;
            assert!(self.steps < 100_000, "it does not come to rest");
            self.machine.sync(self.field.known());
            let action = self.machine.next(self.now)?;
            if stops(action) {
                return Some(action);
            }
            self.done.push(action);
            match action {
                Action::Quiesce => self.machine.quiesced(self.now, self.attempt),
                Action::AnnounceStop(generation) => self.machine.announced(self.now, generation),
                Action::Settle(generation) => self.machine.settled(self.now, generation, true),
                Action::Access(access) => {
                    let register = RefCell::new(&mut self.device);
                    let answer = self.field.access(&register, self.machine.epoch(), access);
                    self.machine.answered(self.now, answer, self.present);
                }
                Action::Unquiesce => self.machine.unquiesced(),
                _ => {}
            }
        }
    }

    /// Time passes, and the machine is entered when it is due.
    fn pass(&mut self, us: u64) {
        let end = self.now + us;
        self.run();
        while let Some(at) = self.machine.deadline().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            self.run();
        }
        self.now = end;
    }

    fn wait(&mut self, ask: Result<Option<Ticket>, Error>) -> Result<(), Error> {
        let Some(ticket) = ask? else {
            return Ok(());
        };
        self.machine.others_announced(self.now, ticket);
        loop {
            self.run();
            if let Some(answer) = self.machine.take_answer(ticket) {
                return answer;
            }
            self.now = self.machine.deadline().expect("somebody waits");
        }
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.machine.look(self.now);
        self.run();
        let ask = self.machine.ask_stop(self.now, ALL, false);
        self.wait(ask)
    }

    fn resume(&mut self) -> Result<(), Error> {
        let ask = self.machine.ask_resume(self.now, ALL, None);
        self.wait(ask)
    }

    fn look(&mut self) {
        self.machine.look(self.now);
        self.run();
    }

    fn is(&self, state: State, reason: Reason) {
        assert_eq!(self.machine.state(), (state, reason));
    }

    fn is_released(&self) {
        assert!(!self.machine.is_quiesced());
        assert_eq!(
            self.done.iter().rev().find(|a| ends(a)),
            Some(&Action::Unquiesce)
        );
    }

    /// The virtqueues were notified, and then the driver above let go.
    fn is_notified_and_released(&self) {
        self.is_released();
        let at = |action| self.done.iter().rposition(|&done| done == action);
        assert!(at(Action::NotifyVirtqueues) < at(Action::Unquiesce));
        assert!(at(Action::NotifyVirtqueues) > at(Action::Access(Access::Stop)));
    }
}

fn ends(action: &Action) -> bool {
    matches!(action, Action::Unquiesce | Action::TellStopped)
}

fn stopped(protocol: Protocol) -> Bench {
    let mut bench = bench(protocol);
    assert_eq!(bench.stop(), Ok(()));
    bench.is(State::Stopped, Reason::None);
    bench
}

/// A stop that was not acknowledged in time. The device does what `then` says.
fn given_up(protocol: Protocol) -> Bench {
    let mut bench = bench(protocol);
    bench.device.stops_after = NEVER;
    assert_eq!(bench.stop(), Err(Error::TimedOut));
    bench
}

#[test]
fn a_stop_and_a_resume_take_three_accesses_each() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        assert_eq!(bench.stop(), Ok(()));
        assert_eq!((bench.device.reads, bench.device.writes.len()), (2, 1));
        assert!(bench.machine.is_quiesced());
        assert_eq!(bench.resume(), Ok(()));
        assert_eq!((bench.device.reads, bench.device.writes.len()), (4, 2));
        bench.is(State::Running, Reason::None);
        bench.is_notified_and_released();
        let stats = bench.machine.stats();
        assert_eq!((stats.stops, stats.resumes, stats.late_acks), (1, 1, 0));
        assert_eq!((stats.last_stop.reads, stats.last_resume.reads), (2, 2));
    }
}

#[test]
fn an_acknowledgement_is_seen_within_a_twenty_fifth_of_its_time() {
    for protocol in BOTH {
        for after in [1, 100, 5 * MS, 200 * MS] {
            let mut bench = bench(protocol);
            bench.device.stops_after = after;
            assert_eq!(bench.stop(), Ok(()));
            assert!(bench.now >= after && bench.now <= after + (after / 25).max(20) + 1);
            assert!(bench.device.reads < 200);
        }
    }
}

#[test]
fn user_space_is_told_before_and_after() {
    let mut bench = stopped(D);
    assert!(matches!(bench.done.first(), Some(Action::AnnounceStop(_))));
    bench.resume().unwrap();
    assert_eq!(bench.done.last(), Some(&Action::Announce(State::Running)));
    let told = bench
        .done
        .iter()
        .filter(|a| matches!(a, Action::Announce(_) | Action::AnnounceStop(_)));
    assert_eq!(told.count(), 2);
}

/// Who tells may wait for others, who may wait for memory.
#[test]
fn a_stop_does_not_wait_longer_to_be_told_of_than_it_may() {
    let mut bench = bench(D);
    let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
    let Some(Action::AnnounceStop(generation)) = bench.machine.next(0) else {
        panic!("not told of");
    };
    bench.pass(2 * SECOND);
    assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::Busy)));
    bench.machine.announced(bench.now, generation);
    bench.run();
    bench.is(State::Running, Reason::None);
    assert_eq!(bench.done, [Action::Announce(State::Running)]);
}

#[test]
fn suspend_waits_for_the_last_request_and_device_stop_does_not() {
    for protocol in BOTH {
        let bench = stopped(protocol);
        let settles = bench.done.iter().any(|a| matches!(a, Action::Settle(_)));
        assert_eq!(settles, protocol == S);
        let notifies = bench.done.contains(&Action::NotifyVirtqueues);
        assert_eq!(notifies, protocol == S, "before the device is asked");
    }
}

#[test]
fn a_stop_that_is_not_acknowledged_in_time() {
    let bench = given_up(D);
    bench.is(State::Running, Reason::None);
    bench.is_notified_and_released();
    assert_eq!(bench.now, SECOND);
    assert_eq!(bench.device.writes, [READY | 32, READY]);
    assert!(bench.machine.deadline().is_some(), "it may yet stop");
    let bench = given_up(S);
    bench.is(State::Aborting, Reason::StopTimeout);
    assert!(bench.machine.is_quiesced());
    assert_eq!(bench.device.writes, [READY | 16]);
    assert_eq!(bench.machine.stats().timeouts, 1);
    let calls_off = Action::Access(Access::CallOff);
    assert!(!bench.done.contains(&calls_off), "it can't be");
}

#[test]
fn a_late_acknowledgement_is_undone() {
    for protocol in BOTH {
        for late in [100 * MS, 15 * SECOND, 3600 * SECOND] {
            let mut bench = given_up(protocol);
            bench.device.asked = Some((0, true));
            bench.device.stops_after = SECOND + late;
            bench.pass(2 * late + 3 * SECOND);
            bench.is(State::Running, Reason::None);
            assert_eq!(bench.device.status, READY, "{protocol:?} {late}");
            assert_eq!(bench.machine.stats().late_acks, 1);
            assert_eq!(bench.done.last().map(|a| !ends(a)), Some(true));
            let at = |action| bench.done.iter().rposition(|&done| done == action);
            assert!(at(Action::NotifyVirtqueues) > at(Action::Access(Access::Resume)));
            assert!(!bench.machine.is_busy());
        }
    }
}

#[test]
fn a_suspend_stays_pending_whatever_is_asked_meanwhile() {
    let mut bench = given_up(S);
    bench.pass(10 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    bench.is_released();
    // It shows that it runs, as it does while a stop is pending: that is no resume.
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    bench.is(State::Failed, Reason::StopUnanswered);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.device.stops_after = 0;
    bench.device.asked = Some((0, true));
    bench.pass(2 * SECOND);
    bench.is(State::Running, Reason::None);
    assert_eq!(bench.device.status, READY);
}

#[test]
fn a_suspend_that_is_pending_is_adopted_by_another_stop() {
    let mut bench = given_up(S);
    let ask = bench.machine.ask_stop(bench.now, ALL, false);
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    assert_eq!(bench.wait(ask), Ok(()));
    assert_eq!(bench.device.writes, [READY | 16], "it is not asked again");
}

#[test]
fn a_device_that_shows_both_bits_while_it_resumes_does_not_run_yet() {
    let mut bench = stopped(S);
    bench.device.resumes_after = NEVER;
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    bench.device.shows = Some(READY | 16);
    bench.done.clear();
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert!(!bench.done.contains(&Action::NotifyVirtqueues));
    assert!(bench.machine.is_quiesced());
    bench.device.shows = Some(READY);
    bench.pass(2 * SECOND);
    bench.is(State::Running, Reason::None);
    assert_eq!(
        bench.device.writes,
        [READY | 16, READY | 16, READY],
        "a second one with SUSPEND would be a stop"
    );
}

#[test]
fn a_stopped_device_that_is_about_to_run_has_not_stood_still() {
    let mut bench = stopped(S);
    let generation = bench.machine.generation();
    bench.device.shows = Some(READY | 16);
    bench.look();
    bench.is(State::Aborting, Reason::StopDropped);
    assert_ne!(bench.machine.generation(), generation);
    bench.device.shows = Some(READY);
    bench.pass(SECOND);
    bench.is(State::Running, Reason::StopDropped);
    assert_eq!(bench.machine.stats().dropped, 1);
    assert_eq!(bench.resume(), Err(Error::Stale));
}

#[test]
fn a_stop_that_the_device_drops() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.status = READY;
        bench.look();
        bench.is(State::Running, Reason::StopDropped);
        bench.is_notified_and_released();
        assert_eq!(bench.machine.stats().dropped, 1);
        assert_eq!(bench.resume(), Err(Error::Stale));
        assert_eq!(bench.resume(), Ok(()));
        let mut bench = stopped(protocol);
        bench.device.status = READY;
        assert_eq!(bench.resume(), Err(Error::Stale));
        assert_eq!(bench.resume(), Ok(()), "it was told");
    }
}

#[test]
fn what_core_writes_after_a_dropped_stop_asks_for_none() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.status = READY;
        let register = RefCell::new(&mut bench.device);
        // FAILED, on top of what it has read before.
        bench.field.write_for_core(&register, Status(READY | 128));
        assert_eq!(bench.device.writes.last(), Some(&(READY | 128)));
    }
}

#[test]
fn a_lease_ends_a_stop_and_the_next_resume_is_told() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.pass(59 * SECOND);
        bench.is(State::Stopped, Reason::None);
        let generation = bench.machine.generation();
        let other = bench.machine.renew(bench.now, generation - 1);
        assert_eq!(other, Err(Error::Stale), "of another stop");
        assert_eq!(bench.machine.renew(bench.now, generation), Ok(()));
        bench.pass(59 * SECOND);
        bench.is(State::Stopped, Reason::None);
        bench.pass(2 * SECOND);
        bench.is(State::Running, Reason::LeaseExpired);
        assert_eq!(bench.machine.stats().lease_expiries, 1);
        assert_eq!(
            bench.machine.renew(bench.now, generation),
            Err(Error::Stale)
        );
        assert_eq!(bench.resume(), Err(Error::Stale));
        assert_eq!(bench.resume(), Ok(()));
    }
}

#[test]
fn a_stop_without_a_lease_stands() {
    let mut bench = bench(D);
    let settings = bench.machine.settings();
    bench.machine.set(Settings {
        lease_us: 0,
        ..settings
    });
    assert_eq!(bench.stop(), Ok(()));
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn an_exact_resume_ends_no_other_stop() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        let first = bench.machine.generation();
        bench.resume().unwrap();
        bench.stop().unwrap();
        let late = bench.machine.ask_resume(bench.now, ALL, Some(first));
        assert_eq!(late, Err(Error::Stale));
        bench.is(State::Stopped, Reason::None);
        let second = bench.machine.generation();
        let ask = bench.machine.ask_resume(bench.now, ALL, Some(second));
        assert_eq!(bench.wait(ask), Ok(()));
    }
}

#[test]
fn a_resume_that_is_not_answered() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        bench.is(State::Failed, Reason::ResumeUnanswered);
        assert!(bench.machine.is_quiesced());
        assert_eq!(bench.stop(), Err(Error::Busy));
        assert_eq!(bench.resume(), Err(Error::TimedOut));
        bench.device.resumes_after = 0;
        bench.device.asked = Some((0, false));
        bench.pass(2 * SECOND);
        bench.is(State::Running, Reason::None);
        assert_eq!(bench.machine.stats().late_acks, 0);
    }
}

#[test]
fn a_resume_calls_a_stop_off() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.stops_after = NEVER;
        let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
        bench.pass(MS);
        let resume = bench.resume();
        assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::CalledOff)));
        match protocol {
            D => {
                assert_eq!(resume, Ok(()));
                bench.is(State::Running, Reason::None);
            }
            S => {
                assert_eq!(resume, Err(Error::TimedOut));
                bench.is(State::Aborting, Reason::StopTimeout);
            }
        }
        assert!(bench.machine.is_busy());
    }
}

#[test]
fn a_stop_whose_agent_is_killed_is_given_up() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.stops_after = NEVER;
        let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
        bench.pass(MS);
        bench.machine.killed(bench.now, stop);
        bench.run();
        assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::Killed)));
        assert_ne!(bench.machine.state().0, State::Stopping);
        assert_eq!(bench.machine.stats().timeouts, 0);
    }
}

#[test]
fn faults() {
    let cases = [
        (
            READY | 64,
            true,
            State::Failed,
            Reason::NeedsReset,
            Error::NeedsReset,
        ),
        (
            READY | 128,
            true,
            State::Failed,
            Reason::NeedsReset,
            Error::NeedsReset,
        ),
        (0, true, State::Unavailable, Reason::Reset, Error::Gone),
        (0xff, false, State::Unavailable, Reason::Gone, Error::Gone),
    ];
    for protocol in BOTH {
        for (shows, present, state, reason, error) in cases {
            let breaks = reason != Reason::Reset;
            let mut bench = stopped(protocol);
            bench.device.shows = Some(shows);
            bench.present = present;
            bench.look();
            bench.is(state, reason);
            bench.is_released();
            assert_eq!(bench.done.contains(&Action::BreakVirtqueues), breaks);
            assert_eq!(bench.stop(), Err(error));
            assert_eq!(bench.resume(), Err(error));
            let mut bench = stopped(protocol);
            bench.device.shows = Some(shows);
            bench.present = present;
            assert_eq!(bench.resume(), Err(error));
            assert_eq!(bench.machine.stats().failures, 1);
            assert!(!bench.machine.is_busy());
        }
    }
}

#[test]
fn what_can_not_be_an_answer_changes_nothing() {
    for protocol in BOTH {
        // The second one has the bits of a device that has stopped, and lacks some that the driver
        // has set.
        for shows in [0xff, 0x25, 0x12, 0x41] {
            let mut bench = stopped(protocol);
            let generation = bench.machine.generation();
            bench.device.shows = Some(shows);
            bench.look();
            assert!(!bench.machine.is_answering());
            let writes = bench.device.writes.len();
            bench.pass(5 * SECOND);
            bench.is(State::Stopped, Reason::None);
            let resume = bench.machine.ask_resume(bench.now, ALL, Some(generation));
            bench.pass(100 * MS);
            assert_eq!(bench.device.writes.len(), writes, "nothing is built on it");
            bench.device.shows = None;
            assert_eq!(bench.wait(resume), Ok(()));
            bench.is(State::Running, Reason::None);
        }
    }
}

#[test]
fn what_can_not_be_an_answer_for_too_long_is_a_device_that_is_gone() {
    for protocol in BOTH {
        // The second one: the driver is not ready.
        for shows in [0xff, READY & !4] {
            let mut bench = stopped(protocol);
            bench.device.shows = Some(shows);
            bench.look();
            bench.pass(9 * SECOND);
            bench.is(State::Stopped, Reason::None);
            bench.pass(2 * SECOND);
            bench.is(State::Unavailable, Reason::Gone);
            bench.is_released();
        }
    }
}

#[test]
fn a_driver_that_is_not_ready_is_not_asked_for_anything() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.shows = Some(READY & !4);
        assert_eq!(bench.stop(), Err(Error::NoDriver));
        bench.is(State::Running, Reason::None);
        assert!(bench.device.writes.is_empty());
    }
}

#[test]
fn what_can_not_be_quiesced_is_not_stopped() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.attempt = Attempt::NotFound;
        assert_eq!(bench.stop(), Err(Error::NotSupported));
        bench.is(State::Running, Reason::NoQuiesce);
        bench.attempt = Attempt::NotNow;
        assert_eq!(bench.stop(), Err(Error::Busy));
        assert_eq!(bench.now, SECOND, "the time for the whole of it");
        bench.is(State::Running, Reason::None);
        assert_eq!(bench.device.reads, 0);
    }
}

#[test]
fn a_stop_that_never_began_leaves_an_earlier_one_looked_at() {
    let mut bench = given_up(D);
    bench.attempt = Attempt::NotFound;
    assert_eq!(bench.stop(), Err(Error::NotSupported));
    let settings = bench.machine.settings();
    bench.machine.set(Settings {
        force: false,
        ..settings
    });
    bench.is(State::Unavailable, Reason::TypeRefused);
    bench.device.asked = Some((bench.now, true));
    bench.device.stops_after = SECOND;
    bench.pass(4 * SECOND);
    assert_eq!(bench.device.status, READY);
    assert_eq!(bench.machine.stats().late_acks, 1);
}

#[test]
fn force_is_applied_when_a_stop_has_ended() {
    let mut bench = stopped(D);
    let settings = bench.machine.settings();
    bench.machine.set(Settings {
        force: false,
        ..settings
    });
    bench.is(State::Stopped, Reason::None);
    bench.resume().unwrap();
    bench.is(State::Unavailable, Reason::TypeRefused);
    assert_eq!(bench.stop(), Err(Error::NotSupported));
}

#[test]
fn a_reset_ends_everything() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        let generation = bench.machine.generation();
        bench.field.reset_begins();
        bench.run();
        bench.is(State::Unavailable, Reason::Reset);
        bench.is_released();
        bench.field.reset_ends();
        bench.device.status = 3;
        bench.field.negotiate(Ok(protocol));
        bench.device.status = READY;
        let register = RefCell::new(&mut bench.device);
        assert!(bench.field.write_for_core(&register, Status(READY)));
        bench.run();
        bench.is(State::Running, Reason::None);
        assert!(bench.machine.generation() > generation);
        assert_eq!(bench.resume(), Err(Error::Stale), "the stop had ended");
        assert_eq!(bench.resume(), Ok(()));
        assert_eq!(bench.machine.epoch(), bench.field.known().epoch);
        assert_eq!(bench.stop(), Ok(()), "it works as before");
    }
}

#[test]
fn whoever_waits_is_told_of_a_reset() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.stops_after = NEVER;
        let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
        bench.pass(MS);
        bench.field.reset_begins();
        bench.run();
        assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::Gone)));
        assert!(!bench.machine.is_busy());
    }
}

#[test]
fn a_driver_that_leaves_has_its_device_resumed() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.machine.leaves(bench.now, Leaver::Driver);
        bench.run();
        assert!(bench.machine.has_left());
        bench.is(State::Unavailable, Reason::NoDriver);
        bench.is_notified_and_released();
        assert_eq!(bench.stop(), Err(Error::NoDriver));
        bench.machine.unbound();
        bench.machine.binding();
        bench.machine.bound();
        assert_eq!(bench.resume(), Err(Error::Stale), "the stop had ended");
    }
}

#[test]
fn a_driver_that_leaves_a_device_that_does_not_answer() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.stops_after = NEVER;
        let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
        bench.pass(MS);
        bench.machine.leaves(bench.now, Leaver::Driver);
        bench.pass(6 * SECOND);
        assert_eq!(bench.machine.take_answer(stop), Some(Err(Error::Gone)));
        assert!(bench.machine.has_left());
        assert_eq!(bench.done.contains(&Action::BreakVirtqueues), protocol == S);
        // The driver waits for its requests still: the device is resumed when it answers.
        bench.device.asked = Some((0, true));
        bench.device.stops_after = 0;
        bench.pass(3 * SECOND);
        assert_eq!(bench.device.status, READY);
        bench.is(State::Unavailable, Reason::NoDriver);
        // And when it has gone, nobody looks any more.
        let mut bench = given_up(protocol);
        bench.machine.leaves(bench.now, Leaver::Driver);
        bench.pass(6 * SECOND);
        assert!(bench.machine.is_busy());
        bench.machine.unbound();
        assert!(!bench.machine.is_busy());
        assert_eq!(bench.machine.deadline(), None);
    }
}

#[test]
fn a_device_that_resumes_after_its_driver_has_left_is_notified() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = 10 * SECOND;
        bench.machine.leaves(bench.now, Leaver::Driver);
        bench.pass(2 * SECOND);
        assert!(bench.machine.has_left());
        bench.done.clear();
        bench.pass(10 * SECOND);
        assert!(bench.done.contains(&Action::NotifyVirtqueues));
    }
}

#[test]
fn a_holder_s_stop_is_its_own_and_ends_with_it() {
    for protocol in BOTH {
        let (one, other) = (holder(1), holder(2));
        let mut bench = bench(protocol);
        let ask = bench.machine.ask_stop(0, Asker::Holder(one), false);
        assert_eq!(bench.wait(ask), Ok(()));
        for asker in [ALL, Asker::Holder(other)] {
            assert_eq!(bench.machine.ask_stop(0, asker, false), Err(Error::Busy));
            assert_eq!(bench.machine.ask_resume(0, asker, None), Err(Error::Busy));
        }
        let own = bench.machine.ask_stop(0, Asker::Holder(one), false);
        assert_eq!(own, Ok(None));
        bench.machine.closed(0, other.id);
        bench.run();
        bench.is(State::Stopped, Reason::None);
        bench.machine.closed(0, one.id);
        bench.run();
        bench.is(State::Running, Reason::None);
        assert_eq!(
            bench.resume(),
            Ok(()),
            "nothing has ended behind anybody's back"
        );
        let ask = bench.machine.ask_stop(0, Asker::Holder(one), false);
        assert_eq!(bench.wait(ask), Ok(()));
        let ask = bench.machine.ask_resume(0, Asker::Root, None);
        assert_eq!(bench.wait(ask), Ok(()));
    }
}

#[test]
fn nothing_is_stopped_while_the_system_is_asleep_or_the_device_is_reset_on_purpose() {
    let mut bench = bench(D);
    assert_eq!(bench.machine.ask_stop(0, ALL, true), Err(Error::Busy));
    bench.machine.refuse_stops().unwrap();
    assert_eq!(bench.machine.refuse_stops(), Err(Error::Busy));
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.machine.allow_stops();
    assert_eq!(bench.stop(), Ok(()));
    assert_eq!(bench.machine.refuse_stops(), Err(Error::Busy));
}

#[test]
fn generations_never_begin_anew() {
    let mut bench = stopped(D);
    let mut last = bench.machine.generation();
    assert!(last > 100);
    for _ in 0..3 {
        bench.resume().unwrap();
        bench.stop().unwrap();
        assert!(bench.machine.generation() > last);
        last = bench.machine.generation();
    }
    assert_eq!(Status(READY).seen(D), Seen::Running);
}

/// Effects that were decided before a reset are not carried out on what comes after it.
#[test]
fn a_reset_between_an_answer_and_what_it_calls_for() {
    let mut bench = given_up(D);
    bench.now = bench.machine.deadline().expect("it is looked at");
    bench.device.now = bench.now;
    assert_eq!(
        bench.machine.next(bench.now),
        Some(Action::Access(Access::Read))
    );
    let register = RefCell::new(&mut bench.device);
    let epoch = bench.machine.epoch();
    let answer = bench.field.access(&register, epoch, Access::Read);
    bench.machine.answered(bench.now, answer, true);
    bench.field.reset_begins();
    bench.field.reset_ends();
    bench.done.clear();
    bench.run();
    assert!(!bench.done.contains(&Action::NotifyVirtqueues));
}

#[test]
fn a_suspended_device_is_not_touched_though_it_takes_its_time() {
    let mut bench = given_up(S);
    bench.device.stops_after = 10 * SECOND + 900 * MS;
    bench.device.asked = Some((0, true));
    bench.device.resumes_after = NEVER;
    bench.pass(15 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert!(bench.machine.is_quiesced());
}

#[test]
fn a_late_stop_that_does_not_end_is_shown() {
    let mut bench = given_up(D);
    bench.device.stops_after = 2 * SECOND;
    bench.device.asked = Some((0, true));
    bench.device.resumes_after = NEVER;
    bench.pass(2 * SECOND);
    bench.is(State::Resuming, Reason::StopTimeout);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.pass(2 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    let writes = bench.device.writes.len();
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    assert_eq!(bench.device.writes.len(), writes + 1, "it is asked again");
}

#[test]
fn an_acknowledgement_that_meets_the_call_off_is_no_late_one_for_ever() {
    let mut bench = bench(D);
    bench.device.stops_after = NEVER;
    let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
    bench.pass(MS);
    // Between two looks.
    bench.device.status |= 32;
    bench.device.asked = None;
    bench.machine.killed(bench.now, stop);
    bench.run();
    bench.is(State::Running, Reason::None);
    assert_eq!(bench.machine.stats().late_acks, 1);
    assert!(!bench.machine.is_busy());
}

#[test]
fn a_stop_that_was_called_off_is_not_waited_for_again() {
    let mut bench = bench(D);
    bench.device.stops_after = NEVER;
    let stop = bench.machine.ask_stop(0, ALL, false).unwrap().unwrap();
    bench.pass(MS);
    bench.device.shows = Some(0xff);
    bench.machine.killed(bench.now, stop);
    bench.run();
    bench.is(State::Aborting, Reason::StopTimeout);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.device.shows = None;
    bench.pass(100 * MS);
    bench.is(State::Running, Reason::None);
    bench.device.stops_after = 0;
    assert_eq!(bench.stop(), Ok(()));
}

#[test]
fn a_resume_that_comes_after_the_end_of_its_stop_is_told_at_once() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.resumes_after = NEVER;
        bench.pass(62 * SECOND);
        bench.is(State::Failed, Reason::ResumeUnanswered);
        bench.device.resumes_after = 0;
        assert_eq!(bench.resume(), Err(Error::Stale), "the lease has ended it");
        assert_eq!(bench.resume(), Ok(()));
    }
    let mut bench = stopped(S);
    bench.device.shows = Some(READY | 16);
    bench.look();
    bench.device.shows = Some(READY);
    assert_eq!(bench.resume(), Err(Error::Stale), "the device has");
    bench.is(State::Running, Reason::StopDropped);
    assert_eq!(bench.machine.stats().dropped, 1);
    assert_eq!(bench.resume(), Ok(()));
}

#[test]
fn a_device_that_is_gone_for_too_long_is_resumed_when_it_comes_back() {
    for protocol in BOTH {
        let mut bench = stopped(protocol);
        bench.device.shows = Some(0xff);
        bench.look();
        bench.pass(12 * SECOND);
        bench.is(State::Unavailable, Reason::Gone);
        let generation = bench.machine.generation();
        bench.pass(60 * SECOND);
        assert_eq!(
            bench.machine.generation(),
            generation,
            "it is gone only once"
        );
        bench.device.shows = None;
        bench.pass(3 * SECOND);
        assert_eq!(bench.device.status, READY);
        bench.is(State::Unavailable, Reason::Gone);
    }
}

#[test]
fn a_stop_that_comes_late_is_ended_in_the_form_that_the_device_takes() {
    for (stops_after, state) in [(1500 * MS, State::Aborting), (15 * SECOND, State::Failed)] {
        let mut bench = bench(S);
        bench.device.stops_after = stops_after;
        bench.device.wants_cleared = true;
        assert_eq!(bench.stop(), Err(Error::TimedOut));
        bench.pass(stops_after - SECOND - 10 * MS);
        assert_eq!(bench.machine.state().0, state);
        bench.pass(3 * SECOND);
        assert_eq!(bench.machine.state().0, State::Running);
        assert_eq!(bench.machine.stats().suspend_cleared, 1);
        let forms: Vec<_> = bench.device.writes.iter().map(|new| new & 20).collect();
        assert_eq!(forms, [20, 20, 4], "the text's form comes first");
    }
}

#[test]
fn of_several_devices_none_is_held_before_user_space_was_told_of_all() {
    let mut bench = bench(S);
    let ask = bench.machine.ask_stop(0, Asker::Holder(holder(1)), false);
    bench.pass(10 * MS);
    assert!(matches!(bench.done[..], [Action::AnnounceStop(_)]));
    bench.is(State::Stopping, Reason::None);
    assert_eq!(bench.wait(ask), Ok(()));
    assert!(bench.done.contains(&Action::Quiesce));
    bench.machine.closed(bench.now, 1);
    bench.run();
    bench.is(State::Running, Reason::None);
    // It ends by itself if nothing comes of the others.
    let begin = bench.now;
    let ask = bench
        .machine
        .ask_stop(begin, Asker::Holder(holder(1)), false);
    bench.pass(SECOND);
    let ticket = ask.unwrap().unwrap();
    assert_eq!(bench.machine.take_answer(ticket), Some(Err(Error::Busy)));
    bench.is(State::Running, Reason::None);
    // Who calls off does not resume.
    let ask = bench
        .machine
        .ask_stop(bench.now, Asker::Holder(holder(1)), false);
    bench.machine.called_off(bench.now, 1);
    assert_eq!(bench.wait(ask), Err(Error::CalledOff));
    let ask = bench
        .machine
        .ask_stop(bench.now, Asker::Holder(holder(1)), false);
    assert_eq!(bench.wait(ask), Ok(()));
    bench.machine.called_off(bench.now, 1);
    bench.run();
    bench.is(State::Stopped, Reason::None);
}

#[test]
fn a_holder_s_stop_is_on_its_own_terms() {
    let terms = |timeout_us, lease_us| {
        Asker::Holder(Holder {
            id: 1,
            timeout_us,
            lease_us,
        })
    };
    for chosen in [0, 60 * SECOND] {
        let mut bench = bench(D);
        let settings = bench.machine.settings();
        bench.machine.set(Settings {
            lease_us: chosen,
            ..settings
        });
        let ask = bench.machine.ask_stop(0, terms(None, Some(7)), false);
        assert_eq!(bench.wait(ask), Ok(()));
        let now = bench.now;
        assert_eq!(bench.machine.deadline(), Some(now + 7));
        bench
            .machine
            .renew(now + 5, bench.machine.generation())
            .unwrap();
        assert_eq!(bench.machine.deadline(), Some(now + 12));
        bench.pass(20);
        bench.is(State::Running, Reason::LeaseExpired);
        assert_eq!(bench.resume(), Ok(()), "it was told itself");
        let ask = bench
            .machine
            .ask_stop(bench.now, terms(None, Some(7)), false);
        assert_eq!(bench.wait(ask), Ok(()));
        let now = bench.now;
        let longer = bench.machine.ask_stop(now, terms(None, Some(9)), false);
        assert_eq!(longer, Ok(None));
        assert_eq!(bench.machine.deadline(), Some(now + 9));
        let longer = bench.machine.ask_stop(now, terms(None, None), false);
        assert_eq!(longer, Ok(None));
        assert_eq!(bench.machine.deadline(), None);
    }
    let mut bench = bench(D);
    bench.device.stops_after = NEVER;
    let ask = bench.machine.ask_stop(0, terms(Some(300), Some(7)), false);
    assert_eq!(bench.wait(ask), Err(Error::TimedOut));
    assert!(bench.now < 2 * 300, "{}", bench.now);
}

#[test]
fn a_device_that_does_not_say_whether_it_runs_is_looked_at_when_it_is_found() {
    for protocol in BOTH {
        for (shows, stopped) in [(0xff, true), (0xff, false), (READY | 16, true)] {
            let mut bench = bench(protocol);
            if stopped {
                bench.device.status = match protocol {
                    D => READY | 32,
                    S => READY & !4 | 16,
                };
            }
            let seen = Status(shows).seen(protocol);
            if seen == Seen::Running {
                continue;
            }
            bench.device.shows = Some(shows);
            bench.machine.found(0, seen);
            bench.pass(2 * SECOND);
            assert_ne!(bench.machine.state().0, State::Running);
            bench.device.shows = None;
            bench.device.asked = (shows != 0xff).then_some((0, false));
            bench.pass(2 * SECOND);
            bench.is(State::Running, Reason::None);
            assert_eq!(bench.device.status, READY);
            assert_eq!(bench.machine.stats().late_acks, 0);
            assert!(bench.done.contains(&Action::NotifyVirtqueues));
        }
    }
}

#[test]
fn a_device_that_was_left_stopped_is_resumed_when_it_is_found() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        bench.device.status = match protocol {
            D => READY | 32,
            S => READY & !4 | 16,
        };
        bench
            .machine
            .found(0, Status(bench.device.status).seen(protocol));
        bench.is(State::Resuming, Reason::None);
        bench.pass(SECOND);
        bench.is(State::Running, Reason::None);
        assert_eq!(bench.machine.stats().late_acks, 0);
        assert_eq!(bench.device.status, READY);
        assert!(bench.done.contains(&Action::NotifyVirtqueues));
    }
}

#[test]
fn the_system_stays_awake_while_a_stop_is_under_way() {
    let mut bench = bench(D);
    assert!(!bench.machine.keeps_awake());
    bench.attempt = Attempt::NotNow;
    assert!(bench.machine.ask_stop(0, ALL, false).is_ok());
    bench.run();
    assert!(!bench.machine.is_quiesced() && bench.machine.keeps_awake());
    // Or the driver waits for a device that has stopped late, and does not resume.
    let mut bench = given_up(D);
    bench.pass(SECOND);
    bench.device.resumes_after = NEVER;
    bench.device.status |= 32;
    bench.pass(SECOND / 2);
    bench.is(State::Resuming, Reason::StopTimeout);
    assert!(!bench.machine.is_quiesced() && bench.machine.keeps_awake());
    bench.pass(20 * SECOND);
    bench.is(State::Failed, Reason::ResumeUnanswered);
    assert!(!bench.machine.is_quiesced() && bench.machine.keeps_awake());
}

#[test]
fn a_resume_that_is_late_is_asked_for_in_the_other_form_once() {
    let mut bench = stopped(S);
    bench.device.resumes_after = NEVER;
    let asked = bench.now;
    let ask = bench.machine.ask_resume(asked, ALL, None);
    bench.pass(SECOND * 3 / 4 - 11 * MS);
    assert_eq!(bench.device.writes, [READY | 16, READY | 16]);
    bench.pass(22 * MS);
    assert_eq!(bench.device.writes, [READY | 16, READY | 16, READY]);
    assert_eq!(bench.wait(ask), Err(Error::TimedOut));
    bench.pass(100 * SECOND);
    assert_eq!(bench.device.writes.len(), 3, "not while nobody waits");
    assert_eq!(bench.machine.stats().suspend_cleared, 1);
    bench.device.status = READY;
    assert_eq!(bench.resume(), Ok(()));
    assert_eq!(bench.device.writes.len(), 3, "it runs");
}

#[test]
fn a_resume_that_is_asked_for_late_is_given_time() {
    let mut bench = given_up(S);
    bench.device.resumes_after = NEVER;
    let ask = bench.machine.ask_resume(bench.now, ALL, None);
    bench.pass(SECOND * 9 / 10);
    bench.device.asked = Some((0, true));
    bench.device.stops_after = 0;
    assert_eq!(bench.wait(ask), Err(Error::TimedOut));
    assert_eq!(bench.device.writes, [READY | 16; 2]);
    assert_eq!(bench.machine.stats().suspend_cleared, 0);
}

#[test]
fn device_stop_has_one_form_of_resume() {
    let mut bench = stopped(D);
    bench.device.resumes_after = NEVER;
    assert_eq!(bench.resume(), Err(Error::TimedOut));
    assert_eq!(bench.device.writes, [READY | 32, READY]);
    let clears = Action::Access(Access::ResumeByClearing);
    assert!(!bench.done.contains(&clears));
}

#[test]
fn a_device_is_configured_under_suspend_only_while_it_runs() {
    for (protocol, permit) in [(D, Permit::Granted), (S, Permit::NotNow)] {
        let mut bench = stopped(protocol);
        assert_eq!(bench.machine.configure(), permit);
        bench.device.resumes_after = SECOND / 2;
        let ask = bench.machine.ask_resume(bench.now, ALL, None);
        bench.pass(SECOND / 4);
        assert_eq!(bench.machine.configure(), permit);
        assert_eq!(bench.wait(ask), Ok(()));
        assert_eq!(bench.machine.configure(), Permit::Granted);
    }
    let mut bench = given_up(S);
    assert_eq!(bench.machine.configure(), Permit::NotNow);
    bench.machine.leaves(bench.now, Leaver::Driver);
    assert_eq!(bench.machine.configure(), Permit::NotNow);
    bench.pass(10 * SECOND);
    assert_eq!(bench.machine.configure(), Permit::Never);
    let mut bench = given_up(S);
    bench.pass(100 * SECOND);
    bench.is(State::Failed, Reason::StopUnanswered);
    assert_eq!(bench.machine.configure(), Permit::Granted, "it was let go");
}

#[test]
fn a_device_that_is_being_configured_is_not_asked_to_suspend() {
    for protocol in BOTH {
        let mut bench = bench(protocol);
        assert_eq!(bench.machine.configure(), Permit::Granted);
        let ask = bench.machine.ask_stop(bench.now, ALL, false);
        bench.pass(SECOND / 2);
        assert_eq!(bench.device.writes.is_empty(), protocol == S);
        bench.machine.configured();
        assert_eq!(bench.wait(ask), Ok(()));
    }
    let mut bench = bench(S);
    assert_eq!(bench.machine.configure(), Permit::Granted);
    assert_eq!(bench.stop(), Err(Error::Busy));
    bench.is(State::Running, Reason::None);
    bench.is_released();
}
