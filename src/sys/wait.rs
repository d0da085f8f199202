// SPDX-License-Identifier: GPL-2.0-only

//! Waiting for a time, or until something happens.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use super::bindings;
use kernel::{
    bindings::wait_queue_head,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        static_lock_class, //
    },
    types::Opaque, //
};

/// Those who wait for something that happens now and then.
#[pin_data]
pub(crate) struct Waiters {
    #[pin]
    queue: Opaque<wait_queue_head>,
    /// Counts what has happened.
    count: Atomic<u32>,
}

// SAFETY: A wait queue has a lock of its own.
unsafe impl Send for Waiters {}
// SAFETY: As above.
unsafe impl Sync for Waiters {}

/// What has happened so far.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u32);

impl Waiters {
    /// Nobody yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The queue is initialised here, and not used before it is pinned.
            queue <- Opaque::ffi_init(|queue| unsafe {
                kernel::bindings::__init_waitqueue_head(
                    queue,
                    c"virtio_device_stop".as_char_ptr(),
                    static_lock_class!().as_ptr(),
                )
            }),
            count: Atomic::new(0),
        })
    }

    /// What has happened so far: to be asked before the look that decides to wait.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.count.load(kernel::sync::atomic::Acquire))
    }

    /// Something has happened.
    pub(crate) fn wake(&self) {
        self.count.fetch_add(1, Release);
        // SAFETY: The queue was initialised by `new`.
        unsafe { bindings::virtio_device_stop_wake(self.queue.get()) };
    }

    /// Waits for about `us` microseconds, or until something happens that was not `seen`, or, if
    /// `killable`, until the task is being killed: then true is returned.
    pub(crate) fn wait(&self, Seen(seen): Seen, us: u64, killable: bool) -> bool {
        let ns = us.saturating_mul(1000);
        // SAFETY: The queue was initialised by `new`. The caller may sleep. The count is valid for
        // as long as `self` is.
        unsafe {
            bindings::virtio_device_stop_wait(
                self.queue.get(),
                (&raw const self.count).cast(),
                seen,
                ns,
                killable,
            )
        }
    }
}
