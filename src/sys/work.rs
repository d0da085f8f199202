// SPDX-License-Identifier: GPL-2.0-only

//! Work that has to make progress even when memory is short.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        HasDelayedWork,
        RawWorkItem,
        Work,
        WorkItem, //
    }, //
};

/// A work queue with a thread of its own in reserve (`WQ_MEM_RECLAIM`).
///
/// # Invariants
///
/// Points to a valid work queue, which this owns.
pub(crate) struct Queue(NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used from any task.
unsafe impl Send for Queue {}
// SAFETY: As above.
unsafe impl Sync for Queue {}

impl Queue {
    /// Makes one.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The format has one argument, a string.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_MEM_RECLAIM | bindings::wq_flags_WQ_UNBOUND,
                0,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: It was just made, and nobody else has it.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Has work done after `delay`, whenever it was to be done before.
    pub(crate) fn enqueue<T, const ID: u64>(&self, item: Arc<T>, delay: Jiffies)
    where
        T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
    {
        // SAFETY: By the invariant the queue is valid. `HasDelayedWork` promises that the work is a
        // delayed work's. False is returned only if it was queued already, and has a reference.
        let queued = unsafe {
            item.__enqueue(|work| {
                !bindings::mod_delayed_work_on(
                    bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                    self.0.as_ptr(),
                    kernel::container_of!(work, bindings::delayed_work, work),
                    delay,
                )
            })
        };
        // A reference too many goes.
        drop(queued);
    }

    /// Waits until what was queued is done, but for what is to be done later.
    pub(crate) fn finish(&self) {
        // SAFETY: By the invariant.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the invariant. Work that is still queued is done first; delayed work holds a
        // reference to what it works on, and its owner cancels it (see `cancel`) before.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// Takes delayed work back, or waits until it is done. It may have been done by then.
pub(crate) fn cancel<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    let ptr = Arc::as_ptr(item);
    // SAFETY: `ptr` is valid, and `HasDelayedWork` promises that its work is a delayed work's.
    let taken_back = unsafe {
        let work = Work::raw_get(T::raw_get_work(ptr.cast_mut()));
        bindings::cancel_delayed_work_sync(kernel::container_of!(
            work,
            bindings::delayed_work,
            work
        ))
    };
    if taken_back {
        // SAFETY: `enqueue_delayed` has turned a reference into the queue's own, which nobody will
        // take any more.
        drop(unsafe { Arc::from_raw(ptr) });
    }
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_work)]
mod tests {
    use super::*;
    use kernel::{
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Completion, //
        },
        workqueue::{
            impl_has_delayed_work,
            new_delayed_work,
            DelayedWork, //
        },
    };

    const LONG: Jiffies = Jiffies::MAX / 4;

    #[pin_data]
    struct Item {
        #[pin]
        work: DelayedWork<Self>,
        #[pin]
        done: Completion,
        runs: Atomic<u32>,
    }

    impl_has_delayed_work! {
        impl HasDelayedWork<Self> for Item { self.work }
    }

    impl WorkItem for Item {
        type Pointer = Arc<Self>;

        fn run(this: Arc<Self>) {
            this.runs.add(1, Relaxed);
            this.done.complete_all();
        }
    }

    fn item() -> Result<Arc<Item>> {
        Arc::pin_init(
            pin_init!(Item {
                work <- new_delayed_work!("virtio_device_stop::test"),
                done <- Completion::new(),
                runs: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    #[test]
    fn work_is_done_when_it_was_last_asked_for() -> Result {
        let queue = Queue::new(c"test")?;
        let item = item()?;
        queue.enqueue::<Item, 0>(item.clone(), LONG);
        queue.enqueue::<Item, 0>(item.clone(), 0);
        item.done.wait_for_completion();
        cancel::<Item, 0>(&item);
        assert_eq!(item.runs.load(Relaxed), 1);
        // No reference is left behind.
        assert!(Arc::into_unique_or_drop(item).is_some());
        Ok(())
    }

    #[test]
    fn work_that_is_taken_back_is_not_done() -> Result {
        let queue = Queue::new(c"test")?;
        let item = item()?;
        queue.enqueue::<Item, 0>(item.clone(), LONG);
        queue.enqueue::<Item, 0>(item.clone(), LONG);
        cancel::<Item, 0>(&item);
        cancel::<Item, 0>(&item);
        assert_eq!(item.runs.load(Relaxed), 0);
        assert!(Arc::into_unique_or_drop(item).is_some());
        Ok(())
    }
}
