// SPDX-License-Identifier: GPL-2.0-only

//! What is done after the answer, because it may wait: for the RTNL, or for memory that only another
//! device's disk could bring. It has a queue of its own, and holds no lock of the device meanwhile.

use crate::{
    device::Device,
    state::State, //
};
use kernel::{
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

/// Which of the device's works this is.
pub(crate) const WORK: u64 = 1;

/// What user space has yet to be told. A stop that has come to its end before it was told of is left
/// out, with its end, if another one follows.
#[derive(Clone, Copy)]
pub(crate) struct Announcements {
    stop: bool,
    end: Option<State>,
}

impl Announcements {
    pub(crate) const NONE: Self = Self {
        stop: false,
        end: None,
    };

    /// One more.
    pub(crate) fn add(&mut self, state: State) {
        match state {
            State::Stopping => {
                *self = Self {
                    stop: true,
                    end: None,
                }
            }
            end => self.end = Some(end),
        }
    }

    fn take(&mut self) -> [Option<State>; 2] {
        let Self { stop, end } = core::mem::replace(self, Self::NONE);
        [stop.then_some(State::Stopping), end]
    }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Device, 1> for Device { self.release_work }
}

impl WorkItem<WORK> for Device {
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
