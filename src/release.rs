// SPDX-License-Identifier: GPL-2.0-only

//! What is done after the answer, because it may wait: for the RTNL, or for memory that only another
//! device's disk could bring. It has a queue of its own, and holds no lock of the device meanwhile.

use crate::device::{
    Device,
    RELEASE_WORK, //
};
use kernel::{
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

impl_has_delayed_work! {
    impl HasDelayedWork<Device, RELEASE_WORK> for Device { self.release_work }
}

impl WorkItem<RELEASE_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let quiesced = this.enter().guarded.to_release.take();
        if let Some(quiesced) = quiesced {
            drop(quiesced);
            let mut entered = this.enter();
            entered.guarded.machine.unquiesced();
            drop(entered.run());
        }
        let states = this.enter().guarded.to_announce.take();
        for state in states.into_iter().flatten() {
            this.transport().device().tell_user_space(state.name());
        }
    }
}
