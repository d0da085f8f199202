// SPDX-License-Identifier: GPL-2.0-only

//! What user space has yet to be told of a device, by uevents.

use crate::state::State;

/// What user space has yet to be told. A stop that has come to its end before it was told of is left
/// out, with its end, if another one follows.
#[derive(Clone, Copy)]
pub(crate) struct Announcements {
    stop: bool,
    end: Option<State>,
}

impl Announcements {
    /// Nothing.
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

    /// In this order.
    pub(crate) fn take(&mut self) -> [Option<State>; 2] {
        let Self { stop, end } = core::mem::replace(self, Self::NONE);
        [stop.then_some(State::Stopping), end]
    }
}
