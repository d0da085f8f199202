// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! A device, its driver and whoever asks, and what has to be true of them at every moment.

use super::device::{
    Device,
    Shows,
    Window, //
};
use core_on_host::field::Field;
use core_on_host::machine::{
    Action,
    Asker,
    Attempt,
    Holder,
    Machine,
    Settings,
    Ticket,
    LIMITS, //
};
use core_on_host::policy::Policy;
use core_on_host::state::{
    Error,
    Reason,
    State, //
};
use core_on_host::status::Protocol;
use std::cell::RefCell;

pub const SECOND: u64 = 1_000_000;
pub const HOLDER: Asker = Asker::Holder(Holder {
    id: 7,
    timeout_us: None,
    lease_us: Some(30 * SECOND),
});

/// What may be found, and why: the words of the documentation.
fn is_documented(state: (State, Reason), protocol: Protocol) -> bool {
    use Reason::{
        Gone,
        LeaseExpired,
        NeedsReset,
        NoDriver,
        None,
        Reset,
        ResumeUnanswered,
        StopDropped,
        StopTimeout,
        StopUnanswered, //
    };
    match state {
        (State::Running, None | StopDropped | LeaseExpired)
        | (State::Stopped | State::Stopping, None)
        | (State::Resuming, None | StopDropped | StopTimeout | StopUnanswered | ResumeUnanswered)
        | (State::Aborting, StopTimeout)
        | (State::Failed, NeedsReset | StopUnanswered | ResumeUnanswered)
        | (State::Unavailable, Reset | Gone | NoDriver) => true,
        (State::Aborting, StopDropped) => protocol == Protocol::Suspend,
        _ => false,
    }
}

/// How often a device may be looked at within `us`, while somebody waits: every 20 µs for half a
/// millisecond, then after a twenty-fifth of the time so far, then every 10 ms.
fn most_looks(us: u64) -> u64 {
    25 + 160 + us / 10_000 + 15
}

/// A device, its driver, and whoever asks.
pub struct Case {
    pub machine: Machine,
    pub field: Field,
    pub device: Device,
    pub random: fastrand::Rng,
    pub now: u64,
    pub held: bool,
    /// Some of those who wait are killed.
    pub kills: bool,
}

impl Case {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let protocol = [Protocol::DeviceStop, Protocol::Suspend][random.usize(..2)];
        let shows = match random.u32(..8) {
            0..=2 => Shows::Anything,
            3 | 4 => Shows::AlmostRight,
            5 => Shows::Always(random.u8(..)),
            6 => Shows::Always(0xff),
            _ => Shows::Noise(random.u32(1..100)),
        };
        let mut field = Field::new();
        field.negotiate(Ok(protocol));
        field.found_ready();
        let settings = Settings {
            timeout_us: 1000 * [1, 20, 1000, 5000][random.usize(..4)],
            lease_us: [0, SECOND, 60 * SECOND][random.usize(..3)],
            force: true,
        };
        let mut machine = Machine::new(Policy::of(2), settings, 0, &LIMITS, field.known());
        machine.bound();
        Self {
            machine,
            field,
            device: Device::new(protocol, shows, random.u64(..)),
            random,
            now: 0,
            held: false,
            kills: true,
        }
    }

    /// Whoever enters the machine.
    pub fn run(&mut self) {
        for _ in 0..50 {
            self.machine.sync(self.field.known());
            let Some(action) = self.machine.next(self.now) else {
                return self.is_as_documented();
            };
            self.carry_out(action);
        }
        panic!("the machine does not come to rest");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::AnnounceStop(generation) => self.machine.announced(self.now, generation),
            Action::Quiesce => {
                self.held = true;
                self.machine.quiesced(self.now, Attempt::Done);
            }
            Action::Settle(generation) => self.machine.settled(self.now, generation, false),
            Action::Access(access) => {
                let epoch = self.machine.epoch();
                let window = Window(RefCell::new(&mut self.device));
                let answer = self.field.access(&window, epoch, access);
                let present = self.device.seen != 0xff || self.random.u32(..1000) != 0;
                // The bus is believed.
                self.device.lied |= !present;
                self.machine.answered(self.now, answer, present);
                assert_eq!(self.device.breach, None);
            }
            Action::Unquiesce => {
                assert!(self.held, "let go twice");
                self.held = false;
                self.machine.unquiesced();
            }
            Action::TellStopped => assert!(self.held),
            Action::BreakVirtqueues | Action::NotifyVirtqueues | Action::Announce(_) => {}
        }
    }

    fn is_as_documented(&self) {
        let state = self.machine.state();
        assert!(is_documented(state, self.device.protocol), "{state:?}");
        assert_eq!(self.held, self.machine.is_quiesced());
        let seen = self.device.seen;
        if state.0 == State::Stopped {
            // What tells nothing changes nothing, but then nobody is told that the stop stands.
            let stands = self.device.says_stopped(seen);
            let unclear = self.device.says_nothing(seen) && !self.machine.is_answering();
            assert!(stands || unclear, "stopped, but it shows {seen:#04x}");
            assert!(self.device.stop_asked.is_some(), "stopped, and not asked");
        }
        // Whoever wants nothing of a device that shows that it has stopped looks at it again.
        let wanted = matches!(state.0, State::Stopped | State::Stopping);
        let lost = self.machine.is_lost() || state.1 == Reason::NoDriver;
        let asked = self.device.stop_asked.is_some();
        if self.device.says_stopped(seen) && asked && !wanted && !lost {
            assert!(self.machine.deadline().is_some(), "left stopped: {state:?}");
        }
    }

    /// Time passes, and the machine is entered when it is due.
    pub fn pass(&mut self, us: u64) {
        let end = self.now + us;
        self.run();
        while let Some(at) = self.machine.deadline().filter(|&at| at <= end) {
            self.now = at.max(self.now);
            self.run();
        }
        self.now = end;
    }

    /// Waits for the answer to a request, or is killed.
    fn wait(&mut self, ticket: Ticket) -> Result<(), Error> {
        let timeout_us = self.machine.settings().timeout_us;
        let (since, reads) = (self.now, self.device.reads);
        let killed = (self.kills && self.random.u32(..10) == 0)
            .then(|| since + self.random.u64(..timeout_us));
        self.machine.others_announced(self.now, ticket);
        loop {
            self.run();
            if let Some(answer) = self.machine.take_answer(ticket) {
                assert!(self.now - since <= timeout_us, "answered too late");
                let looks = self.device.reads - reads;
                assert!(looks <= most_looks(timeout_us), "{looks} looks");
                return answer;
            }
            let deadline = self.machine.deadline().expect("somebody waits");
            self.now = deadline.max(self.now);
            if let Some(killed) = killed.filter(|&killed| killed <= self.now) {
                self.now = killed.max(since);
                self.machine.killed(self.now, ticket);
            }
        }
    }

    pub fn stop(&mut self, asker: Asker) -> Result<(), Error> {
        self.machine.look(self.now);
        self.run();
        let answer = match self.machine.ask_stop(self.now, asker, false) {
            Ok(None) => return Ok(()),
            Ok(Some(ticket)) => self.wait(ticket),
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => {
                let seen = self.device.seen;
                assert!(
                    self.device.says_stopped(seen),
                    "acknowledged by {seen:#04x}"
                );
                let asked = self.device.stop_asked.expect("it was asked");
                assert!(asked < self.device.reads, "looked at after it was asked");
                assert_eq!(self.machine.state().0, State::Stopped);
            }
            Err(error) => {
                let known = matches!(
                    error,
                    Error::NoDriver
                        | Error::Busy
                        | Error::TimedOut
                        | Error::NeedsReset
                        | Error::Gone
                        | Error::Killed
                );
                assert!(known, "{error:?}");
                assert_ne!(self.machine.state().0, State::Stopping);
            }
        }
        answer
    }

    pub fn resume(&mut self, asker: Asker) -> Result<(), Error> {
        let answer = match self.machine.ask_resume(self.now, asker, None) {
            Ok(None) => Ok(()),
            Ok(Some(ticket)) => self.wait(ticket),
            Err(error) => Err(error),
        };
        let (state, _) = self.machine.state();
        match answer {
            Ok(()) => assert_eq!(state, State::Running),
            Err(error) => {
                let known = matches!(
                    error,
                    Error::Busy
                        | Error::Stale
                        | Error::TimedOut
                        | Error::NeedsReset
                        | Error::Gone
                        | Error::Killed
                );
                assert!(known, "{error:?}");
            }
        }
        answer
    }
}
