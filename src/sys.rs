// SPDX-License-Identifier: GPL-2.0-only

//! What `rust/kernel` does not have yet, shaped as if it did: the only unsafe code of this module.

mod bindings;

pub(crate) mod block;
mod bottom_halves;
pub(crate) mod exports;
#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
pub(crate) mod fake;
pub(crate) mod feature_reg;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod misc;
pub(crate) mod module;
pub(crate) mod netdev;
pub(crate) mod notifier;
pub(crate) mod rcu;
pub(crate) mod restart;
pub(crate) mod scsi;
pub(crate) mod shadow;
pub(crate) mod sysfs;
pub(crate) mod system;
pub(crate) mod task;
pub(crate) mod transport;
pub(crate) mod uapi;
pub(crate) mod virtio;
mod virtqueue;
pub(crate) mod wait;
pub(crate) mod work;
