// SPDX-License-Identifier: GPL-2.0-only

//! Disks.
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

use super::{
    bindings,
    virtio::Device, //
};
use core::ptr::NonNull;

/// The disk of a virtio block device.
///
/// # Invariants
///
/// Points to a valid disk, to which a reference is held.
pub(crate) struct Disk(NonNull<kernel::bindings::gendisk>);

// SAFETY: A disk may be used from any task.
unsafe impl Send for Disk {}

/// A disk whose driver is given no more requests, until this is dropped.
pub(crate) struct Quiesced(Disk);

impl Disk {
    /// The disk that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid. INVARIANT: What is found is a disk, with a reference to it.
        NonNull::new(unsafe { bindings::virtio_device_stop_find_disk(device.as_raw()) }).map(Self)
    }

    /// Gives the driver no more requests, and waits until it has passed on what it was given. Can be
    /// nested with whatever else quiesces the disk.
    pub(crate) fn quiesce(self) -> Quiesced {
        // SAFETY: By the invariant the disk is valid, and with it its queue.
        unsafe { kernel::bindings::blk_mq_quiesce_queue((*self.0.as_ptr()).queue) };
        Quiesced(self)
    }
}

impl Quiesced {
    /// Whether the driver has no request either: it has completed all that it was given before.
    pub(crate) fn is_idle(&self) -> bool {
        let Disk(disk) = &self.0;
        // SAFETY: By the invariant the disk is valid, and with it its queue.
        unsafe { !kernel::bindings::blk_mq_queue_inflight((*disk.as_ptr()).queue) }
    }
}

impl Drop for Quiesced {
    fn drop(&mut self) {
        let Disk(disk) = &self.0;
        // SAFETY: By the invariant the disk is valid, and with it its queue, which `quiesce` has
        // quiesced once.
        unsafe { kernel::bindings::blk_mq_unquiesce_queue((*disk.as_ptr()).queue) };
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: By the invariant a reference is held, which nobody else drops.
        unsafe { bindings::virtio_device_stop_put_disk(self.0.as_ptr()) };
    }
}
