// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The device status field (virtio 1.4, 2.1), and what VIRTIO_F_DEVICE_STOP means by it.
//!
//! Source: RFC "virtio: introduce VIRTIO_F_DEVICE_STOP" (virtio-comment, December 2020). To stop,
//! the driver sets DEVICE_STOPPED and re-reads the field until the device shows the bit; to resume,
//! it clears the bit and reads to make sure. A pending stop reads clear.

/// A value of the device status field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

/// What a value says of a device that is in the hands of a ready driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device, or the driver, has met an error; only a reset helps.
    NeedsReset,
    /// The device was reset by somebody, and whatever it was asked for with it.
    Reset,
    /// The device does not answer: every bit reads as one.
    Gone,
}

impl Status {
    /// The driver is ready, the device may work.
    pub const DRIVER_OK: u8 = 4;
    /// The driver asks for a stop; the device shows that it has stopped.
    pub const DEVICE_STOPPED: u8 = 32;
    /// The device has met an error that it can't recover from.
    pub const NEEDS_RESET: u8 = 64;
    /// Something went wrong in the guest.
    pub const FAILED: u8 = 128;

    /// Whether the device shows that it has stopped. Ask [`Status::fault`] first: a device that is
    /// gone reads as if it had.
    pub const fn shows_stopped(self) -> bool {
        self.0 & Self::DEVICE_STOPPED != 0
    }

    /// Whether DEVICE_STOPPED may be changed (the RFC forbids it without DRIVER_OK).
    pub const fn is_driver_ok(self) -> bool {
        self.0 & Self::DRIVER_OK != 0
    }

    /// What is wrong with a device whose driver is ready, if anything.
    pub const fn fault(self) -> Option<Fault> {
        match self.0 {
            0xff => Some(Fault::Gone),
            0 => Some(Fault::Reset),
            value if value & (Self::NEEDS_RESET | Self::FAILED) != 0 => Some(Fault::NeedsReset),
            _ => None,
        }
    }

    /// What to write to stop the device.
    pub const fn to_stop(self) -> Self {
        Self(self.0 | Self::DEVICE_STOPPED)
    }

    /// What to write to resume the device, or to call a stop off.
    pub const fn to_resume(self) -> Self {
        Self(self.0 & !Self::DEVICE_STOPPED)
    }

    /// What to write when the kernel's virtio core writes `self` over `current`.
    ///
    /// Core reads and writes in two steps, without a lock: what it writes may be old by the time it
    /// does. DEVICE_STOPPED is as `stop_wanted` says; what the device has set since is not cleared.
    pub const fn merged(self, current: Self, stop_wanted: bool) -> Self {
        let others = match current.fault() {
            Some(Fault::Reset | Fault::Gone) => self.0,
            _ => self.0 | current.0,
        };
        if stop_wanted {
            Self(others).to_stop()
        } else {
            Self(others).to_resume()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Status> {
        (0..=255).map(Status)
    }

    #[test]
    fn every_value_has_one_fault_or_none() {
        for status in all() {
            let expected = if status.0 == 0xff {
                Some(Fault::Gone)
            } else if status.0 == 0 {
                Some(Fault::Reset)
            } else if status.0 >= 64 {
                Some(Fault::NeedsReset)
            } else {
                None
            };
            assert_eq!(status.fault(), expected, "{status:?}");
        }
    }

    #[test]
    fn every_value_shows_its_bits() {
        for status in all() {
            assert_eq!(status.shows_stopped(), status.0 / 32 % 2 == 1, "{status:?}");
            assert_eq!(status.is_driver_ok(), status.0 / 4 % 2 == 1, "{status:?}");
        }
    }

    #[test]
    fn stop_and_resume_change_one_bit() {
        for status in all() {
            assert_eq!(status.to_stop().0 & !32, status.0 & !32);
            assert_eq!(status.to_resume().0 & !32, status.0 & !32);
            assert!(status.to_stop().shows_stopped());
            assert!(!status.to_resume().shows_stopped());
        }
    }

    #[test]
    fn a_write_by_core_neither_undoes_nor_invents_a_stop() {
        for written in all() {
            for current in all() {
                for wanted in [false, true] {
                    let merged = written.merged(current, wanted);
                    assert_eq!(merged.shows_stopped(), wanted);
                    assert_eq!(
                        merged.0 & written.0 & !32,
                        written.0 & !32,
                        "what core adds"
                    );
                    if !matches!(current.fault(), Some(Fault::Reset | Fault::Gone)) {
                        assert_eq!(merged.0 & !32, (written.0 | current.0) & !32);
                    } else {
                        assert_eq!(merged.0 & !32, written.0 & !32);
                    }
                }
            }
        }
    }
}
