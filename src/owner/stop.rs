// SPDX-License-Identifier: GPL-2.0-only

//! An owner's devices are stopped, all or none.

use super::{
    member::{
        Member,
        Stop, //
    },
    Failure,
    Owner, //
};
use crate::{
    device::Device,
    machine::Holder,
    requests::Snapshot,
    set::{
        self,
        By, //
    },
    state::{
        Error,
        Reason,
        State, //
    },
    sys::memory::NoIo, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

impl Owner {
    /// Stops all devices, or none. The stops stand for `lease_us`, or else until they are ended.
    ///
    /// # Errors
    ///
    /// EBUSY during another call; ENOMEM: nothing was done.
    pub(crate) fn stop(
        &self,
        timeout_us: Option<u64>,
        lease_us: Option<u64>,
    ) -> Result<Result<(), Failure>> {
        let calls_off = self.calls_off.load(Relaxed);
        let mut members = self.members()?;
        let by = By {
            holder: Holder {
                id: self.opener.id(),
                timeout_us,
                lease_us,
            },
            opener: self.opener,
        };
        let _no_io = NoIo::enter();
        let mut devices = KVVec::with_capacity(members.len(), GFP_KERNEL)?;
        for member in &*members {
            if let Some(device) = self.device(member) {
                devices.push(device, GFP_KERNEL)?;
            }
        }
        let lapsed = members.iter().map(|member| self.has_lapsed(member));
        let lapsed = lapsed
            .enumerate()
            .find_map(|(at, lapsed)| Some((at, lapsed?)));
        let result = match lapsed {
            None => set::stop(&devices, by, || self.calls_off.load(Relaxed) != calls_off)?,
            Some((at, error)) => {
                // Nor do those that stand.
                set::end(&devices, self.opener.id());
                let asked = KVVec::new();
                Err(set::Failure { at, error, asked })
            }
        };
        Ok(self.note(&mut members, result))
    }

    /// Why one can't be stopped together with those that stand: it has gone, or stood itself, and
    /// does not any more. That is told once.
    fn has_lapsed(&self, member: &Member) -> Option<Error> {
        let Some(device) = self.device(member) else {
            return Some(Error::Gone);
        };
        let snapshot = device.snapshot_after_look();
        let stands = member.stands(snapshot.state, snapshot.generation);
        let stood = matches!(member.stop, Stop::Stands(_));
        (stood && !stands).then_some(Error::Stale)
    }

    /// What a stop has come to.
    fn note(
        &self,
        members: &mut [Member],
        result: Result<KVVec<u64>, set::Failure>,
    ) -> Result<(), Failure> {
        match result {
            Ok(generations) => {
                for (member, generation) in members.iter_mut().zip(generations) {
                    member.stop = Stop::Stands(generation);
                }
                Ok(())
            }
            Err(set::Failure { at, error, asked }) => {
                let failure = self.failure(members.get(at), error);
                for (at, member) in members.iter_mut().enumerate() {
                    // What others have asked of it is theirs.
                    let was_asked = asked.get(at).is_some_and(|&asked| asked);
                    let was_ours = was_asked || !matches!(member.stop, Stop::None);
                    member.stop = match self.device(member) {
                        Some(device) if was_ours && device.is_unanswered() => Stop::Unanswered,
                        _ => Stop::None,
                    };
                }
                Err(failure)
            }
        }
    }
}

impl Device {
    /// Whether it may be stopped, and nobody wants that.
    fn is_unanswered(self: &Arc<Self>) -> bool {
        let Snapshot { state, reason, .. } = self.snapshot();
        match state {
            State::Aborting | State::Resuming => true,
            State::Failed => reason != Reason::NeedsReset,
            State::Unavailable | State::Running | State::Stopping | State::Stopped => false,
        }
    }
}
