// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Which feature bit to take, from what a device offers.
//!
//! VIRTIO_F_SUSPEND, where it is offered. Else VIRTIO_F_DEVICE_STOP, bit 39, which was given away:
//! since virtio 1.2 it is VIRTIO_F_NOTIF_CONFIG_DATA, by which the driver promises to notify with
//! the data in `queue_notify_data`. Linux does not, so that accepting the bit from a device that
//! means it so loses notifications. A device can't mean it so when its PCI common configuration
//! ends before `queue_notify_data`; of others the administrator has to say it.

use super::state::Reason;
use super::status::Protocol;

/// VIRTIO_F_VERSION_1: not a legacy device.
pub const VIRTIO_F_VERSION_1: u32 = 32;
/// VIRTIO_F_NOTIFICATION_DATA.
pub const VIRTIO_F_NOTIFICATION_DATA: u32 = 38;
/// VIRTIO_F_DEVICE_STOP (RFC of 2020).
pub const VIRTIO_F_DEVICE_STOP: u32 = 39;
/// VIRTIO_F_ADMIN_VQ.
pub const VIRTIO_F_ADMIN_VQ: u32 = 41;
/// VIRTIO_F_SUSPEND (virtio 1.4).
pub const VIRTIO_F_SUSPEND: u32 = 43;

/// Where `queue_notify_data` ends in the PCI common configuration (virtio 1.4, 4.1.4.3).
const QUEUE_NOTIFY_DATA_END: u32 = 58;

/// How the device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// virtio-pci, not legacy.
    Pci {
        /// Bytes of the common configuration, by its capability.
        common_length: u32,
    },
    /// One whose status is not the device's own, or whose feature register can't be written.
    Other,
}

/// What a device offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The feature bits 0 to 63.
    pub features: u64,
    /// How the device is reached.
    pub transport: Transport,
    /// The kernel negotiates VIRTIO_F_SUSPEND by itself: it is the kernel's to use.
    pub kernel_suspends: bool,
    /// The same for bit 39, whatever it means by that.
    pub kernel_takes_bit_39: bool,
    /// The administrator says that this device means VIRTIO_F_DEVICE_STOP by bit 39.
    pub bit_39_is_device_stop: bool,
}

/// What the administrator lets us accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// VIRTIO_F_DEVICE_STOP.
    pub device_stop: bool,
    /// VIRTIO_F_SUSPEND.
    pub suspend: bool,
}

impl Allowed {
    /// Whether this protocol may be used.
    pub const fn permits(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::DeviceStop => self.device_stop,
            Protocol::Suspend => self.suspend,
        }
    }
}

impl Offer {
    const fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// The protocol to negotiate.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn choose(&self, allowed: Allowed) -> Result<Protocol, Reason> {
        let Transport::Pci { common_length } = self.transport else {
            return Err(Reason::Transport);
        };
        let suspend = self.has(VIRTIO_F_SUSPEND);
        let device_stop = self.has(VIRTIO_F_DEVICE_STOP);
        if !suspend && !device_stop {
            return Err(Reason::NotOffered);
        }
        if suspend && self.kernel_suspends || !suspend && self.kernel_takes_bit_39 {
            return Err(Reason::Transport);
        }
        if !self.has(VIRTIO_F_VERSION_1) {
            return Err(Reason::NotVersion1);
        }
        if self.has(VIRTIO_F_ADMIN_VQ) {
            // Writing the status with DRIVER_OK set would send commands to the stopped device.
            return Err(Reason::AdminVq);
        }
        if suspend && allowed.suspend {
            Ok(Protocol::Suspend)
        } else if !device_stop || !allowed.device_stop || self.kernel_takes_bit_39 {
            Err(Reason::Disabled)
        } else if common_length >= QUEUE_NOTIFY_DATA_END && !self.bit_39_is_device_stop {
            Err(Reason::Bit39Ambiguous)
        } else {
            Ok(Protocol::DeviceStop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: u64 = 1 << VIRTIO_F_DEVICE_STOP;
    const S: u64 = 1 << VIRTIO_F_SUSPEND;
    const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
    const BOTH: Allowed = Allowed {
        device_stop: true,
        suspend: true,
    };

    fn offer(features: u64) -> Offer {
        Offer {
            features: features | VERSION_1,
            transport: Transport::Pci { common_length: 56 },
            kernel_suspends: false,
            kernel_takes_bit_39: false,
            bit_39_is_device_stop: false,
        }
    }

    #[test]
    fn suspend_is_taken_where_it_is_offered_and_device_stop_else() {
        for (device_stop, suspend) in [(false, false), (false, true), (true, false), (true, true)] {
            let allowed = Allowed {
                device_stop,
                suspend,
            };
            assert!(allowed.permits(Protocol::DeviceStop) == device_stop);
            assert!(allowed.permits(Protocol::Suspend) == suspend);
            let taken = |protocol, on: bool| on.then_some(protocol).ok_or(Reason::Disabled);
            let only_d = taken(Protocol::DeviceStop, device_stop);
            let only_s = taken(Protocol::Suspend, suspend);
            assert_eq!(offer(D).choose(allowed), only_d);
            assert_eq!(offer(S).choose(allowed), only_s);
            assert_eq!(offer(D | S).choose(allowed), only_s.or(only_d));
        }
    }

    #[test]
    fn bit_39_is_taken_only_where_it_can_mean_nothing_else() {
        for common_length in 0..100 {
            let transport = Transport::Pci { common_length };
            let choose = |features| {
                Offer {
                    transport,
                    ..offer(features)
                }
                .choose(BOTH)
            };
            let expected = if common_length < 58 {
                Ok(Protocol::DeviceStop)
            } else {
                Err(Reason::Bit39Ambiguous)
            };
            assert_eq!(choose(D), expected, "{common_length}");
            let accepted = Offer {
                transport,
                bit_39_is_device_stop: true,
                ..offer(D)
            };
            assert_eq!(accepted.choose(BOTH), Ok(Protocol::DeviceStop));
            assert_eq!(choose(D | S), Ok(Protocol::Suspend), "{common_length}");
        }
    }

    #[test]
    fn what_the_kernel_negotiates_by_itself_is_left_to_it() {
        for (suspends, takes_bit_39, expected) in [
            (
                true,
                false,
                [Ok(Protocol::DeviceStop), Err(Reason::Transport)],
            ),
            (false, true, [Err(Reason::Transport), Ok(Protocol::Suspend)]),
        ] {
            for (features, expected) in [D, S].into_iter().zip(expected) {
                let offer = Offer {
                    kernel_suspends: suspends,
                    kernel_takes_bit_39: takes_bit_39,
                    ..offer(features)
                };
                assert_eq!(offer.choose(BOTH), expected, "{offer:?}");
            }
        }
        // Not the other one instead, if the administrator does not want the first.
        let offer = Offer {
            kernel_takes_bit_39: true,
            ..offer(D | S)
        };
        let allowed = Allowed {
            suspend: false,
            ..BOTH
        };
        assert_eq!(offer.choose(allowed), Err(Reason::Disabled));
    }

    #[test]
    fn every_refusal_says_why() {
        for features in [D, S, D | S] {
            let good = offer(features);
            let cases = [
                (
                    Offer {
                        features: VERSION_1,
                        ..good
                    },
                    Reason::NotOffered,
                ),
                (Offer { features, ..good }, Reason::NotVersion1),
                (offer(features | (1 << VIRTIO_F_ADMIN_VQ)), Reason::AdminVq),
                (
                    Offer {
                        transport: Transport::Other,
                        ..good
                    },
                    Reason::Transport,
                ),
                (
                    Offer {
                        kernel_suspends: true,
                        kernel_takes_bit_39: true,
                        ..good
                    },
                    Reason::Transport,
                ),
            ];
            for (offer, reason) in cases {
                assert_eq!(offer.choose(BOTH), Err(reason), "{offer:?}");
            }
        }
    }
}
