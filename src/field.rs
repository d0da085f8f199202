// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The status field of one device, which this module shares with the kernel's virtio core.
//!
//! Core reads it and writes it back in two steps, without a lock, and resets the device when it
//! likes. None of that may undo a stop, or invent one, or bring a device that was reset back to
//! life; and what a device shows after a reset is no answer to what it was asked before. So resets
//! are counted in *epochs*, and whoever asks the device for something names the one that it means;
//! and what core writes is brought up to date first.
//!
//! Pure: the caller serialises, and gives access to the register.

use super::state::Reason;
use super::status::{
    Access,
    Protocol,
    Seen,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    known: Known,
    wanted: Wanted,
    /// A reset is under way: the register must not be written.
    resetting: bool,
}

/// Whether the driver wants the device to be stopped: it has written so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    No,
    Yes,
    /// And the device has shown that it has stopped. If it shows that it runs then, it has ended
    /// the stop by itself.
    Acknowledged,
    /// Not any more: it has asked the device to resume.
    Resuming,
}

/// What the machine has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// Counts resets.
    pub epoch: u64,
    /// What was negotiated since the last reset, or why nothing was.
    pub negotiated: Result<Protocol, Reason>,
    /// DRIVER_OK was written since.
    pub is_driver_ok: bool,
}

/// The device was reset: what it shows is no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WasReset;

/// What an access has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was read.
    pub seen: Seen,
    /// Whether something was written then.
    pub written: bool,
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
            known: Known {
                epoch: 0,
                negotiated: Err(Reason::NoDriver),
                is_driver_ok: false,
            },
            wanted: Wanted::No,
            resetting: false,
        }
    }

    /// What is known.
    pub const fn known(&self) -> Known {
        self.known
    }

    /// This was negotiated, or nothing, and why.
    pub fn negotiate(&mut self, negotiated: Result<Protocol, Reason>) {
        self.known.negotiated = negotiated;
    }

    /// The driver was ready before anybody looked.
    pub fn found_ready(&mut self) {
        self.known.is_driver_ok = true;
    }

    /// Whether the device was not reset since `epoch` began, and can be asked.
    pub const fn lasts(&self, epoch: u64) -> bool {
        self.known.epoch == epoch && !self.resetting
    }

    /// Reads the status, and writes what `access` is about where the protocol allows it.
    ///
    /// # Errors
    ///
    /// The device was reset since `epoch`, or nothing is negotiated.
    pub fn access(
        &mut self,
        register: &impl Register,
        epoch: u64,
        access: Access,
    ) -> Result<Answer, WasReset> {
        let (true, Ok(protocol)) = (self.lasts(epoch), self.known.negotiated) else {
            return Err(WasReset);
        };
        let status = self.read(register, protocol);
        let write = status.written(access, protocol);
        let has_stopped = status.shows_stopped(protocol);
        if let Some(status) = write {
            self.wanted = match access {
                Access::Stop => Wanted::Yes,
                Access::CallOff if !has_stopped => Wanted::No,
                Access::Read | Access::CallOff | Access::Resume | Access::ResumeByClearing => {
                    Wanted::Resuming
                }
            };
            register.write(status);
        }
        Ok(Answer {
            seen: status.seen(protocol),
            written: write.is_some(),
        })
    }

    fn read(&mut self, register: &impl Register, protocol: Protocol) -> Status {
        let status = register.read();
        self.wanted = match self.wanted {
            Wanted::Yes if status.shows_stopped(protocol) => Wanted::Acknowledged,
            Wanted::Acknowledged | Wanted::Resuming if status.shows_running(protocol) => Wanted::No,
            wanted => wanted,
        };
        status
    }

    /// Writes what core wants to write, brought up to date. Returns whether the driver has become
    /// ready.
    pub fn write_for_core(&mut self, register: &impl Register, status: Status) -> bool {
        let (status, write) = match self.known.negotiated {
            Ok(protocol) => {
                let current = self.read(register, protocol);
                let wanted = match self.wanted {
                    Wanted::Yes | Wanted::Acknowledged => Some(true),
                    Wanted::Resuming => Some(false),
                    Wanted::No => None,
                };
                let merged = status.merged(current, protocol, wanted);
                (merged.unwrap_or(current), merged.is_some())
            }
            Err(_) => (status, true),
        };
        if write {
            register.write(status);
        }
        let becomes_ready = status.is_driver_ok() && !self.known.is_driver_ok;
        self.known.is_driver_ok |= status.is_driver_ok();
        becomes_ready
    }

    /// A reset begins: nobody who waits for the device will get an answer, and it has to negotiate
    /// anew.
    pub fn reset_begins(&mut self) {
        self.known = Known {
            epoch: self.known.epoch + 1,
            negotiated: Err(Reason::Reset),
            is_driver_ok: false,
        };
        self.resetting = true;
        self.wanted = Wanted::No;
    }

    /// The same, for the model checker: only whether an epoch is another one's makes a difference.
    #[cfg(not(CONFIG_RUST))]
    #[must_use]
    pub fn in_epoch(mut self, epoch: u64) -> Self {
        self.known.epoch = epoch;
        self
    }

    /// The reset is over.
    pub fn reset_ends(&mut self) {
        self.resetting = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];
    const READY: u8 = 15;

    /// It shows what was written last, until something else is said.
    struct Device {
        shows: Cell<u8>,
        writes: Cell<u32>,
    }

    impl Register for Device {
        fn read(&self) -> Status {
            Status(self.shows.get())
        }

        fn write(&self, status: Status) {
            self.shows.set(status.0);
            self.writes.set(self.writes.get() + 1);
        }
    }

    impl Device {
        fn shows(&self, status: u8) {
            self.shows.set(status);
        }
    }

    fn ready(protocol: Protocol) -> (Field, Device) {
        let mut field = Field::new();
        field.negotiate(Ok(protocol));
        field.found_ready();
        let device = Device {
            shows: Cell::new(READY),
            writes: Cell::new(0),
        };
        (field, device)
    }

    /// The status of a device that has stopped.
    const fn stopped(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::DeviceStop => READY | 32,
            Protocol::Suspend => READY & !4 | 16,
        }
    }

    #[test]
    fn a_device_that_was_reset_is_not_accessed_for_what_was_asked_before() {
        for protocol in BOTH {
            let (mut field, device) = ready(protocol);
            let epoch = field.known().epoch;
            assert!(field.lasts(epoch));
            field.reset_begins();
            let next = field.known().epoch;
            assert!(!field.lasts(epoch) && !field.lasts(next), "it is under way");
            field.negotiate(Ok(protocol));
            assert_eq!(field.access(&device, next, Access::Stop), Err(WasReset));
            field.reset_ends();
            assert!(!field.lasts(epoch) && field.lasts(next));
            let other = field.in_epoch(next + 7).known();
            let known = field.known();
            assert_eq!((other.epoch, known.epoch), (next + 7, next));
            assert_eq!(other.negotiated, known.negotiated);
            assert_eq!(field.access(&device, epoch, Access::Stop), Err(WasReset));
            assert_eq!(device.writes.get(), 0);
            let answer = Ok(Answer {
                seen: Seen::Running,
                written: true,
            });
            assert_eq!(field.access(&device, next, Access::Stop), answer);
            assert_eq!(device.writes.get(), 1);
        }
    }

    #[test]
    fn a_device_with_which_nothing_is_negotiated_is_not_asked_for_anything() {
        let (mut field, device) = ready(Protocol::Suspend);
        field.negotiate(Err(Reason::Disabled));
        assert_eq!(field.access(&device, 0, Access::Stop), Err(WasReset));
        assert_eq!(device.writes.get(), 0);
        // What core writes is not this module's to change.
        field.write_for_core(&device, Status(1));
        assert_eq!(device.shows.get(), 1);
    }

    #[test]
    fn a_driver_becomes_ready_once_a_reset() {
        for negotiated in [Err(Reason::NotOffered), Ok(Protocol::Suspend)] {
            let mut field = Field::default();
            let device = Device {
                shows: Cell::new(0),
                writes: Cell::new(0),
            };
            for _ in 0..2 {
                field.negotiate(negotiated);
                assert!(!field.write_for_core(&device, Status(READY & !4)));
                assert!(!field.known().is_driver_ok);
                assert!(field.write_for_core(&device, Status(READY)));
                assert!(field.known().is_driver_ok);
                assert!(!field.write_for_core(&device, Status(READY | 128)));
                assert!(!field.write_for_core(&device, Status(READY & !4 | 128)));
                assert!(field.known().is_driver_ok, "until a reset");
                field.reset_begins();
                field.reset_ends();
                assert!(!field.known().is_driver_ok);
                assert_eq!(field.known().negotiated, Err(Reason::Reset));
                device.shows(0);
            }
        }
    }

    /// What core writes in between, FAILED on top of a value that it has read at that time.
    fn core_writes(field: &mut Field, device: &Device, read: u8) -> u8 {
        field.write_for_core(device, Status(read | 128));
        device.shows.get() & !128
    }

    #[test]
    fn what_core_writes_keeps_a_stop_that_is_wanted() {
        for protocol in BOTH {
            for acknowledged in [false, true] {
                let (mut field, device) = ready(protocol);
                field.access(&device, 0, Access::Stop).unwrap();
                let asked = device.shows.get();
                if acknowledged {
                    device.shows(stopped(protocol));
                    field.access(&device, 0, Access::Read).unwrap();
                } else {
                    device.shows(READY);
                    field.access(&device, 0, Access::Read).unwrap();
                }
                let written = core_writes(&mut field, &device, READY);
                let expected = match protocol {
                    Protocol::DeviceStop => asked,
                    Protocol::Suspend => asked & !4,
                };
                assert_eq!(written, expected, "{protocol:?} {acknowledged}");
            }
        }
    }

    #[test]
    fn what_core_writes_after_a_device_has_ended_its_stop_asks_for_none() {
        for protocol in BOTH {
            let (mut field, device) = ready(protocol);
            field.access(&device, 0, Access::Stop).unwrap();
            device.shows(stopped(protocol));
            field.access(&device, 0, Access::Read).unwrap();
            device.shows(READY);
            field.access(&device, 0, Access::Read).unwrap();
            assert_eq!(core_writes(&mut field, &device, READY), READY);
        }
    }

    #[test]
    fn what_core_writes_while_a_device_resumes_keeps_that() {
        let (mut field, device) = ready(Protocol::DeviceStop);
        for access in [Access::Resume, Access::CallOff] {
            field.access(&device, 0, Access::Stop).unwrap();
            device.shows(READY | 32);
            field.access(&device, 0, access).unwrap();
            // It has not followed yet; core has read what it shows.
            device.shows(READY | 32);
            assert_eq!(core_writes(&mut field, &device, READY | 32), READY);
            device.shows(READY);
            field.access(&device, 0, Access::Read).unwrap();
        }
        // Resumed: a stop that it shows now is another one, and not core's to end.
        device.shows(READY | 32);
        assert_eq!(core_writes(&mut field, &device, READY), READY | 32);
    }

    #[test]
    fn a_stop_that_comes_after_it_was_called_off_is_not_core_s_to_end() {
        let (mut field, device) = ready(Protocol::DeviceStop);
        field.access(&device, 0, Access::Stop).unwrap();
        device.shows(READY);
        field.access(&device, 0, Access::CallOff).unwrap();
        device.shows(READY | 32);
        assert_eq!(core_writes(&mut field, &device, READY), READY | 32);
    }

    #[test]
    fn what_adds_nothing_is_not_written() {
        for protocol in BOTH {
            let (mut field, device) = ready(protocol);
            field.write_for_core(&device, Status(READY));
            assert_eq!(device.writes.get(), 0);
        }
    }
}
