// SPDX-License-Identifier: GPL-2.0-only

//! An open file of `/dev/virtio_device_stop`: what it has stopped runs when it is closed.

use crate::{
    device::Device,
    events::{
        Devices,
        Kept, //
    },
    machine::{
        Asker,
        Holder, //
    },
    member::{
        Member,
        Stop, //
    },
    opener::Opener,
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
    sys::memory::NoIo,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        MutexGuard, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

/// An open file.
#[pin_data]
pub(crate) struct Owner {
    opener: Opener,
    devices: Arc<Devices>,
    /// Held for as long as a call takes, by whoever makes one.
    #[pin]
    members: Mutex<KVVec<Member>>,
    /// How often a stop was called off that may be under way.
    calls_off: Atomic<u64>,
    #[pin]
    work: DelayedWork<Self>,
}

/// What one of the devices has failed with.
pub(crate) struct Failure {
    pub(crate) cookie: u64,
    pub(crate) error: Error,
    pub(crate) reason: Reason,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Owner { self.work }
}

/// It was closed.
impl WorkItem for Owner {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // What goes by itself has resumed, or is lost.
        let _all = this.devices.for_each(|device| {
            let mut entered = device.enter();
            let machine = &mut entered.guarded.machine;
            machine.closed(device.now(), this.opener.id());
            drop(entered.run());
        });
    }
}

impl Owner {
    /// By the current task, which may have stopped others by other ones.
    pub(crate) fn new(devices: &Arc<Devices>) -> Result<Arc<Self>> {
        let _no_io = NoIo::enter();
        Arc::pin_init(
            pin_init!(Self {
                opener: Opener::current(),
                devices: devices.clone(),
                members <- new_mutex!(KVVec::new()),
                calls_off: Atomic::new(0),
                work <- new_delayed_work!("virtio_device_stop::owner"),
            }),
            GFP_KERNEL,
        )
    }

    /// Nobody has the file any more. Whoever closes it does not wait, and may have no memory left.
    pub(crate) fn close(self: Arc<Self>) {
        let devices = self.devices.clone();
        devices.environment().timers.enqueue::<Self, 0>(self, 0);
    }

    /// Its devices, for one call.
    ///
    /// # Errors
    ///
    /// EBUSY during another call.
    pub(crate) fn members(&self) -> Result<MutexGuard<'_, KVVec<Member>>> {
        self.members.try_lock().ok_or(EBUSY)
    }

    /// Adds the device that `is_it`. Returns by what it is known from then on.
    ///
    /// # Errors
    ///
    /// EBUSY during another call; ENODEV if there is none; EEXIST; ENOSPC.
    pub(crate) fn add(&self, is_it: impl Fn(&Device) -> bool, most: usize) -> Result<u64> {
        let mut members = self.members()?;
        let (cookie, device) = self.devices.find_serial(is_it).ok_or(ENODEV)?;
        if members.iter().any(|member| member.cookie == cookie) {
            return Err(EEXIST);
        }
        if members.len() >= most {
            return Err(ENOSPC);
        }
        // One that was added before may have stopped.
        let _no_io = NoIo::enter();
        let member = Member {
            cookie,
            index: device.transport().device().index(),
            stop: Stop::None,
        };
        members.push(member, GFP_KERNEL)?;
        Ok(cookie)
    }

    /// Removes one that this file has not stopped.
    ///
    /// # Errors
    ///
    /// EBUSY during another call, or if it has; ENOENT if it was not added.
    pub(crate) fn remove(&self, cookie: u64) -> Result {
        let mut members = self.members()?;
        let mut all = members.iter();
        let at = all.position(|member| member.cookie == cookie);
        let at = at.ok_or(ENOENT)?;
        let member = members.get(at).ok_or(ENOENT)?;
        if self.device(member).is_some() && !matches!(member.stop, Stop::None) {
            return Err(EBUSY);
        }
        members.remove(at).map_err(|_| ENOENT)?;
        Ok(())
    }

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

    /// Calls off the stop that somebody else waits for. If nobody does any more, nothing happens.
    pub(crate) fn call_off(&self) {
        self.calls_off.fetch_add(1, Relaxed);
        // What goes by itself answers by itself.
        let _all = self.devices.for_each(|device| {
            let mut entered = device.enter();
            let machine = &mut entered.guarded.machine;
            machine.called_off(device.now(), self.opener.id());
            drop(entered.run());
        });
    }

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

    /// The leases of what this file has stopped begin anew.
    ///
    /// # Errors
    ///
    /// EBUSY during another call.
    pub(crate) fn renew(&self) -> Result<Result<(), Failure>> {
        let members = self.members()?;
        let mut result = Ok(());
        for member in &*members {
            let Stop::Stands(generation) = member.stop else {
                continue;
            };
            let renewed = match self.device(member) {
                Some(device) => device.renew(generation),
                None => Err(Error::Gone),
            };
            if let Err(error) = renewed {
                result = result.and_then(|()| Err(self.failure(Some(member), error)));
            }
        }
        Ok(result)
    }

    /// Whether all of its devices stand since it has stopped them.
    ///
    /// # Errors
    ///
    /// EBUSY during another call; EAGAIN: what a device shows is no answer.
    pub(crate) fn look(&self) -> Result<Result<(), Failure>> {
        let members = self.members()?;
        for member in &*members {
            let snapshot = self
                .device(member)
                .map(|device| device.snapshot_after_look());
            let error = match snapshot {
                None => Error::Gone,
                Some(snapshot) if !member.stands(snapshot.state, snapshot.generation) => {
                    Error::Stale
                }
                Some(snapshot) if !snapshot.is_answering => return Err(EAGAIN),
                Some(_) => continue,
            };
            return Ok(Err(self.failure(Some(member), error)));
        }
        Ok(Ok(()))
    }

    /// The device of a member, if it is there.
    pub(crate) fn device(&self, member: &Member) -> Option<Kept> {
        self.devices.with_serial(member.cookie)
    }

    fn failure(&self, member: Option<&Member>, error: Error) -> Failure {
        let device = member.and_then(|member| self.device(member));
        Failure {
            cookie: member.map_or(0, |member| member.cookie),
            error,
            reason: device.map_or(Reason::Gone, |device| device.snapshot().reason),
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
