// SPDX-License-Identifier: GPL-2.0-only

//! Carrying out what a device's machine says, by whoever is in it (`entered.rs`).

use crate::{
    device::{
        Device,
        Guarded,
        ANNOUNCE_WORK,
        RELEASE_WORK, //
    },
    machine::{
        Action,
        Attempt,
        Machine, //
    },
    negotiate::VIRTIO_F_NOTIFICATION_DATA,
    quiesce::Quiesced,
    status::{
        Access,
        Seen, //
    },
    sys::transport::Transport, //
};
use core::mem::take;
use kernel::sync::Arc;

impl Device {
    /// With the lock of the machine held. What would wait is for [`crate::entered::Entered::run`].
    pub(crate) fn carry_out(self: &Arc<Self>, guarded: &mut Guarded, action: Action) {
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
                if may_break {
                    self.to_virtqueues(guarded, |transport| transport.device().break_virtqueues());
                }
                if let Some(quiesced) = &mut guarded.quiesced {
                    quiesced.device_is_lost();
                }
            }
            Action::NotifyVirtqueues => {
                self.notify(guarded);
                self.let_go_of_the_rest(guarded);
            }
            Action::Unquiesce => {
                let mut quiesced = guarded.quiesced.take();
                if let Some(quiesced) = quiesced.as_mut().filter(|_| guarded.machine.is_lost()) {
                    quiesced.device_is_lost();
                }
                if let Some(quiesced) = &mut quiesced {
                    quiesced.device_answers(!guarded.machine.is_unanswered());
                }
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

    fn quiesce(self: &Arc<Self>, guarded: &mut Guarded) -> Attempt {
        // It may be on its way to be let go, and is taken back.
        if let Some(quiesced) = guarded.to_release.take() {
            guarded.quiesced = Some(quiesced);
            return Attempt::Done;
        }
        if guarded.machine.is_quiesced() || guarded.unanswered.is_some() {
            self.let_go_of_the_rest(guarded);
            return Attempt::NotNow;
        }
        let device = self.transport().device();
        let Some(protocol) = guarded.machine.protocol() else {
            return Attempt::NotNow;
        };
        match Quiesced::try_begin(device, self.policy().quiesce, protocol) {
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

    fn notify(&self, guarded: &mut Guarded) {
        let device = self.transport().device();
        if device.has_feature(VIRTIO_F_NOTIFICATION_DATA) {
            // Then a notification says what was added last: nobody may be adding.
            if let Some(dispatched) = guarded.quiesced.as_ref().and_then(Quiesced::dispatched) {
                dispatched.wait();
            }
        }
        // Not of a driver that is held, or was: its virtqueues may be broken for that.
        let mends = !guarded.holds_driver() && take(&mut guarded.mends);
        self.to_virtqueues(guarded, |transport| {
            if mends {
                transport.mend_virtqueues();
            } else {
                transport.notify_virtqueues();
            }
        });
    }

    /// The device has answered.
    fn let_go_of_the_rest(self: &Arc<Self>, guarded: &mut Guarded) {
        if let Some(quiesced) = &mut guarded.to_release {
            quiesced.device_answers(true);
        }
        if guarded.unanswered.is_some() {
            self.release_later();
        }
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
}
