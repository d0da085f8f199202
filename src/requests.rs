// SPDX-License-Identifier: GPL-2.0-only

//! What people, and the rest of this module, ask of a device.

use crate::{
    device::Device,
    entered::Entered,
    machine::{
        Asker,
        Leaver,
        Machine, //
    },
    quiesce::Quiesced,
    state::{
        Error,
        Reason,
        State,
        Stats, //
    },
    status::Protocol,
    sys::module::ModuleRef, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// What can be told of a device.
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) reason: Reason,
    pub(crate) generation: u64,
    /// What the device shows can be an answer.
    pub(crate) is_answering: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) stats: Stats,
}

impl Snapshot {
    fn of(machine: &Machine) -> Self {
        let (state, reason) = machine.state();
        Self {
            state,
            reason,
            generation: machine.generation(),
            is_answering: machine.is_answering(),
            protocol: machine.protocol(),
            stats: *machine.stats(),
        }
    }
}

impl Device {
    /// Stops the device. Returns when it has acknowledged that, or has not in time.
    pub(crate) fn stop(self: &Arc<Self>, asker: Asker) -> Result<(), Error> {
        // Nobody would look after a stop that was given up if the module were unloaded meanwhile.
        let _module = ModuleRef::get(self.environment.module).ok_or(Error::Gone)?;
        let mut entered = self.look();
        let asleep = self.environment.asleep.load(Relaxed);
        let ask = entered
            .guarded
            .machine
            .ask_stop(self.now(), asker, asleep)?;
        entered.wait_for(ask)
    }

    /// Resumes the device, or calls a stop off that is being waited for. `generation`: only the
    /// stop that stood then.
    pub(crate) fn resume(
        self: &Arc<Self>,
        asker: Asker,
        generation: Option<u64>,
    ) -> Result<(), Error> {
        let _module = ModuleRef::get(self.environment.module).ok_or(Error::Gone)?;
        let mut entered = match generation {
            Some(_) => self.look(),
            None => self.enter(),
        };
        let machine = &mut entered.guarded.machine;
        let ask = machine.ask_resume(self.now(), asker, generation)?;
        entered.wait_for(ask)
    }

    /// Prolongs the lease of a stop, if it stands, and has since `generation`.
    pub(crate) fn renew(self: &Arc<Self>, generation: u64) -> Result<(), Error> {
        let mut entered = self.look();
        entered.guarded.machine.renew(self.now(), generation)
    }

    /// Enters the machine, and looks whether a stop still stands.
    pub(crate) fn look(self: &Arc<Self>) -> Entered<'_> {
        let mut entered = self.enter();
        entered.guarded.machine.look(self.now());
        entered.run()
    }

    /// The device is told to resume, since [`Self::leave`] follows. Not waiting: neither for the
    /// device, nor to let the driver above go, for which somebody may wait who waits for another
    /// device.
    pub(crate) fn begin_to_leave(self: &Arc<Self>, who: Leaver) {
        let mut entered = self.enter();
        entered.guarded.machine.leaves(self.now(), who);
        drop(entered.run());
    }

    /// The driver, the device or this module is about to go: the device is resumed, or else its
    /// virtqueues are broken, and the driver above is let go.
    pub(crate) fn leave(self: &Arc<Self>, who: Leaver) {
        let mut entered = self.enter();
        entered.guarded.machine.leaves(self.now(), who);
        loop {
            entered = entered.run();
            if let Some(quiesced) = entered.guarded.to_release.take() {
                // Not waiting for the work that would do it.
                drop(entered);
                drop(quiesced);
                entered = self.enter();
                entered.guarded.machine.unquiesced();
                continue;
            }
            if entered.guarded.machine.has_left() {
                break;
            }
            (entered, _) = entered.wait(false);
        }
        let rest = entered.guarded.unanswered.take();
        let machine = &entered.guarded.machine;
        let answers = !machine.is_unanswered() && !machine.is_lost();
        drop(entered);
        match rest {
            // The work that would do it is not waited for.
            Some(rest) if answers => drop(rest),
            Some(rest) => rest.abandon(),
            None => {}
        }
        if who == Leaver::Device {
            // The work may be taken back before it has.
            self.announce(None);
        }
    }

    /// How many requests the driver above has with the device that has stopped. Nothing if it has
    /// not, or if that can't be known. And in which generation that was so.
    pub(crate) fn in_flight(self: &Arc<Self>) -> (Option<u32>, u64) {
        let (generation, dispatched) = {
            let entered = self.look();
            let quiesced = entered.guarded.quiesced.as_ref();
            let dispatched = quiesced.and_then(Quiesced::dispatched);
            (entered.guarded.machine.generation(), dispatched)
        };
        if let Some(dispatched) = dispatched {
            dispatched.wait();
        }
        let entered = self.enter();
        let machine = &entered.guarded.machine;
        let stands = machine.state().0 == State::Stopped && machine.generation() == generation;
        let quiesced = entered.guarded.quiesced.as_ref().filter(|_| stands);
        (quiesced.and_then(Quiesced::in_flight), generation)
    }

    /// What can be told of the device.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Snapshot {
        Snapshot::of(&self.enter().guarded.machine)
    }

    /// What can be told of the device, after a look whether a stop still stands.
    pub(crate) fn snapshot_after_look(self: &Arc<Self>) -> Snapshot {
        Snapshot::of(&self.look().guarded.machine)
    }
}
