// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What the world does to a device: drivers come and go, it is reset, and it is removed.

use super::super::field::Known;
use super::super::state::{
    Error,
    Reason, //
};
use super::action::Effects;
use super::phase::{
    Driver,
    Handshake,
    Leaver,
    Lost,
    Phase,
    Resumer, //
};
use super::Machine;

impl Machine {
    /// What is known of the status field now. To be told before anything else, whenever the machine
    /// is entered: the virtio core resets devices without asking.
    pub fn sync(&mut self, known: Known) {
        if known == self.known {
            return;
        }
        self.noticing(|machine| {
            let was_reset = known.epoch != machine.known.epoch;
            machine.known = known;
            if was_reset {
                machine.was_reset();
            }
        });
    }

    /// Whether that has happened.
    pub fn is_synced(&self, known: Known) -> bool {
        self.known == known
    }

    fn was_reset(&mut self) {
        self.end(Error::Gone);
        self.lost = None;
        // What was asked for before is not answered any more.
        self.handshake = Handshake::Idle;
        self.nonsense = None;
        // What was to be done was meant for virtqueues that are gone.
        self.effects = Effects {
            unquiesce: self.effects.unquiesce,
            ..Effects::NONE
        };
        self.rest(Reason::None);
    }

    /// Nothing can be expected of the device any more.
    pub(super) fn lose(&mut self, lost: Lost) {
        self.end(match lost {
            Lost::NeedsReset => Error::NeedsReset,
            Lost::Reset | Lost::Gone => Error::Gone,
        });
        self.lost = Some(lost);
        self.handshake = Handshake::Idle;
        self.nonsense = None;
        // Who is let go gets errors, instead of waiting for ever.
        self.effects.break_virtqueues = self.is_held() && lost != Lost::Reset;
        self.rest(Reason::None);
    }

    /// What people want of the device ends, by no act of theirs.
    fn end(&mut self, error: Error) {
        match self.phase {
            Phase::Quiescing { by, .. } | Phase::Stopping { by, .. } => {
                self.answer(by, Err(error));
                self.stats.failures += 1;
            }
            Phase::Resuming { by, .. } => {
                if let Resumer::Asker(by) = by {
                    self.answer(by, Err(error));
                }
                self.stats.failures += 1;
            }
            Phase::Stopped { .. } => self.lapses(),
            _ => {}
        }
    }

    /// Somebody is about to have the device reset, and its driver survive that.
    ///
    /// # Errors
    ///
    /// Somebody else is, or something is wanted of the device.
    pub fn refuse_stops(&mut self) -> Result<(), Error> {
        if self.refuses_stops || !self.has_left() {
            return Err(Error::Busy);
        }
        self.refuses_stops = true;
        Ok(())
    }

    /// That is over.
    pub fn allow_stops(&mut self) {
        self.refuses_stops = false;
    }

    /// Whether the driver, the device or this module is about to go.
    pub fn is_leaving(&self) -> bool {
        matches!(self.driver, Driver::Unbinding | Driver::Removed)
    }

    /// A driver is about to be bound.
    pub fn binding(&mut self) {
        self.noticing(|machine| {
            if machine.driver == Driver::Unbinding {
                machine.driver = Driver::None;
            }
        });
    }

    /// A driver was bound.
    pub fn bound(&mut self) {
        self.noticing(|machine| {
            if machine.driver != Driver::Removed {
                machine.driver = Driver::Bound;
            }
        });
    }

    /// The driver was unbound, or could not be bound: it has reset the device.
    pub fn unbound(&mut self) {
        self.noticing(|machine| {
            if machine.driver != Driver::Removed {
                machine.driver = Driver::None;
            }
            machine.handshake = Handshake::Idle;
            machine.lost = None;
            machine.nonsense = None;
        });
    }

    /// Somebody is about to go: whoever waits is told, and the device is resumed if it can be. That
    /// is over when [`Machine::has_left`].
    pub fn leaves(&mut self, now: u64, who: Leaver) {
        self.noticing(|machine| {
            machine.driver = match who {
                Leaver::Driver if machine.driver != Driver::Removed => Driver::Unbinding,
                _ => Driver::Removed,
            }
        });
        match self.phase {
            Phase::Resuming {
                by: Resumer::Leaver,
                ..
            }
            | Phase::Rest(_) => return,
            Phase::Resuming {
                by: Resumer::Asker(by),
                ..
            } => self.answer(by, Err(Error::Gone)),
            Phase::Stopped { .. } => self.lapses(),
            _ => {}
        }
        self.call_off(now, Error::Gone);
        if self.is_held() {
            let timeout_us = self.settings.timeout_us.min(self.limits.leave);
            self.resume(now, Resumer::Leaver, timeout_us);
        } else if !matches!(self.phase, Phase::Rest(_)) {
            self.rest(Reason::None);
        }
    }
}
