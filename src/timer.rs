// SPDX-License-Identifier: GPL-2.0-only

//! A device's timer: enters its machine when that is due, whoever was to be waited for.

use crate::device::{
    Device,
    TIMER_WORK, //
};
use kernel::{
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

impl_has_delayed_work! {
    impl HasDelayedWork<Device, TIMER_WORK> for Device { self.timer_work }
}

impl WorkItem<TIMER_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut entered = this.enter();
        entered.guarded.armed = None;
        drop(entered.run());
    }
}
