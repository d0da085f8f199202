// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What the device was asked for, and what its answers make of that.

use super::super::field::{
    Answer,
    WasReset, //
};
use super::super::state::{
    Cost,
    Error, //
};
use super::super::status::{
    Access,
    Protocol,
    Seen, //
};
use super::action::Action;
use super::phase::{
    Above,
    Driver,
    Handshake,
    Lost,
    Phase,
    Quiescing,
    Resumer, //
};
use super::Machine;

impl Machine {
    /// What is to be done to the device now, or above it.
    pub(super) fn access(&mut self, now: u64) -> Option<Action> {
        let protocol = self.protocol()?;
        if !self.looks() || now < self.look_at {
            return None;
        }
        let access = match self.phase {
            Phase::Quiescing {
                by,
                since,
                until,
                step,
            } => {
                let mut to = |step| {
                    self.phase = Phase::Quiescing {
                        by,
                        since,
                        until,
                        step,
                    };
                };
                match step {
                    Quiescing::Announce => {
                        to(Quiescing::Announcing);
                        return Some(Action::AnnounceStop(self.generation));
                    }
                    Quiescing::Quiesce => return Some(Action::Quiesce),
                    Quiescing::Settle => {
                        to(Quiescing::Settling);
                        return Some(Action::Settle(self.generation));
                    }
                    Quiescing::Announcing | Quiescing::Settling => return None,
                    // Somebody writes to the configuration space still.
                    Quiescing::Ask if !protocol.allows_buffers() && self.configuring > 0 => {
                        self.look_again(now);
                        return None;
                    }
                    Quiescing::Ask => Access::Stop,
                }
            }
            Phase::Stopping { .. } | Phase::Stopped { .. } => Access::Read,
            _ => match self.handshake {
                Handshake::StopAsked {
                    called_off: false, ..
                } if protocol == Protocol::DeviceStop => Access::CallOff,
                Handshake::Stopped | Handshake::ResumeAsked { again: true, .. } => Access::Resume,
                Handshake::ResumeAsked {
                    since,
                    cleared: false,
                    ..
                } if protocol == Protocol::Suspend && self.is_late(now, since) => {
                    Access::ResumeByClearing
                }
                _ => Access::Read,
            },
        };
        self.access_since.get_or_insert(now);
        Some(Action::Access(access))
    }

    pub(super) fn begin_accesses(&mut self, now: u64) {
        self.look_at = now;
        self.access_since = None;
        self.reads = 0;
    }

    pub(super) fn cost(&self, now: u64) -> Cost {
        Cost {
            elapsed_us: now.saturating_sub(self.access_since.unwrap_or(now)),
            reads: self.reads,
        }
    }

    /// The stop is to be looked at, if one stands.
    pub fn look(&mut self, now: u64) {
        if matches!(self.phase, Phase::Stopped { .. }) {
            self.look_wanted = true;
            self.look_at = now;
        }
    }

    /// The status was accessed. `present`: the bus knows the device still.
    pub fn answered(&mut self, now: u64, answer: Result<Answer, WasReset>, present: bool) {
        let Ok(Answer { seen, written }) = answer else {
            // The next to enter knows of the reset.
            return self.look_again(now);
        };
        self.reads = self.reads.saturating_add(1);
        self.look_wanted = false;
        let at_once = match seen {
            Seen::Ones if !present => return self.lose(Lost::Gone),
            Seen::Reset => return self.lose(Lost::Reset),
            Seen::NeedsReset => return self.lose(Lost::NeedsReset),
            Seen::Ones | Seen::Garbage => self.is_nonsense(now),
            // Nobody was asked for anything yet.
            Seen::NotReady if !matches!(self.phase, Phase::Quiescing { .. }) => {
                self.is_nonsense(now)
            }
            _ => {
                self.nonsense = None;
                self.seen(now, seen, written)
            }
        };
        if at_once {
            self.look_at = now;
        } else {
            self.look_again(now);
        }
    }

    fn is_nonsense(&mut self, now: u64) -> bool {
        self.nonsense.get_or_insert(now);
        false
    }

    /// Returns whether the device is to be accessed again without a wait.
    fn seen(&mut self, now: u64, seen: Seen, written: bool) -> bool {
        match (self.phase, seen) {
            (
                Phase::Quiescing {
                    by, since, until, ..
                },
                _,
            ) if written => {
                self.handshake = Handshake::StopAsked {
                    since: now,
                    called_off: false,
                };
                self.phase = Phase::Stopping { by, since, until };
                return true;
            }
            // Nobody has asked for that: it has been taken for running when it was not.
            (Phase::Quiescing { by, .. }, Seen::Stopped) => {
                self.answer(by, Err(Error::Busy));
                self.handshake = Handshake::Stopped;
                self.resume_found(now);
                return true;
            }
            // It is asked when it runs. However the stop ends before that, it is not forgotten.
            (Phase::Quiescing { .. }, Seen::Between) => self.resume_is_due(now, true),
            (Phase::Quiescing { .. }, _) => self.not_asked(now, Error::NoDriver),
            (Phase::Stopping { .. }, Seen::Stopped) => self.acknowledged(now),
            (Phase::Stopping { .. }, _) => {}
            (Phase::Stopped { .. }, Seen::Running) => self.runs(now),
            // It is about to run, but is not to be notified yet.
            (Phase::Stopped { .. }, Seen::Between) => {
                self.lapses();
                self.enter(Phase::Aborting {
                    since: now,
                    dropped: true,
                });
            }
            (Phase::Stopped { .. }, _) => {}
            _ => return self.seen_unwanted(now, seen, written),
        }
        false
    }

    /// The same, while nobody wants the device to be stopped.
    fn seen_unwanted(&mut self, now: u64, seen: Seen, written: bool) -> bool {
        match (&mut self.handshake, seen) {
            // What calls a stop off that has been acknowledged just now resumes the device.
            (Handshake::StopAsked { .. }, Seen::Stopped) if written => self.resume_is_asked(now),
            (Handshake::StopAsked { called_off, .. }, _) if written => *called_off = true,
            (Handshake::StopAsked { .. }, Seen::Stopped) => {
                self.handshake = Handshake::Stopped;
                if matches!(self.phase, Phase::Rest(_)) && self.driver == Driver::Bound {
                    self.resume(now, Resumer::Nobody, self.settings.timeout_us);
                }
            }
            (
                Handshake::StopAsked {
                    called_off: true, ..
                },
                Seen::Running,
            ) => {
                if matches!(self.phase, Phase::Rest(_)) {
                    // It may have stopped since the last look, and been resumed by what core has
                    // written.
                    self.effects.notify = true;
                } else {
                    self.runs(now);
                }
                return false;
            }
            (Handshake::Stopped, Seen::Stopped) => self.resume_is_asked(now),
            (Handshake::ResumeAsked { again, since, .. }, Seen::Stopped) if *again => {
                (*again, *since) = (false, now);
            }
            (Handshake::ResumeAsked { cleared, .. }, Seen::Stopped) if written => {
                *cleared = true;
                self.stats.suspend_cleared += 1;
            }
            (Handshake::Stopped | Handshake::ResumeAsked { .. }, Seen::Running) => {
                self.runs(now);
                return false;
            }
            _ => return false,
        }
        true
    }

    fn resume_is_asked(&mut self, now: u64) {
        self.resume_is_due(now, false);
    }

    /// `again`: it is to be asked, if it stops.
    pub(super) fn resume_is_due(&mut self, now: u64, again: bool) {
        self.handshake = Handshake::ResumeAsked {
            since: now,
            again,
            cleared: false,
        };
    }

    /// Whether the last quarter of the time has begun in which the device is to resume, and it was
    /// asked at least as long ago. If nobody waits for that: the last quarter of what the
    /// administrator grants.
    fn is_late(&self, now: u64, asked: u64) -> bool {
        match self.phase {
            Phase::Resuming { since, until, .. } => {
                let quarter = until.saturating_sub(since) / 4;
                now >= until.saturating_sub(quarter) && now >= asked.saturating_add(quarter)
            }
            _ => {
                let timeout_us = self.settings.timeout_us;
                now >= asked.saturating_add(timeout_us - timeout_us / 4)
            }
        }
    }

    /// The device was found with its driver when this module was loaded. If it has stopped, nobody
    /// wants that; if it runs, it may have been left before it did.
    pub fn found(&mut self, now: u64, seen: Seen) {
        match seen {
            Seen::Stopped => {
                self.handshake = Handshake::Stopped;
                self.resume_found(now);
            }
            // It may have been asked before. What is no answer may hide that it has stopped.
            Seen::Between | Seen::Ones | Seen::Garbage => {
                self.resume_is_due(now, seen != Seen::Between);
                self.resume_found(now);
            }
            Seen::Running => self.effects.notify = true,
            Seen::NotReady | Seen::Reset | Seen::NeedsReset => {}
        }
    }

    /// A resume that the device has not acknowledged is asked for once more. Not under
    /// VIRTIO_F_SUSPEND if it was: what asks for it has SUSPEND set, and would ask for another stop
    /// if the device resumed just before. What clears SUSPEND may be written once more.
    pub(super) fn ask_again(&mut self) {
        let may = self.protocol() == Some(Protocol::DeviceStop);
        if let Handshake::ResumeAsked { again, cleared, .. } = &mut self.handshake {
            *again |= may;
            *cleared = false;
        }
    }

    /// Whether the device was asked for something that it has not answered. One that shows that it
    /// runs, after a stop was called off, is taken at its word.
    pub fn is_unanswered(&self) -> bool {
        !matches!(
            self.handshake,
            Handshake::Idle
                | Handshake::StopAsked {
                    called_off: true,
                    ..
                }
        )
    }

    /// Whether the device is to be asked to resume if it stops, and was not asked since that is so.
    pub(super) fn is_only_due(&self) -> bool {
        matches!(self.handshake, Handshake::ResumeAsked { again: true, .. })
    }

    /// Whether the driver above is held.
    pub(super) fn is_held(&self) -> bool {
        self.above == Above::Quiesced
    }
}
