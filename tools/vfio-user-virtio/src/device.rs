// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio device of any type: what its client and its guest can do to it, and the thread that works on its virtqueues.
//!
//! Register accesses never wait for requests: they change the state under its lock, and wake the worker. The worker takes requests
//! under the lock, carries them out without it, and gives them back under it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::eventfd::Eventfd;
use crate::memory::{self, Memory};
use crate::pci;
use crate::registers::Registers;
use crate::report::Report;
use crate::settings::{self, Settings};
use crate::types::{ActionError, Type};
use interrupts::Interrupts;
use offer::MAX_QUEUE_SIZE;
use parts::Parts;
use state::State;

pub use image::{Busy, Error as ImageError, Files, Frozen};
pub use offer::Offer;

mod absent;
mod access;
mod chain;
mod image;
mod interrupts;
mod lookout;
mod offer;
mod packed;
mod parts;
mod queues;
mod requests;
mod schedule;
mod split;
mod state;
mod tally;
mod worker;

/// The device.
#[derive(Debug)]
pub struct Device {
    state: Mutex<State>,
    wake: Condvar,
    memory: Memory,
    of_type: Arc<dyn Type>,
    common_size: u32,
    vectors: u16,
}

impl Device {
    /// A device of that type.
    pub fn new(of_type: Arc<dyn Type>, offer: Offer, settings: Settings) -> Self {
        let description = of_type.describe();
        let offered = description.features | offer.features();
        let common_size = offer.common_size();
        let vectors = offer.vectors(description.queues);
        let parts = Parts::new(
            offer,
            Registers::new(offered, description.queues, MAX_QUEUE_SIZE, vectors),
            pci::Config::new(
                description.device_id,
                description.pci_class,
                vectors,
                common_size,
            ),
            settings,
        );
        let state = State::new(Arc::clone(&of_type), parts, Interrupts::new(vectors));
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            memory: Memory::default(),
            of_type,
            common_size,
            vectors,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The client maps `size` bytes of `file` from `offset` on at the guest address `address`.
    pub fn map(
        &self,
        address: u64,
        size: u64,
        offset: u64,
        file: File,
    ) -> Result<(), memory::Error> {
        self.memory.map(address, size, offset, file)?;
        self.lock().mapped();
        self.wake.notify_all();
        Ok(())
    }

    /// The file that its data are in.
    pub fn file(&self) -> Option<Arc<File>> {
        self.of_type.file()
    }

    /// How many MSI-X vectors the device has. None: it has INTx.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The client gives `files` to signal the MSI-X vectors from `start` on; none takes those vectors away.
    pub fn set_vectors(&self, start: usize, count: usize, files: Vec<Eventfd>) {
        self.lock().interrupts.set_vectors(start, count, files);
    }

    /// The client gives a file to signal INTx, or takes it away.
    pub fn set_intx(&self, file: Option<Eventfd>) {
        self.lock().interrupts.set_intx(file);
    }

    /// The client does not want to be signalled, until it unmasks INTx.
    pub fn mask_intx(&self) {
        self.lock().interrupts.mask_intx();
    }

    /// The client has seen the last INTx, and may be signalled again.
    pub fn unmask_intx(&self) {
        self.lock().interrupts.unmask_intx();
    }

    /// The client takes all interrupts away.
    pub fn clear_interrupts(&self) {
        self.lock().interrupts.clear();
    }

    /// This client has connected.
    pub fn connected(&self, client: Arc<UnixStream>) {
        self.lock().client = Some(client);
    }

    /// The client is gone, and was none: somebody has looked whether there is a server.
    pub fn unused(&self) {
        self.lock().client = None;
    }

    /// The client is gone, and with it the guest.
    pub fn disconnected(&self) {
        self.reset();
        self.memory.clear();
        let mut state = self.lock();
        state.interrupts.clear();
        state.client = None;
    }

    /// A reset of the PCI function. Returns when no request touches the guest's memory any more; a file may still be written to.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.parts.judge.reset();
        state.reset();
        while state.is_resetting() {
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.parts.pci.reset();
        state.follow_command(&self.memory);
        drop(state);
        // Somebody may wait for a device that nobody drives.
        self.wake.notify_all();
    }

    /// What the device has to tell.
    pub fn report(&self) -> Report {
        self.lock().report()
    }

    /// Changes settings: all of them, or, if one makes no sense, none.
    pub fn set(
        &self,
        settings: &BTreeMap<String, String>,
        now: Instant,
    ) -> Result<(), settings::Error> {
        self.lock().set(settings, now)?;
        self.wake.notify_all();
        Ok(())
    }

    /// Does something once: `behave`, `hang-up`, `needs-reset`, `forget-breaches`, or what the type can do.
    pub fn act(&self, action: &str) -> Result<(), ActionError> {
        match action {
            "behave" => self.lock().behave(Instant::now()),
            "hang-up" => self.lock().hang_up(),
            "needs-reset" => self.lock().needs_reset("asked to"),
            "forget-breaches" => self.lock().parts.judge.forget(),
            _ => {
                let changed = self.of_type.act(action)?;
                // Also for the worker, which must not miss what there is to do now.
                let mut state = self.lock();
                if changed {
                    state.configuration_changed();
                }
            }
        }
        self.wake.notify_all();
        Ok(())
    }
}
