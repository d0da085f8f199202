// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The way to a stop, before the device is asked: user space is told, the driver above is quiesced,
//! and whoever may just be giving the device a request is waited for.

use super::super::state::{
    Error,
    Reason, //
};
use super::super::status::Protocol;
use super::action::Attempt;
use super::phase::{
    Above,
    Phase,
    Quiescing, //
};
use super::Machine;

impl Machine {
    /// The driver above was to be quiesced.
    pub fn quiesced(&mut self, now: u64, attempt: Attempt) {
        if attempt == Attempt::Done {
            self.above = Above::Quiesced;
        }
        let Phase::Quiescing {
            by, since, until, ..
        } = self.phase
        else {
            // Nobody wants it any more.
            return self.unquiesce();
        };
        match attempt {
            Attempt::Done => {
                let settles = self.protocol().is_some_and(Protocol::allows_buffers);
                let step = if settles {
                    Quiescing::Ask
                } else {
                    Quiescing::Settle
                };
                self.phase = Phase::Quiescing {
                    by,
                    since,
                    until,
                    step,
                };
                self.look_at = now;
            }
            Attempt::NotNow => self.look_again(now),
            Attempt::NotFound => {
                self.answer(by, Err(Error::NotSupported));
                self.rest(Reason::NoQuiesce);
            }
        }
    }

    /// User space was told of that stop.
    pub fn announced(&mut self, now: u64, generation: u64) {
        self.proceed(now, generation, Quiescing::Announcing, Quiescing::Quiesce);
    }

    /// Nobody gives the device requests any more, for that stop. `notify`: who was the last one may
    /// have meant to notify the device with the next request.
    pub fn settled(&mut self, now: u64, generation: u64, notify: bool) {
        if self.proceed(now, generation, Quiescing::Settling, Quiescing::Ask) {
            self.effects.notify = notify;
        }
    }

    /// Whoever was about to give the device something did what it must not for a stop to go on: the
    /// driver above is let go, and quiesced once more, for that stop.
    pub fn disturbed(&mut self, now: u64, generation: u64) {
        if self.proceed(now, generation, Quiescing::Settling, Quiescing::Quiesce) {
            self.unquiesce();
            self.look_again(now);
        }
    }

    /// What was done without the lock is done, if that stop is still wanted. Returns whether it is.
    fn proceed(&mut self, now: u64, generation: u64, from: Quiescing, to: Quiescing) -> bool {
        match &mut self.phase {
            Phase::Quiescing { step, .. } if *step == from && generation == self.generation => {
                *step = to;
                self.look_at = now;
                true
            }
            _ => false,
        }
    }
}
