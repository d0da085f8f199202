// SPDX-License-Identifier: GPL-2.0-only

//! The virtqueues of a device.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    bindings,
    bottom_halves::NoBottomHalves,
    virtio::Device, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::barrier::{
        smp_mb,
        Full, //
    },
    types::NotThreadSafe, //
};

impl Device {
    /// Notifies the device of every virtqueue.
    pub(super) fn notify_virtqueues(&self) {
        for queue in Virtqueues::lock(self).iter() {
            queue.notify();
        }
    }

    /// The virtqueues that `is_ours`, and that were broken while the device was stopped, work
    /// again. The device runs, and is told of what it may have missed; so is the driver. Unless the
    /// bus does not know the device any more, and then this returns false: the virtio core breaks
    /// the virtqueues then, too, so that nobody waits for it.
    pub(super) fn mend_virtqueues(&self, is_ours: impl Fn(&Virtqueue<'_>) -> bool) -> bool {
        for queue in Virtqueues::lock(self).iter().filter(&is_ours) {
            queue.set_broken(false);
        }
        smp_mb(Full);
        // SAFETY: The device is on the bus, so that its parent is valid.
        if !unsafe { bindings::virtio_device_stop_is_present(self.parent()) } {
            self.break_virtqueues();
            return false;
        }
        let _no_bh = NoBottomHalves::enter();
        for queue in Virtqueues::lock(self).iter().filter(&is_ours) {
            queue.notify();
            queue.call_back();
        }
        true
    }

    /// Those that are broken work again, one after the other, but for one that would give each
    /// later command the end of the one before. Each once: a device may break it again at once, by
    /// what it says of requests.
    pub(super) fn mend_broken_virtqueues(&self) {
        let mut from = 0;
        loop {
            let is_ours = |queue: &Virtqueue<'_>| {
                queue.index() >= from && queue.is_broken() && !self.has_abandoned_command(queue)
            };
            let indexes = |queue: Virtqueue<'_>| is_ours(&queue).then(|| queue.index());
            let next = Virtqueues::lock(self).iter().filter_map(indexes).min();
            let Some(index) = next else {
                return;
            };
            if !self.mend_virtqueues(|queue| queue.index() == index) {
                return;
            }
            from = index + 1;
        }
    }
}

/// The virtqueues of a device: none comes or goes while this lives.
#[must_use = "virtqueues may come and go when this is dropped"]
pub(super) struct Virtqueues<'a> {
    device: &'a Device,
    _not_send: NotThreadSafe,
}

impl<'a> Virtqueues<'a> {
    /// Waits for the lock.
    pub(super) fn lock(device: &'a Device) -> Self {
        // SAFETY: `device` is valid. The virtio core takes the lock like this, too.
        unsafe { kernel::bindings::spin_lock(&raw mut (*device.as_raw()).vqs_list_lock) };
        Self {
            device,
            _not_send: NotThreadSafe,
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> Iter<'_> {
        // SAFETY: The device is valid; no reference to the list is made.
        let head = unsafe { &raw mut (*self.device.as_raw()).vqs };
        Iter {
            head,
            // INVARIANT: The lock is held while `self` is borrowed.
            // SAFETY: The list is well-formed, and does not change meanwhile.
            node: unsafe { (*head).next },
            _queues: PhantomData,
        }
    }
}

impl Drop for Virtqueues<'_> {
    fn drop(&mut self) {
        // SAFETY: `lock` has taken the lock, on this task.
        unsafe { kernel::bindings::spin_unlock(&raw mut (*self.device.as_raw()).vqs_list_lock) };
    }
}

/// Goes through virtqueues.
///
/// # Invariants
///
/// `head` is the list of a device's virtqueues, which does not change for `'a`, and `node` is part
/// of it.
pub(super) struct Iter<'a> {
    head: *mut kernel::bindings::list_head,
    node: *mut kernel::bindings::list_head,
    _queues: PhantomData<&'a Virtqueues<'a>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Virtqueue<'a>;

    fn next(&mut self) -> Option<Virtqueue<'a>> {
        if self.node == self.head {
            return None;
        }
        // SAFETY: By the invariant. All nodes but the head are part of a virtqueue.
        let queue = unsafe { kernel::container_of!(self.node, bindings::virtqueue, list) };
        // INVARIANT: What follows in a list is part of it.
        // SAFETY: By the invariant.
        self.node = unsafe { (*self.node).next };
        Some(Virtqueue {
            queue,
            _device: PhantomData,
        })
    }
}

/// A virtqueue.
///
/// # Invariants
///
/// `queue` points to a valid virtqueue for `'a`.
pub(super) struct Virtqueue<'a> {
    queue: *mut bindings::virtqueue,
    _device: PhantomData<&'a Device>,
}

impl Virtqueue<'_> {
    /// What the driver calls it.
    pub(super) fn name(&self) -> Option<&CStr> {
        // SAFETY: By the invariant. A name is a string that lives as long as the virtqueue.
        unsafe {
            let name = (*self.queue).name;
            (!name.is_null()).then(|| CStr::from_char_ptr(name))
        }
    }

    /// Whether it holds nothing: neither what the device has yet to use, nor what the driver has
    /// yet to take back.
    pub(super) fn is_empty(&self) -> bool {
        self.in_use() == 0
    }

    /// How many descriptors are with the device, or have yet to be taken back by the driver.
    pub(super) fn in_use(&self) -> u32 {
        // SAFETY: By the invariant. A driver may be changing the number.
        let free = unsafe { (&raw const (*self.queue).num_free).read_volatile() };
        self.size().saturating_sub(free)
    }

    /// How many descriptors it has.
    pub(super) fn size(&self) -> u32 {
        // SAFETY: By the invariant.
        unsafe { bindings::virtqueue_get_vring_size(self.queue) }
    }

    /// Its number (virtio 1.4, section 5, says what each is for).
    pub(super) fn index(&self) -> u32 {
        // SAFETY: By the invariant; it never changes.
        unsafe { (*self.queue).index }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::virtqueue {
        self.queue
    }

    /// Whether it takes nothing, and gives nothing.
    pub(super) fn is_broken(&self) -> bool {
        // SAFETY: By the invariant; the function reads a flag.
        unsafe { bindings::virtqueue_is_broken(self.queue) }
    }

    /// From now on.
    pub(super) fn set_broken(&self, broken: bool) {
        // SAFETY: By the invariant; the functions set a flag.
        unsafe {
            if broken {
                bindings::__virtqueue_break(self.queue);
            } else {
                bindings::__virtqueue_unbreak(self.queue);
            }
        }
    }

    /// Has the driver look at it, as an interrupt would: with bottom halves disabled. It may find
    /// nothing.
    fn call_back(&self) {
        // SAFETY: By the invariant. Drivers expect to be called at any time.
        unsafe {
            if let Some(callback) = (*self.queue).callback {
                callback(self.queue);
            }
        }
    }

    /// Notifies the device of it, unless it is being reset.
    fn notify(&self) {
        // SAFETY: By the invariant; to notify a device needs no lock.
        unsafe {
            if !(*self.queue).reset {
                bindings::virtqueue_notify(self.queue);
            }
        }
    }
}
