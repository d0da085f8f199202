// SPDX-License-Identifier: GPL-2.0-only

//! SCSI hosts.
//!
//! C header: [`include/scsi/scsi_host.h`](srctree/include/scsi/scsi_host.h)

use super::{
    bindings,
    rcu::GracePeriod,
    virtio::Device, //
};
use core::ptr::NonNull;
use kernel::{
    bindings::{
        blk_mq_tag_set,
        request,
        request_queue, //
    },
    prelude::*, //
};

/// The SCSI host of a virtio SCSI host device.
///
/// # Invariants
///
/// Points to a valid SCSI host, to which a reference is held: its tags are valid for as long.
pub(crate) struct Host(NonNull<bindings::Scsi_Host>);

// SAFETY: A SCSI host may be used from any task.
unsafe impl Send for Host {}

/// The request queue of a unit, which passes no more requests on until this is dropped.
///
/// # Invariants
///
/// Points to a valid request queue, to which a reference is held, and which was quiesced once.
struct Queue(NonNull<request_queue>);

// SAFETY: A request queue may be used from any task.
unsafe impl Send for Queue {}

/// A SCSI host whose driver is given no more requests by the units that it had, until this is
/// dropped. Whoever was about to give it one may do so until [`Self::dispatched`] is over.
pub(crate) struct Quiesced {
    // Each unit by itself: what is found meanwhile was not quiesced, and must not be let go.
    _queues: KVec<Queue>,
    host: Host,
    // virtio_scsi never blocks when it is given a request: the block layer does that under RCU, not
    // under SRCU.
    dispatched: GracePeriod,
}

impl Host {
    /// The SCSI host that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid.
        let host = unsafe { bindings::virtio_device_stop_find_scsi_host(device.as_raw()) };
        // INVARIANT: What is found is a SCSI host, with a reference to it.
        NonNull::new(host).map(Self)
    }

    fn tags(&self) -> *mut blk_mq_tag_set {
        // SAFETY: By the invariant the host is valid.
        unsafe { bindings::virtio_device_stop_scsi_host_tags(self.0.as_ptr()) }
    }

    /// Gives the driver no more requests. Can be nested with whatever else quiesces the units.
    /// Nothing if a unit comes or goes just now, or if there is no memory at once.
    pub(crate) fn quiesce(self) -> Option<Quiesced> {
        Some(Quiesced {
            _queues: self.quiesce_queues()?,
            host: self,
            dispatched: GracePeriod::begin(),
        })
    }

    /// Not simply waiting for the lock: who adds a unit holds it until another unit's requests have
    /// ended.
    fn quiesce_queues(&self) -> Option<KVec<Queue>> {
        let tags = self.tags();
        let mut queues = KVec::new();
        let mut complete = true;
        // SAFETY: By the invariant the tags are valid. Their list has request queues, which stay in
        // it while the lock is held.
        unsafe {
            let lock = &raw mut (*tags).tag_list_lock;
            if kernel::bindings::mutex_trylock(lock) == 0 {
                return None;
            }
            let head = &raw mut (*tags).tag_list;
            let mut entry = (*head).next;
            while complete && entry != head {
                let queue = kernel::container_of!(entry, request_queue, tag_set_list);
                if let Some(queue) = Queue::quiesce(queue) {
                    complete = queues.push(queue, GFP_NOWAIT).is_ok();
                }
                entry = (*entry).next;
            }
            kernel::bindings::mutex_unlock(lock);
        }
        complete.then_some(queues)
    }
}

impl Queue {
    /// Nothing if it is about to go.
    ///
    /// # Safety
    ///
    /// `queue` is valid.
    unsafe fn quiesce(queue: *mut request_queue) -> Option<Self> {
        // SAFETY: By the contract of this function.
        if !unsafe { kernel::bindings::blk_get_queue(queue) } {
            return None;
        }
        // SAFETY: As above.
        unsafe { kernel::bindings::blk_mq_quiesce_queue_nowait(queue) };
        // INVARIANT: A reference was taken, and it was quiesced.
        NonNull::new(queue).map(Self)
    }
}

impl Quiesced {
    /// When it is over, the driver was given the last request.
    pub(crate) fn dispatched(&self) -> GracePeriod {
        self.dispatched
    }

    /// Whether the driver has no request either: it has completed all that it was given before, by
    /// new units too. Waits until it was given the last one.
    pub(crate) fn is_idle(&self) -> bool {
        self.dispatched.wait();
        let mut found = false;
        // SAFETY: By the invariant the tags are valid. `see` is called only before this returns.
        unsafe {
            kernel::bindings::blk_mq_tagset_busy_iter(
                self.host.tags(),
                Some(see),
                (&raw mut found).cast(),
            );
        }
        !found
    }
}

/// Completed requests are the block layer's again: that of a flush whose queue is quiesced stays
/// so.
///
/// # Safety
///
/// `request` is valid, and `found` points to a `bool` that nobody else uses.
unsafe extern "C" fn see(request: *mut request, found: *mut c_void) -> bool {
    // SAFETY: By the contract of this function.
    unsafe {
        if bindings::virtio_device_stop_is_completed(request) {
            return true;
        }
        *found.cast() = true;
    }
    false
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is valid, was quiesced once, and a reference is held, which
        // nobody else drops.
        unsafe {
            kernel::bindings::blk_mq_unquiesce_queue(self.0.as_ptr());
            kernel::bindings::blk_put_queue(self.0.as_ptr());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: By the invariant a reference is held, which nobody else drops.
        unsafe { bindings::virtio_device_stop_put_scsi_host(self.0.as_ptr()) };
    }
}
