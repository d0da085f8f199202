// SPDX-License-Identifier: GPL-2.0-only

//! An owner's devices resume.

use super::{
    member::{
        Member,
        Stop, //
    },
    Failure,
    Owner, //
};
use crate::{
    machine::{
        Asker,
        Holder, //
    },
    state::{
        Error,
        Reason,
        State, //
    }, //
};
use kernel::prelude::*;

impl Owner {
    /// Resumes what this file has stopped.
    ///
    /// # Errors
    ///
    /// EBUSY during another call.
    pub(crate) fn resume(&self, timeout_us: Option<u64>) -> Result<Result<(), Failure>> {
        let mut members = self.members()?;
        let asker = Asker::Holder(Holder {
            id: self.opener.id(),
            timeout_us,
            lease_us: None,
        });
        let mut result = Ok(());
        // Nothing is allocated from here on: what stands still could be what gives memory.
        for member in &mut *members {
            if let Err(error) = self.ask_to_resume(member, asker) {
                result = result.and_then(|()| Err(self.failure(Some(member), error)));
            }
        }
        for member in &mut *members {
            let Stop::Resuming(device, ticket) = &member.stop else {
                continue;
            };
            let answer = device.enter().wait_for(Some(*ticket));
            member.stop = Stop::after(answer);
            if let Err(error) = answer {
                result = result.and_then(|()| Err(self.failure(Some(member), error)));
            }
        }
        Ok(result)
    }

    fn ask_to_resume(&self, member: &mut Member, asker: Asker) -> Result<(), Error> {
        let stood = match member.stop {
            Stop::Stands(_) => true,
            Stop::Unanswered => false,
            Stop::None | Stop::Resuming(..) => return Ok(()),
        };
        let Some(device) = self.device(member) else {
            member.stop = Stop::None;
            return Err(Error::Gone);
        };
        let mut entered = device.look();
        let machine = &mut entered.guarded.machine;
        let (state, reason) = machine.state();
        let generation = machine.generation();
        let ours = if member.stands(state, generation) {
            Some(generation)
        } else {
            // What has ended the stop is told. What has become of the device since is not ours.
            let lapsed = if stood { Err(Error::Stale) } else { Ok(()) };
            match state {
                State::Running | State::Stopped => {
                    member.stop = Stop::None;
                    return lapsed;
                }
                State::Unavailable => {
                    member.stop = Stop::None;
                    return match reason.refusal() {
                        Error::Gone => lapsed.map_err(|_| Error::Gone),
                        _ => lapsed,
                    };
                }
                // Somebody else has asked for that, or it is on its way.
                State::Stopping | State::Resuming | State::Aborting => return Err(Error::Busy),
                State::Failed if reason == Reason::NeedsReset => {
                    member.stop = Stop::None;
                    return Err(Error::NeedsReset);
                }
                // Somebody else has asked it, in vain.
                State::Failed if stood => {
                    member.stop = Stop::Unanswered;
                    return Err(Error::Busy);
                }
                State::Failed => None,
            }
        };
        let asked = machine.ask_resume(device.now(), asker, ours);
        drop(entered.run());
        match asked {
            Ok(Some(ticket)) => member.stop = Stop::Resuming(device, ticket),
            Ok(None) => member.stop = Stop::None,
            Err(Error::Busy) => {}
            Err(error) => member.stop = Stop::after(Err(error)),
        }
        asked.map(|_| ())
    }
}
