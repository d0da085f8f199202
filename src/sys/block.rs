// SPDX-License-Identifier: GPL-2.0-only

//! Disks.
//!
//! C header: [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h)

use super::{
    bindings,
    rcu::GracePeriod,
    virtio::Device, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        blk_mq_tag_set,
        request, //
    },
    error::to_result,
    prelude::*,
    time::Jiffies, //
};

/// The disk of a virtio block device.
///
/// # Invariants
///
/// Points to a valid disk, to which a reference is held.
pub(crate) struct Disk(NonNull<kernel::bindings::gendisk>);

// SAFETY: A disk may be used from any task.
unsafe impl Send for Disk {}

/// A disk whose driver is given no more requests, until this is dropped. Whoever was about to give
/// it one may do so until [`Self::dispatched`] is over.
pub(crate) struct Quiesced {
    disk: Disk,
    // virtio_blk never blocks when it is given a request: the block layer does that under RCU, not
    // under SRCU.
    dispatched: GracePeriod,
}

/// A disk whose driver has no requests, and is given none, until this is dropped: who wants to
/// submit one waits.
pub(crate) struct Frozen<'a>(&'a Disk);

impl Disk {
    /// The disk that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid. INVARIANT: What is found is a disk, with a reference to it.
        NonNull::new(unsafe { bindings::virtio_device_stop_find_disk(device.as_raw()) }).map(Self)
    }

    /// Gives the driver no more requests. Can be nested with whatever else quiesces the disk.
    pub(crate) fn quiesce(self) -> Quiesced {
        // SAFETY: By the invariant the disk is valid, and with it its queue.
        unsafe { kernel::bindings::blk_mq_quiesce_queue_nowait((*self.0.as_ptr()).queue) };
        Quiesced {
            disk: self,
            dispatched: GracePeriod::begin(),
        }
    }
}

impl Disk {
    /// Whether its driver looks for the end of requests itself, instead of being interrupted.
    pub(crate) fn polls(&self) -> bool {
        // SAFETY: By the invariant the disk is valid.
        unsafe { bindings::virtio_device_stop_disk_polls(self.0.as_ptr()) }
    }

    /// Whether its sectors have to be written in order.
    pub(crate) fn is_zoned(&self) -> bool {
        // SAFETY: By the invariant the disk is valid.
        unsafe { bindings::virtio_device_stop_disk_is_zoned(self.0.as_ptr()) }
    }

    /// Has the device write down what it has only taken so far. Waits for it without a time limit.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: By the invariant the disk is valid, and with it the block device of the whole of
        // it.
        to_result(unsafe { kernel::bindings::blkdev_issue_flush((*self.0.as_ptr()).part0) })
    }

    /// Waits until the driver has no requests. Nothing if that takes longer than `timeout`.
    ///
    /// As the NVMe driver does it when it resets its device, without an owner: with one, lockdep
    /// would report that all I/O is held while interrupts are allocated, with locks under which
    /// others allocate memory. If that had to be got from this disk, neither would go on. A
    /// function level reset has the same window.
    pub(crate) fn freeze(&self, timeout: Jiffies) -> Option<Frozen<'_>> {
        // SAFETY: By the invariant the disk is valid, and with it its queue.
        let left = unsafe {
            let queue = (*self.0.as_ptr()).queue;
            kernel::bindings::blk_freeze_queue_start_non_owner(queue);
            kernel::bindings::blk_mq_freeze_queue_wait_timeout(queue, timeout)
        };
        let frozen = Frozen(self);
        // What has taken too long is undone: it is dropped.
        (left > 0).then_some(frozen)
    }

    /// Gives up on it: requests end with errors from now on.
    pub(crate) fn give_up(&self) {
        // SAFETY: By the invariant the disk is valid.
        unsafe { kernel::bindings::blk_mark_disk_dead(self.0.as_ptr()) };
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let Self(Disk(disk)) = self;
        // SAFETY: By the invariant the disk is valid, and with it its queue, which `freeze` has
        // begun to freeze once.
        unsafe {
            kernel::bindings::blk_mq_unfreeze_queue_non_owner((*disk.as_ptr()).queue);
        }
    }
}

/// Whether a disk may keep what was written to itself until it is flushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteCache(u8);

impl WriteCache {
    const OFFSET: c_uint = offset_of!(bindings::virtio_blk_config, wce) as c_uint;

    /// What the device says. Nothing if its driver can't choose.
    pub(crate) fn of(device: &Device) -> Option<Self> {
        if !device.has_feature(bindings::VIRTIO_BLK_F_CONFIG_WCE) {
            return None;
        }
        let mut cache = Self(0);
        // SAFETY: `device` is valid, and has that field, of one byte.
        unsafe {
            let get = (*(*device.as_raw()).config).get?;
            get(device.as_raw(), Self::OFFSET, (&raw mut cache.0).cast(), 1);
        }
        Some(cache)
    }

    /// Has the device do so.
    pub(crate) fn choose(mut self, device: &Device) {
        // SAFETY: `device` is valid, and has that field, of one byte: it was read.
        unsafe {
            if let Some(set) = (*(*device.as_raw()).config).set {
                set(device.as_raw(), Self::OFFSET, (&raw mut self.0).cast(), 1);
            }
        }
    }
}

impl Quiesced {
    /// When it is over, the driver was given the last request.
    pub(crate) fn dispatched(&self) -> GracePeriod {
        self.dispatched
    }

    /// How many requests the driver has, and has not completed. Waits until it was given the last
    /// one.
    pub(crate) fn in_flight(&self) -> u32 {
        self.dispatched.wait();
        let Disk(disk) = &self.disk;
        // SAFETY: By the invariant the disk is valid, and with it its tags, which it shares with no
        // other.
        unsafe { started_requests(bindings::virtio_device_stop_disk_tags(disk.as_ptr())) }
    }
}

/// How many requests a driver was given, and has not completed. Completed ones are the block
/// layer's again: that of a flush whose queue is quiesced stays so.
///
/// # Safety
///
/// `tags` is valid.
pub(super) unsafe fn started_requests(tags: *mut blk_mq_tag_set) -> u32 {
    /// # Safety
    ///
    /// `request` is valid, and `count` points to a `u32` that nobody else uses.
    unsafe extern "C" fn see(request: *mut request, count: *mut c_void) -> bool {
        // SAFETY: By the contract of this function.
        unsafe {
            if !bindings::virtio_device_stop_is_completed(request) {
                *count.cast::<u32>() += 1;
            }
        }
        true
    }

    let mut count = 0_u32;
    // SAFETY: By the contract of this function. `see` is called only before this returns.
    unsafe {
        kernel::bindings::blk_mq_tagset_busy_iter(tags, Some(see), (&raw mut count).cast());
    }
    count
}

impl Drop for Quiesced {
    fn drop(&mut self) {
        let Disk(disk) = &self.disk;
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
