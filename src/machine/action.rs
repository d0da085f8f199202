// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What the machine has done, and what it is told of it.

use super::super::state::State;
use super::super::status::Access;

/// What is to be done now. Each is done once, and what has come of it is told to the machine, where
/// that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// User space is to be told of a stop: then [`Machine::announced`], with that generation.
    /// Without the lock, and before anything is quiesced: it allocates memory.
    AnnounceStop(u64),
    /// The driver above is to be quiesced, without waiting: then [`Machine::quiesced`].
    Quiesce,
    /// Until nobody gives the device requests any more: then [`Machine::settled`], with that
    /// generation. To be waited for without the lock.
    Settle(u64),
    /// The status is to be read, and written where the protocol allows it: then
    /// [`Machine::answered`].
    Access(Access),
    /// The driver above is to be told that the device has stopped.
    TellStopped,
    /// The virtqueues are to be broken, if the device has no requests: who is let go gets errors.
    BreakVirtqueues,
    /// The device is to be notified of every virtqueue: it may have missed that.
    NotifyVirtqueues,
    /// The driver above is to be let go: then, maybe later, [`Machine::unquiesced`].
    Unquiesce,
    /// User space is to be told of its end, sooner or later.
    Announce(State),
}

/// What has come of the attempt to quiesce the driver above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// It is quiesced.
    Done,
    /// It can't be quiesced now: to be tried again.
    NotNow,
    /// What is to be quiesced is not there.
    NotFound,
}

/// What is to be done before anything else, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Effects {
    pub(super) tell_stopped: bool,
    pub(super) break_virtqueues: bool,
    pub(super) notify: bool,
    pub(super) unquiesce: bool,
}

impl Effects {
    pub(super) const NONE: Self = Self {
        tell_stopped: false,
        break_virtqueues: false,
        notify: false,
        unquiesce: false,
    };

    pub(super) fn next(&mut self) -> Option<Action> {
        let mut once = |flag: fn(&mut Self) -> &mut bool| core::mem::take(flag(self));
        if once(|effects| &mut effects.tell_stopped) {
            Some(Action::TellStopped)
        } else if once(|effects| &mut effects.break_virtqueues) {
            Some(Action::BreakVirtqueues)
        } else if once(|effects| &mut effects.notify) {
            Some(Action::NotifyVirtqueues)
        } else if once(|effects| &mut effects.unquiesce) {
            Some(Action::Unquiesce)
        } else {
            None
        }
    }
}
