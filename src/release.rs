// SPDX-License-Identifier: GPL-2.0-only

//! Letting a driver go after the answer, because that may wait for the RTNL, and whoever has that
//! for memory that only another device's disk could bring. No lock of the device is held meanwhile.

use crate::{
    device::{
        Device,
        Guarded,
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

impl Guarded {
    /// Whether anything of the driver is held still.
    pub(crate) fn holds_driver(&self) -> bool {
        self.quiesced.is_some() || self.has_to_release()
    }

    fn has_to_release(&self) -> bool {
        self.to_release.is_some() || self.unanswered.is_some()
    }
}

impl WorkItem<RELEASE_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if !this.enter().guarded.has_to_release() {
            return;
        }
        let lock = Rtnl::lock();
        // Not before: another stop takes it back.
        let quiesced = this.enter().guarded.to_release.take();
        if let Some(quiesced) = quiesced {
            let rest = quiesced.end(&lock);
            let mut entered = this.enter();
            entered.guarded.unanswered = rest;
            entered.guarded.machine.unquiesced();
            drop(entered.run());
        }
        let (rest, is_lost) = {
            let guarded = &mut this.enter().guarded;
            let answers = !guarded.machine.is_unanswered();
            let rest = guarded.unanswered.take_if(|_| answers);
            (rest, guarded.machine.is_lost())
        };
        if let Some(mut rest) = rest {
            if is_lost {
                rest.device_is_lost();
            }
            rest.end(&lock);
        }
    }
}
