// SPDX-License-Identifier: GPL-2.0-only

//! Being in a device's machine: until there is nothing left to do, or for as long as somebody
//! waits. Here the timer is armed, and nowhere else.

use crate::{
    device::{
        Device,
        Guarded,
        TIMER_WORK, //
    },
    machine::{
        Action,
        Machine,
        Ticket, //
    },
    quiesce::Quiesced,
    state::{
        Error,
        Reason,
        State, //
    },
    sys::{
        memory::NoIo,
        module::ModuleRef,
        rcu::GracePeriod, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    },
    time::msecs_to_jiffies, //
};

/// How long somebody sleeps who waits for others only.
const LONG_US: u64 = 1_000_000;

/// What others may wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown {
    state: (State, Reason),
    generation: u64,
    is_quiesced: bool,
}

impl Shown {
    fn of(machine: &Machine) -> Self {
        Self {
            state: machine.state(),
            generation: machine.generation(),
            is_quiesced: machine.is_quiesced(),
        }
    }
}

/// Somebody is in the machine. When this is dropped, whoever waits is woken, and the timer armed.
pub(crate) struct Entered<'a> {
    device: &'a Arc<Device>,
    pub(crate) guarded: MutexGuard<'a, Guarded>,
    before: Shown,
    _no_io: NoIo,
}

impl<'a> Entered<'a> {
    /// With the lock of the machine held.
    fn new(device: &'a Arc<Device>, mut guarded: MutexGuard<'a, Guarded>) -> Self {
        let known = device.status.lock().field.known();
        let before = Shown::of(&guarded.machine);
        guarded.machine.sync(known);
        Self {
            device,
            guarded,
            before,
            _no_io: NoIo::enter(),
        }
    }

    /// Carries out what is to be done now.
    pub(crate) fn run(self) -> Self {
        let mut done = self.run_until_settling();
        loop {
            match done {
                Ok(entered) => return entered,
                Err(settling) => done = settling.wait().run_until_settling(),
            }
        }
    }

    /// The same, but does not wait for those who may just be giving the device a request.
    pub(crate) fn run_until_settling(mut self) -> Result<Self, Settling<'a>> {
        loop {
            let (device, guarded) = (self.device, &mut *self.guarded);
            let known = device.status.lock().field.known();
            guarded.machine.sync(known);
            let Some(action) = guarded.machine.next(device.now()) else {
                return Ok(self);
            };
            if let Action::AnnounceStop(generation) = action {
                drop(self);
                device.announce(Some(State::Stopping));
                self = device.enter();
                let machine = &mut self.guarded.machine;
                machine.announced(device.now(), generation);
            } else if let Action::Settle(generation) = action {
                let dispatched = guarded.quiesced.as_ref().and_then(Quiesced::dispatched);
                return Err(Settling {
                    device,
                    generation,
                    dispatched,
                });
            } else {
                device.carry_out(guarded, action);
            }
        }
    }

    /// Waits for the answer to a request, and does what is to be done for it.
    pub(crate) fn wait_for(mut self, ask: Option<Ticket>) -> Result<(), Error> {
        let Some(ticket) = ask else {
            return Ok(());
        };
        loop {
            self = self.run();
            if let Some(answer) = self.guarded.machine.take_answer(ticket) {
                return answer;
            }
            let killed;
            (self, killed) = self.wait(true);
            if killed {
                let now = self.device.now();
                self.guarded.machine.killed(now, ticket);
            }
        }
    }

    /// Leaves the machine, and enters it again when that is due, or something has happened. Returns
    /// whether the task was killed.
    pub(crate) fn wait(self, killable: bool) -> (Self, bool) {
        let device = self.device;
        let now = device.now();
        let until = self.guarded.machine.deadline();
        let us = until.map_or(LONG_US, |until| until.saturating_sub(now));
        let seen = device.waiters.seen();
        // Before the lock is given back: whoever changes something later wakes us.
        drop(self);
        let killed = device.waiters.wait(seen, us, killable);
        (device.enter(), killed)
    }
}

/// The driver above is quiesced, and may just be giving the device a request. Devices that come to
/// this one after the other have one wait in common.
#[must_use = "the stop goes on after the wait"]
pub(crate) struct Settling<'a> {
    device: &'a Arc<Device>,
    generation: u64,
    dispatched: Option<GracePeriod>,
}

impl<'a> Settling<'a> {
    /// Waits until it is over.
    pub(crate) fn wait(self) -> Entered<'a> {
        if let Some(dispatched) = &self.dispatched {
            dispatched.wait();
        }
        let mut entered = self.device.enter();
        let (now, guarded) = (self.device.now(), &mut *entered.guarded);
        let quiesced = guarded.quiesced.as_ref();
        if quiesced.is_none_or(Quiesced::is_settled) {
            let notify = self.dispatched.is_some();
            guarded.machine.settled(now, self.generation, notify);
        } else {
            guarded.machine.disturbed(now, self.generation);
        }
        entered
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let (device, guarded) = (self.device, &mut *self.guarded);
        let after = Shown::of(&guarded.machine);
        if after != self.before {
            device.has_changed(self.before.state, after.state);
        }
        if guarded.detached {
            return;
        }
        if !guarded.machine.is_busy() {
            guarded.module = None;
        } else if guarded.module.is_none() {
            guarded.module = ModuleRef::get(device.environment.module);
        }
        let timers = &device.environment.timers;
        if let Some(at) = guarded.machine.deadline() {
            // If it goes off earlier, it finds nothing to do, and is armed anew.
            if guarded.armed.is_none_or(|armed| armed > at) {
                guarded.armed = Some(at);
                let ms = at.saturating_sub(device.now()).div_ceil(1000);
                let delay = msecs_to_jiffies(u32::try_from(ms).unwrap_or(u32::MAX));
                timers.enqueue::<_, TIMER_WORK>((*device).clone(), delay);
            }
        }
        // A reset may just have ended that was to be told of at once, and not at that time.
        if !guarded
            .machine
            .is_synced(device.status.lock().field.known())
        {
            timers.enqueue::<_, TIMER_WORK>((*device).clone(), 0);
        }
    }
}

impl Device {
    /// Enters the machine.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered<'_> {
        Entered::new(self, self.machine.lock())
    }

    /// Something has happened that the machine is to be told of, by whoever can't enter it.
    pub(crate) fn kick(self: &Arc<Self>) {
        self.waiters.wake();
        let timers = &self.environment.timers;
        timers.enqueue::<_, TIMER_WORK>(self.clone(), 0);
    }

    fn has_changed(&self, before: (State, Reason), after: (State, Reason)) {
        self.wake();
        let (state, reason) = after;
        let unexpected = matches!(
            reason,
            Reason::Gone
                | Reason::NeedsReset
                | Reason::StopTimeout
                | Reason::StopUnanswered
                | Reason::ResumeUnanswered
                | Reason::StopDropped
                | Reason::LeaseExpired
        );
        if unexpected && before != after && state != State::Resuming {
            dev_warn!(
                self.transport().device().as_device(),
                "{} ({})\n",
                state.name(),
                reason.name()
            );
        }
    }
}
