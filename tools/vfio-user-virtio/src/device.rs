// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One virtio block device: joins the registers, the status field, the virtqueues and the disk.
//!
//! Two threads meet here. The client's thread brings register accesses, and never waits for a request. The worker calls
//! [`Device::serve`] over and over: it takes requests from the virtqueues, carries them out without holding the lock, gives them
//! back, and acknowledges a stop when nothing is left.
//!
//! Lock order: `inner`, then the guest's memory. A request is carried out with the memory's lock alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use crate::blk::{self, Disk, Kind, Outcome};
use crate::judge::{Breach, Judge};
use crate::memory::Memory;
use crate::pci::{self, Structure, VECTORS};
use crate::registers::{Registers, DEVICE_STATUS};
use crate::settings::{Acknowledge, Settings};
use crate::status::{Effect, Status, Stop};

/// VIRTIO_F_DEVICE_STOP (RFC of 2020). Taken since by VIRTIO_F_NOTIF_CONFIG_DATA, which this device never means by it.
const VIRTIO_F_DEVICE_STOP: u32 = 39;
const QUEUES: u16 = 1;
const MAX_QUEUE_SIZE: u16 = 256;

/// What the device has counted since it was started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Requests.
    pub requests: Requests,
    /// Stops.
    pub stops: Stops,
    /// Reads of the device status by the driver.
    pub status_reads: u64,
    /// Writes of the device status by the driver.
    pub status_writes: u64,
    /// Available buffer notifications by the driver.
    pub notifications: u64,
    /// Those of them that came while the device was stopped.
    pub notifications_while_stopped: u64,
    /// Used buffer and configuration change notifications to the driver.
    pub interrupts: u64,
    /// Resets, by whatever means.
    pub resets: u64,
}

/// Requests, by what has become of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// Taken from a virtqueue.
    pub taken: u64,
    /// Given back to the driver.
    pub completed: u64,
    /// Taken, but neither given back nor dropped by a reset.
    pub in_flight: u64,
    /// Dropped by a reset.
    pub dropped: u64,
    /// Taken while a stop was pending or stood.
    pub taken_while_stopped: u64,
    /// Completed reads, whatever their status.
    pub reads: u64,
    /// Completed writes.
    pub writes: u64,
    /// Completed flushes.
    pub flushes: u64,
    /// Completed requests for the device's name.
    pub get_ids: u64,
    /// Completed requests of a type that this device does not have.
    pub unsupported: u64,
    /// Completed requests that ended with an error.
    pub failed: u64,
}

/// Stops, by what has become of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stops {
    /// Asked for by the driver.
    pub requested: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Called off by the driver before they were acknowledged.
    pub called_off: u64,
    /// Ended by the driver after they were acknowledged.
    pub resumed: u64,
    /// Asked for while requests were in flight.
    pub requested_with_requests: u64,
    /// Acknowledged while requests were in flight: never, unless a setting asks for it.
    pub acknowledged_with_requests: u64,
    /// Requests in flight when the last stop was asked for.
    pub last_requests_when_requested: u64,
    /// Requests in flight when the last stop was acknowledged.
    pub last_requests_when_acknowledged: u64,
    /// Status reads by the driver from the last request for a stop until its acknowledgement was seen.
    pub last_status_reads: u64,
}

/// All that the device tells of itself.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Format of this report.
    pub version: u32,
    /// Whether a client is connected.
    pub connected: bool,
    /// The device status field, as the driver would read it.
    pub status: u8,
    /// Where the device is between serving and having stopped.
    pub stop: Stop,
    /// Features that the driver has accepted.
    pub features: u64,
    /// Whether VIRTIO_F_DEVICE_STOP is among them.
    pub device_stop_negotiated: bool,
    /// What was counted.
    pub counters: Counters,
    /// How many rules the driver has broken.
    pub breach_count: u64,
    /// The first of them.
    pub breaches: Vec<Breach>,
    /// How the device behaves.
    pub settings: Settings,
}

type Chain = DescriptorChain<Arc<GuestMemoryMmap>>;

/// A request that was taken from a virtqueue.
#[derive(Debug)]
struct Taken {
    queue: usize,
    chain: Chain,
}

/// A request that was carried out.
struct Done {
    queue: usize,
    head: u16,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Virtqueue {
    queue: Queue,
    notified: bool,
}

#[derive(Debug)]
struct Inner {
    registers: Registers,
    status: Status,
    config: pci::Config,
    vectors: Vec<Option<File>>,
    queues: Vec<Virtqueue>,
    /// Taken and waiting for their time, by when that is and in which order they came.
    waiting: BTreeMap<(Instant, u64), Taken>,
    /// Taken and being carried out by the worker.
    executing: usize,
    /// The driver has reset the device while requests were being carried out. The status reads 0 when they are done with.
    resetting: bool,
    stop_requested_at: Option<Instant>,
    /// A stop that was called off will be acknowledged all the same.
    late_acknowledgement: Option<Instant>,
    status_reads_since_stop: Option<u64>,
    connected: bool,
    counters: Counters,
    judge: Judge,
    settings: Settings,
}

/// The device.
#[derive(Debug)]
pub struct Device {
    inner: Mutex<Inner>,
    wake: Condvar,
    memory: Memory,
    disk: Disk,
    started: Instant,
}

impl Device {
    /// A block device on `disk`. `device_stop`: whether it offers VIRTIO_F_DEVICE_STOP.
    pub fn new(disk: Disk, device_stop: bool, settings: Settings) -> Self {
        let mut offered = blk::FEATURES;
        for feature in [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
        ] {
            offered |= 1 << feature;
        }
        if device_stop {
            offered |= 1 << VIRTIO_F_DEVICE_STOP;
        }
        let inner = Inner {
            registers: Registers::new(offered, QUEUES, MAX_QUEUE_SIZE),
            status: Status::default(),
            config: pci::Config::new(blk::DEVICE_ID, blk::PCI_CLASS),
            vectors: Vec::new(),
            queues: Vec::new(),
            waiting: BTreeMap::new(),
            executing: 0,
            resetting: false,
            stop_requested_at: None,
            late_acknowledgement: None,
            status_reads_since_stop: None,
            connected: false,
            counters: Counters::default(),
            judge: Judge::default(),
            settings,
        };
        Self {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            memory: Memory::default(),
            disk,
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Reads from PCI configuration space.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let window = {
            let inner = self.lock();
            inner.config.read(offset, data);
            inner.config.window(offset)
        };
        if let (Some(window), Some(data)) = (
            window,
            window.and_then(|window| data.get_mut(..window.length)),
        ) {
            self.read_bar(window.offset, data);
        }
    }

    /// Writes to PCI configuration space.
    pub fn write_config(&self, offset: u64, data: &[u8], now: Instant) {
        let window = {
            let mut inner = self.lock();
            inner.config.write(offset, data);
            inner.config.window(offset)
        };
        if let (Some(window), Some(data)) =
            (window, window.and_then(|window| data.get(..window.length)))
        {
            self.write_bar(window.offset, data, now);
        }
    }

    /// Reads from BAR 0.
    pub fn read_bar(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match Structure::at(offset) {
            Structure::Common(DEVICE_STATUS) => {
                if let [byte] = data {
                    *byte = self.lock().read_status();
                }
            }
            Structure::Common(offset) => {
                let value = self.lock().registers.read(offset, data.len());
                data.iter_mut()
                    .zip(value.to_le_bytes())
                    .for_each(|(to, from)| *to = from);
            }
            Structure::Device(offset) => self.disk.read_config(offset, data),
            Structure::Isr | Structure::Notify(_) | Structure::None => {}
        }
    }

    /// Writes to BAR 0.
    pub fn write_bar(&self, offset: u64, data: &[u8], now: Instant) {
        let mut bytes = [0; 8];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = *from);
        let value = u64::from_le_bytes(bytes);
        match Structure::at(offset) {
            Structure::Common(DEVICE_STATUS) if data.len() == 1 => {
                self.lock()
                    .write_status(value as u8, &self.memory, now, self.started);
                self.wake.notify_all();
            }
            Structure::Common(offset) => {
                let mut inner = self.lock();
                let open = !inner.status.has(crate::status::FEATURES_OK);
                inner.registers.write(offset, data.len(), value, open);
            }
            Structure::Notify(queue) => {
                self.lock().notified(usize::from(queue));
                self.wake.notify_all();
            }
            Structure::Device(_) | Structure::Isr | Structure::None => {}
        }
    }

    /// The client gives `files` to signal the MSI-X vectors from `start` on; none takes those vectors away.
    pub fn set_vectors(&self, start: usize, count: usize, files: Vec<File>) {
        let mut inner = self.lock();
        inner.vectors.resize_with(usize::from(VECTORS), || None);
        let mut files = files.into_iter();
        for vector in inner.vectors.iter_mut().skip(start).take(count) {
            *vector = files.next();
        }
    }

    /// Takes all MSI-X vectors away.
    pub fn clear_vectors(&self) {
        self.lock().vectors.clear();
    }

    /// A client has connected.
    pub fn connected(&self) {
        self.lock().connected = true;
    }

    /// The client is gone, and with it the guest.
    pub fn disconnected(&self) {
        self.reset();
        self.memory.clear();
        let mut inner = self.lock();
        inner.vectors.clear();
        inner.connected = false;
    }

    /// A reset of the PCI function. Returns when no request touches the guest's memory any more.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.reset();
        while inner.executing > 0 {
            inner = self
                .wake
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Changes a setting.
    pub fn set(&self, name: &str, value: &str) -> Result<(), crate::settings::Error> {
        let result = self.lock().settings.set(name, value);
        self.wake.notify_all();
        result
    }

    /// What there is to tell.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let (breach_count, breaches) = inner.judge.breaches();
        let mut counters = inner.counters.clone();
        counters.requests.in_flight = inner.in_flight();
        Report {
            version: 1,
            connected: inner.connected,
            status: inner.status.value(),
            stop: inner.status.stop(),
            features: inner.registers.accepted(),
            device_stop_negotiated: inner.stop_negotiated(),
            counters,
            breach_count,
            breaches: breaches.to_vec(),
            settings: inner.settings,
        }
    }

    /// The worker: serves for ever.
    pub fn run(&self) -> ! {
        loop {
            self.serve(Instant::now());
            let inner = self.lock();
            if inner.has_work(Instant::now()) {
                continue;
            }
            // Whoever leaves work for the worker holds the lock and notifies: nothing is missed between the look and the wait.
            match inner.next_event() {
                Some(next) => {
                    let wait = next.saturating_duration_since(Instant::now());
                    drop(
                        self.wake
                            .wait_timeout(inner, wait)
                            .unwrap_or_else(PoisonError::into_inner),
                    );
                }
                None => drop(
                    self.wake
                        .wait(inner)
                        .unwrap_or_else(PoisonError::into_inner),
                ),
            }
        }
    }

    /// Does what there is to do at `now`.
    pub fn serve(&self, now: Instant) {
        let due = {
            let mut inner = self.lock();
            let memory = Arc::clone(&self.memory.lock());
            inner.take(&memory, now);
            inner.due(now)
        };
        let done: Vec<Done> = due.into_iter().map(|taken| self.execute(taken)).collect();
        let mut inner = self.lock();
        inner.give_back(done, &self.memory);
        inner.acknowledge(now);
        self.wake.notify_all();
    }

    fn execute(&self, taken: Taken) -> Done {
        let head = taken.chain.head_index();
        // Not what was mapped when the request was taken, but what is mapped now.
        let memory = self.memory.lock();
        let buffers = taken
            .chain
            .clone()
            .reader(&memory)
            .and_then(|input| Ok((input, taken.chain.writer(&memory)?)));
        let outcome = match buffers {
            Ok((input, output)) => self
                .disk
                .execute(input, output)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let outcome = outcome
            .inspect_err(|error| tracing::warn!(error, head, "the driver's buffers can't be used"));
        Done {
            queue: taken.queue,
            head,
            outcome: outcome.ok(),
        }
    }
}

impl Inner {
    fn in_flight(&self) -> u64 {
        (self.waiting.len() + self.executing) as u64
    }

    fn stop_negotiated(&self) -> bool {
        self.status.has(crate::status::FEATURES_OK)
            && self.registers.accepted() & (1 << VIRTIO_F_DEVICE_STOP) != 0
    }

    fn read_status(&mut self) -> u8 {
        self.counters.status_reads += 1;
        let value = self.status.value();
        if let Some(reads) = self.status_reads_since_stop.as_mut() {
            *reads += 1;
            self.counters.stops.last_status_reads = *reads;
        }
        if self.status.stop() == Stop::Stopped {
            self.status_reads_since_stop = None;
        }
        self.judge.read(value);
        value
    }

    fn write_status(&mut self, written: u8, memory: &Memory, now: Instant, started: Instant) {
        self.counters.status_writes += 1;
        let at_us =
            u64::try_from(now.saturating_duration_since(started).as_micros()).unwrap_or(u64::MAX);
        let stopping = self.status.stop() == Stop::Requested;
        let negotiated = self.stop_negotiated();
        self.judge
            .write(self.status.value(), written, stopping, negotiated, at_us);
        if written == 0 {
            self.reset();
            return;
        }
        if self.resetting {
            return;
        }
        let acceptable = self.registers.accepted() & !self.registers.offered() == 0
            && self.registers.accepted() & (1 << VIRTIO_F_VERSION_1) != 0;
        match self.status.write(written, negotiated, acceptable) {
            Effect::None | Effect::Reset => {}
            Effect::Start => self.start(memory),
            Effect::StopRequested => self.stop_requested(now),
            Effect::StopCalledOff => {
                self.counters.stops.called_off += 1;
                self.stop_requested_at = None;
                self.status_reads_since_stop = None;
                if let Acknowledge::GivenUp(delay) = self.settings.acknowledge {
                    self.late_acknowledgement = Some(now + delay);
                    self.acknowledge(now);
                }
            }
            Effect::Resumed => {
                self.counters.stops.resumed += 1;
                for queue in &mut self.queues {
                    queue.notified = !self.settings.forget_notifications;
                }
            }
        }
    }

    fn stop_requested(&mut self, now: Instant) {
        let requests = self.in_flight();
        let stops = &mut self.counters.stops;
        stops.requested += 1;
        stops.requested_with_requests += u64::from(requests > 0);
        stops.last_requests_when_requested = requests;
        self.stop_requested_at = Some(now);
        self.late_acknowledgement = None;
        self.status_reads_since_stop = Some(0);
        match self.settings.acknowledge {
            Acknowledge::NeedsReset => self.needs_reset("asked to, on a stop"),
            _ => self.acknowledge(now),
        }
    }

    /// D-DEV-2: the device acknowledges when everything that it has taken is finished.
    fn may_acknowledge(&self) -> bool {
        self.in_flight() == 0 || self.settings.take_while_stopped
    }

    /// Acknowledges a stop whose time has come.
    fn acknowledge(&mut self, now: Instant) {
        let due = match (self.status.stop(), self.settings.acknowledge) {
            (Stop::Requested, Acknowledge::AtOnce) => true,
            (Stop::Requested, Acknowledge::After(delay)) => self
                .stop_requested_at
                .is_some_and(|at| now.saturating_duration_since(at) >= delay),
            (Stop::Running, _) => self.late_acknowledgement.is_some_and(|at| now >= at),
            _ => false,
        };
        if !due || !self.may_acknowledge() {
            return;
        }
        let requests = self.in_flight();
        self.late_acknowledgement = None;
        let stops = &mut self.counters.stops;
        stops.acknowledged += 1;
        stops.acknowledged_with_requests += u64::from(requests > 0);
        stops.last_requests_when_acknowledged = requests;
        self.status.acknowledge_stop();
    }

    /// The driver is ready: sets the virtqueues up as it has laid them out.
    fn start(&mut self, memory: &Memory) {
        let event_idx = self.registers.accepted() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let memory = memory.lock();
        self.queues.clear();
        let mut valid = true;
        for registers in &self.registers.queues {
            let Ok(mut queue) = Queue::new(MAX_QUEUE_SIZE) else {
                continue;
            };
            if registers.enabled {
                let (low, high) = (
                    |value: u64| Some(value as u32),
                    |value: u64| Some((value >> 32) as u32),
                );
                queue.set_size(registers.size);
                queue.set_desc_table_address(low(registers.desc), high(registers.desc));
                queue.set_avail_ring_address(low(registers.driver), high(registers.driver));
                queue.set_used_ring_address(low(registers.device), high(registers.device));
                queue.set_event_idx(event_idx);
                queue.set_ready(true);
                valid &= queue.is_valid(&**memory);
            }
            self.queues.push(Virtqueue {
                queue,
                notified: true,
            });
        }
        drop(memory);
        if !valid {
            self.needs_reset("a virtqueue does not lie in the guest's memory");
        }
    }

    fn notified(&mut self, queue: usize) {
        self.counters.notifications += 1;
        let stopped = self.status.stop() == Stop::Stopped;
        self.counters.notifications_while_stopped += u64::from(stopped);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.notified |= !(stopped && self.settings.forget_notifications);
        }
    }

    fn may_take(&self, now: Instant) -> bool {
        let stopping = self.status.stop() != Stop::Running
            || self.late_acknowledgement.is_some_and(|at| now >= at);
        let bug = self.settings.take_while_stopped && self.status.has(crate::status::DRIVER_OK);
        !self.resetting && (bug || self.status.may_serve() && !stopping)
    }

    fn room(&self) -> bool {
        self.in_flight() < self.settings.io_depth
    }

    fn has_work(&self, now: Instant) -> bool {
        (self.may_take(now) && self.room() && self.queues.iter().any(|queue| queue.notified))
            || self
                .waiting
                .first_key_value()
                .is_some_and(|((due, _), _)| *due <= now)
    }

    /// Takes what the driver has made available.
    fn take(&mut self, memory: &Arc<GuestMemoryMmap>, now: Instant) {
        for index in 0..self.queues.len() {
            while self.may_take(now) && self.room() {
                let Some(virtqueue) = self
                    .queues
                    .get_mut(index)
                    .filter(|virtqueue| virtqueue.notified)
                else {
                    break;
                };
                match next_chain(&mut virtqueue.queue, memory) {
                    Ok(Some(chain)) => {
                        let requests = &mut self.counters.requests;
                        requests.taken += 1;
                        requests.taken_while_stopped +=
                            u64::from(self.status.stop() != Stop::Running);
                        let due = now + Duration::from_micros(self.settings.io_delay_us);
                        self.waiting.insert(
                            (due, requests.taken),
                            Taken {
                                queue: index,
                                chain,
                            },
                        );
                    }
                    Ok(None) => virtqueue.notified = false,
                    Err(error) => {
                        virtqueue.notified = false;
                        self.needs_reset(&error.to_string());
                    }
                }
            }
        }
    }

    /// The requests whose time has come; they are being carried out from now on.
    fn due(&mut self, now: Instant) -> Vec<Taken> {
        let later = self.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        self.executing = due.len();
        due.into_values().collect()
    }

    fn give_back(&mut self, done: Vec<Done>, memory: &Memory) {
        let dropped = self.executing as u64;
        self.executing = 0;
        if self.resetting {
            self.counters.requests.dropped += dropped;
            self.finish_reset();
            return;
        }
        let mut malformed = false;
        let mut used = vec![false; self.queues.len()];
        for done in done {
            let Some(virtqueue) = self.queues.get_mut(done.queue) else {
                continue;
            };
            let requests = &mut self.counters.requests;
            let Some(outcome) = done.outcome else {
                requests.dropped += 1;
                malformed = true;
                continue;
            };
            requests.completed += 1;
            requests.failed += u64::from(!outcome.ok);
            *match outcome.kind {
                Kind::Read => &mut requests.reads,
                Kind::Write => &mut requests.writes,
                Kind::Flush => &mut requests.flushes,
                Kind::GetId => &mut requests.get_ids,
                Kind::Unsupported => &mut requests.unsupported,
            } += 1;
            malformed |= virtqueue
                .queue
                .add_used(&**memory.lock(), done.head, outcome.written)
                .is_err();
            used.iter_mut()
                .skip(done.queue)
                .take(1)
                .for_each(|used| *used = true);
        }
        for index in used
            .iter()
            .enumerate()
            .filter_map(|(index, used)| used.then_some(index))
        {
            let Some(virtqueue) = self.queues.get_mut(index) else {
                continue;
            };
            let wanted = virtqueue
                .queue
                .needs_notification(&**memory.lock())
                .unwrap_or(true);
            let vector = self.registers.queues.get(index).map(|queue| queue.vector);
            if let (true, Some(vector)) = (wanted, vector) {
                self.interrupt(vector);
            }
        }
        if malformed {
            self.needs_reset("the driver's buffers can't be used");
        }
    }

    fn interrupt(&mut self, vector: u16) {
        if let Some(Some(eventfd)) = self.vectors.get_mut(usize::from(vector)) {
            self.counters.interrupts += 1;
            if let Err(error) = eventfd.write_all(&1u64.to_ne_bytes()) {
                tracing::warn!(vector, %error, "can't signal an interrupt");
            }
        }
    }

    fn needs_reset(&mut self, why: &str) {
        tracing::warn!(why, "the device sets NEEDS_RESET");
        self.status.set_needs_reset();
        self.interrupt(self.registers.config_vector);
    }

    fn reset(&mut self) {
        self.counters.resets += 1;
        self.counters.requests.dropped += self.waiting.len() as u64;
        self.waiting.clear();
        self.resetting = true;
        if self.executing == 0 {
            self.finish_reset();
        }
    }

    fn finish_reset(&mut self) {
        self.resetting = false;
        self.status = Status::default();
        self.registers.reset();
        self.queues.clear();
        self.stop_requested_at = None;
        self.late_acknowledgement = None;
        self.status_reads_since_stop = None;
    }

    /// When time alone brings something to do.
    fn next_event(&self) -> Option<Instant> {
        let request = self.waiting.first_key_value().map(|((due, _), _)| *due);
        let acknowledgement = match (self.status.stop(), self.settings.acknowledge) {
            (Stop::Requested, Acknowledge::After(delay)) => {
                self.stop_requested_at.map(|at| at + delay)
            }
            (Stop::Running, _) => self.late_acknowledgement,
            _ => None,
        };
        request
            .into_iter()
            .chain(acknowledgement.filter(|_| self.may_acknowledge()))
            .min()
    }
}

/// The next chain that the driver has made available, with notifications on when there is none.
fn next_chain(
    queue: &mut Queue,
    memory: &Arc<GuestMemoryMmap>,
) -> Result<Option<Chain>, virtio_queue::Error> {
    if !queue.ready() {
        return Ok(None);
    }
    for _ in 0..2 {
        if let Some(chain) = queue.iter(Arc::clone(memory))?.next() {
            return Ok(Some(chain));
        }
        if !queue.enable_notification(&**memory)? {
            return Ok(None);
        }
    }
    // The ring says that there is more, but can't be read.
    Err(virtio_queue::Error::InvalidAvailRingIndex)
}
