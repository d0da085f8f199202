// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Who asks, and how it comes by its answer.

use super::super::state::Error;

/// A request that is being carried out. Its answer is taken once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u8);

/// Somebody who holds stops, and whose stops end when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Nobody else has it.
    pub id: u64,
    /// How long a request of its own may take; nothing: as the administrator has chosen.
    pub timeout_us: Option<u64>,
    /// For how long a stop of its own may stand; nothing: for ever.
    pub lease_us: Option<u64>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Anybody with the right to: such a stop is everybody's.
    Anybody,
    /// A holder: such a stop is its own.
    Holder(Holder),
    /// Root, who ends every stop.
    Root,
}

/// The requests that are being carried out, or whose answers were not taken yet. One at a time is
/// carried out; the others are of tasks that have yet to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Requests([Slot; 8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Free,
    Waiting,
    Answered(Result<(), Error>),
}

impl Requests {
    pub(super) const fn new() -> Self {
        Self([Slot::Free; 8])
    }

    pub(super) fn open(&mut self) -> Option<Ticket> {
        let free = |(_, slot): &(usize, &mut Slot)| **slot == Slot::Free;
        let (at, slot) = self.0.iter_mut().enumerate().find(free)?;
        *slot = Slot::Waiting;
        Some(Ticket(at as u8))
    }

    pub(super) fn answer(&mut self, Ticket(at): Ticket, result: Result<(), Error>) {
        if let Some(slot) = self.0.get_mut(usize::from(at)) {
            if *slot == Slot::Waiting {
                *slot = Slot::Answered(result);
            }
        }
    }

    pub(super) fn take(&mut self, Ticket(at): Ticket) -> Option<Result<(), Error>> {
        let slot = self.0.get_mut(usize::from(at))?;
        let Slot::Answered(result) = *slot else {
            return None;
        };
        *slot = Slot::Free;
        Some(result)
    }
}

impl Asker {
    pub(super) const fn id(self) -> Option<u64> {
        match self {
            Self::Holder(holder) => Some(holder.id),
            Self::Anybody | Self::Root => None,
        }
    }

    pub(super) const fn holder(self) -> Option<Holder> {
        match self {
            Self::Holder(holder) => Some(holder),
            Self::Anybody | Self::Root => None,
        }
    }
}
