// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! How long things may take, and when the machine is to be entered again.
//!
//! The protocol gives no time limit and no completion notice: the driver polls. It looks at once,
//! then waits for a twenty-fifth of the time that has passed, so that an acknowledgement is seen
//! within 4 % of the time that it took, and seldom is a device asked more than a hundred times.

use super::super::state::Error;
use super::super::status::Protocol;
use super::action::Effects;
use super::phase::{
    Handshake,
    Lost,
    Phase,
    Quiescing,
    Resumer, //
};
use super::Machine;

impl Machine {
    pub(super) fn abort_limit(&self) -> u64 {
        let (least, most) = self.limits.abort;
        self.settings
            .timeout_us
            .saturating_mul(10)
            .clamp(least, most)
    }

    /// When the status is to be read next if it is read now.
    pub(super) fn look_again(&mut self, now: u64) {
        let pace = |since: u64, (least, most): (u64, u64)| {
            (now.saturating_sub(since) / 25).clamp(least, most)
        };
        let wait = match self.phase {
            Phase::Quiescing { since, until, .. }
            | Phase::Stopping { since, until, .. }
            | Phase::Resuming { since, until, .. } => {
                let left = until.saturating_sub(now);
                let wait = pace(since, self.limits.wait);
                // Once more when the time is over.
                if left == 0 {
                    wait
                } else {
                    wait.min(left)
                }
            }
            _ => {
                let since = self.nonsense.or(self.handshake.since()).unwrap_or(now);
                pace(since, self.limits.watch)
            }
        };
        self.look_at = now.saturating_add(wait);
    }

    /// Whether the status is to be read, or the driver above quiesced, at `look_at`.
    pub(super) fn looks(&self) -> bool {
        match self.phase {
            _ if self.known.negotiated.is_err() => false,
            Phase::Quiescing { step, .. } => {
                let waits = self.holds_back && step == Quiescing::Quiesce;
                !waits && !matches!(step, Quiescing::Announcing | Quiescing::Settling)
            }
            Phase::Stopping { .. } => true,
            Phase::Stopped { .. } => self.look_wanted || self.nonsense.is_some(),
            _ => self.handshake != Handshake::Idle,
        }
    }

    /// When the machine is to be entered again, if nothing happens before.
    pub fn deadline(&self) -> Option<u64> {
        let look = self.looks().then_some(self.look_at);
        let effects = (self.effects != Effects::NONE).then_some(0);
        [effects, look, self.nonsense_ends(), self.phase_ends()]
            .into_iter()
            .flatten()
            .min()
    }

    fn nonsense_ends(&self) -> Option<u64> {
        let since = self.nonsense.filter(|_| self.lost.is_none())?;
        Some(since.saturating_add(self.abort_limit()))
    }

    fn phase_ends(&self) -> Option<u64> {
        match self.phase {
            Phase::Quiescing { until, .. }
            | Phase::Stopping { until, .. }
            | Phase::Resuming { until, .. } => Some(until),
            Phase::Stopped { lease } => lease,
            Phase::Aborting { since, .. } => Some(since.saturating_add(self.abort_limit())),
            Phase::Rest(_) | Phase::StopUnanswered { .. } | Phase::ResumeUnanswered => None,
        }
    }

    /// Sees to what is over by now. Returns whether anything was.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let is_over = |end: Option<u64>| end.is_some_and(|end| end <= now);
        if is_over(self.nonsense_ends()) {
            // It is there: if it comes to its senses, it is not left stopped.
            let handshake = self.handshake;
            self.lose(Lost::Gone);
            self.handshake = handshake;
            self.look_again(now);
            return true;
        }
        if !is_over(self.phase_ends()) {
            return false;
        }
        match self.phase {
            Phase::Quiescing { .. } if self.nonsense.is_some() => {
                self.not_asked(now, Error::TimedOut)
            }
            // The device is not to blame: it was not asked.
            Phase::Quiescing { .. } => self.not_asked(now, Error::Busy),
            Phase::Stopping { .. } => self.stop_is_given_up(now, Error::TimedOut),
            Phase::Resuming { .. } => self.resume_is_given_up(now, Error::TimedOut),
            Phase::Stopped { .. } => {
                self.lapses();
                self.resume(now, Resumer::Lease, self.settings.timeout_us);
            }
            // It has stopped, and does not resume: then the driver above must not touch it.
            Phase::Aborting { .. }
                if self.protocol() == Some(Protocol::Suspend)
                    && !matches!(self.handshake, Handshake::StopAsked { .. }) =>
            {
                self.enter(Phase::ResumeUnanswered);
            }
            Phase::Aborting { since, .. } => {
                self.enter(Phase::StopUnanswered { since });
                self.unquiesce();
            }
            Phase::Rest(_) | Phase::StopUnanswered { .. } | Phase::ResumeUnanswered => {}
        }
        true
    }
}
