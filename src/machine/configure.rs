// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Drivers that write to the configuration space, or reset a virtqueue.
//!
//! Under VIRTIO_F_SUSPEND they must not, from the request for a stop until the device runs again
//! (virtio 1.4, "Device Suspend"). DEVICE_STOP has no such rule.

use super::super::status::Protocol;
use super::phase::{
    Above,
    Handshake,
    Phase, //
};
use super::Machine;

/// Whether a driver may configure its device now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permit {
    /// It may, and says when it has: [`Machine::configured`].
    Granted,
    /// It may when the device runs again.
    NotNow,
    /// It is about to leave a device that does not run: nobody may wait for that.
    Never,
}

impl Machine {
    /// A driver wants to configure its device.
    pub fn configure(&mut self) -> Permit {
        if !self.forbids_configuring() {
            self.configuring += 1;
            return Permit::Granted;
        }
        // Before, it is resumed, within a bounded time.
        if self.is_leaving() && matches!(self.phase, Phase::Rest(_)) {
            Permit::Never
        } else {
            Permit::NotNow
        }
    }

    /// The same for a virtqueue that is to be reset. It is set up again later: whoever does both
    /// has the lock that the driver above is held with, and let go.
    pub fn configure_queue(&mut self) -> Permit {
        if self.above == Above::Working {
            self.configure()
        } else {
            Permit::NotNow
        }
    }

    /// It has.
    pub fn configured(&mut self) {
        self.configuring = self.configuring.saturating_sub(1);
    }

    /// A write to the configuration space was dropped.
    pub fn configuration_dropped(&mut self) {
        self.stats.config_writes_dropped += 1;
    }

    fn forbids_configuring(&self) -> bool {
        let asked = self.handshake != Handshake::Idle;
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        // The driver above was let go then, and does what it likes.
        let given_up = matches!(self.phase, Phase::StopUnanswered { .. }) || self.is_lost();
        let suspends = self.protocol() == Some(Protocol::Suspend);
        suspends && (asked || stopping || self.is_held()) && !given_up
    }
}
