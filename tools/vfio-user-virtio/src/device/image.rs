// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as another process can go on with it: an image of all that it is, and the files by which it reaches the guest.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vm_memory::GuestMemoryMmap;

use super::interrupts::Interrupts;
use super::parts::Parts;
use super::schedule::Schedule;
use super::state::State;
use super::{Device, Offer};
use crate::eventfd::Eventfd;
use crate::memory::{self, Map, Memory};
use crate::portable;
use crate::settings::Settings;
use crate::status::{Stop, FEATURES_OK};
use crate::types::{RestoreError, Type};

/// How long whoever freezes a device waits for another thread of it.
const BRIEFLY: Duration = Duration::from_millis(300);

/// Why the device can't be gone on with elsewhere now.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    /// There is a driver, and the device has not stopped.
    #[error("it has not stopped, and its driver has set it up: stop it first")]
    Running,
    /// A reset is not complete.
    #[error("it is being reset")]
    Resetting,
    /// The worker has requests in hand.
    #[error("it is carrying out requests")]
    Executing,
}

/// Why an image can't be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is none, or of another version.
    #[error("the device's image makes no sense")]
    Format(#[from] serde_json::Error),
    /// The type's part of it.
    #[error("the device type's part of the image makes no sense")]
    Type(#[from] RestoreError),
    /// What the driver has been shown, this device is not.
    #[error("this build's device is another: {0}")]
    Differs(&'static str),
    /// The driver has accepted features that are not offered, or still may.
    #[error("its driver relies on features that this build does not offer: {0:#x}")]
    Features(u64),
    /// The guest's memory.
    #[error("the guest's memory")]
    Memory(#[from] memory::Error),
    /// What should signal an interrupt does not.
    #[error("an interrupt's file is no eventfd")]
    Interrupt,
}

/// All that the device is. Written with references, read without.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Image<Parts, Interrupts, Schedule> {
    parts: Parts,
    interrupts: Interrupts,
    schedule: Schedule,
    #[serde(with = "portable::instant")]
    started: Instant,
    of_type: Value,
}

/// By what the device reaches the guest.
#[derive(Debug)]
pub struct Files<File = OwnedFd> {
    /// The guest's memory.
    pub maps: Vec<(Map, File)>,
    /// A file for each MSI-X vector that is signalled.
    pub vectors: Vec<Option<File>>,
    /// That for INTx.
    pub intx: Option<File>,
}

impl<File> Default for Files<File> {
    /// It does not.
    fn default() -> Self {
        Self {
            maps: Vec::new(),
            vectors: Vec::new(),
            intx: None,
        }
    }
}

/// A device that does nothing as long as this lives.
#[derive(Debug)]
pub struct Frozen<'a> {
    device: &'a Device,
    state: MutexGuard<'a, State>,
    memory: Arc<GuestMemoryMmap>,
}

impl Frozen<'_> {
    /// The image.
    pub fn image(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(Image {
            parts: &self.state.parts,
            interrupts: &self.state.interrupts,
            schedule: &self.state.schedule,
            started: self.state.started,
            of_type: self.device.of_type.save()?,
        })
    }

    /// The files.
    pub fn files(&self) -> Files<BorrowedFd<'_>> {
        let (vectors, intx) = self.state.interrupts.files();
        Files {
            maps: memory::files(&self.memory),
            vectors,
            intx,
        }
    }
}

impl Device {
    /// Has the device do nothing for a while, if it does nothing anyway: it has stopped, or there is no driver.
    pub fn freeze(&self) -> Result<Frozen<'_>, Busy> {
        let state = self.lock_briefly()?;
        is_still(&state)?;
        Ok(Frozen {
            device: self,
            memory: self.memory.all(),
            state,
        })
    }

    /// Others stand still already: a client that has this one wait is not waited for. What a thread that has panicked has left behind is
    /// not to be relied on.
    fn lock_briefly(&self) -> Result<MutexGuard<'_, State>, Busy> {
        let deadline = Instant::now() + BRIEFLY;
        loop {
            match self.state.try_lock() {
                Ok(state) => return Ok(state),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return Err(Busy::Executing),
            }
        }
    }

    /// Waits until it could be frozen, but not beyond `deadline`. Returns whether it could.
    pub fn wait_until_still(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while self.state.is_poisoned() || is_still(&state).is_err() {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            let woken = self.wake.wait_timeout(state, rest);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// A device of that type that goes on as the one of the image did. `taken_over`: by the same client and guest.
    pub fn restore(
        mut of_type: Box<dyn Type>,
        offer: Offer,
        image: Value,
        files: Files,
        taken_over: bool,
    ) -> Result<Self, Error> {
        let image: Image<Parts, Interrupts, Schedule> = serde_json::from_value(image)?;
        of_type.restore(image.of_type)?;
        let mut device = Self::new(Arc::from(of_type), offer, Settings::default());
        let state = device
            .state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        check(&state.parts, &image.parts)?;
        let offered = state.parts.registers.offered();
        state.parts = image.parts;
        state.parts.registers.limit(offered);
        state.parts.tally.counters.takeovers += u64::from(taken_over);
        state.schedule = image.schedule;
        state.started = image.started;
        state.interrupts.restore(image.interrupts);
        let eventfd = |file| Eventfd::try_from(file).map_err(|_| Error::Interrupt);
        for (vector, file) in files.vectors.into_iter().enumerate() {
            if let Some(file) = file {
                state
                    .interrupts
                    .set_vectors(vector, 1, vec![eventfd(file)?]);
            }
        }
        if let Some(file) = files.intx {
            state.interrupts.restore_intx(eventfd(file)?);
        }
        let memory = Memory::default();
        memory.set_bus_master(state.parts.pci.is_bus_master());
        for (map, file) in files.maps {
            memory.map(map.address, map.size, map.offset, File::from(file))?;
        }
        device.memory = memory;
        Ok(device)
    }
}

/// Whether the device does nothing.
fn is_still(state: &State) -> Result<(), Busy> {
    let parts = &state.parts;
    if parts.resetting {
        return Err(Busy::Resetting);
    }
    if parts.status.is_live() && parts.status.stop() != Stop::Stopped {
        return Err(Busy::Running);
    }
    // A reset does not wait for a file, and what the worker still does to it has to come before what a successor does.
    if state.worker_is_busy {
        return Err(Busy::Executing);
    }
    Ok(())
}

/// Whether a device that is made like `fresh` can go on as `saved`.
fn check(fresh: &Parts, saved: &Parts) -> Result<(), Error> {
    if fresh.offer != saved.offer {
        return Err(Error::Differs("what it offers"));
    }
    if !fresh.registers.is_like(&saved.registers) {
        return Err(Error::Differs("its registers"));
    }
    if !fresh.pci.is_like(&saved.pci) {
        return Err(Error::Differs("its PCI configuration space"));
    }
    let relied_on = if saved.status.has(FEATURES_OK) {
        saved.registers.accepted()
    } else {
        saved.registers.offered()
    };
    let unknown = relied_on & !fresh.registers.offered();
    if unknown != 0 {
        return Err(Error::Features(unknown));
    }
    let queues = saved.registers.queues.len();
    let mut chains = saved.requests.chains();
    if saved.queues.len() > queues || chains.any(|(queue, _)| queue >= saved.queues.len()) {
        return Err(Error::Differs("its virtqueues"));
    }
    let size = |queue: usize| saved.registers.queues.get(queue).map_or(0, |of| of.size);
    let mut chains = saved.requests.chains();
    if chains.any(|(queue, descriptors)| descriptors > size(queue)) {
        return Err(Error::Differs("its requests"));
    }
    Ok(())
}
