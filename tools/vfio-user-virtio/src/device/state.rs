// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device is at the moment: its registers, its status, its requests. All of it changes under one lock.

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
use super::offer::{Offer, VIRTIO_F_39, VIRTIO_F_SUSPEND};
use super::queues::{Executed, Taken, Virtqueue};
use super::requests::{Held, Requests};
use super::schedule::{Event, Schedule};
use super::tally::{micros, Tally};
use crate::judge::{Judge, Write};
use crate::memory::Memory;
use crate::pci::{self, DEVICE_SIZE};
use crate::registers::{notify_data, Registers};
use crate::report::Report;
use crate::settings::{self, Answer, HangUp, IoHold, Settings, ShowStatus};
use crate::status::{Effect, Protocol, Rules, Status, Stop, FEATURES_OK};
use crate::types::{Type, Wants};

#[derive(Debug)]
pub(super) struct State {
    pub(super) of_type: Arc<dyn Type>,
    pub(super) offer: Offer,
    pub(super) registers: Registers,
    pub(super) status: Status,
    pub(super) pci: pci::Config,
    pub(super) interrupts: Interrupts,
    queues: Vec<Virtqueue>,
    requests: Requests,
    /// The worker is to leave off with what it carries out.
    abandoned: Arc<AtomicBool>,
    /// The driver has reset the device while requests were being carried out. The status reads 0 when they are done with.
    resetting: bool,
    schedule: Schedule,
    /// D-DEV-3, S-DEV-2: what the driver sees of the configuration while the device is stopped.
    frozen: Option<[u8; DEVICE_SIZE]>,
    /// The configuration has changed meanwhile.
    changed: bool,
    /// S-DEV-2: NEEDS_RESET was set meanwhile, without a notification.
    untold: bool,
    pub(super) client: Option<Arc<UnixStream>>,
    tally: Tally,
    pub(super) judge: Judge,
    settings: Settings,
    random: fastrand::Rng,
    started: Instant,
}

impl State {
    pub(super) fn new(
        of_type: Arc<dyn Type>,
        abandoned: Arc<AtomicBool>,
        offer: Offer,
        registers: Registers,
        pci: pci::Config,
        interrupts: Interrupts,
        settings: Settings,
    ) -> Self {
        Self {
            of_type,
            offer,
            registers,
            status: Status::default(),
            pci,
            interrupts,
            queues: Vec::new(),
            requests: Requests::default(),
            abandoned,
            resetting: false,
            schedule: Schedule::default(),
            frozen: None,
            changed: false,
            untold: false,
            client: None,
            tally: Tally::default(),
            judge: Judge::default(),
            settings,
            random: fastrand::Rng::new(),
            started: Instant::now(),
        }
    }

    /// What was negotiated.
    fn protocol(&self) -> Protocol {
        if self.status.has(FEATURES_OK) {
            self.accepted_protocol()
        } else {
            Protocol::None
        }
    }

    /// What will be negotiated if the features are.
    fn accepted_protocol(&self) -> Protocol {
        let accepted = |bit: u32| self.registers.accepted() & (1 << bit) != 0;
        if accepted(VIRTIO_F_SUSPEND) {
            Protocol::Suspend
        } else if accepted(VIRTIO_F_39) && self.offer.device_stop {
            Protocol::DeviceStop
        } else {
            Protocol::None
        }
    }

    fn tell_time(&mut self, now: Instant) {
        self.judge
            .set_time(micros(now.saturating_duration_since(self.started)));
    }

    pub(super) fn report(&self) -> Report {
        let (breach_count, breaches) = self.judge.breaches();
        let mut counters = self.tally.counters.clone();
        counters.requests.in_flight = self.requests.len();
        let description = self.of_type.describe();
        Report {
            r#type: description.name,
            device_id: description.device_id,
            connected: self.client.is_some(),
            status: self.status.value(),
            stop: self.status.stop(),
            offered: self.registers.offered(),
            features: self.registers.accepted(),
            protocol: self.protocol(),
            counters,
            breach_count,
            breaches: breaches.to_vec(),
            settings: self.settings,
            of_type: self.of_type.report(),
        }
    }

    pub(super) fn set(
        &mut self,
        changes: &BTreeMap<String, String>,
        now: Instant,
    ) -> Result<(), settings::Error> {
        let mut settings = self.settings;
        settings.set_all(changes)?;
        self.change(settings, now);
        Ok(())
    }

    /// All settings as if none had been given.
    pub(super) fn behave(&mut self, now: Instant) {
        self.change(Settings::default(), now);
    }

    fn change(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.settings, settings);
        let stop = self.status.stop();
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
        let stop = self.status.stop();
        self.tally.status_read(stop, now);
        let value = match self.settings.show_status {
            ShowStatus::Always(byte) if self.status.is_live() => byte,
            ShowStatus::Stopping(byte) if stop != Stop::Running => byte,
            ShowStatus::Resuming(byte) if stop == Stop::Resuming => byte,
            _ => self.status.value(),
        };
        self.judge.read(value, stop);
        value
    }

    pub(super) fn write_status(&mut self, written: u8, memory: &Memory, now: Instant) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.tally.counters.status_writes += 1;
        let protocol = self.protocol();
        let fenced = self.judge.forbids_buffers();
        self.judge.write(Write {
            current: self.status.value(),
            written,
            stop: self.status.stop(),
            protocol,
        });
        if !fenced && self.judge.forbids_buffers() {
            // What is there by now is not held against the driver.
            let memory = memory.lock();
            for queue in &mut self.queues {
                queue.added(&memory);
            }
        }
        if written == 0 {
            self.reset();
            return;
        }
        if self.resetting {
            return;
        }
        let accepted = self.registers.accepted();
        let rules = Rules {
            protocol,
            features_acceptable: accepted & !self.registers.offered() == 0
                && accepted & (1 << VIRTIO_F_VERSION_1) != 0
                && self.of_type.can_do_with(accepted)
                && !self.settings.refuse_features
                && !(self.settings.refuse_to_stop && self.accepted_protocol() != Protocol::None),
            resume_form: self.settings.resume_form,
        };
        let negotiated = self.status.has(FEATURES_OK);
        let effect = self.status.write(written, rules);
        if !negotiated && self.status.has(FEATURES_OK) {
            self.of_type.negotiated(accepted);
        }
        match effect {
            Effect::None | Effect::Reset => {}
            Effect::Start => self.start(memory, now),
            Effect::StopRequested => self.stop_requested(now),
            Effect::StopCalledOff => {
                self.tally.stop_called_off();
                self.schedule
                    .called_off(now, &self.settings, &mut self.random);
                self.answer(now);
            }
            Effect::ResumeRequested => {
                if self.settings.hang_up == HangUp::OnResume {
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
        if !self.judge.forbids_buffers() {
            return;
        }
        let memory = memory.lock();
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let added = queue.added(&memory);
            if added != 0 {
                self.judge.buffers_added(index, added);
            }
        }
    }

    /// The driver is ready: sets the virtqueues up as it has laid them out.
    fn start(&mut self, memory: &Memory, now: Instant) {
        let event_idx = self.registers.accepted() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let queues: Vec<(Virtqueue, bool)> = self
            .registers
            .queues
            .iter()
            .filter_map(|registers| Virtqueue::new(registers, event_idx))
            .collect();
        let valid = queues.iter().all(|(_, valid)| *valid);
        self.queues = queues.into_iter().map(|(queue, _)| queue).collect();
        if !valid {
            self.needs_reset("a virtqueue is not aligned");
        } else if !self.queues.iter().all(|queue| queue.is_in(&memory.lock())) {
            self.requests.absent.miss(now);
        }
    }

    /// Sets NEEDS_RESET, and tells the driver. S-DEV-2: while the device is suspended it shows only to who looks, and is told at the
    /// resume.
    pub(super) fn needs_reset(&mut self, why: &str) {
        tracing::warn!(why, "the device sets NEEDS_RESET");
        self.status.set_needs_reset();
        if self.is_suspended() {
            self.untold = true;
        } else {
            self.interrupt(Cause::Configuration, self.registers.config_vector);
        }
    }

    pub(super) fn reset(&mut self) {
        self.tally.counters.resets += 1;
        self.tally.counters.requests.dropped += self.requests.drop_waiting();
        self.resetting = true;
        if self.requests.are_executing() {
            self.abandoned.store(true, Ordering::Relaxed);
        } else {
            self.finish_reset();
        }
    }

    pub(super) fn is_resetting(&self) -> bool {
        self.resetting
    }

    fn finish_reset(&mut self) {
        self.resetting = false;
        self.abandoned.store(false, Ordering::Relaxed);
        self.status = Status::default();
        self.registers.reset();
        self.interrupts.reset();
        self.queues.clear();
        self.schedule = Schedule::default();
        self.frozen = None;
        self.changed = false;
        self.untold = false;
        self.tally.reset();
        self.of_type.reset();
    }

    // Stops and resumes.

    fn plan(&mut self, now: Instant) {
        let stop = self.status.stop();
        self.schedule
            .begin(stop, now, &self.settings, &mut self.random);
    }

    fn stop_requested(&mut self, now: Instant) {
        self.tally.stop_requested(self.requests.len());
        if self.settings.hang_up == HangUp::OnStop {
            self.hang_up();
        }
        self.plan(now);
        self.refuse_to_answer();
        self.answer(now);
    }

    /// NEEDS_RESET instead of an answer, where a setting asks for that.
    fn refuse_to_answer(&mut self) {
        match (self.status.stop(), self.settings) {
            (Stop::Requested, settings) if settings.acknowledge == Answer::NeedsReset => {
                self.needs_reset("asked to, on a stop");
            }
            (Stop::Resuming, settings) if settings.resume == Answer::NeedsReset => {
                self.needs_reset("asked to, on a resume");
            }
            _ => {}
        }
    }

    /// S-DEV-2: the device keeps its hands off the virtqueues and says nothing.
    fn is_suspended(&self) -> bool {
        self.protocol() == Protocol::Suspend
            && matches!(self.status.stop(), Stop::Stopped | Stop::Resuming)
    }

    /// D-DEV-2, S-DEV-4: the device acknowledges a stop when everything that it has taken is finished. What is being carried out touches
    /// the driver's buffers, and is finished in any case.
    fn is_quiet(&self) -> bool {
        let leaves = self.settings.leave_requests
            && self.protocol() == Protocol::Suspend
            && !self.requests.are_executing();
        self.requests.len() == 0 || self.settings.take_while_stopped || leaves
    }

    /// Gives the answers whose time has come.
    pub(super) fn answer(&mut self, now: Instant) {
        while let Some((due, event)) = self.schedule.next(self.status.stop()) {
            if due > now || (event == Event::AcknowledgeStop && !self.is_quiet()) {
                return;
            }
            match event {
                Event::AcknowledgeStop => self.acknowledge_stop(now),
                Event::DropStop => {
                    self.tally.counters.stops.dropped += 1;
                    self.go_on(now);
                }
                Event::AcknowledgeResume => {
                    self.tally
                        .resume_acknowledged(self.schedule.waited(now), now);
                    self.go_on(now);
                }
            }
        }
    }

    fn acknowledge_stop(&mut self, now: Instant) {
        self.tally
            .stop_acknowledged(self.requests.len(), self.schedule.waited(now), now);
        self.status.acknowledge_stop(self.protocol());
        if self.is_suspended() {
            self.requests.suspend();
        }
        self.frozen = Some(self.type_configuration());
        self.plan(now);
        if self.settings.notify_when_stopped {
            self.configuration_interrupt();
        }
    }

    /// Serves the virtqueues again.
    fn go_on(&mut self, now: Instant) {
        self.status.acknowledge_resume(self.protocol());
        self.plan(now);
        self.frozen = None;
        for queue in &mut self.queues {
            queue.notified = !self.settings.forget_notifications;
        }
        let untold = std::mem::take(&mut self.untold);
        if std::mem::take(&mut self.changed) {
            self.show_change();
        } else if untold {
            self.interrupt(Cause::Configuration, self.registers.config_vector);
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
        self.judge.common_written(offset);
        let open = !self.status.has(FEATURES_OK);
        self.registers.write(offset, length, value, open);
    }

    // The configuration space of the type.

    /// The driver writes to it. S-DEV-2: a suspended device does not listen.
    pub(super) fn configuration_written(&mut self, offset: u64, data: &[u8], now: Instant) {
        self.tell_time(now);
        self.judge.configuration_written(offset);
        if !self.is_suspended() {
            self.of_type.write_configuration(offset, data);
        }
    }

    fn type_configuration(&self) -> [u8; DEVICE_SIZE] {
        let mut config = [0; DEVICE_SIZE];
        self.of_type.configuration(&mut config);
        config
    }

    pub(super) fn configuration(&self) -> [u8; DEVICE_SIZE] {
        self.frozen.unwrap_or_else(|| self.type_configuration())
    }

    /// The type's configuration is another now. While the device is stopped that is not shown, unless a setting asks for it.
    pub(super) fn configuration_changed(&mut self) {
        if self.frozen.is_none() {
            self.show_change();
        } else if self.settings.change_while_stopped {
            self.frozen = Some(self.type_configuration());
            self.show_change();
        } else {
            self.changed = true;
        }
    }

    fn show_change(&mut self) {
        self.registers.config_generation = self.registers.config_generation.wrapping_add(1);
        if self.status.is_live() {
            self.configuration_interrupt();
        }
    }

    fn configuration_interrupt(&mut self) {
        self.tally.counters.configuration_changes += 1;
        self.interrupt(Cause::Configuration, self.registers.config_vector);
    }

    // The virtqueues.

    /// The driver notifies virtqueue `queue`, with `data`.
    pub(super) fn notified(&mut self, queue: u16, data: u64, memory: &Memory, now: Instant) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.tally.counters.notifications += 1;
        let live = self.status.is_live();
        self.judge.notification(usize::from(queue), live);
        let stopped = self.status.stop() == Stop::Stopped;
        self.tally.counters.notifications_while_stopped += u64::from(stopped);
        let promised =
            self.offer.notif_config_data && self.registers.accepted() & (1 << VIRTIO_F_39) != 0;
        if promised && data != u64::from(notify_data(queue)) {
            self.tally.counters.notifications_lost += 1;
            return;
        }
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.notified |= !(stopped && self.settings.forget_notifications);
        }
    }

    fn may_take(&self, now: Instant) -> bool {
        // A device that is about to answer a stop which was called off has stopped by then.
        let stopping = self.status.stop() == Stop::Running
            && self
                .schedule
                .next(Stop::Running)
                .is_some_and(|(due, _)| now >= due);
        let bug = self.settings.take_while_stopped && self.status.is_live();
        !self.resetting
            && !self.requests.absent.is_waiting()
            && (bug || self.status.may_serve() && !stopping)
    }

    fn room(&self) -> bool {
        self.requests.len() < self.settings.io_depth
    }

    /// S-DEV-2, whether or not the setting that left something there is still set.
    fn holds_all(&self) -> bool {
        self.is_suspended() && !self.settings.take_while_stopped
    }

    /// Which requests are kept although their time has come.
    fn held(&self) -> Held {
        let all = self.holds_all() || self.requests.absent.is_waiting();
        let waiting = match self.settings.io_hold {
            IoHold::No => false,
            IoHold::Always => true,
            // The driver has asked for a stop since those were taken that were left over.
            IoHold::UntilStop => self.status.stop() == Stop::Running,
        };
        Held {
            left: all || self.settings.io_hold == IoHold::Always,
            waiting: all || waiting,
            saying: all,
        }
    }

    /// When the next request is to be carried out.
    fn next_request(&self) -> Option<Instant> {
        self.requests.next(self.held())
    }

    pub(super) fn has_work(&self, now: Instant) -> bool {
        let mut queues = self.queues.iter().enumerate();
        (self.may_take(now)
            && self.room()
            && queues.any(|(index, queue)| queue.is_wanted(index, &*self.of_type)))
            || self.next_request().is_some_and(|due| due <= now)
            || !self.holds_all() && self.requests.absent.has_work(now)
    }

    /// When time alone brings something to do.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let answer = self
            .schedule
            .next(self.status.stop())
            .and_then(|(due, event)| {
                (event != Event::AcknowledgeStop || self.is_quiet()).then_some(due)
            });
        self.next_request()
            .into_iter()
            .chain(answer)
            .chain(
                self.requests
                    .absent
                    .deadline()
                    .filter(|_| !self.holds_all()),
            )
            .chain(self.of_type.next_event())
            .min()
    }

    /// The client has mapped something.
    pub(super) fn mapped(&mut self) {
        self.requests.absent.mapped();
    }

    /// The worker begins with what there is to do.
    pub(super) fn begin(&mut self, now: Instant) {
        if !self.holds_all() {
            self.requests.absent.begin(now);
        }
    }

    /// Takes what the driver has made available.
    pub(super) fn take(&mut self, memory: &GuestMemoryMmap, now: Instant) {
        let of_type = Arc::clone(&self.of_type);
        for index in 0..self.queues.len() {
            while self.may_take(now) && self.room() {
                let Some(virtqueue) = self
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
                        self.requests.absent.miss(now);
                        break;
                    }
                    Err(error) => {
                        self.needs_reset(&error.to_string());
                        break;
                    }
                };
                let requests = &mut self.tally.counters.requests;
                requests.taken += 1;
                requests.taken_while_stopped += u64::from(self.status.stop() != Stop::Running);
                let waiting = match of_type.wants(index) {
                    Wants::Forever => {
                        requests.kept += 1;
                        virtqueue.done_with_one();
                        continue;
                    }
                    Wants::Some(_) => &mut self.requests.saying,
                    Wants::All => &mut self.requests.waiting,
                };
                let every = self.settings.io_error_every;
                let taken = Taken {
                    queue: index,
                    chain,
                    fail: every != 0 && requests.taken % every == 0,
                };
                let due = now + Duration::from_micros(self.settings.io_delay_us);
                let (order, number) = (self.settings.io_order, requests.taken);
                waiting.insert(due, order, number, &mut self.random, taken);
            }
        }
    }

    /// The requests whose time has come; they are being carried out from now on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Taken> {
        self.requests.due(self.held(), now)
    }

    /// Gives the driver back what was carried out.
    pub(super) fn give_back(&mut self, executed: Vec<Executed>, memory: &Memory, now: Instant) {
        let count = self.requests.executed();
        if self.resetting {
            self.tally.counters.requests.dropped += count;
            self.finish_reset();
            return;
        }
        let memory = memory.lock();
        let mut malformed = false;
        let mut used = vec![false; self.queues.len()];
        let mut all = Vec::new();
        if !self.holds_all() {
            all = self.requests.absent.take_done();
        }
        for executed in executed {
            match executed {
                Executed::Done(done) => all.push(done),
                Executed::Missed(taken) => {
                    self.requests.absent.requests.push(taken);
                    self.requests.absent.miss(now);
                }
            }
        }
        for done in all {
            let (Some(virtqueue), Some(used)) =
                (self.queues.get_mut(done.queue), used.get_mut(done.queue))
            else {
                continue;
            };
            if done.outcome.is_some() && !virtqueue.is_in(&memory) {
                self.requests.absent.done.push(done);
                self.requests.absent.miss(now);
                continue;
            }
            virtqueue.done_with_one();
            let requests = &mut self.tally.counters.requests;
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
            if let Some(vector) = self.registers.queues.get(index).map(|queue| queue.vector) {
                self.interrupt(Cause::Queue, vector);
            }
        }
        let given_up = self.requests.absent.end();
        if given_up {
            self.tally.counters.requests.dropped +=
                std::mem::take(&mut self.requests.absent).len() as u64;
        }
        if malformed || given_up {
            self.needs_reset("the driver's virtqueues or buffers can't be used");
        }
    }

    fn interrupt(&mut self, cause: Cause, vector: u16) {
        let msix_enabled = self.pci.msix_enabled();
        self.tally.counters.interrupts +=
            u64::from(self.interrupts.raise(cause, vector, msix_enabled));
    }
}
