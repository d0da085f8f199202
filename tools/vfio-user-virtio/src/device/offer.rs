// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device offers whatever its type: feature bits, and how its PCI function is laid out.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::pci;

/// VIRTIO_F_DEVICE_STOP (RFC of 2020), and VIRTIO_F_NOTIF_CONFIG_DATA (virtio 1.2).
pub(super) const VIRTIO_F_39: u32 = 39;
/// VIRTIO_F_SUSPEND (virtio 1.4).
pub(super) const VIRTIO_F_SUSPEND: u32 = 43;

/// The most entries that a virtqueue can have.
pub(super) const MAX_QUEUE_SIZE: u16 = 256;

/// What the device offers besides the features of its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// VIRTIO_F_DEVICE_STOP.
    pub device_stop: bool,
    /// VIRTIO_F_SUSPEND.
    pub suspend: bool,
    /// Bit 39 in its later sense. Not together with `device_stop`.
    pub notif_config_data: bool,
    /// The PCI common configuration reaches beyond `queue_notify_data`, so that bit 39 could mean either.
    pub long_common: bool,
    /// VIRTIO_F_RING_RESET.
    pub ring_reset: bool,
    /// VIRTIO_F_NOTIFICATION_DATA.
    pub notification_data: bool,
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// INTx instead of MSI-X.
    pub intx: bool,
}

impl Offer {
    /// The features that are offered besides those of the type.
    pub(super) fn features(self) -> u64 {
        [
            (VIRTIO_F_VERSION_1, true),
            (VIRTIO_RING_F_INDIRECT_DESC, true),
            (VIRTIO_RING_F_EVENT_IDX, true),
            (VIRTIO_F_NOTIFICATION_DATA, self.notification_data),
            (VIRTIO_F_RING_PACKED, self.packed),
            (VIRTIO_F_RING_RESET, self.ring_reset),
            (VIRTIO_F_39, self.device_stop || self.notif_config_data),
            (VIRTIO_F_SUSPEND, self.suspend),
        ]
        .into_iter()
        .fold(0, |features, (bit, on)| features | (u64::from(on) << bit))
    }

    /// The size of the common configuration.
    pub(super) fn common_size(self) -> u32 {
        if self.long_common || self.notif_config_data || self.ring_reset {
            pci::LONG_COMMON
        } else {
            pci::SHORT_COMMON
        }
    }

    /// How many MSI-X vectors a device with that many virtqueues has. None: it has INTx.
    pub(super) fn vectors(self, queues: u16) -> u16 {
        if self.intx {
            0
        } else {
            queues.saturating_add(1)
        }
    }
}
