// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device can't do now because memory is not there that the driver's virtqueues or buffers lie in. It may come back: see
//! [`PATIENCE`]. All is tried again when the client has mapped something, and once more before the device gives up. What waits because the
//! device is no bus master waits here too, but is not missed: it may wait for as long as the driver likes.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::queues::{Done, Taken};
use crate::buffers::PATIENCE;
use crate::portable;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Absent {
    /// Since when something is missing. Meanwhile the device takes nothing, and carries nothing out.
    #[serde(with = "portable::instant::option")]
    since: Option<Instant>,
    /// Something was mapped since the worker began: what it has missed may be there now. A successor does not know, and tries.
    #[serde(skip, default = "yes")]
    mapped: bool,
    /// The worker tries now, and this is its last time.
    #[serde(skip)]
    trying: bool,
    #[serde(skip)]
    last: bool,
    /// It has missed something again.
    #[serde(skip)]
    missed: bool,
    /// Requests whose buffers are missing.
    pub(super) requests: Vec<Taken>,
    /// What could not be given back.
    pub(super) done: Vec<Done>,
}

fn yes() -> bool {
    true
}

impl Absent {
    /// Taken, and waiting for memory.
    pub(super) fn len(&self) -> usize {
        self.requests.len() + self.done.len()
    }

    /// The device may not look for what is missing, or might not until now: patience begins anew when it is missed again.
    pub(super) fn forgive(&mut self) {
        self.since = None;
    }

    /// The client has mapped something.
    pub(super) fn mapped(&mut self) {
        self.mapped = true;
    }

    /// Whether the worker has to wait, with all that it could do.
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_some() && !self.trying
    }

    /// Whether there is something to try by `now`.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        match self.deadline() {
            Some(deadline) => self.mapped || deadline <= now,
            None => self.len() != 0,
        }
    }

    /// When patience ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    /// The worker begins with what there is to do.
    pub(super) fn begin(&mut self, now: Instant) {
        self.trying = self.since.is_none() || self.has_work(now);
        self.last = self.deadline().is_some_and(|deadline| deadline <= now);
        self.mapped = false;
        self.missed = false;
    }

    /// The requests that are to be carried out now.
    pub(super) fn take_requests(&mut self) -> Vec<Taken> {
        if self.trying {
            std::mem::take(&mut self.requests)
        } else {
            Vec::new()
        }
    }

    /// The results that are to be given back now.
    pub(super) fn take_done(&mut self) -> Vec<Done> {
        if self.trying {
            std::mem::take(&mut self.done)
        } else {
            Vec::new()
        }
    }

    /// Something is missing.
    pub(super) fn miss(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.missed = true;
    }

    /// The worker has done what it could. Returns whether the device is to give up.
    pub(super) fn end(&mut self) -> bool {
        if !std::mem::take(&mut self.trying) {
            return false;
        }
        let given_up = self.missed && self.last;
        if given_up || !self.missed {
            self.since = None;
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::chain::Chain;

    #[test]
    fn what_is_not_missed_waits_without_an_end_and_is_tried_at_once() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        absent.begin(now);
        absent.miss(now);
        absent.forgive();
        absent.requests.push(Taken {
            queue: 0,
            chain: Chain::default(),
            fail: false,
        });
        let later = now + 2 * PATIENCE;
        assert!(!absent.end());
        assert_eq!((absent.deadline(), absent.has_work(later)), (None, true));
        absent.begin(later);
        assert_eq!(absent.take_requests().len(), 1);
        assert!(!absent.end() && absent.since.is_none() && absent.len() == 0);
    }

    #[test]
    fn what_is_mapped_while_the_worker_misses_it_is_not_waited_for() {
        for mapped in [false, true] {
            let (mut absent, now) = (Absent::default(), Instant::now());
            absent.begin(now);
            if mapped {
                absent.mapped();
            }
            absent.miss(now);
            assert!(!absent.end());
            assert_eq!(absent.has_work(now), mapped);
            absent.mapped();
            assert!(absent.has_work(now));
            absent.begin(now);
            assert!(!absent.end());
            assert_eq!((absent.has_work(now), absent.deadline()), (false, None));
        }
    }
}
