// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requests in flight: what was taken from the virtqueues and not given back, by what it waits for.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::absent::Absent;
use super::queues::Taken;
use crate::portable;
use crate::settings::IoOrder;

/// Requests that wait for their time: by when that is, by what their order says, and in the order in which they were taken.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub(super) struct Waiting(BTreeMap<(Instant, u64, u64), Taken>);

/// One of them, as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(with = "portable::instant")]
    due: Instant,
    rank: u64,
    number: u64,
    taken: Taken,
}

impl From<Waiting> for Vec<Entry> {
    fn from(waiting: Waiting) -> Self {
        let entry = |((due, rank, number), taken)| Entry {
            due,
            rank,
            number,
            taken,
        };
        waiting.0.into_iter().map(entry).collect()
    }
}

impl From<Vec<Entry>> for Waiting {
    fn from(entries: Vec<Entry>) -> Self {
        let keyed = |entry: Entry| ((entry.due, entry.rank, entry.number), entry.taken);
        Self(entries.into_iter().map(keyed).collect())
    }
}

impl Waiting {
    pub(super) fn insert(
        &mut self,
        due: Instant,
        order: IoOrder,
        number: u64,
        random: &mut fastrand::Rng,
        taken: Taken,
    ) {
        let rank = match order {
            IoOrder::Taken => number,
            IoOrder::Reversed => u64::MAX - number,
            IoOrder::Shuffled => random.u64(..),
        };
        self.0.insert((due, rank, number), taken);
    }

    /// When the next of them is due.
    fn next(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((due, ..), _)| *due)
    }

    /// Removes those that are due.
    fn due(&mut self, now: Instant) -> Vec<Taken> {
        let later = self.0.split_off(&(now, u64::MAX, u64::MAX));
        let due = std::mem::replace(&mut self.0, later);
        due.into_values().collect()
    }
}

/// Which requests are kept although their time has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Those that a suspension left over.
    pub(super) left: bool,
    /// The others.
    pub(super) waiting: bool,
    /// Buffers for what the device says of itself.
    pub(super) saying: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requests {
    pub(super) waiting: Waiting,
    /// Buffers for what the device says of itself. These are no requests, and `io_hold` does not keep them.
    pub(super) saying: Waiting,
    /// Those that were not finished when the device was suspended.
    left: Waiting,
    /// Those that wait for memory.
    pub(super) absent: Absent,
    /// How many the worker is carrying out.
    #[serde(skip)]
    executing: usize,
}

impl Requests {
    pub(super) fn len(&self) -> u64 {
        let waiting = self.left.0.len() + self.waiting.0.len() + self.saying.0.len();
        (waiting + self.absent.len() + self.executing) as u64
    }

    /// Whose they are, and how many descriptors of a packed virtqueue they take up, but for those that are being carried out.
    pub(super) fn chains(&self) -> impl Iterator<Item = (usize, u16)> + '_ {
        let waiting = [&self.waiting, &self.saying, &self.left];
        let waiting = waiting.into_iter().flat_map(|waiting| waiting.0.values());
        let taken = waiting.chain(&self.absent.requests);
        let done = self.absent.done.iter();
        taken
            .map(|taken| (taken.queue, taken.chain.descriptors))
            .chain(done.map(|done| (done.queue, done.descriptors)))
    }

    /// Whether the worker is carrying any out.
    pub(super) fn are_executing(&self) -> bool {
        self.executing != 0
    }

    /// When the next one is to be carried out.
    pub(super) fn next(&self, held: Held) -> Option<Instant> {
        let left = self.left.next().filter(|_| !held.left);
        let waiting = self.waiting.next().filter(|_| !held.waiting);
        let saying = self.saying.next().filter(|_| !held.saying);
        left.into_iter().chain(waiting).chain(saying).min()
    }

    /// Those whose time has come. They are being carried out from now on.
    pub(super) fn due(&mut self, held: Held, now: Instant) -> Vec<Taken> {
        let mut due = self.absent.take_requests();
        for (requests, held) in [
            (&mut self.left, held.left),
            (&mut self.waiting, held.waiting),
            (&mut self.saying, held.saying),
        ] {
            if !held {
                due.append(&mut requests.due(now));
            }
        }
        self.executing = due.len();
        due
    }

    /// The worker has carried out what was due. Returns how many those were.
    pub(super) fn executed(&mut self) -> u64 {
        std::mem::take(&mut self.executing) as u64
    }

    /// The device is suspended: what it has not finished is left over.
    pub(super) fn suspend(&mut self) {
        self.left.0.append(&mut self.waiting.0);
    }

    /// Drops those of virtqueue `queue` that nobody is carrying out. Returns how many those were.
    pub(super) fn drop_queue(&mut self, queue: usize) -> u64 {
        let before = self.len();
        for waiting in [&mut self.waiting, &mut self.saying, &mut self.left] {
            waiting.0.retain(|_, taken| taken.queue != queue);
        }
        self.absent.requests.retain(|taken| taken.queue != queue);
        self.absent.done.retain(|done| done.queue != queue);
        before - self.len()
    }

    /// Drops those that nobody is carrying out. Returns how many those were.
    pub(super) fn drop_waiting(&mut self) -> u64 {
        let fresh = Self {
            executing: self.executing,
            ..Self::default()
        };
        let dropped = std::mem::replace(self, fresh);
        dropped.len() - dropped.executing as u64
    }
}
