// SPDX-License-Identifier: GPL-2.0-only

//! A device of an owner's, and what that one has to undo.

use crate::{
    attachment::Kept,
    machine::Ticket,
    state::{
        Error,
        State, //
    },
};

/// A device that was added.
pub(crate) struct Member {
    /// What the program knows it by, and we: it may be removed meanwhile, and is looked up for each
    /// call.
    pub(crate) cookie: u64,
    /// The N of its virtioN.
    pub(crate) index: u32,
    pub(crate) stop: Stop,
}

/// What this file has done to it.
pub(crate) enum Stop {
    /// Nothing that it would have to undo.
    None,
    /// It has stopped, and that was the generation.
    Stands(u64),
    /// It was asked to resume, and the answer is waited for.
    Resuming(Kept, Ticket),
    /// It has not resumed in time.
    Unanswered,
}

impl Stop {
    /// What is left to undo after a request to resume was answered.
    pub(crate) fn after(answer: Result<(), Error>) -> Self {
        match answer {
            Ok(()) | Err(Error::Stale | Error::Gone | Error::NoDriver | Error::NotSupported) => {
                Self::None
            }
            Err(
                Error::Busy
                | Error::TimedOut
                | Error::CalledOff
                | Error::NeedsReset
                | Error::Killed,
            ) => Self::Unanswered,
        }
    }
}

impl Member {
    /// Whether this file has stopped it, and it stands since.
    pub(crate) fn stands(&self, state: State, generation: u64) -> bool {
        let Stop::Stands(since) = self.stop else {
            return false;
        };
        state == State::Stopped && since == generation
    }
}
