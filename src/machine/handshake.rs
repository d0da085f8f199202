// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What the device was asked for, and what its answers make of that.

use super::super::field::{
    Answer,
    WasReset, //
};
use super::super::state::{
    Cost,
    Error,
    Reason,
    State, //
};
use super::super::status::{
    Access,
    Protocol,
    Seen, //
};
use super::{
    Above,
    Action,
    Before,
    Lost,
    Machine,
    Phase,
    Resumer, //
};

/// What the device was asked for, and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handshake {
    /// Nothing: it runs.
    Idle,
    /// To stop. `called_off`: that was withdrawn (VIRTIO_F_DEVICE_STOP), which proves nothing. It shows that
    /// it runs, but may yet stop.
    StopAsked { since: u64, called_off: bool },
    /// It has stopped, and was not asked to resume.
    Stopped,
    /// To resume. `again`: to be asked once more, which VIRTIO_F_SUSPEND does not allow.
    ResumeAsked { since: u64, again: bool },
}

/// How far a stop has come before the device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Quiescing {
    /// The driver above is to be quiesced.
    Quiesce,
    /// It is; whoever was about to give the device a request is to be waited for.
    Settle,
    /// That is being done.
    Settling,
    /// The device is to be asked.
    Ask,
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
    pub(super) announce: Option<State>,
}

impl Handshake {
    pub(super) const fn since(self) -> Option<u64> {
        match self {
            Self::StopAsked { since, .. } | Self::ResumeAsked { since, .. } => Some(since),
            Self::Idle | Self::Stopped => None,
        }
    }
}

impl Effects {
    pub(super) const NONE: Self = Self {
        tell_stopped: false,
        break_virtqueues: false,
        notify: false,
        unquiesce: false,
        announce: None,
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
            self.announce.take().map(Action::Announce)
        }
    }
}

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
            } => match step {
                Quiescing::Quiesce => return Some(Action::Quiesce),
                Quiescing::Settle => {
                    let step = Quiescing::Settling;
                    self.phase = Phase::Quiescing {
                        by,
                        since,
                        until,
                        step,
                    };
                    return Some(Action::Settle(self.generation));
                }
                Quiescing::Settling => return None,
                Quiescing::Ask => Access::Stop,
            },
            Phase::Stopping { .. } | Phase::Stopped { .. } => Access::Read,
            _ => match self.handshake {
                Handshake::StopAsked {
                    called_off: false, ..
                } if protocol == Protocol::DeviceStop => Access::CallOff,
                Handshake::Stopped | Handshake::ResumeAsked { again: true, .. } => Access::Resume,
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

    fn cost(&self, now: u64) -> Cost {
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

    /// The driver above was to be quiesced.
    pub fn quiesced(&mut self, now: u64, attempt: Attempt) {
        if attempt == Attempt::Done {
            self.above = Above::Quiesced;
        }
        let Phase::Quiescing {
            by, since, until, ..
        } = self.phase
        else {
            // Nobody wants it any more.
            return self.unquiesce();
        };
        match attempt {
            Attempt::Done => {
                let settles = self.protocol().is_some_and(Protocol::allows_buffers);
                let step = if settles {
                    Quiescing::Ask
                } else {
                    Quiescing::Settle
                };
                self.phase = Phase::Quiescing {
                    by,
                    since,
                    until,
                    step,
                };
                self.look_at = now;
            }
            Attempt::NotNow => self.look_again(now),
            Attempt::NotFound => {
                self.answer(by, Err(Error::NotSupported));
                self.rest(Reason::NoQuiesce);
            }
        }
    }

    /// Nobody gives the device requests any more, for that stop. `notify`: who was the last one may have
    /// meant to notify the device with the next request.
    pub fn settled(&mut self, now: u64, generation: u64, notify: bool) {
        if let Phase::Quiescing {
            by,
            since,
            until,
            step: Quiescing::Settling,
        } = self.phase
        {
            if generation == self.generation {
                let step = Quiescing::Ask;
                self.phase = Phase::Quiescing {
                    by,
                    since,
                    until,
                    step,
                };
                self.look_at = now;
                self.effects.notify = notify;
            }
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
            Seen::Ones | Seen::Garbage => {
                self.nonsense.get_or_insert(now);
                false
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
            (Phase::Quiescing { .. }, Seen::Between) => {}
            (Phase::Quiescing { .. }, _) => self.not_asked(Error::NoDriver),
            (Phase::Stopping { .. }, Seen::Stopped) => self.acknowledged(now),
            (Phase::Stopping { .. }, _) => {}
            (Phase::Stopped { .. }, Seen::Running) => self.runs(now),
            // It is about to run, but is not to be notified yet.
            (Phase::Stopped { .. }, Seen::Between) => {
                self.lapsed = true;
                self.enter(Phase::Aborting {
                    since: now,
                    dropped: true,
                });
            }
            (Phase::Stopped { .. }, Seen::NotReady) => self.nonsense = Some(now),
            (Phase::Stopped { .. }, _) => {}
            _ => return self.seen_unwanted(now, seen, written),
        }
        false
    }

    /// The same, while nobody wants the device to be stopped.
    fn seen_unwanted(&mut self, now: u64, seen: Seen, written: bool) -> bool {
        match (&mut self.handshake, seen) {
            (Handshake::StopAsked { called_off, .. }, _) if written => *called_off = true,
            (Handshake::StopAsked { .. }, Seen::Stopped) => self.handshake = Handshake::Stopped,
            (
                Handshake::StopAsked {
                    called_off: true, ..
                },
                Seen::Running,
            ) => {
                if matches!(self.phase, Phase::Rest(_)) {
                    // It may have stopped since the last look, and been resumed by what core has written.
                    self.effects.notify = true;
                } else {
                    self.runs(now);
                }
                return false;
            }
            (Handshake::Stopped, Seen::Stopped) => {
                self.handshake = Handshake::ResumeAsked {
                    since: now,
                    again: false,
                };
            }
            (Handshake::ResumeAsked { again, .. }, Seen::Stopped) if *again => *again = false,
            (Handshake::Stopped | Handshake::ResumeAsked { .. }, Seen::Running) => {
                self.runs(now);
                return false;
            }
            _ => return false,
        }
        true
    }

    fn acknowledged(&mut self, now: u64) {
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
    fn runs(&mut self, now: u64) {
        let was_asked = matches!(self.handshake, Handshake::ResumeAsked { .. });
        let had_stopped = was_asked || self.handshake == Handshake::Stopped;
        let mut note = Reason::None;
        match self.phase {
            Phase::Stopped { .. } => {
                self.stats.dropped += 1;
                self.lapsed = true;
                note = Reason::StopDropped;
            }
            Phase::Resuming { by, before, .. } => {
                let dropped = before == Before::Stopped && had_stopped && !was_asked;
                let late = matches!(
                    before,
                    Before::Aborting { .. } | Before::StopUnanswered { .. }
                );
                self.stats.last_resume = self.cost(now);
                self.stats.resumes += u64::from(was_asked);
                self.stats.dropped += u64::from(dropped);
                self.stats.late_acks += u64::from(late && had_stopped);
                if dropped {
                    note = Reason::StopDropped;
                }
                match by {
                    Resumer::Asker(by) if dropped => self.answer(by, Err(Error::Stale)),
                    Resumer::Asker(by) => self.answer(by, Ok(())),
                    Resumer::Lease => {
                        self.stats.lease_expiries += 1;
                        note = Reason::LeaseExpired;
                    }
                    Resumer::Closed | Resumer::Leaver => {}
                }
            }
            Phase::Aborting { dropped: true, .. } => {
                self.stats.dropped += 1;
                note = Reason::StopDropped;
            }
            Phase::ResumeUnanswered => {}
            _ => self.stats.late_acks += u64::from(had_stopped),
        }
        if had_stopped {
            self.handshake = Handshake::Idle;
        }
        self.effects.notify = true;
        self.rest(note);
    }

    /// A stop ends before the device was asked.
    pub(super) fn not_asked(&mut self, error: Error) {
        if let Phase::Quiescing { by, .. } = self.phase {
            self.answer(by, Err(error));
        }
        self.nonsense = None;
        self.rest(Reason::None);
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
        self.stats.timeouts += u64::from(error == Error::TimedOut);
        self.stats.last_resume = self.cost(now);
        self.stats.lease_expiries += u64::from(by == Resumer::Lease);
        if by == Resumer::Leaver {
            self.effects.break_virtqueues = true;
            return self.rest(Reason::None);
        }
        let has_stopped = !matches!(self.handshake, Handshake::StopAsked { .. });
        self.enter(match before {
            Before::Aborting { since } if !has_stopped => Phase::Aborting {
                since,
                dropped: false,
            },
            Before::StopUnanswered { since } if !has_stopped => Phase::StopUnanswered { since },
            _ => Phase::ResumeUnanswered,
        });
        self.look_again(now);
    }

    /// A resume that the device has not acknowledged is asked for once more, if that may be.
    pub(super) fn ask_again(&mut self) {
        let may = self.protocol() == Some(Protocol::DeviceStop);
        if let Handshake::ResumeAsked { again, .. } = &mut self.handshake {
            *again = may;
        }
    }

    /// Whether the driver above is held.
    pub(super) fn is_held(&self) -> bool {
        self.above == Above::Quiesced
    }
}
