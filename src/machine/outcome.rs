// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! How stops and resumes end.

use super::super::state::{
    Error,
    Reason, //
};
use super::phase::{
    Before,
    Handshake,
    Phase,
    Resumer, //
};
use super::Machine;

impl Machine {
    pub(super) fn acknowledged(&mut self, now: u64) {
        if let Phase::Stopping { by, .. } = self.phase {
            self.answer(by, Ok(()));
        }
        self.handshake = Handshake::Stopped;
        self.stats.stops += 1;
        self.stats.last_stop = self.cost(now);
        self.lapsed = false;
        self.effects.tell_stopped = true;
        let lease = self.lease_from(now);
        self.enter(Phase::Stopped { lease });
    }

    /// The device runs, as far as can be known.
    pub(super) fn runs(&mut self, now: u64) {
        let was_asked = matches!(self.handshake, Handshake::ResumeAsked { .. });
        let had_stopped = was_asked || self.handshake == Handshake::Stopped;
        let was_only_due = self.is_only_due();
        let mut note = Reason::None;
        match self.phase {
            Phase::Stopped { .. } => {
                self.stats.dropped += 1;
                self.lapses();
                note = Reason::StopDropped;
            }
            Phase::Resuming { by, before, .. } => {
                let (dropped, late) = match before {
                    Before::Stopped => (had_stopped && !was_asked, false),
                    Before::Aborting { dropped, .. } => (dropped, !dropped),
                    Before::StopUnanswered { .. } => (false, true),
                    Before::Found | Before::ResumeUnanswered => (false, false),
                };
                self.stats.last_resume = self.cost(now);
                let was_found_due = was_only_due && before == Before::Found;
                self.stats.resumes += u64::from(was_asked && !was_found_due);
                self.stats.dropped += u64::from(dropped);
                self.stats.late_acks += u64::from(late && had_stopped);
                if dropped {
                    note = Reason::StopDropped;
                }
                match by {
                    Resumer::Asker(by) => {
                        // Told now, and only once.
                        let lapsed = core::mem::take(&mut self.lapsed);
                        let result = if dropped || lapsed {
                            Err(Error::Stale)
                        } else {
                            Ok(())
                        };
                        self.answer(by, result);
                    }
                    _ if dropped => self.lapsed = true,
                    Resumer::Lease => {
                        self.stats.lease_expiries += 1;
                        note = Reason::LeaseExpired;
                    }
                    Resumer::Nobody | Resumer::Leaver => {}
                }
            }
            Phase::Aborting { dropped: true, .. } => {
                self.stats.dropped += 1;
                note = Reason::StopDropped;
            }
            Phase::ResumeUnanswered => {}
            _ => self.stats.late_acks += u64::from(had_stopped && !was_only_due),
        }
        if had_stopped {
            self.handshake = Handshake::Idle;
        }
        self.effects.notify = true;
        self.rest(note);
    }

    /// A stop ends by no act of whoever has asked for it, who is told at the next resume. A holder
    /// knows which stop was its own, and is told without this.
    pub(super) fn lapses(&mut self) {
        self.lapsed |= self.holder.is_none();
    }

    /// A stop ends before the device was asked.
    pub(super) fn not_asked(&mut self, now: u64, error: Error) {
        if let Phase::Quiescing { by, .. } = self.phase {
            self.answer(by, Err(error));
        }
        self.nonsense = None;
        if matches!(self.handshake, Handshake::ResumeAsked { .. }) {
            self.resume_found(now);
        } else {
            self.rest(Reason::None);
        }
    }

    /// Nobody waits for the stop any more that the device was asked for.
    pub(super) fn stop_is_given_up(&mut self, now: u64, error: Error) {
        if let Phase::Stopping { by, .. } = self.phase {
            self.answer(by, Err(error));
        }
        self.stats.timeouts += u64::from(error == Error::TimedOut);
        self.stats.last_stop = self.cost(now);
        self.enter(Phase::Aborting {
            since: now,
            dropped: false,
        });
        self.look_at = now;
    }

    /// Nobody waits for the resume any more.
    pub(super) fn resume_is_given_up(&mut self, now: u64, error: Error) {
        let Phase::Resuming { by, before, .. } = self.phase else {
            return;
        };
        if let Resumer::Asker(by) = by {
            self.answer(by, Err(error));
        }
        let was_only_due = before == Before::Found && self.is_only_due();
        let was_asked = by != Resumer::Nobody || !was_only_due;
        self.stats.timeouts += u64::from(error == Error::TimedOut && was_asked);
        self.stats.last_resume = self.cost(now);
        self.stats.lease_expiries += u64::from(by == Resumer::Lease);
        if by == Resumer::Leaver {
            self.effects.break_virtqueues = true;
            return self.rest(Reason::None);
        }
        let has_stopped = !matches!(self.handshake, Handshake::StopAsked { .. });
        self.enter(match before {
            Before::Aborting { since, dropped } if !has_stopped => {
                Phase::Aborting { since, dropped }
            }
            Before::StopUnanswered { since } if !has_stopped => Phase::StopUnanswered { since },
            _ => Phase::ResumeUnanswered,
        });
        if was_only_due && self.nonsense.is_none() {
            // It shows SUSPEND, and has not suspended, for as long as it may take: it may show that
            // for ever. What is no answer may hide that it has.
            self.unquiesce();
        }
        self.look_again(now);
    }
}
