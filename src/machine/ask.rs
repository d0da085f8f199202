// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What people ask for: stop, resume, renew; and that they are killed, or close what they hold.

use super::super::state::{
    Error,
    State, //
};
use super::super::status::Protocol;
use super::phase::{
    Above,
    Before,
    Handshake,
    Phase,
    Quiescing,
    Resumer, //
};
use super::ticket::{
    Asker,
    Ticket, //
};
use super::Machine;

impl Machine {
    /// The device is to stop. Nothing to wait for if it stands stopped already. `asleep`: the
    /// system is going to sleep.
    ///
    /// # Errors
    ///
    /// Why that is refused.
    pub fn ask_stop(
        &mut self,
        now: u64,
        asker: Asker,
        asleep: bool,
    ) -> Result<Option<Ticket>, Error> {
        let adopts = match (self.phase, self.state()) {
            (Phase::Rest(_), (State::Running, _)) => false,
            (Phase::Rest(_), (State::Failed, _)) => return Err(Error::NeedsReset),
            (Phase::Rest(_), (_, reason)) => return Err(reason.refusal()),
            (Phase::Stopped { lease }, _) if self.holder() == asker.id() => {
                // On the terms that a holder has now.
                if asker.holder().is_some() {
                    self.holder = asker.holder();
                    self.phase = self.prolonged(now, lease);
                }
                return Ok(None);
            }
            // It is pending still, and can't be called off: it is waited for once more.
            (Phase::Aborting { dropped: false, .. }, _) => {
                matches!(
                    self.handshake,
                    Handshake::StopAsked {
                        called_off: false,
                        ..
                    }
                ) && self.protocol() == Some(Protocol::Suspend)
            }
            _ => return Err(Error::Busy),
        };
        if asleep || (!adopts && matches!(self.phase, Phase::Aborting { .. })) {
            return Err(Error::Busy);
        }
        if self.refuses_stops {
            return Err(Error::Busy);
        }
        let by = self.requests.open().ok_or(Error::Busy)?;
        let (since, until) = (now, now.saturating_add(self.timeout_us(asker)));
        self.enter(if adopts {
            Phase::Stopping { by, since, until }
        } else {
            // Of one that follows before the end was told, nothing is told.
            let step = if self.announced {
                Quiescing::Quiesce
            } else {
                Quiescing::Announce
            };
            Phase::Quiescing {
                by,
                since,
                until,
                step,
            }
        });
        if !adopts {
            self.announced = true;
        }
        self.holder = asker.holder();
        self.holds_back = !adopts && asker.holder().is_some();
        self.begin_accesses(now);
        Ok(Some(by))
    }

    /// The device is to resume. Nothing to wait for if it runs. `generation`: only the stop is
    /// meant that stood when that was read.
    ///
    /// # Errors
    ///
    /// Why that is refused; [`Error::Stale`] once if the last stop has ended by anything but a
    /// resume.
    pub fn ask_resume(
        &mut self,
        now: u64,
        asker: Asker,
        generation: Option<u64>,
    ) -> Result<Option<Ticket>, Error> {
        let stands = matches!(self.phase, Phase::Stopped { .. });
        if generation.is_some_and(|generation| !stands || generation != self.generation) {
            return Err(Error::Stale);
        }
        if self.holder().is_some_and(|id| asker.id() != Some(id)) && asker != Asker::Root {
            return Err(Error::Busy);
        }
        match (self.phase, self.state()) {
            (Phase::Rest(_), (State::Running, _)) if core::mem::take(&mut self.lapsed) => {
                return Err(Error::Stale);
            }
            (Phase::Rest(_), (State::Running, _)) => return Ok(None),
            (Phase::Rest(_), (State::Failed, _)) => return Err(Error::NeedsReset),
            (Phase::Rest(_), (_, reason)) => return Err(reason.refusal()),
            (Phase::Resuming { .. }, _) => return Err(Error::Busy),
            _ => {}
        }
        let ticket = self.requests.open().ok_or(Error::Busy)?;
        self.call_off(now, Error::CalledOff);
        if matches!(self.phase, Phase::Rest(_)) {
            // The device was not asked yet.
            self.answer(ticket, Ok(()));
        } else {
            self.resume(now, Resumer::Asker(ticket), self.timeout_us(asker));
        }
        Ok(Some(ticket))
    }

    /// The lease of a stop begins anew, but does not become shorter.
    ///
    /// # Errors
    ///
    /// That stop does not stand any more.
    pub fn renew(&mut self, now: u64, generation: u64) -> Result<(), Error> {
        match self.phase {
            Phase::Stopped { lease } if generation == self.generation => {
                self.phase = self.prolonged(now, lease);
                Ok(())
            }
            _ => Err(Error::Stale),
        }
    }

    fn prolonged(&self, now: u64, lease: Option<u64>) -> Phase {
        let renewed = self.lease_from(now);
        Phase::Stopped {
            lease: renewed.map(|end| end.max(lease.unwrap_or(end))),
        }
    }

    /// User space was told of all devices that are to stop with this one, by that request of a
    /// holder's.
    pub fn others_announced(&mut self, now: u64, ticket: Ticket) {
        if matches!(self.phase, Phase::Quiescing { by, .. } if by == ticket) {
            self.holds_back = false;
            self.look_at = now;
        }
    }

    pub(super) fn lease_from(&self, now: u64) -> Option<u64> {
        let chosen = Some(self.settings.lease_us).filter(|&lease_us| lease_us != 0);
        let lease_us = self.holder.map_or(chosen, |holder| holder.lease_us)?;
        Some(now.saturating_add(lease_us))
    }

    fn timeout_us(&self, asker: Asker) -> u64 {
        let own = asker.holder().and_then(|holder| holder.timeout_us);
        own.unwrap_or(self.settings.timeout_us)
    }

    /// Whose stop it is, by number, if it is not everybody's.
    pub fn holder(&self) -> Option<u64> {
        self.holder.map(|holder| holder.id)
    }

    /// The answer to a request, once there is one.
    pub fn take_answer(&mut self, ticket: Ticket) -> Option<Result<(), Error>> {
        self.requests.take(ticket)
    }

    /// Whoever waits for that answer was killed.
    pub fn killed(&mut self, now: u64, ticket: Ticket) {
        match self.phase {
            Phase::Quiescing { by, .. } | Phase::Stopping { by, .. } if by == ticket => {
                self.call_off(now, Error::Killed);
            }
            Phase::Resuming {
                by: Resumer::Asker(by),
                ..
            } if by == ticket => self.resume_is_given_up(now, Error::Killed),
            _ => {}
        }
    }

    /// The holder of that number does not want any more what it holds or waits for, or is gone.
    pub fn closed(&mut self, now: u64, id: u64) {
        let Some(holder) = self.holder.filter(|holder| holder.id == id) else {
            return;
        };
        self.call_off(now, Error::CalledOff);
        if matches!(self.phase, Phase::Stopped { .. }) {
            let timeout_us = self.timeout_us(Asker::Holder(holder));
            self.resume(now, Resumer::Nobody, timeout_us);
        }
    }

    /// Whether it is to resume since a holder has closed it, its stop has come late, or it was found
    /// to have stopped.
    pub fn resumes_by_itself(&self) -> bool {
        matches!(
            self.phase,
            Phase::Resuming {
                by: Resumer::Nobody,
                ..
            }
        )
    }

    /// The holder of that number does not want any more what it waits for.
    pub fn called_off(&mut self, now: u64, id: u64) {
        if self.holder() == Some(id) {
            self.call_off(now, Error::CalledOff);
        }
    }

    /// Ends a stop that is waited for.
    pub(super) fn call_off(&mut self, now: u64, error: Error) {
        match self.phase {
            Phase::Quiescing { .. } => self.not_asked(now, error),
            Phase::Stopping { .. } => self.stop_is_given_up(now, error),
            _ => {}
        }
    }

    /// The device is to resume within `timeout_us`.
    pub(super) fn resume(&mut self, now: u64, by: Resumer, timeout_us: u64) {
        let before = match self.phase {
            Phase::Aborting { since, dropped } => Before::Aborting { since, dropped },
            Phase::StopUnanswered { since } => Before::StopUnanswered { since },
            Phase::ResumeUnanswered => Before::ResumeUnanswered,
            Phase::Resuming { before, .. } => before,
            // A stop that has come late.
            Phase::Rest(_) => Before::Aborting {
                since: now,
                dropped: false,
            },
            _ => Before::Stopped,
        };
        self.ask_again();
        self.resume_from(now, by, before, timeout_us);
    }

    /// The device has stopped, or that may be, and nobody has asked for it: it is to resume.
    pub(super) fn resume_found(&mut self, now: u64) {
        let timeout_us = self.timeout_us(self.holder.map_or(Asker::Anybody, Asker::Holder));
        self.resume_from(now, Resumer::Nobody, Before::Found, timeout_us);
    }

    fn resume_from(&mut self, now: u64, by: Resumer, before: Before, timeout_us: u64) {
        self.enter(Phase::Resuming {
            by,
            before,
            since: now,
            until: now.saturating_add(timeout_us),
        });
        self.begin_accesses(now);
    }

    /// Whether nobody and nothing is to be waited for any more before the driver goes.
    pub fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Rest(_)) && self.above == Above::Working
    }
}
