// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device is at the moment. All of it changes under one lock. What a successor of this process would be handed is in its
//! [`Parts`], but for the interrupt status and what the type keeps. The rest it would make anew.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::GuestMemoryMmap;

use super::chain::Error;
use super::interrupts::{Cause, Interrupts};
use super::offer::VIRTIO_F_39;
use super::parts::{Parts, Withheld};
use super::queues::{Executed, Taken, Virtqueue};
use super::schedule::{Event, Schedule};
use super::tally::micros;
use crate::judge::Write;
use crate::memory::Memory;
use crate::pci::DEVICE_SIZE;
use crate::registers::notify_data;
use crate::report::Report;
use crate::settings::{self, Answer, HangUp, Settings, ShowStatus};
use crate::status::{Effect, Protocol, Rules, Status, Stop, FEATURES_OK};
use crate::types::{Type, Wants};

#[derive(Debug)]
pub(super) struct State {
    pub(super) parts: Parts,
    of_type: Arc<dyn Type>,
    pub(super) interrupts: Interrupts,
    /// The worker is to leave off with what it carries out.
    abandoned: Arc<AtomicBool>,
    schedule: Schedule,
    pub(super) client: Option<Arc<UnixStream>>,
    random: fastrand::Rng,
    started: Instant,
}

impl State {
    pub(super) fn new(
        of_type: Arc<dyn Type>,
        abandoned: Arc<AtomicBool>,
        parts: Parts,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            parts,
            of_type,
            interrupts,
            abandoned,
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

    pub(super) fn set(
        &mut self,
        changes: &BTreeMap<String, String>,
        now: Instant,
    ) -> Result<(), settings::Error> {
        let mut settings = self.parts.settings;
        settings.set_all(changes)?;
        self.change(settings, now);
        Ok(())
    }

    /// All settings as if none had been given.
    pub(super) fn behave(&mut self, now: Instant) {
        self.change(Settings::default(), now);
    }

    fn change(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.parts.settings, settings);
        let stop = self.parts.status.stop();
        let answers =
            |settings: Settings| (settings.acknowledge, settings.resume, settings.drop_stop);
        if answers(before) != answers(settings) && stop != Stop::Running {
            self.schedule.replan(stop, &settings, &mut self.random);
            self.refuse_to_answer();
            self.answer(now);
        }
    }

    /// Ends the connection to the client, if there is one: it gets no more replies. Whoever serves it finds that out.
    pub(super) fn hang_up(&self) {
        if let Some(client) = &self.client {
            let ended = client.shutdown(Shutdown::Both);
            tracing::info!(?ended, "hung up, as asked to");
        }
    }

    // The device status.

    pub(super) fn read_status(&mut self, memory: &Memory, now: Instant) -> u8 {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        let stop = self.parts.status.stop();
        self.parts.tally.status_read(stop, now);
        let value = match self.parts.settings.show_status {
            ShowStatus::Always(byte) if self.parts.status.is_live() => byte,
            ShowStatus::Stopping(byte) if stop != Stop::Running => byte,
            ShowStatus::Resuming(byte) if stop == Stop::Resuming => byte,
            _ => self.parts.status.value(),
        };
        self.parts.judge.read(value, stop);
        value
    }

    pub(super) fn write_status(&mut self, written: u8, memory: &Memory, now: Instant) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.tally.counters.status_writes += 1;
        let protocol = self.parts.protocol();
        let fenced = self.parts.judge.forbids_buffers();
        self.parts.judge.write(Write {
            current: self.parts.status.value(),
            written,
            stop: self.parts.status.stop(),
            protocol,
        });
        if !fenced && self.parts.judge.forbids_buffers() {
            // What is there by now is not held against the driver.
            let memory = memory.lock();
            for queue in &mut self.parts.queues {
                queue.added(&memory);
            }
        }
        if written == 0 {
            self.reset();
            return;
        }
        if self.parts.resetting {
            return;
        }
        let accepted = self.parts.registers.accepted();
        let rules = Rules {
            protocol,
            features_acceptable: accepted & !self.parts.registers.offered() == 0
                && accepted & (1 << VIRTIO_F_VERSION_1) != 0
                && self.of_type.can_do_with(accepted)
                && !self.parts.settings.refuse_features
                && !(self.parts.settings.refuse_to_stop
                    && self.parts.accepted_protocol() != Protocol::None),
            resume_form: self.parts.settings.resume_form,
        };
        let negotiated = self.parts.status.has(FEATURES_OK);
        let effect = self.parts.status.write(written, rules);
        if !negotiated && self.parts.status.has(FEATURES_OK) {
            self.of_type.negotiated(accepted);
        }
        match effect {
            Effect::None | Effect::Reset => {}
            Effect::Start => self.start(memory, now),
            Effect::StopRequested => self.stop_requested(now),
            Effect::StopCalledOff => {
                self.parts.tally.stop_called_off();
                self.schedule
                    .called_off(now, &self.parts.settings, &mut self.random);
                self.answer(now);
            }
            Effect::ResumeRequested => {
                if self.parts.settings.hang_up == HangUp::OnResume {
                    self.hang_up();
                }
                self.plan(now);
                self.refuse_to_answer();
                self.answer(now);
            }
            Effect::ResumeCalledOff => self.plan(now),
        }
    }

    /// S-DRV-2, S-DRV-3, S-DRV-4: buffers that the driver adds, or takes back, when it must not. The judge looks, not the device.
    fn look_for_added_buffers(&mut self, memory: &Memory) {
        if !self.parts.judge.forbids_buffers() {
            return;
        }
        let memory = memory.lock();
        for (index, queue) in self.parts.queues.iter_mut().enumerate() {
            let added = queue.added(&memory);
            if added != 0 {
                self.parts.judge.buffers_added(index, added);
            }
        }
    }

    /// The driver is ready: sets the virtqueues up as it has laid them out.
    fn start(&mut self, memory: &Memory, now: Instant) {
        let event_idx = self.parts.registers.accepted() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let queues: Vec<(Virtqueue, bool)> = self
            .parts
            .registers
            .queues
            .iter()
            .filter_map(|registers| Virtqueue::new(registers, event_idx))
            .collect();
        let valid = queues.iter().all(|(_, valid)| *valid);
        self.parts.queues = queues.into_iter().map(|(queue, _)| queue).collect();
        if !valid {
            self.needs_reset("a virtqueue is not aligned");
        } else if !self
            .parts
            .queues
            .iter()
            .all(|queue| queue.is_in(&memory.lock()))
        {
            self.parts.requests.absent.miss(now);
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

    pub(super) fn reset(&mut self) {
        self.parts.tally.counters.resets += 1;
        self.parts.tally.counters.requests.dropped += self.parts.requests.drop_waiting();
        self.parts.resetting = true;
        if self.parts.requests.are_executing() {
            self.abandoned.store(true, Ordering::Relaxed);
        } else {
            self.finish_reset();
        }
    }

    pub(super) fn is_resetting(&self) -> bool {
        self.parts.resetting
    }

    fn finish_reset(&mut self) {
        self.parts.resetting = false;
        self.abandoned.store(false, Ordering::Relaxed);
        self.parts.status = Status::default();
        self.parts.registers.reset();
        self.interrupts.reset();
        self.parts.queues.clear();
        self.schedule = Schedule::default();
        self.parts.withheld = Withheld::default();
        self.parts.tally.reset();
        self.of_type.reset();
    }

    // Stops and resumes.

    fn plan(&mut self, now: Instant) {
        let stop = self.parts.status.stop();
        self.schedule
            .begin(stop, now, &self.parts.settings, &mut self.random);
    }

    fn stop_requested(&mut self, now: Instant) {
        self.parts.tally.stop_requested(self.parts.requests.len());
        if self.parts.settings.hang_up == HangUp::OnStop {
            self.hang_up();
        }
        self.plan(now);
        self.refuse_to_answer();
        self.answer(now);
    }

    /// NEEDS_RESET instead of an answer, where a setting asks for that.
    fn refuse_to_answer(&mut self) {
        match (self.parts.status.stop(), self.parts.settings) {
            (Stop::Requested, settings) if settings.acknowledge == Answer::NeedsReset => {
                self.needs_reset("asked to, on a stop");
            }
            (Stop::Resuming, settings) if settings.resume == Answer::NeedsReset => {
                self.needs_reset("asked to, on a resume");
            }
            _ => {}
        }
    }

    /// Gives the answers whose time has come.
    pub(super) fn answer(&mut self, now: Instant) {
        while let Some((due, event)) = self.schedule.next(self.parts.status.stop()) {
            if due > now || (event == Event::AcknowledgeStop && !self.parts.is_quiet()) {
                return;
            }
            match event {
                Event::AcknowledgeStop => self.acknowledge_stop(now),
                Event::DropStop => {
                    self.parts.tally.counters.stops.dropped += 1;
                    self.go_on(now);
                }
                Event::AcknowledgeResume => {
                    self.parts
                        .tally
                        .resume_acknowledged(self.schedule.waited(now), now);
                    self.go_on(now);
                }
            }
        }
    }

    fn acknowledge_stop(&mut self, now: Instant) {
        self.parts.tally.stop_acknowledged(
            self.parts.requests.len(),
            self.schedule.waited(now),
            now,
        );
        self.parts.status.acknowledge_stop(self.parts.protocol());
        if self.parts.is_suspended() {
            self.parts.requests.suspend();
        }
        self.parts.withheld.configuration = Some(self.type_configuration());
        self.plan(now);
        if self.parts.settings.notify_when_stopped {
            self.configuration_interrupt();
        }
    }

    /// Serves the virtqueues again.
    fn go_on(&mut self, now: Instant) {
        self.parts.status.acknowledge_resume(self.parts.protocol());
        self.plan(now);
        for queue in &mut self.parts.queues {
            queue.notified = !self.parts.settings.forget_notifications;
        }
        let withheld = std::mem::take(&mut self.parts.withheld);
        if withheld.change {
            self.show_change();
        } else if withheld.needs_reset {
            self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
        }
    }

    // The common configuration.

    /// The driver writes to it, but for the status.
    pub(super) fn common_written(
        &mut self,
        offset: u64,
        length: usize,
        value: u64,
        memory: &Memory,
        now: Instant,
    ) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.judge.common_written(offset);
        let open = !self.parts.status.has(FEATURES_OK);
        self.parts.registers.write(offset, length, value, open);
    }

    // The configuration space of the type.

    /// The driver writes to it. S-DEV-2: a suspended device does not listen.
    pub(super) fn configuration_written(&mut self, offset: u64, data: &[u8], now: Instant) {
        self.tell_time(now);
        self.parts.judge.configuration_written(offset);
        if !self.parts.is_suspended() {
            self.of_type.write_configuration(offset, data);
        }
    }

    fn type_configuration(&self) -> [u8; DEVICE_SIZE] {
        let mut config = [0; DEVICE_SIZE];
        self.of_type.configuration(&mut config);
        config
    }

    pub(super) fn configuration(&self) -> [u8; DEVICE_SIZE] {
        self.parts
            .withheld
            .configuration
            .unwrap_or_else(|| self.type_configuration())
    }

    /// The type's configuration is another now. While the device is stopped that is not shown, unless a setting asks for it.
    pub(super) fn configuration_changed(&mut self) {
        if self.parts.withheld.configuration.is_none() {
            self.show_change();
        } else if self.parts.settings.change_while_stopped {
            self.parts.withheld.configuration = Some(self.type_configuration());
            self.show_change();
        } else {
            self.parts.withheld.change = true;
        }
    }

    fn show_change(&mut self) {
        self.parts.registers.config_generation =
            self.parts.registers.config_generation.wrapping_add(1);
        if self.parts.status.is_live() {
            self.configuration_interrupt();
        }
    }

    fn configuration_interrupt(&mut self) {
        self.parts.tally.counters.configuration_changes += 1;
        self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
    }

    // The virtqueues.

    /// The driver notifies virtqueue `queue`, with `data`.
    pub(super) fn notified(&mut self, queue: u16, data: u64, memory: &Memory, now: Instant) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.tally.counters.notifications += 1;
        let live = self.parts.status.is_live();
        self.parts.judge.notification(usize::from(queue), live);
        let stopped = self.parts.status.stop() == Stop::Stopped;
        self.parts.tally.counters.notifications_while_stopped += u64::from(stopped);
        let promised = self.parts.offer.notif_config_data
            && self.parts.registers.accepted() & (1 << VIRTIO_F_39) != 0;
        if promised && data != u64::from(notify_data(queue)) {
            self.parts.tally.counters.notifications_lost += 1;
            return;
        }
        if let Some(queue) = self.parts.queues.get_mut(usize::from(queue)) {
            queue.notified |= !(stopped && self.parts.settings.forget_notifications);
        }
    }

    fn may_take(&self, now: Instant) -> bool {
        // A device that is about to answer a stop which was called off has stopped by then.
        let stopping = self.parts.status.stop() == Stop::Running
            && self
                .schedule
                .next(Stop::Running)
                .is_some_and(|(due, _)| now >= due);
        let bug = self.parts.settings.take_while_stopped && self.parts.status.is_live();
        !self.parts.resetting
            && !self.parts.requests.absent.is_waiting()
            && (bug || self.parts.status.may_serve() && !stopping)
    }

    /// When the next request is to be carried out.
    fn next_request(&self) -> Option<Instant> {
        self.parts.requests.next(self.parts.held())
    }

    pub(super) fn has_work(&self, now: Instant) -> bool {
        let mut queues = self.parts.queues.iter().enumerate();
        (self.may_take(now)
            && self.parts.room()
            && queues.any(|(index, queue)| queue.is_wanted(index, &*self.of_type)))
            || self.next_request().is_some_and(|due| due <= now)
            || !self.parts.holds_all() && self.parts.requests.absent.has_work(now)
    }

    /// When time alone brings something to do.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let answer = self
            .schedule
            .next(self.parts.status.stop())
            .and_then(|(due, event)| {
                (event != Event::AcknowledgeStop || self.parts.is_quiet()).then_some(due)
            });
        self.next_request()
            .into_iter()
            .chain(answer)
            .chain(
                self.parts
                    .requests
                    .absent
                    .deadline()
                    .filter(|_| !self.parts.holds_all()),
            )
            .chain(self.of_type.next_event())
            .min()
    }

    /// The client has mapped something.
    pub(super) fn mapped(&mut self) {
        self.parts.requests.absent.mapped();
    }

    /// The worker begins with what there is to do.
    pub(super) fn begin(&mut self, now: Instant) {
        if !self.parts.holds_all() {
            self.parts.requests.absent.begin(now);
        }
    }

    /// Takes what the driver has made available.
    pub(super) fn take(&mut self, memory: &GuestMemoryMmap, now: Instant) {
        let of_type = Arc::clone(&self.of_type);
        for index in 0..self.parts.queues.len() {
            while self.may_take(now) && self.parts.room() {
                let Some(virtqueue) = self
                    .parts
                    .queues
                    .get_mut(index)
                    .filter(|virtqueue| virtqueue.is_wanted(index, &*of_type))
                else {
                    break;
                };
                let chain = match virtqueue.take(memory) {
                    Ok(Some(chain)) => chain,
                    Ok(None) => break,
                    Err(Error::Gone) => {
                        self.parts.requests.absent.miss(now);
                        break;
                    }
                    Err(error) => {
                        self.needs_reset(&error.to_string());
                        break;
                    }
                };
                let requests = &mut self.parts.tally.counters.requests;
                requests.taken += 1;
                requests.taken_while_stopped +=
                    u64::from(self.parts.status.stop() != Stop::Running);
                let waiting = match of_type.wants(index) {
                    Wants::Forever => {
                        requests.kept += 1;
                        virtqueue.done_with_one();
                        continue;
                    }
                    Wants::Some(_) => &mut self.parts.requests.saying,
                    Wants::All => &mut self.parts.requests.waiting,
                };
                let every = self.parts.settings.io_error_every;
                let taken = Taken {
                    queue: index,
                    chain,
                    fail: every != 0 && requests.taken % every == 0,
                };
                let due = now + Duration::from_micros(self.parts.settings.io_delay_us);
                let (order, number) = (self.parts.settings.io_order, requests.taken);
                waiting.insert(due, order, number, &mut self.random, taken);
            }
        }
    }

    /// The requests whose time has come; they are being carried out from now on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Taken> {
        self.parts.requests.due(self.parts.held(), now)
    }

    /// Gives the driver back what was carried out.
    pub(super) fn give_back(&mut self, executed: Vec<Executed>, memory: &Memory, now: Instant) {
        let count = self.parts.requests.executed();
        if self.parts.resetting {
            self.parts.tally.counters.requests.dropped += count;
            self.finish_reset();
            return;
        }
        let memory = memory.lock();
        let mut malformed = false;
        let mut used = vec![false; self.parts.queues.len()];
        let mut all = Vec::new();
        if !self.parts.holds_all() {
            all = self.parts.requests.absent.take_done();
        }
        for executed in executed {
            match executed {
                Executed::Done(done) => all.push(done),
                Executed::Missed(taken) => {
                    self.parts.requests.absent.requests.push(taken);
                    self.parts.requests.absent.miss(now);
                }
            }
        }
        for done in all {
            let (Some(virtqueue), Some(used)) = (
                self.parts.queues.get_mut(done.queue),
                used.get_mut(done.queue),
            ) else {
                continue;
            };
            if done.outcome.is_some() && !virtqueue.is_in(&memory) {
                self.parts.requests.absent.done.push(done);
                self.parts.requests.absent.miss(now);
                continue;
            }
            virtqueue.done_with_one();
            let requests = &mut self.parts.tally.counters.requests;
            let Some(outcome) = done.outcome else {
                requests.dropped += 1;
                malformed = true;
                continue;
            };
            requests.completed += 1;
            requests.failed += u64::from(!outcome.ok);
            *requests.kinds.entry(outcome.kind).or_default() += 1;
            malformed |= virtqueue
                .give_back(done.head, outcome.written, &memory)
                .is_err();
            *used = true;
        }
        let wanting: Vec<usize> = self
            .parts
            .queues
            .iter_mut()
            .zip(used)
            .enumerate()
            .filter_map(|(index, (queue, used))| {
                (used && queue.wants_interrupt(&memory)).then_some(index)
            })
            .collect();
        drop(memory);
        for index in wanting {
            if let Some(vector) = self
                .parts
                .registers
                .queues
                .get(index)
                .map(|queue| queue.vector)
            {
                self.interrupt(Cause::Queue, vector);
            }
        }
        let given_up = self.parts.requests.absent.end();
        if given_up {
            self.parts.tally.counters.requests.dropped +=
                std::mem::take(&mut self.parts.requests.absent).len() as u64;
        }
        if malformed || given_up {
            self.needs_reset("the driver's virtqueues or buffers can't be used");
        }
    }

    fn interrupt(&mut self, cause: Cause, vector: u16) {
        let msix_enabled = self.parts.pci.msix_enabled();
        self.parts.tally.counters.interrupts +=
            u64::from(self.interrupts.raise(cause, vector, msix_enabled));
    }
}
