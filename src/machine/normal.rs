// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! For the model checker, on the host only: what makes two machines behave alike.

use super::super::state::Stats;
use super::phase::{
    Before,
    Handshake,
    Phase, //
};
use super::ticket::Requests;
use super::Machine;
use std::hash::{
    Hash,
    Hasher, //
};

impl Machine {
    /// The same machine at another time, without what does not decide what it does next: `now`
    /// becomes `then`, generations and epochs begin at 0, and nothing was counted. What happened so
    /// long ago that it makes no difference happened at 0.
    #[must_use]
    pub fn moved(&self, now: u64, then: u64) -> Self {
        let at = |time: u64| (time + then).saturating_sub(now);
        let long_ago = then.saturating_sub(4 * self.limits.abort.1);
        let past = |time: u64| at(time).max(long_ago);
        let mut moved = self.clone();
        moved.generation = 0;
        moved.known.epoch = 0;
        moved.stats = Stats::NONE;
        moved.access_since = None;
        moved.reads = 0;
        moved.nonsense = self.nonsense.map(past);
        moved.look_at = if self.looks() { at(self.look_at) } else { 0 };
        moved.handshake = match self.handshake {
            Handshake::StopAsked { since, called_off } => Handshake::StopAsked {
                since: past(since),
                called_off,
            },
            Handshake::ResumeAsked {
                since,
                again,
                cleared,
            } => Handshake::ResumeAsked {
                since: past(since),
                again,
                cleared,
            },
            handshake => handshake,
        };
        let before = |before| match before {
            Before::Aborting { since, dropped } => Before::Aborting {
                since: past(since),
                dropped,
            },
            Before::StopUnanswered { since } => Before::StopUnanswered { since: past(since) },
            before => before,
        };
        moved.phase = match self.phase {
            Phase::Quiescing {
                by,
                since,
                until,
                step,
            } => Phase::Quiescing {
                by,
                since: past(since),
                until: at(until),
                step,
            },
            Phase::Stopping { by, since, until } => Phase::Stopping {
                by,
                since: past(since),
                until: at(until),
            },
            Phase::Stopped { lease } => Phase::Stopped {
                lease: lease.map(at),
            },
            Phase::Resuming {
                by,
                before: was,
                since,
                until,
            } => Phase::Resuming {
                by,
                before: before(was),
                since: past(since),
                until: at(until),
            },
            Phase::Aborting { since, dropped } => Phase::Aborting {
                since: past(since),
                dropped,
            },
            Phase::StopUnanswered { since } => Phase::StopUnanswered { since: past(since) },
            phase @ (Phase::Rest(_) | Phase::ResumeUnanswered) => phase,
        };
        moved
    }

    /// Whether a request waits for its answer.
    pub fn is_waiting(&self) -> bool {
        self.requests != Requests::new()
    }
}

impl PartialEq for Machine {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Machine {}

impl Hash for Machine {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl Machine {
    fn key(&self) -> impl Hash + Eq + '_ {
        (
            (&self.phase, &self.handshake, &self.above, &self.lost),
            (&self.known, &self.driver, &self.settings, &self.holder),
            (
                &self.nonsense,
                &self.look_at,
                &self.look_wanted,
                &self.refuses_stops,
                &self.configuring,
            ),
            (&self.requests, &self.effects, &self.announced, &self.lapsed),
            (self.holds_back, self.generation),
        )
    }
}
