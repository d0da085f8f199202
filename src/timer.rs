// SPDX-License-Identifier: GPL-2.0-only

//! A device's timer: enters its machine when that is due, whoever was to be waited for.

use crate::device::Device;
use kernel::{
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

/// Which of the device's works this is.
pub(crate) const WORK: u64 = 0;

impl_has_delayed_work! {
    impl HasDelayedWork<Device, 0> for Device { self.timer_work }
}

impl WorkItem<WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut entered = this.enter();
        entered.guarded.armed = None;
        drop(entered.run());
    }
}
