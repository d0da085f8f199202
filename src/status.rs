// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The device status field (virtio 1.4, 2.1), and what the two protocols mean by it.
//!
//! | | VIRTIO_F_DEVICE_STOP | VIRTIO_F_SUSPEND |
//! |---|---|---|
//! | source | RFC, virtio-comment, December 2020 | virtio 1.4, "Device Suspend" |
//! | to stop, the driver writes | status with 32 | status with 16 |
//! | a pending stop shows | without 32 | with 4, without 16 |
//! | stopped shows | with 32 | with 16, without 4 |
//! | to resume, the driver writes | status without 32 | status with 4, and 16 as it is; some devices take only 4 without 16 |
//! | running again shows | without 32 | with 4, without 16 |
//! | a pending stop | can be called off | has to be waited for |

/// By which protocol a device is stopped. The numbers are those of
/// `enum virtio_device_stop_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// VIRTIO_F_DEVICE_STOP (RFC of 2020).
    DeviceStop = 1,
    /// VIRTIO_F_SUSPEND (virtio 1.4).
    Suspend = 2,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

/// What a value says of a device that is in the hands of a ready driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// It runs. It shows so, too, while a stop is pending.
    Running,
    /// It has stopped.
    Stopped,
    /// Under VIRTIO_F_SUSPEND: SUSPEND and DRIVER_OK, which a device may show on its way from one
    /// to the other. It neither runs nor has it stopped.
    Between,
    /// The driver is not ready: DRIVER_OK is not set, and the device has not cleared it to suspend.
    NotReady,
    /// The device, or the driver, has met an error; only a reset helps.
    NeedsReset,
    /// The device was reset by somebody, and whatever it was asked for with it.
    Reset,
    /// Every bit reads as one: the device is gone, or can't be reached for a moment. The bus knows.
    Ones,
    /// No answer: bits are missing that the driver has set, and that nobody clears but a reset.
    Garbage,
}

/// What the driver does to the status field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It reads it.
    Read,
    /// It asks the device to stop.
    Stop,
    /// It withdraws that (VIRTIO_F_DEVICE_STOP only).
    CallOff,
    /// It asks the device to resume.
    Resume,
    /// The same, for devices that suspend again when SUSPEND is written (VIRTIO_F_SUSPEND only).
    /// Virtio 1.4, 2.1.1 forbids a driver to clear a status bit; the one device that is published
    /// needs it.
    ResumeByClearing,
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
    /// ACKNOWLEDGE and DRIVER: the driver has set them before it has negotiated.
    const DRIVER: u8 = 1 | 2;
    /// And FEATURES_OK: it was, too, before the driver was ready.
    const NEGOTIATED: u8 = Self::DRIVER | 8;

    const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// Whether the driver is ready, as a stop may be asked for only then.
    pub const fn is_driver_ok(self) -> bool {
        self.has(Self::DRIVER_OK)
    }

    /// Whether it shows the bits of a device that has stopped, faults aside.
    pub const fn shows_stopped(self, protocol: Protocol) -> bool {
        self.has(Self::NEGOTIATED)
            && self.0 != 0xff
            && match protocol {
                Protocol::DeviceStop => self.has(Self::DEVICE_STOPPED | Self::DRIVER_OK),
                Protocol::Suspend => self.has(Self::SUSPEND) && !self.is_driver_ok(),
            }
    }

    /// Whether it shows the bits of a device that has not stopped, or not any more, faults aside.
    pub const fn shows_running(self, protocol: Protocol) -> bool {
        self.has(Self::NEGOTIATED | Self::DRIVER_OK)
            && self.0 != 0xff
            && match protocol {
                Protocol::DeviceStop => !self.has(Self::DEVICE_STOPPED),
                Protocol::Suspend => true,
            }
    }

    /// What it says.
    pub const fn seen(self, protocol: Protocol) -> Seen {
        match self.0 {
            0xff => return Seen::Ones,
            0 => return Seen::Reset,
            _ => {}
        }
        if !self.has(Self::NEGOTIATED) {
            return Seen::Garbage;
        }
        if self.0 & (Self::NEEDS_RESET | Self::FAILED) != 0 {
            return Seen::NeedsReset;
        }
        match (protocol, self.is_driver_ok()) {
            _ if self.shows_stopped(protocol) => Seen::Stopped,
            (Protocol::Suspend, true) if self.has(Self::SUSPEND) => Seen::Between,
            (_, true) => Seen::Running,
            (_, false) => Seen::NotReady,
        }
    }

    /// What to write for `access` over this value; nothing if the protocol does not allow it now.
    pub const fn written(self, access: Access, protocol: Protocol) -> Option<Self> {
        match (access, protocol, self.seen(protocol)) {
            (Access::Stop, Protocol::DeviceStop, Seen::Running | Seen::Stopped) => {
                Some(Self(self.0 | Self::DEVICE_STOPPED))
            }
            (Access::Stop, Protocol::Suspend, Seen::Running) => Some(Self(self.0 | Self::SUSPEND)),
            (Access::CallOff, Protocol::DeviceStop, Seen::Running | Seen::Stopped)
            | (Access::Resume, Protocol::DeviceStop, Seen::Stopped) => {
                Some(Self(self.0 & !Self::DEVICE_STOPPED))
            }
            // A driver must not clear a status bit: SUSPEND is the device's to clear.
            (Access::Resume, Protocol::Suspend, Seen::Stopped) => {
                Some(Self(self.0 | Self::DRIVER_OK))
            }
            (Access::ResumeByClearing, Protocol::Suspend, Seen::Stopped) => {
                Some(Self((self.0 | Self::DRIVER_OK) & !Self::SUSPEND))
            }
            _ => None,
        }
    }

    /// What to write when the kernel's virtio core writes `self` over `current`; nothing if that
    /// would add nothing: under VIRTIO_F_SUSPEND, a value that was read just before the device has
    /// resumed would ask for another stop.
    ///
    /// Core reads and writes in two steps, without a lock: what it writes may be old by the time it
    /// does. What the device has set since is not cleared, and the bits of the protocol are as
    /// `stop_wanted` says: true if the driver has asked for a stop, false if for a resume, and
    /// nothing if neither; a stop that comes late is not core's to end. Under VIRTIO_F_SUSPEND,
    /// DRIVER_OK would be a request to resume while a stop stands or is pending.
    pub const fn merged(
        self,
        current: Self,
        protocol: Protocol,
        stop_wanted: Option<bool>,
    ) -> Option<Self> {
        let own = match protocol {
            Protocol::DeviceStop => Self::DEVICE_STOPPED,
            Protocol::Suspend => Self::SUSPEND,
        };
        let added = self.0 & !own;
        // A value that can't be the device's is nothing to build on.
        let is_answer = current.0 != 0xff && current.has(Self::DRIVER);
        let theirs = match (protocol, stop_wanted) {
            (Protocol::Suspend, Some(_)) => added & !Self::DRIVER_OK,
            _ => added,
        };
        if is_answer && theirs & !current.0 == 0 {
            return None;
        }
        let others = if is_answer { added | current.0 } else { added };
        Some(match (protocol, stop_wanted) {
            // A device that has reset itself is not asked again.
            (Protocol::DeviceStop, Some(true)) if current.is_driver_ok() => Self(others | own),
            (Protocol::DeviceStop, None) => Self(others),
            (Protocol::DeviceStop, Some(_)) => Self(others & !own),
            (Protocol::Suspend, Some(true)) if current.0 & (Self::DRIVER_OK | own) != 0 => {
                Self((others | own) & !Self::DRIVER_OK)
            }
            (Protocol::Suspend, _) => Self(others),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

    fn all() -> impl Iterator<Item = Status> {
        (0..=255).map(Status)
    }

    #[test]
    fn suspend_forbids_buffers_and_device_stop_does_not() {
        assert_eq!(BOTH.map(Protocol::allows_buffers), [true, false]);
    }

    #[test]
    fn every_value_says_one_thing() {
        for status in all() {
            let bit = |value: u8| status.0 / value % 2 == 1;
            for protocol in BOTH {
                let expected = match status.0 {
                    0 => Seen::Reset,
                    0xff => Seen::Ones,
                    _ if !(bit(1) && bit(2) && bit(8)) => Seen::Garbage,
                    _ if bit(64) || bit(128) => Seen::NeedsReset,
                    _ => match (protocol, bit(4), bit(16), bit(32)) {
                        (Protocol::DeviceStop, true, _, true) => Seen::Stopped,
                        (Protocol::DeviceStop, true, _, false) => Seen::Running,
                        (Protocol::Suspend, true, true, _) => Seen::Between,
                        (Protocol::Suspend, true, false, _) => Seen::Running,
                        (Protocol::Suspend, false, true, _) => Seen::Stopped,
                        (_, false, _, _) => Seen::NotReady,
                    },
                };
                assert_eq!(status.seen(protocol), expected, "{status:?} {protocol:?}");
            }
        }
    }

    #[test]
    fn what_is_written_changes_one_bit_of_an_answer_but_for_devices_that_want_two() {
        for status in all() {
            for protocol in BOTH {
                let seen = status.seen(protocol);
                for access in [
                    Access::Read,
                    Access::Stop,
                    Access::CallOff,
                    Access::Resume,
                    Access::ResumeByClearing,
                ] {
                    let expected = match (protocol, access, seen) {
                        (Protocol::DeviceStop, Access::Stop, Seen::Running | Seen::Stopped) => {
                            Some(status.0 | 32)
                        }
                        (Protocol::DeviceStop, Access::CallOff, Seen::Running | Seen::Stopped)
                        | (Protocol::DeviceStop, Access::Resume, Seen::Stopped) => {
                            Some(status.0 & !32)
                        }
                        (Protocol::Suspend, Access::Stop, Seen::Running) => Some(status.0 | 16),
                        (Protocol::Suspend, Access::Resume, Seen::Stopped) => Some(status.0 | 4),
                        (Protocol::Suspend, Access::ResumeByClearing, Seen::Stopped) => {
                            Some(status.0 & !16 | 4)
                        }
                        _ => None,
                    };
                    let written = status.written(access, protocol);
                    assert_eq!(written, expected.map(Status), "{status:?} {access:?}");
                }
            }
        }
    }

    #[test]
    fn a_write_by_core_neither_undoes_nor_invents_a_stop() {
        for (protocol, own) in [(Protocol::DeviceStop, 32), (Protocol::Suspend, 16)] {
            for written in all() {
                for current in all() {
                    let sane = current.0 != 0xff && current.0 & 3 == 3;
                    let seen = if sane { current.0 } else { 0 };
                    let merged = |wanted| written.merged(current, protocol, wanted);
                    for wanted in [None, Some(false), Some(true)] {
                        let ours = match (protocol, wanted) {
                            (Protocol::Suspend, Some(_)) => own | 4,
                            _ => own,
                        };
                        let adds = !sane || written.0 & !ours & !seen != 0;
                        assert_eq!(merged(wanted).is_some(), adds);
                    }
                    let [Some(Status(stays)), Some(Status(resumes)), Some(Status(neither))] =
                        [Some(true), Some(false), None].map(merged)
                    else {
                        continue;
                    };
                    let untouched = !own & !4;
                    for merged in [stays, resumes, neither] {
                        assert_eq!(merged & untouched, (written.0 | seen) & untouched);
                    }
                    assert_eq!(neither & own, seen & own, "nothing is asked for");
                    assert_eq!(resumes & 4, (written.0 | seen) & 4);
                    match protocol {
                        Protocol::DeviceStop => {
                            assert_eq!(resumes & own, 0);
                            assert_eq!(stays & own != 0, current.0 & 4 != 0);
                            assert_eq!(stays & 4, resumes & 4);
                        }
                        Protocol::Suspend => {
                            assert_eq!(resumes, neither, "SUSPEND is the device's to clear");
                            if current.0 & (4 | own) == 0 {
                                assert_eq!(stays, neither, "a device that was reset");
                            } else {
                                assert_eq!(stays & (4 | own), own, "4 would be a resume");
                            }
                        }
                    }
                }
            }
        }
    }
}
