// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The device status field (virtio 1.4, 2.1), and what the two protocols mean by it.
//!
//! | | VIRTIO_F_DEVICE_STOP | VIRTIO_F_SUSPEND |
//! |---|---|---|
//! | source | RFC, virtio-comment, December 2020 | virtio 1.4, "Device Suspend" |
//! | to stop, the driver writes | status with 32 | status with 16 |
//! | a pending stop shows | without 32 | with 4, without 16 |
//! | stopped shows | with 32 | with 16, without 4 |
//! | to resume, the driver writes | status without 32 | status with 4, and 16 as it is |
//! | running again shows | without 32 | with 4, without 16 |
//! | a pending stop | can be called off | has to be waited for |

/// By which protocol a device is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// VIRTIO_F_DEVICE_STOP (RFC of 2020).
    DeviceStop,
    /// VIRTIO_F_SUSPEND (virtio 1.4).
    Suspend,
}

impl Protocol {
    /// The word for it in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceStop => "device_stop",
            Self::Suspend => "suspend",
        }
    }

    /// Whether the driver may make buffers available, and notify the device of them, while it is
    /// stopped, or is about to be: they wait (RFC). Under VIRTIO_F_SUSPEND it must not, from its
    /// request on (virtio 1.4, "Device Suspend").
    pub const fn allows_buffers(self) -> bool {
        match self {
            Self::DeviceStop => true,
            Self::Suspend => false,
        }
    }
}

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
    /// The device is suspended (VIRTIO_F_SUSPEND).
    pub const SUSPEND: u8 = 16;
    /// The driver asks for a stop; the device shows that it has stopped (VIRTIO_F_DEVICE_STOP).
    pub const DEVICE_STOPPED: u8 = 32;
    /// The device has met an error that it can't recover from.
    pub const NEEDS_RESET: u8 = 64;
    /// Something went wrong in the guest.
    pub const FAILED: u8 = 128;

    const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// Whether the device shows that it has stopped. Ask [`Status::fault`] first: a device that is
    /// gone reads as if it had.
    pub const fn shows_stopped(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::DeviceStop => self.has(Self::DEVICE_STOPPED),
            Protocol::Suspend => self.has(Self::SUSPEND) && !self.is_driver_ok(),
        }
    }

    /// Whether the device shows that it runs. It does so, too, while a stop is pending.
    pub const fn shows_running(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::DeviceStop => !self.has(Self::DEVICE_STOPPED),
            Protocol::Suspend => self.is_driver_ok() && !self.has(Self::SUSPEND),
        }
    }

    /// Whether the driver is ready, as a stop may be asked for only then.
    pub const fn is_driver_ok(self) -> bool {
        self.has(Self::DRIVER_OK)
    }

    /// Whether the end of a stop may be asked for now.
    pub const fn may_resume(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::DeviceStop => self.is_driver_ok(),
            Protocol::Suspend => self.shows_stopped(protocol),
        }
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
    pub const fn to_stop(self, protocol: Protocol) -> Self {
        match protocol {
            Protocol::DeviceStop => Self(self.0 | Self::DEVICE_STOPPED),
            Protocol::Suspend => Self(self.0 | Self::SUSPEND),
        }
    }

    /// What to write to resume the device or, under VIRTIO_F_DEVICE_STOP, to call a stop off.
    pub const fn to_resume(self, protocol: Protocol) -> Self {
        match protocol {
            Protocol::DeviceStop => Self(self.0 & !Self::DEVICE_STOPPED),
            // A driver must not clear a status bit: SUSPEND is the device's to clear.
            Protocol::Suspend => Self(self.0 | Self::DRIVER_OK),
        }
    }

    /// What to write when the kernel's virtio core writes `self` over `current`.
    ///
    /// Core reads and writes in two steps, without a lock: what it writes may be old by the time it
    /// does. The bits of the protocol are as `stop_wanted` says; what the device has set since is not
    /// cleared. Under VIRTIO_F_SUSPEND, DRIVER_OK would be a request to resume while a stop stands or
    /// is pending.
    pub const fn merged(self, current: Self, protocol: Protocol, stop_wanted: bool) -> Self {
        let own = match protocol {
            Protocol::DeviceStop => Self::DEVICE_STOPPED,
            Protocol::Suspend => Self::SUSPEND,
        };
        let added = self.0 & !own;
        let others = match current.fault() {
            Some(Fault::Reset | Fault::Gone) => added,
            _ => added | current.0,
        };
        match (protocol, stop_wanted) {
            (Protocol::DeviceStop, true) => Self(others | own),
            (Protocol::DeviceStop, false) => Self(others & !own),
            (Protocol::Suspend, true) => Self((others | own) & !Self::DRIVER_OK),
            (Protocol::Suspend, false) => Self(others),
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

    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

    #[test]
    fn suspend_forbids_buffers_and_device_stop_does_not() {
        assert_eq!(BOTH.map(Protocol::allows_buffers), [true, false]);
    }

    #[test]
    fn every_value_shows_its_bits() {
        for status in all() {
            let bit = |value: u8| status.0 / value % 2 == 1;
            assert_eq!(status.is_driver_ok(), bit(4), "{status:?}");
            let d = Protocol::DeviceStop;
            assert_eq!(status.shows_stopped(d), bit(32), "{status:?}");
            assert_eq!(status.shows_running(d), !bit(32), "{status:?}");
            assert_eq!(status.may_resume(d), bit(4), "{status:?}");
            let s = Protocol::Suspend;
            assert_eq!(status.shows_stopped(s), bit(16) && !bit(4), "{status:?}");
            assert_eq!(status.shows_running(s), !bit(16) && bit(4), "{status:?}");
            assert_eq!(status.may_resume(s), bit(16) && !bit(4), "{status:?}");
        }
    }

    #[test]
    fn stop_and_resume_change_one_bit() {
        for status in all() {
            let d = Protocol::DeviceStop;
            assert_eq!(status.to_stop(d).0, status.0 | 32);
            assert_eq!(status.to_resume(d).0, status.0 & !32);
            let s = Protocol::Suspend;
            assert_eq!(status.to_stop(s).0, status.0 | 16);
            assert_eq!(status.to_resume(s).0, status.0 | 4);
        }
    }

    #[test]
    fn a_write_by_core_neither_undoes_nor_invents_a_stop() {
        for (protocol, own) in [(Protocol::DeviceStop, 32), (Protocol::Suspend, 16)] {
            for written in all() {
                for current in all() {
                    let reset = matches!(current.fault(), Some(Fault::Reset | Fault::Gone));
                    let seen = if reset { 0 } else { current.0 };
                    let stays = written.merged(current, protocol, true).0;
                    let runs = written.merged(current, protocol, false).0;
                    assert_eq!(stays & own, own, "a stop that is wanted stays");
                    match protocol {
                        Protocol::DeviceStop => assert_eq!(runs & own, 0),
                        // What the device shows is not cleared, and nothing is asked for.
                        Protocol::Suspend => assert_eq!(runs & own, seen & own),
                    }
                    let untouched = !own & !4;
                    for merged in [stays, runs] {
                        assert_eq!(merged & untouched, (written.0 | seen) & untouched);
                    }
                    assert_eq!(runs & 4, (written.0 | seen) & 4);
                    match protocol {
                        Protocol::DeviceStop => assert_eq!(stays & 4, runs & 4),
                        Protocol::Suspend => assert_eq!(stays & 4, 0, "would be a resume"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_device_that_is_asked_to_stop_and_does_shows_it() {
        for protocol in BOTH {
            let ready = Status(15);
            assert!(ready.shows_running(protocol) && !ready.shows_stopped(protocol));
            let stopped = match protocol {
                Protocol::DeviceStop => ready.to_stop(protocol),
                Protocol::Suspend => Status(ready.to_stop(protocol).0 & !4),
            };
            assert!(stopped.shows_stopped(protocol) && stopped.may_resume(protocol));
            assert!(!stopped.shows_running(protocol));
        }
    }
}
