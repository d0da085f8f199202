// SPDX-License-Identifier: GPL-2.0-only

//! RCU grace periods.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::bindings;
use kernel::prelude::*;

/// A grace period: it is over when all read-side critical sections have ended that were under way
/// when it began.
///
/// Whoever begins several, and then waits for each, waits for one: it covers the others.
#[derive(Clone, Copy)]
pub(crate) struct GracePeriod(c_ulong);

impl GracePeriod {
    /// Begins now. What was written before is seen by every critical section that begins later.
    pub(crate) fn begin() -> Self {
        // SAFETY: Reads a counter.
        Self(unsafe { bindings::virtio_device_stop_rcu_state() })
    }

    /// Waits until it is over, which it may be already. Expedited: the other processors are
    /// interrupted, which takes some 0.1 ms instead of 10.
    pub(crate) fn wait(&self) {
        // SAFETY: The caller may sleep.
        unsafe { bindings::virtio_device_stop_wait_for_rcu(self.0) };
    }
}
