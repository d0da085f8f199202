// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Which feature bit to take, from what a device offers.
//!
//! Bit 39 was given away: since virtio 1.2 it is VIRTIO_F_NOTIF_CONFIG_DATA, by which the driver
//! promises to notify with the data in `queue_notify_data`. Linux does not, so that accepting the
//! bit from a device that means it so loses notifications. A device can't mean it so when its PCI
//! common configuration ends before `queue_notify_data`.

use super::state::Reason;

/// VIRTIO_F_VERSION_1: not a legacy device.
pub const VIRTIO_F_VERSION_1: u32 = 32;
/// VIRTIO_F_DEVICE_STOP (RFC of 2020).
pub const VIRTIO_F_DEVICE_STOP: u32 = 39;
/// VIRTIO_F_ADMIN_VQ.
pub const VIRTIO_F_ADMIN_VQ: u32 = 41;

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
}

impl Offer {
    const fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// Whether to accept VIRTIO_F_DEVICE_STOP. `enabled`: the administrator lets us.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn device_stop(&self, enabled: bool) -> Result<(), Reason> {
        let Transport::Pci { common_length } = self.transport else {
            return Err(Reason::Transport);
        };
        if !enabled {
            Err(Reason::Disabled)
        } else if !self.has(VIRTIO_F_DEVICE_STOP) {
            Err(Reason::NotOffered)
        } else if !self.has(VIRTIO_F_VERSION_1) {
            Err(Reason::NotVersion1)
        } else if self.has(VIRTIO_F_ADMIN_VQ) {
            // Writing the status with DRIVER_OK set would send commands to the stopped device.
            Err(Reason::AdminVq)
        } else if common_length >= QUEUE_NOTIFY_DATA_END {
            Err(Reason::Bit39Ambiguous)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Offer = Offer {
        features: (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_F_DEVICE_STOP),
        transport: Transport::Pci { common_length: 56 },
    };

    #[test]
    fn the_bit_is_taken_only_where_it_can_mean_nothing_else() {
        assert_eq!(GOOD.device_stop(true), Ok(()));
        for common_length in 0..100 {
            let transport = Transport::Pci { common_length };
            let result = Offer { transport, ..GOOD }.device_stop(true);
            let expected = if common_length < 58 {
                Ok(())
            } else {
                Err(Reason::Bit39Ambiguous)
            };
            assert_eq!(result, expected, "{common_length}");
        }
    }

    #[test]
    fn every_refusal_says_why() {
        let without = |feature: u32| Offer {
            features: GOOD.features & !(1 << feature),
            ..GOOD
        };
        let cases = [
            (without(VIRTIO_F_DEVICE_STOP), Reason::NotOffered),
            (without(VIRTIO_F_VERSION_1), Reason::NotVersion1),
            (
                Offer {
                    features: GOOD.features | (1 << VIRTIO_F_ADMIN_VQ),
                    ..GOOD
                },
                Reason::AdminVq,
            ),
            (
                Offer {
                    transport: Transport::Other,
                    ..GOOD
                },
                Reason::Transport,
            ),
        ];
        for (offer, reason) in cases {
            assert_eq!(offer.device_stop(true), Err(reason));
        }
        assert_eq!(GOOD.device_stop(false), Err(Reason::Disabled));
    }
}
