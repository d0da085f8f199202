// SPDX-License-Identifier: GPL-2.0-only

//! Telling user space of a device, by uevents: of a stop before it begins, of its end afterwards.
//!
//! The kernel sends one uevent at a time, and allocates memory for it: whoever tells may wait for
//! somebody who waits for memory that only a stopped disk could bring. So nobody tells with a lock
//! of the device's held that others need, and what comes after an end is a work of its own.

use crate::{
    device::{
        Device,
        ANNOUNCE_WORK, //
    },
    state::State, //
};
use kernel::{
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

impl Device {
    /// Tells what has yet to be told, and then `state`, if that is given.
    pub(crate) fn announce(self: &Arc<Self>, state: Option<State>) {
        // Whoever tells later, tells of what was later.
        let _order = self.announcing.lock();
        let end = self.machine.lock().to_announce.take();
        for state in [end, state].into_iter().flatten() {
            self.transport().device().tell_user_space(state.name());
        }
    }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Device, ANNOUNCE_WORK> for Device { self.announce_work }
}

impl WorkItem<ANNOUNCE_WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.announce(None);
    }
}
