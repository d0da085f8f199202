// SPDX-License-Identifier: GPL-2.0-only

//! Letting a driver go after the answer, because that may wait for the RTNL, and whoever has that
//! for memory that only another device's disk could bring. No lock of the device is held meanwhile.

use crate::{
    device::{
        Device,
        RELEASE_WORK, //
    },
    sys::netdev::Rtnl, //
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
        if this.enter().guarded.to_release.is_some() {
            let lock = Rtnl::lock();
            // Not before: another stop takes it back.
            let quiesced = this.enter().guarded.to_release.take();
            if let Some(quiesced) = quiesced {
                quiesced.end(&lock);
                let mut entered = this.enter();
                entered.guarded.machine.unquiesced();
                drop(entered.run());
            }
        }
    }
}
