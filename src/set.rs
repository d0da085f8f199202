// SPDX-License-Identifier: GPL-2.0-only

//! Several devices are stopped at the same time: all of them, or none.

use crate::{
    attachment::Kept,
    device::Device,
    entered::Settling,
    machine::{
        Asker,
        Holder,
        Ticket, //
    },
    opener::Opener,
    state::{
        Error,
        State, //
    },
    sys::memory::NoIo, //
};
use core::mem::replace;
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
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
    /// Which one.
    pub(crate) at: usize,
    pub(crate) error: Error,
    /// Which ones were asked to stop.
    pub(crate) asked: KVVec<bool>,
}

/// One of several devices that are being stopped.
struct Stop<'a> {
    device: &'a Arc<Device>,
    stage: Stage<'a>,
    /// Whatever its stage has become.
    was_asked: bool,
}

enum Stage<'a> {
    /// The device was not asked, or has failed.
    Runs,
    /// Its answer is to be waited for.
    Asked(Ticket),
    /// And before that whoever may just be giving it a request.
    Settles(Ticket, Settling<'a>),
    /// It has stopped, and that is the generation.
    Stands(u64),
}

/// Stops all of them, unless it `is_called_off`, and returns their generations. If one fails, those
/// that have stopped are resumed, and waited for, and the other stops are called off.
///
/// # Errors
///
/// ENOMEM, and nothing was done.
pub(crate) fn stop(
    devices: &[Kept],
    by: By,
    is_called_off: impl Fn() -> bool,
) -> Result<Result<KVVec<u64>, Failure>> {
    // Some may have stopped before. And nothing is allocated later: whoever waits for memory may
    // wait for one of them.
    let _no_io = NoIo::enter();
    let mut generations = KVVec::from_elem(0, devices.len(), GFP_KERNEL)?;
    let mut asked = KVVec::from_elem(false, devices.len(), GFP_KERNEL)?;
    let mut stops = KVVec::with_capacity(devices.len(), GFP_KERNEL)?;
    for device in devices {
        let stop = Stop {
            device,
            stage: Stage::Runs,
            was_asked: false,
        };
        stops.push(stop, GFP_KERNEL)?;
    }
    let result = stop_each(&mut stops, by, is_called_off, &mut generations);
    let Err((at, error)) = result else {
        return Ok(Ok(generations));
    };
    for (asked, stop) in asked.iter_mut().zip(&mut stops) {
        *asked = stop.was_asked;
        stop.call_off(by.holder.id);
    }
    end(devices, by.holder.id);
    Ok(Err(Failure { at, error, asked }))
}

/// Resumes those that the holder has stopped, and waits for them.
pub(crate) fn end(devices: &[Kept], holder: u64) {
    for device in devices {
        let mut entered = device.enter();
        entered.guarded.machine.closed(device.now(), holder);
        drop(entered.run());
    }
    for device in devices {
        device.wait_while_resuming();
    }
}

/// One step of all devices after the other.
fn stop_each(
    stops: &mut [Stop<'_>],
    by: By,
    is_called_off: impl Fn() -> bool,
    generations: &mut [u64],
) -> Result<(), (usize, Error)> {
    let mut each = |step: &mut dyn FnMut(&mut Stop<'_>) -> Result<(), Error>| {
        stops.iter_mut().enumerate().try_for_each(|(at, stop)| {
            let result = if is_called_off() {
                Err(Error::CalledOff)
            } else {
                step(stop)
            };
            result.map_err(|error| (at, error))
        })
    };
    // Nothing is held before user space was told of everything: to be told may need memory, and
    // that a disk.
    each(&mut |stop| stop.ask(by))?;
    each(&mut |stop| stop.begin())?;
    each(&mut |stop| stop.settle())?;
    each(&mut |stop| stop.wait(by.holder.id))?;
    // A lease may be shorter than what the others took.
    each(&mut |stop| stop.look(by.holder.id))?;
    for (generation, stop) in generations.iter_mut().zip(stops) {
        if let Stage::Stands(since) = stop.stage {
            *generation = since;
        }
    }
    Ok(())
}

impl<'a> Stop<'a> {
    fn ask(&mut self, by: By) -> Result<(), Error> {
        let device = self.device;
        let mut entered = device.look();
        let asleep = device.environment.asleep.load(Relaxed);
        let machine = &mut entered.guarded.machine;
        let asker = Asker::Holder(by.holder);
        self.stage = match machine.ask_stop(device.now(), asker, asleep)? {
            Some(ticket) => {
                entered.guarded.opener = Some(by.opener);
                self.was_asked = true;
                Stage::Asked(ticket)
            }
            None => Stage::Stands(machine.generation()),
        };
        drop(entered.run());
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        let device = self.device;
        if let Stage::Asked(ticket) = self.stage {
            let mut entered = device.enter();
            let machine = &mut entered.guarded.machine;
            machine.others_announced(device.now(), ticket);
            if let Err(settling) = entered.run_until_settling() {
                self.stage = Stage::Settles(ticket, settling);
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        match replace(&mut self.stage, Stage::Runs) {
            Stage::Settles(ticket, settling) => {
                drop(settling.wait().run());
                self.stage = Stage::Asked(ticket);
            }
            stage => self.stage = stage,
        }
        Ok(())
    }

    fn wait(&mut self, holder: u64) -> Result<(), Error> {
        if let Stage::Asked(ticket) = self.stage {
            self.stage = Stage::Runs;
            self.device.enter().wait_for(Some(ticket))?;
            let generation = self.device.stopped_by(holder).ok_or(Error::Stale)?;
            self.stage = Stage::Stands(generation);
        }
        Ok(())
    }

    fn look(&mut self, holder: u64) -> Result<(), Error> {
        match self.stage {
            Stage::Stands(generation) if self.device.stopped_by(holder) == Some(generation) => {
                Ok(())
            }
            _ => Err(Error::Stale),
        }
    }

    /// Not waiting: neither for one that may never stop, nor for one that resumes.
    fn call_off(&mut self, holder: u64) {
        let device = self.device;
        let mut entered = device.enter();
        let machine = &mut entered.guarded.machine;
        machine.closed(device.now(), holder);
        if let Stage::Settles(ticket, _) | Stage::Asked(ticket) = self.stage {
            // Nobody wants to know any more.
            machine.take_answer(ticket);
        }
        self.stage = Stage::Runs;
        drop(entered.run());
    }
}

impl Device {
    /// The generation, if a stop of that holder stands.
    fn stopped_by(self: &Arc<Self>, holder: u64) -> Option<u64> {
        let machine = &self.look().guarded.machine;
        let stands = machine.state().0 == State::Stopped && machine.holder() == Some(holder);
        stands.then(|| machine.generation())
    }

    /// Until it has, does not in time, or the task is killed. Not for what others wait for.
    fn wait_while_resuming(self: &Arc<Self>) {
        let mut entered = self.enter().run();
        let mut killed = false;
        while !killed && entered.guarded.machine.resumes_by_itself() {
            (entered, killed) = entered.wait(true);
            entered = entered.run();
        }
    }
}
