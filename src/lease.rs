// SPDX-License-Identifier: GPL-2.0-only

//! The end of a stop whose owner has gone silent.
//!
//! A guest whose root disk is stopped can't run the program that would resume it, if that was not
//! prepared for it, or was killed. So every stop ends by itself, unless its owner has said that it
//! may stand for ever, or prolongs it.

use crate::device::Device;
use kernel::{
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

/// For how long a stop may stand unless its owner says otherwise.
pub(crate) const DEFAULT_MS: u32 = 60_000;

/// Which of the device's works this is.
pub(crate) const WORK: u64 = 0;

/// The lease of a stop that stands.
pub(crate) struct Lease {
    end: Instant<Monotonic>,
}

impl Lease {
    /// A lease from now on, by the device's setting; not a shorter one than `before`. None if stops
    /// may stand for ever.
    pub(crate) fn renewed(before: Option<Self>, device: &Arc<Device>) -> Option<Self> {
        let ms = match device.lease_ms() {
            0 => return None,
            ms => ms,
        };
        let end = Instant::now() + Delta::from_millis(i64::from(ms));
        let lease = match before {
            Some(before) if before.left_ms() > ms => before,
            _ => Self { end },
        };
        device.enqueue::<WORK>(msecs_to_jiffies(lease.left_ms()));
        Some(lease)
    }

    /// Milliseconds until it ends.
    fn left_ms(&self) -> u32 {
        let left = self.end - Instant::now();
        u32::try_from(left.as_millis_ceil()).unwrap_or(0)
    }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Device, 0> for Device { self.lease_work }
}

impl WorkItem<WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // The work may have been queued for a stop that has ended before, and another one be under way.
        let Some(mut transition) = this.at_rest() else {
            return;
        };
        match transition.lease.as_ref().map(Lease::left_ms) {
            None => {}
            Some(0) => this.end_lease(&mut transition),
            Some(left) => this.enqueue::<WORK>(msecs_to_jiffies(left)),
        }
    }
}
