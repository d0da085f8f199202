// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! A device that may do whatever a device can do, and that notes what a driver must not.

use super::super::module::field::Register;
use super::super::module::status::{
    Protocol,
    Status, //
};
use std::cell::RefCell;

pub const READY: u8 = 1 | 2 | 4 | 8;

/// What the device was asked for and has not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pending {
    Nothing,
    Stop,
    /// To stop, which was called off (VIRTIO_F_DEVICE_STOP): it may do so all the same.
    CalledOff,
    Resume,
    /// To resume, which it took for another request to suspend: it stays as it is.
    SuspendAgain,
}

/// When it does what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speed {
    /// At any time.
    Any,
    /// Before its status is read next, if not earlier.
    AtOnce,
    /// Between a read and the write that is based on it, if not earlier.
    InBetween,
}

/// What reads of its status show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shows {
    /// The status.
    Status,
    /// Ones, for a moment.
    Ones,
    /// A value that can't be an answer.
    Garbage,
    /// Under VIRTIO_F_SUSPEND, while it resumes: SUSPEND and DRIVER_OK.
    Both,
    /// Ones, and the bus does not know it any more.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    pub protocol: Protocol,
    pub speed: Speed,
    /// Under VIRTIO_F_SUSPEND, it resumes only when SUSPEND is cleared.
    pub wants_cleared: bool,
    pub status: u8,
    pub pending: Pending,
    pub shows: Shows,
    pub resetting: bool,
    /// It has resumed, and was not notified since: it may have missed what the driver notified it
    /// of.
    pub missed: bool,
    /// It has not stood still since somebody has looked.
    pub moved: bool,
    pub breach: Option<&'static str>,
}

impl Device {
    pub fn new(protocol: Protocol, speed: Speed) -> Self {
        Self {
            protocol,
            speed,
            wants_cleared: false,
            status: READY,
            pending: Pending::Nothing,
            shows: Shows::Status,
            resetting: false,
            missed: false,
            moved: true,
            breach: None,
        }
    }

    const fn own(&self) -> u8 {
        match self.protocol {
            Protocol::DeviceStop => Status::DEVICE_STOPPED,
            Protocol::Suspend => Status::SUSPEND,
        }
    }

    pub const fn has_stopped(&self) -> bool {
        self.status & self.own() != 0
    }

    /// Whether it will stop, or may.
    pub fn may_stop(&self) -> bool {
        matches!(self.pending, Pending::Stop | Pending::CalledOff)
    }

    pub fn breaches(&mut self, what: &'static str) {
        self.breach.get_or_insert(what);
    }

    /// Does what it was asked for.
    pub fn acts(&mut self) {
        match self.pending {
            Pending::Nothing | Pending::SuspendAgain => return,
            Pending::Stop | Pending::CalledOff => {
                self.status |= self.own();
                if self.protocol == Protocol::Suspend {
                    self.status &= !Status::DRIVER_OK;
                }
            }
            Pending::Resume => self.runs(),
        }
        self.pending = Pending::Nothing;
    }

    /// Ends a stop.
    pub fn runs(&mut self) {
        self.status = self.status & !self.own() | Status::DRIVER_OK;
        self.pending = Pending::Nothing;
        self.missed = true;
        self.moved = true;
    }

    pub fn reset(&mut self) {
        self.status = 0;
        self.pending = Pending::Nothing;
        self.missed = false;
        self.moved = true;
    }

    pub fn is_notified(&mut self) {
        let touched = self.has_stopped() || self.pending != Pending::Nothing;
        if self.protocol == Protocol::Suspend && touched && self.shows != Shows::Nothing {
            self.breaches("notified while it is suspended, or about to be");
        }
        if !self.has_stopped() {
            self.missed = false;
        }
    }

    fn read(&mut self) -> u8 {
        if self.speed == Speed::AtOnce && self.pending != Pending::CalledOff {
            self.acts();
        }
        match self.shows {
            Shows::Status => self.status,
            Shows::Ones | Shows::Nothing => 0xff,
            Shows::Garbage => 0x25,
            Shows::Both if self.pending == Pending::Resume => self.status | Status::DRIVER_OK,
            Shows::Both => self.status,
        }
    }

    fn write(&mut self, new: u8) {
        if self.speed == Speed::InBetween {
            self.acts();
        }
        let old = self.status;
        let own = self.own();
        if self.resetting {
            self.breaches("written while core waits for 0");
        }
        if new == 0 {
            self.breaches("0 written, which is a reset");
        }
        // DRIVER_OK of a device that suspends is the device's.
        let kept = match self.protocol {
            Protocol::DeviceStop => !own,
            Protocol::Suspend if self.pending == Pending::Stop => !own & !Status::DRIVER_OK,
            // Some devices want SUSPEND cleared, after they were asked as the text has it.
            Protocol::Suspend
                if matches!(self.pending, Pending::Resume | Pending::SuspendAgain)
                    && new & Status::DRIVER_OK != 0 =>
            {
                !own
            }
            Protocol::Suspend => 0xff,
        };
        if old & !new & kept != 0 {
            self.breaches("a bit cleared");
        }
        let ready = old & Status::DRIVER_OK != 0;
        match self.protocol {
            Protocol::DeviceStop => {
                let asked = self.has_stopped() || self.pending == Pending::Stop;
                if asked != (new & own != 0) {
                    if !ready {
                        self.breaches("the bit changed before DRIVER_OK");
                    }
                    self.pending = match (asked, self.has_stopped()) {
                        (false, _) => Pending::Stop,
                        (true, true) => Pending::Resume,
                        (true, false) => Pending::CalledOff,
                    };
                } else if asked && self.pending == Pending::Resume {
                    self.breaches("a stop asked for while it resumes");
                }
                self.status = new & !own | old & own;
            }
            Protocol::Suspend => {
                if self.has_stopped() {
                    if new & Status::DRIVER_OK != 0 {
                        self.pending = if self.wants_cleared && new & own != 0 {
                            Pending::SuspendAgain
                        } else {
                            Pending::Resume
                        };
                    }
                } else if new & own != 0 && ready {
                    self.pending = Pending::Stop;
                } else if new & own != 0 {
                    self.breaches("SUSPEND set before DRIVER_OK");
                }
                let theirs = own | Status::DRIVER_OK;
                self.status = if self.has_stopped() || self.pending == Pending::Stop {
                    new & !theirs | old & theirs
                } else {
                    new & !own
                };
            }
        }
    }
}

/// Its register, for as long as somebody accesses it.
pub struct Window<'a>(RefCell<&'a mut Device>);

impl<'a> Window<'a> {
    pub fn of(device: &'a mut Device) -> Self {
        Self(RefCell::new(device))
    }
}

impl Register for Window<'_> {
    fn read(&self) -> Status {
        Status(self.0.borrow_mut().read())
    }

    fn write(&self, status: Status) {
        self.0.borrow_mut().write(status.0);
    }
}
