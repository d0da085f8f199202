// SPDX-License-Identifier: GPL-2.0-only

//! Allocation without I/O.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use super::bindings;
use kernel::types::NotThreadSafe;

/// While this lives, memory that this task allocates is not got by writing pages out: that would
/// wait for the very disk that is stopped.
#[must_use = "allocations may do I/O again when this is dropped"]
pub(crate) struct NoIo {
    flags: u32,
    _not_send: NotThreadSafe,
}

impl NoIo {
    /// From now on.
    pub(crate) fn enter() -> Self {
        Self {
            // SAFETY: Changes this task's own flags.
            flags: unsafe { bindings::virtio_device_stop_noio_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: The flags are those that `enter` has got on this task.
        unsafe { bindings::virtio_device_stop_noio_restore(self.flags) };
    }
}
