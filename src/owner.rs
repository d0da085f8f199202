// SPDX-License-Identifier: GPL-2.0-only

//! An open file of `/dev/virtio_device_stop`, or another module: what it has stopped runs when it is
//! closed, or given back.

use crate::{
    attachment::Kept,
    device::Device,
    events::Devices,
    opener::Opener,
    state::{
        Error,
        Reason, //
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
use member::{
    Member,
    Stop, //
};

pub(crate) mod member;
mod resume;
mod stop;

/// An open file, or another module.
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
