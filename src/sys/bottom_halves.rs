// SPDX-License-Identifier: GPL-2.0-only

//! Keeping softirqs from this processor.
//!
//! C header: [`include/linux/bottom_half.h`](srctree/include/linux/bottom_half.h)

use super::bindings;
use kernel::types::NotThreadSafe;

/// No softirq runs on this processor until this is dropped; then those do that were raised.
#[must_use = "softirqs run again when this is dropped"]
pub(super) struct NoBottomHalves(NotThreadSafe);

impl NoBottomHalves {
    pub(super) fn enter() -> Self {
        // SAFETY: Can be nested.
        unsafe { bindings::virtio_device_stop_disable_bh() };
        Self(NotThreadSafe)
    }
}

impl Drop for NoBottomHalves {
    fn drop(&mut self) {
        // SAFETY: This task has disabled them.
        unsafe { bindings::virtio_device_stop_enable_bh() };
    }
}
