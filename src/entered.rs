// SPDX-License-Identifier: GPL-2.0-only

//! Being in a device's machine: what it says is carried out here, and the timer is armed here.

use crate::{
    device::{
        Device,
        Guarded,
        ANNOUNCE_WORK,
        RELEASE_WORK,
        TIMER_WORK, //
    },
    machine::{
        Action,
        Attempt,
        Machine,
        Ticket, //
    },
    negotiate::VIRTIO_F_NOTIFICATION_DATA,
    policy::Policy,
    quiesce::Quiesced,
    state::{
        Error,
        Reason,
        State, //
    },
    status::{
        Access,
        Seen, //
    },
    sys::{
        memory::NoIo,
        module::ModuleRef,
        shadow::Transport, //
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
    pub(crate) fn run(mut self) -> Self {
        loop {
            let (device, guarded) = (self.device, &mut *self.guarded);
            let known = device.status.lock().field.known();
            guarded.machine.sync(known);
            let Some(action) = guarded.machine.next(device.now()) else {
                return self;
            };
            if let Action::AnnounceStop(generation) = action {
                drop(self);
                device.announce(Some(State::Stopping));
                self = device.enter();
                let machine = &mut self.guarded.machine;
                machine.announced(device.now(), generation);
            } else if let Action::Settle(generation) = action {
                let dispatched = guarded.quiesced.as_ref().and_then(Quiesced::dispatched);
                drop(self);
                if let Some(dispatched) = &dispatched {
                    dispatched.wait();
                }
                self = device.enter();
                let machine = &mut self.guarded.machine;
                machine.settled(device.now(), generation, dispatched.is_some());
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

    fn carry_out(self: &Arc<Self>, guarded: &mut Guarded, action: Action) {
        match action {
            // For whoever can wait without the lock.
            Action::AnnounceStop(_) | Action::Settle(_) => {}
            Action::Quiesce => {
                let attempt = self.quiesce(guarded);
                guarded.machine.quiesced(self.now(), attempt);
            }
            Action::Access(access) => self.access(&mut guarded.machine, access),
            Action::TellStopped => {
                if let Some(quiesced) = &guarded.quiesced {
                    quiesced.device_has_stopped();
                }
            }
            Action::BreakVirtqueues => {
                let may_break = guarded.quiesced.as_ref().is_some_and(Quiesced::may_break);
                self.to_virtqueues(guarded, |transport| {
                    if may_break {
                        transport.device().break_virtqueues();
                    }
                });
            }
            Action::NotifyVirtqueues => self.notify(guarded),
            Action::Unquiesce => {
                let quiesced = guarded.quiesced.take();
                if quiesced.as_ref().is_some_and(Quiesced::waits_to_end) {
                    guarded.to_release = quiesced;
                    self.release_later();
                } else {
                    drop(quiesced);
                    guarded.machine.unquiesced();
                }
            }
            Action::Announce(state) => {
                guarded.to_announce = Some(state);
                let releases = &self.environment.releases;
                releases.enqueue::<_, ANNOUNCE_WORK>(self.clone(), 0);
            }
        }
    }

    fn quiesce(&self, guarded: &mut Guarded) -> Attempt {
        // It may be on its way to be let go, and is taken back.
        if let Some(quiesced) = guarded.to_release.take() {
            guarded.quiesced = Some(quiesced);
            return Attempt::Done;
        }
        if guarded.machine.is_quiesced() {
            return Attempt::NotNow;
        }
        let device = self.transport().device();
        match Quiesced::try_begin(device, Policy::of(device.device_type()).quiesce) {
            Ok(Some(quiesced)) => {
                guarded.quiesced = Some(quiesced);
                Attempt::Done
            }
            Ok(None) => Attempt::NotNow,
            Err(_) => Attempt::NotFound,
        }
    }

    fn access(&self, machine: &mut Machine, access: Access) {
        let answer = {
            let mut status = self.status.lock();
            let epoch = machine.epoch();
            status.field.access(self.transport(), epoch, access)
        };
        let ones = answer.is_ok_and(|answer| answer.seen == Seen::Ones);
        let present = !ones || self.parent().is_present();
        machine.answered(self.now(), answer, present);
    }

    fn notify(&self, guarded: &Guarded) {
        let device = self.transport().device();
        if device.has_feature(VIRTIO_F_NOTIFICATION_DATA) {
            // Then a notification says what was added last: nobody may be adding.
            if let Some(dispatched) = guarded.quiesced.as_ref().and_then(Quiesced::dispatched) {
                dispatched.wait();
            }
        }
        self.to_virtqueues(guarded, Transport::notify_virtqueues);
    }

    /// Unless they are others by now, or about to go.
    fn to_virtqueues(&self, guarded: &Guarded, what: impl FnOnce(&Transport)) {
        // A reset can't begin, and the virtqueues can't go, before the lock is released.
        let status = self.status.lock();
        let epoch = guarded.machine.epoch();
        if status.field.lasts(epoch) && status.field.known().is_driver_ok {
            what(self.transport());
        }
    }

    fn release_later(self: &Arc<Self>) {
        let releases = &self.environment.releases;
        releases.enqueue::<_, RELEASE_WORK>(self.clone(), 0);
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
