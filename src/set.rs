// SPDX-License-Identifier: GPL-2.0-only

//! Several devices are stopped at the same time: all of them, or none.

use crate::{
    device::Device,
    entered::Settling,
    machine::{
        Asker,
        Holder,
        Ticket, //
    },
    owner::Opener,
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
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Who stops them.
#[derive(Clone, Copy)]
pub(crate) struct By {
    pub(crate) holder: Holder,
    pub(crate) opener: Opener,
}

/// What one of them has failed with.
pub(crate) struct Failure {
    /// The N of its virtioN.
    pub(crate) index: u32,
    pub(crate) error: Error,
    pub(crate) reason: Reason,
}

/// One of several devices that are being stopped.
struct Stop<'a> {
    device: &'a Arc<Device>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    /// The device was not asked, or has failed.
    Runs,
    /// Whoever may just be giving it a request is to be waited for.
    Settles(Settling<'a>, Ticket),
    /// Its answer is to be waited for.
    Asked(Ticket),
    /// It has stopped.
    Stands,
}

/// Stops all `devices`, unless somebody sets `called_off`. If one fails, those that have stopped are
/// resumed, and waited for, and the other stops are called off.
///
/// # Errors
///
/// ENOMEM, and nothing was done.
pub(crate) fn stop(
    devices: &[Arc<Device>],
    by: By,
    called_off: &AtomicFlag,
) -> Result<Result<(), Failure>> {
    // Some may have stopped before.
    let _no_io = NoIo::enter();
    let mut stops = KVec::with_capacity(devices.len(), GFP_KERNEL)?;
    for device in devices {
        let stage = Stage::Runs;
        stops.push(Stop { device, stage }, GFP_KERNEL)?;
    }
    let result = stop_each(&mut stops, by, called_off);
    if result.is_err() {
        undo(&mut stops, by.holder.id);
    }
    Ok(result)
}

fn stop_each(stops: &mut [Stop<'_>], by: By, called_off: &AtomicFlag) -> Result<(), Failure> {
    for stop in &mut *stops {
        if called_off.load(Relaxed) {
            return Err(Failure::of(stop.device, Error::CalledOff));
        }
        let result = stop.begin(by);
        result.map_err(|error| Failure::of(stop.device, error))?;
    }
    for stop in &mut *stops {
        stop.settle();
    }
    for stop in &mut *stops {
        let result = stop.wait();
        result.map_err(|error| Failure::of(stop.device, error))?;
    }
    for stop in &*stops {
        if called_off.load(Relaxed) {
            return Err(Failure::of(stop.device, Error::CalledOff));
        }
        // A lease may be shorter than what the others took.
        if !stop.device.is_stopped_by(by.holder.id) {
            return Err(Failure::of(stop.device, Error::Stale));
        }
    }
    Ok(())
}

fn undo(stops: &mut [Stop<'_>], holder: u64) {
    for stop in &mut *stops {
        stop.call_off(holder);
    }
    for stop in stops {
        stop.device.wait_while_resuming();
    }
}

impl<'a> Stop<'a> {
    fn begin(&mut self, by: By) -> Result<(), Error> {
        let asker = Asker::Holder(by.holder);
        let device = self.device;
        let asleep = device.environment.asleep.load(Relaxed);
        let mut entered = device.look();
        let machine = &mut entered.guarded.machine;
        let Some(ticket) = machine.ask_stop(device.now(), asker, asleep)? else {
            self.stage = Stage::Stands;
            return Ok(());
        };
        entered.guarded.opener = Some(by.opener);
        self.stage = match entered.run_until_settling() {
            Ok(_) => Stage::Asked(ticket),
            Err(settling) => Stage::Settles(settling, ticket),
        };
        Ok(())
    }

    fn settle(&mut self) {
        match core::mem::replace(&mut self.stage, Stage::Runs) {
            Stage::Settles(settling, ticket) => {
                drop(settling.wait().run());
                self.stage = Stage::Asked(ticket);
            }
            stage => self.stage = stage,
        }
    }

    fn wait(&mut self) -> Result<(), Error> {
        if let Stage::Asked(ticket) = self.stage {
            self.stage = Stage::Runs;
            self.device.enter().wait_for(Some(ticket))?;
            self.stage = Stage::Stands;
        }
        Ok(())
    }

    /// Not waiting: neither for one that may never stop, nor for one that resumes.
    fn call_off(&mut self, holder: u64) {
        let device = self.device;
        let mut entered = device.enter();
        let machine = &mut entered.guarded.machine;
        machine.closed(device.now(), holder);
        if let Stage::Settles(_, ticket) | Stage::Asked(ticket) = self.stage {
            // Nobody wants to know any more.
            machine.take_answer(ticket);
        }
        self.stage = Stage::Runs;
        drop(entered.run());
    }
}

impl Failure {
    /// Of that device.
    pub(crate) fn of(device: &Arc<Device>, error: Error) -> Self {
        Self {
            index: device.transport().device().index(),
            error,
            reason: device.snapshot().reason,
        }
    }
}

impl Device {
    /// Whether a stop of that holder stands.
    fn is_stopped_by(self: &Arc<Self>, holder: u64) -> bool {
        let machine = &self.look().guarded.machine;
        machine.state().0 == State::Stopped && machine.holder() == Some(holder)
    }

    /// Or until the task is killed.
    fn wait_while_resuming(self: &Arc<Self>) {
        let mut entered = self.enter().run();
        let mut killed = false;
        while !killed && entered.guarded.machine.state().0 == State::Resuming {
            (entered, killed) = entered.wait(true);
            entered = entered.run();
        }
    }
}
