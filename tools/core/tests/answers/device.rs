// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! A device that does what it is asked for, and shows anything; and what a driver may make of that,
//! by the texts of the two protocols alone.

use core_on_host::field::Register;
use core_on_host::status::{
    Protocol,
    Status, //
};
use std::cell::RefCell;

pub const READY: u8 = 1 | 2 | 4 | 8;

/// What the driver has set before it was ready, and never clears.
const NEGOTIATED: u8 = 1 | 2 | 8;
const DRIVER_OK: u8 = 4;

pub const fn own(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::DeviceStop => 32,
        Protocol::Suspend => 16,
    }
}

/// What a device shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// What it is.
    Truth,
    /// At so many of a hundred looks anything, else what it is.
    Noise(u32),
    /// Anything.
    Anything,
    /// What could be, with one bit changed.
    AlmostRight,
    /// One byte.
    Always(u8),
}

pub struct Device {
    pub protocol: Protocol,
    pub shows: Shows,
    pub random: fastrand::Rng,
    /// What it is.
    pub status: u8,
    /// It is to stop, or to resume, in so many looks.
    pub asked: Option<(bool, u32)>,
    /// How many looks an answer takes at most.
    pub slowness: u32,
    /// So many looks are answered truly before anything else.
    pub honest_looks: u32,
    /// It has shown what it was not, and what tells something.
    pub lied: bool,
    pub seen: u8,
    pub reads: u64,
    /// After so many reads the driver has asked for a stop, and not for its end since.
    pub stop_asked: Option<u64>,
    /// What a driver must not do.
    pub breach: Option<String>,
}

impl Device {
    pub fn new(protocol: Protocol, shows: Shows, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            protocol,
            shows,
            status: READY,
            asked: None,
            slowness: random.u32(..6),
            honest_looks: random.u32(..6),
            lied: false,
            random,
            seen: READY,
            reads: 0,
            stop_asked: None,
            breach: None,
        }
    }

    /// Whether `byte` says that the device has stopped: only then may anybody be told so.
    pub fn says_stopped(&self, byte: u8) -> bool {
        byte & NEGOTIATED == NEGOTIATED
            && byte < 64
            && match self.protocol {
                Protocol::DeviceStop => byte & 32 != 0 && byte & DRIVER_OK != 0,
                Protocol::Suspend => byte & 16 != 0 && byte & DRIVER_OK == 0,
            }
    }

    /// Whether `byte` tells nothing: neither that the device runs, nor that it has stopped, nor
    /// that it has met an error, nor that it was reset.
    pub fn says_nothing(&self, byte: u8) -> bool {
        let needs_reset = byte & NEGOTIATED == NEGOTIATED && byte != 0xff && byte >= 64;
        let runs = byte & READY == READY && byte < 64;
        byte != 0 && !needs_reset && !runs && !self.says_stopped(byte)
    }

    pub fn has_stopped(&self) -> bool {
        self.status & own(self.protocol) != 0
    }

    fn read(&mut self) -> u8 {
        self.acts();
        let is_honest = self.honest_looks > 0;
        self.honest_looks = self.honest_looks.saturating_sub(1);
        let random = &mut self.random;
        let byte = match self.shows {
            _ if is_honest => self.status,
            Shows::Anything => random.u8(..),
            Shows::Noise(of_hundred) if random.u32(..100) < of_hundred => random.u8(..),
            Shows::Truth | Shows::Noise(_) => self.status,
            Shows::AlmostRight => {
                let right = [self.status, READY, READY | 32, NEGOTIATED | 16];
                right[random.usize(..4)] ^ (1 << random.u32(..8))
            }
            Shows::Always(byte) => byte,
        };
        self.lied |= byte != self.status && !self.says_nothing(byte);
        self.seen = byte;
        self.reads += 1;
        byte
    }

    /// Does what it was asked for, when that is due.
    fn acts(&mut self) {
        let own = own(self.protocol);
        match &mut self.asked {
            Some((_, left @ 1..)) => *left -= 1,
            Some((stop, _)) => {
                self.status = match (*stop, self.protocol) {
                    (true, Protocol::DeviceStop) => self.status | own,
                    (true, Protocol::Suspend) => self.status & !DRIVER_OK | own,
                    (false, _) => self.status & !own | DRIVER_OK,
                };
                self.asked = None;
            }
            None => {}
        }
    }

    fn write(&mut self, new: u8) {
        self.judge(new);
        let asks = match self.protocol {
            Protocol::DeviceStop => Some(new & 32 != 0),
            Protocol::Suspend if self.has_stopped() => (new & DRIVER_OK != 0).then_some(false),
            Protocol::Suspend => (new & 16 != 0).then_some(true),
        };
        let in_looks = self.random.u32(..=self.slowness);
        self.asked = match (self.has_stopped(), asks) {
            (stopped, Some(stops)) if stopped != stops => Some((stops, in_looks)),
            // Called off: under VIRTIO_F_SUSPEND nothing does.
            _ if self.protocol == Protocol::Suspend => self.asked,
            _ => None,
        };
    }

    /// One bit of an answer is changed, by which a stop is asked for, or its end.
    fn judge(&mut self, new: u8) {
        let (old, own) = (self.seen, own(self.protocol));
        let is_ready = old & DRIVER_OK != 0;
        let (stops, is_right) = match self.protocol {
            Protocol::DeviceStop => (new & own != 0, is_ready && (new ^ old) & !own == 0),
            Protocol::Suspend if is_ready => (true, old & own == 0 && new == old | own),
            // SUSPEND is the device's to clear; some want it cleared.
            Protocol::Suspend => (false, new | own == old | own | DRIVER_OK && old & own != 0),
        };
        if old & NEGOTIATED != NEGOTIATED || old >= 64 || !is_right {
            let what = format!("{new:#04x} written over {old:#04x}");
            self.breach.get_or_insert(what);
        }
        self.stop_asked = stops.then_some(self.reads);
    }
}

/// Its register, for as long as somebody accesses it.
pub struct Window<'a>(pub RefCell<&'a mut Device>);

impl Register for Window<'_> {
    fn read(&self) -> Status {
        Status(self.0.borrow_mut().read())
    }

    fn write(&self, status: Status) {
        self.0.borrow_mut().write(status.0);
    }
}
