// SPDX-License-Identifier: GPL-2.0-only

//! SCSI hosts.
//!
//! C header: [`include/scsi/scsi_host.h`](srctree/include/scsi/scsi_host.h)

use super::{
    bindings, block,
    rcu::GracePeriod,
    virtio::{
        Device,
        DeviceRef, //
    },
    virtqueue::{
        Virtqueue,
        Virtqueues, //
    },
};
use core::ptr::NonNull;
use kernel::{
    bindings::{
        blk_mq_tag_set,
        request_queue, //
    },
    prelude::*,
    sync::barrier::{
        smp_mb,
        Full, //
    }, //
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
    blocked: Option<Blocked>,
    // Each unit by itself: what is found meanwhile was not quiesced, and must not be let go.
    _queues: KVec<Queue>,
    host: Host,
    // virtio_scsi never blocks when it is given a request: the block layer does that under RCU, not
    // under SRCU.
    dispatched: GracePeriod,
}

/// What the driver gives its device besides the requests of units that it has: nothing, until this
/// is dropped.
struct Blocked {
    host: NonNull<bindings::Scsi_Host>,
    device: DeviceRef,
    /// Nothing can be expected of the device any more.
    is_lost: bool,
}

// SAFETY: A SCSI host may be used from any task.
unsafe impl Send for Blocked {}

impl Virtqueue<'_> {
    /// Virtio 1.4, 5.6.2. Before it comes the one for task management, and after it those for
    /// requests.
    const EVENTS: u32 = 1;

    fn is_for_requests(&self) -> bool {
        self.index() > Self::EVENTS
    }
}

/// So many buffers for events the driver gives its device, in so many descriptors. Some versions do
/// so only under VIRTIO_SCSI_F_HOTPLUG.
const EVENT_BUFFERS: u32 = 8;

impl Blocked {
    /// Breaks the virtqueues for task management and for events, which the driver uses whenever it
    /// likes: a reset of a unit fails at once. Those for requests are not broken, since the units
    /// would be taken for removed. Nothing if the device has a task management request, or the
    /// driver one of the buffers for events: it could not give it back.
    fn begin(device: &Device, host: &Host) -> Option<Self> {
        // Most often it is known before.
        if host.recovers() || !is_idle(&Virtqueues::lock(device), device) {
            return None;
        }
        if !Self::breaks_queues(device) {
            // Of what the device has done meanwhile the driver was not told.
            device.mend_virtqueues(|queue| !queue.is_for_requests());
            return None;
        }
        // SAFETY: By the invariant of `Host` it is valid.
        unsafe { bindings::virtio_device_stop_block_scsi_host(host.0.as_ptr(), true) };
        Some(Self {
            host: host.0,
            device: device.into(),
            is_lost: false,
        })
    }

    /// Whether it is so still, now that all have seen that it was to be.
    fn is_settled(&self, host: &Host) -> bool {
        !host.recovers() && is_idle(&Virtqueues::lock(&self.device), &self.device)
    }

    /// Whether they were idle.
    fn breaks_queues(device: &Device) -> bool {
        let queues = Virtqueues::lock(device);
        for queue in queues.iter().filter(|queue| !queue.is_for_requests()) {
            queue.set_broken(true);
        }
        smp_mb(Full);
        is_idle(&queues, device)
    }
}

/// Whether the device has no task management request, and all the buffers for events.
fn is_idle(queues: &Virtqueues<'_>, device: &Device) -> bool {
    let is_idle = |queue: Virtqueue<'_>| match (queue.index(), queue.in_use()) {
        (Virtqueue::EVENTS, 0) => !device.has_feature(bindings::VIRTIO_SCSI_F_HOTPLUG),
        (Virtqueue::EVENTS, given) => given == EVENT_BUFFERS.min(queue.size()),
        (_, given) => given == 0 || queue.is_for_requests(),
    };
    queues.iter().all(is_idle)
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: Whoever has this has a reference to the host.
        unsafe { bindings::virtio_device_stop_block_scsi_host(self.host.as_ptr(), false) };
        if !self.is_lost {
            self.device
                .mend_virtqueues(|queue| !queue.is_for_requests());
        }
    }
}

impl Host {
    /// The SCSI host that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid.
        let host = unsafe { bindings::virtio_device_stop_find_scsi_host(device.as_raw()) };
        // INVARIANT: What is found is a SCSI host, with a reference to it.
        NonNull::new(host).map(Self)
    }

    /// Whether it deals with errors: its error handler gives the driver commands by itself.
    fn recovers(&self) -> bool {
        // SAFETY: By the invariant the host is valid.
        unsafe { bindings::virtio_device_stop_scsi_host_recovers(self.0.as_ptr()) }
    }

    fn tags(&self) -> *mut blk_mq_tag_set {
        // SAFETY: By the invariant the host is valid.
        unsafe { bindings::virtio_device_stop_scsi_host_tags(self.0.as_ptr()) }
    }

    /// Gives the driver no more requests. Can be nested with whatever else quiesces the units.
    /// `wholly`: no task management either, and no requests of units that are found meanwhile;
    /// these wait. Nothing if a unit comes or goes just now, or if there is no memory at once.
    pub(crate) fn quiesce(self, device: &Device, wholly: bool) -> Option<Quiesced> {
        let queues = self.quiesce_queues()?;
        let blocked = if wholly {
            Some(Blocked::begin(device, &self)?)
        } else {
            None
        };
        Some(Quiesced {
            blocked,
            _queues: queues,
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

    /// Whether the driver gives its device nothing, as of when [`Self::dispatched`] is over.
    pub(crate) fn is_settled(&self) -> bool {
        self.blocked
            .as_ref()
            .is_none_or(|blocked| blocked.is_settled(&self.host))
    }

    /// How many requests the driver has, those of new units included, and has not completed. Waits
    /// until it was given the last one. Nothing while errors are dealt with: a request that has
    /// failed counts as completed, and may be with the device still.
    pub(crate) fn in_flight(&self) -> Option<u32> {
        self.dispatched.wait();
        // SAFETY: By the invariant the tags are valid.
        let started = unsafe { block::started_requests(self.host.tags()) };
        (!self.host.recovers()).then_some(started)
    }

    /// Nothing can be expected of the device any more: what was broken stays so.
    pub(crate) fn device_is_lost(&mut self) {
        if let Some(blocked) = &mut self.blocked {
            blocked.is_lost = true;
        }
    }
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
