// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device is at the moment. All of it changes under one lock. What a successor of this process is handed of it is said in
//! [`image`](super::image).

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use super::interrupts::{Cause, Interrupts};
use super::parts::Parts;
use super::schedule::Schedule;
use super::tally::micros;
use crate::buffers::Work;
use crate::memory::Memory;
use crate::report::Report;
use crate::types::Type;

mod bus_master;
mod configuration;
mod queue_reset;
mod reset;
mod serving;
mod settings;
mod status;
mod stopping;

#[derive(Debug)]
pub(super) struct State {
    pub(super) parts: Parts,
    of_type: Arc<dyn Type>,
    pub(super) interrupts: Interrupts,
    /// What the worker carries out, if anything.
    work: Arc<Work>,
    /// The worker has requests in hand, be they of before the last reset.
    pub(super) worker_is_busy: bool,
    pub(super) schedule: Schedule,
    pub(super) client: Option<Arc<UnixStream>>,
    random: fastrand::Rng,
    pub(super) started: Instant,
}

impl State {
    pub(super) fn new(of_type: Arc<dyn Type>, parts: Parts, interrupts: Interrupts) -> Self {
        Self {
            parts,
            of_type,
            interrupts,
            work: Arc::default(),
            worker_is_busy: false,
            schedule: Schedule::default(),
            client: None,
            random: fastrand::Rng::new(),
            started: Instant::now(),
        }
    }

    fn tell_time(&mut self, now: Instant) {
        self.parts
            .judge
            .set_time(micros(now.saturating_duration_since(self.started)));
    }

    pub(super) fn report(&self) -> Report {
        let (breach_count, breaches) = self.parts.judge.breaches();
        let mut counters = self.parts.tally.counters.clone();
        counters.requests.in_flight = self.parts.requests.len();
        let description = self.of_type.describe();
        Report {
            r#type: description.name,
            device_id: description.device_id,
            connected: self.client.is_some(),
            bus_master: self.parts.pci.is_bus_master(),
            status: self.parts.status.value(),
            stop: self.parts.status.stop(),
            offered: self.parts.registers.offered(),
            features: self.parts.registers.accepted(),
            protocol: self.parts.protocol(),
            counters,
            breach_count,
            breaches: breaches.to_vec(),
            settings: self.parts.settings,
            of_type: self.of_type.report(),
        }
    }

    /// Ends the connection to the client, if there is one: it gets no more replies. Whoever serves it finds that out.
    pub(super) fn hang_up(&self) {
        if let Some(client) = &self.client {
            let ended = client.shutdown(Shutdown::Both);
            tracing::info!(?ended, "hung up, as asked to");
        }
    }

    /// S-DRV-2, S-DRV-3, S-DRV-4: buffers that the driver adds, or takes back, when it must not. See [`Lookout`](super::lookout::Lookout).
    fn look_for_added_buffers(&mut self, memory: &Memory) {
        if !self.parts.judge.forbids_buffers() {
            return;
        }
        let Parts {
            lookout, queues, ..
        } = &mut self.parts;
        let added = memory.observe(|memory| lookout.added(queues, memory));
        for (index, added) in added.into_iter().enumerate() {
            if added != 0 {
                self.parts.judge.buffers_added(index, added);
            }
        }
    }

    /// Sets NEEDS_RESET, and tells the driver. S-DEV-2: while the device is suspended it shows only to who looks, and is told at the
    /// resume.
    pub(super) fn needs_reset(&mut self, why: &str) {
        tracing::warn!(why, "the device sets NEEDS_RESET");
        self.parts.status.set_needs_reset();
        if self.parts.is_suspended() {
            self.parts.withheld.needs_reset = true;
        } else {
            self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
        }
    }

    fn interrupt(&mut self, cause: Cause, vector: u16) {
        let told = self.interrupts.raise(cause, vector, &self.parts.pci);
        self.parts.tally.counters.interrupts += u64::from(told);
    }
}
