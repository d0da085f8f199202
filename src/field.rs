// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The status field of one device, which this module shares with the kernel's virtio core.
//!
//! Core reads it and writes it back in two steps, without a lock, and resets the device when it likes.
//! None of that may undo a stop, or invent one, or bring a device that was reset back to life; and
//! what a device shows after a reset is no answer to what it was asked before. So whoever waits for
//! the device names the *epoch* that its wait began in, which every reset ends; and what core writes
//! is brought up to date first.
//!
//! Pure: the caller serialises, and gives access to the register.

use super::handshake::Cut;
use super::state::Reason;
use super::status::{
    Protocol,
    Status, //
};

/// The register that holds the status field of one device.
pub trait Register {
    /// Reads it.
    fn read(&self) -> Status;
    /// Writes it. Never 0: that would be a reset.
    fn write(&self, status: Status);
}

/// What is known of the status field of one device.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    negotiated: Result<Protocol, Reason>,
    /// The driver wants the device to be stopped: it has written so.
    stop_wanted: bool,
    epoch: u64,
    /// A reset is under way: the register must not be written.
    resetting: bool,
}

impl Default for Field {
    fn default() -> Self {
        Self::new()
    }
}

impl Field {
    /// Of a device without a driver.
    pub const fn new() -> Self {
        Self {
            negotiated: Err(Reason::NoDriver),
            stop_wanted: false,
            epoch: 0,
            resetting: false,
        }
    }

    /// What was negotiated since the last reset.
    ///
    /// # Errors
    ///
    /// Why nothing was.
    pub const fn negotiated(&self) -> Result<Protocol, Reason> {
        self.negotiated
    }

    /// This was negotiated, or nothing, and why.
    pub fn negotiate(&mut self, negotiated: Result<Protocol, Reason>) {
        self.negotiated = negotiated;
    }

    /// Counts resets.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether `epoch` lasts.
    ///
    /// # Errors
    ///
    /// [`Cut::Reset`] if it does not.
    pub fn lasts(&self, epoch: u64) -> Result<(), Cut> {
        if self.epoch == epoch && !self.resetting {
            Ok(())
        } else {
            Err(Cut::Reset)
        }
    }

    /// Reads the status for somebody who has waited since `epoch`.
    ///
    /// # Errors
    ///
    /// [`Cut::Reset`] if the device was reset since.
    pub fn read(&self, register: &impl Register, epoch: u64) -> Result<Status, Cut> {
        self.lasts(epoch)?;
        Ok(register.read())
    }

    /// Reads the status, and writes what `change` makes of it; nothing if it makes nothing of it, or if
    /// it asks again for a resume that can't be asked for twice.
    /// `stop_wanted`: what the driver wants from then on. Returns what was read.
    ///
    /// # Errors
    ///
    /// [`Cut::Reset`] if the device was reset since `epoch`.
    pub fn update(
        &mut self,
        register: &impl Register,
        epoch: u64,
        stop_wanted: bool,
        change: impl FnOnce(Status) -> Option<Status>,
    ) -> Result<Status, Cut> {
        let before = self.read(register, epoch)?;
        // Under VIRTIO_F_SUSPEND what asks for a resume has SUSPEND set: written again, when the device has
        // just resumed, it would ask for another stop.
        let resumes = self.negotiated == Ok(Protocol::Suspend) && !stop_wanted && !self.stop_wanted;
        if let Some(status) = change(before).filter(|_| !resumes) {
            self.stop_wanted = stop_wanted;
            register.write(status);
        }
        Ok(before)
    }

    /// Writes what core wants to write, brought up to date. Returns what was written.
    pub fn write_for_core(&self, register: &impl Register, status: Status) -> Status {
        let status = match self.negotiated {
            Ok(protocol) => status.merged(register.read(), protocol, self.stop_wanted),
            Err(_) => status,
        };
        register.write(status);
        status
    }

    /// A reset begins: nobody who waits for the device will get an answer, and it has to negotiate anew.
    pub fn reset_begins(&mut self) {
        self.epoch += 1;
        self.resetting = true;
        self.stop_wanted = false;
        self.negotiated = Err(Reason::Reset);
    }

    /// The reset is over.
    pub fn reset_ends(&mut self) {
        self.resetting = false;
    }
}
