// SPDX-License-Identifier: GPL-2.0-only

//! Holding the driver above while its device is stopped.

use crate::{
    policy::Quiesce,
    sys::{
        block::{
            Disk,
            Quiesced, //
        },
        virtio::Device, //
    },
};

/// A driver that is held. It is let go when this is dropped.
pub(crate) enum Held {
    /// The driver of a block device.
    Block(Quiesced),
    /// A driver that takes care of itself.
    Nothing,
}

impl Held {
    /// Holds the driver of `device`. Nothing if what is to be held can't be found.
    pub(crate) fn hold(device: &Device, how: Quiesce) -> Option<Self> {
        match how {
            Quiesce::Block => Disk::find(device).map(|disk| Self::Block(disk.quiesce())),
            Quiesce::Nothing => Some(Self::Nothing),
        }
    }

    /// Whether the device is known to have none of the driver's requests.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Block(disk) => disk.is_idle(),
            Self::Nothing => false,
        }
    }
}
