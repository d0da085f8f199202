// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtqueues are served: what the driver makes available is taken, carried out when its time has come, and given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::VIRTIO_F_NOTIFICATION_DATA;
use vm_memory::GuestMemoryMmap;

use super::State;
use crate::buffers::Work;
use crate::device::chain::Error;
use crate::device::interrupts::Cause;
use crate::device::offer::VIRTIO_F_39;
use crate::device::queues::{Executed, Taken};
use crate::device::schedule::Event;
use crate::memory::Memory;
use crate::registers::notify_data;
use crate::status::Stop;
use crate::types::Wants;

impl State {
    /// The driver notifies virtqueue `queue`, with `length` bytes of `data`.
    pub(in crate::device) fn notified(
        &mut self,
        queue: u16,
        data: u64,
        length: usize,
        memory: &Memory,
        now: Instant,
    ) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.tally.counters.notifications += 1;
        let live = self.parts.status.is_live();
        self.parts.judge.notification(usize::from(queue), live);
        let stopped = self.parts.status.stop() == Stop::Stopped;
        self.parts.tally.counters.notifications_while_stopped += u64::from(stopped);
        if !self.is_as_promised(queue, data, length) {
            self.parts.tally.counters.notifications_lost += 1;
            return;
        }
        if let Some(queue) = self.parts.queues.get_mut(usize::from(queue)) {
            queue.notified |= !(stopped && self.parts.settings.forget_notifications);
        }
    }

    /// Whether a notification carries what the driver has promised (4.1.5.2): with VIRTIO_F_NOTIF_CONFIG_DATA another number than the
    /// virtqueue's, with VIRTIO_F_NOTIFICATION_DATA also up to where there are buffers, which the device finds out by itself.
    fn is_as_promised(&self, queue: u16, data: u64, length: usize) -> bool {
        let accepted = |bit: u32| self.parts.registers.accepted() & (1 << bit) != 0;
        let own_number = self.parts.offer.notif_config_data && accepted(VIRTIO_F_39);
        let number = if own_number {
            notify_data(queue)
        } else {
            queue
        };
        if accepted(VIRTIO_F_NOTIFICATION_DATA) {
            length == 4 && data & 0xffff == u64::from(number)
        } else {
            !own_number || data == u64::from(number)
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
            && self.parts.pci.is_bus_master()
            && !self.parts.requests.absent.is_waiting()
            && (bug || self.parts.status.may_serve() && !stopping)
    }

    /// When the next request is to be carried out.
    fn next_request(&self) -> Option<Instant> {
        self.parts.requests.next(self.parts.held())
    }

    pub(in crate::device) fn has_work(&self, now: Instant) -> bool {
        let mut queues = self.parts.queues.iter().enumerate();
        (self.may_take(now)
            && self.parts.room()
            && queues.any(|(index, queue)| queue.is_wanted(index, &*self.of_type)))
            || self.next_request().is_some_and(|due| due <= now)
            || !self.parts.holds_all() && self.parts.requests.absent.has_work(now)
    }

    /// When time alone brings something to do.
    pub(in crate::device) fn next_event(&self) -> Option<Instant> {
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
    pub(in crate::device) fn mapped(&mut self) {
        self.parts.requests.absent.mapped();
    }

    /// The worker begins with what there is to do.
    pub(in crate::device) fn begin(&mut self, now: Instant) {
        if !self.parts.holds_all() {
            self.parts.requests.absent.begin(now);
        }
    }

    /// Takes what the driver has made available.
    pub(in crate::device) fn take(&mut self, memory: &GuestMemoryMmap, now: Instant) {
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
                        virtqueue.done_with(1);
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
    pub(in crate::device) fn due(&mut self, now: Instant) -> (Arc<Work>, Vec<Taken>) {
        let due = self.parts.requests.due(self.parts.held(), now);
        self.worker_is_busy = !due.is_empty();
        (Arc::clone(&self.work), due)
    }

    /// Gives the driver back what was carried out as `work`.
    pub(in crate::device) fn give_back(
        &mut self,
        work: &Arc<Work>,
        executed: Vec<Executed>,
        memory: &Memory,
        now: Instant,
    ) {
        self.worker_is_busy = false;
        if !Arc::ptr_eq(work, &self.work) {
            // The device was reset, and has not waited for it.
            return;
        }
        if self.parts.resetting {
            self.finish_reset();
            return;
        }
        self.parts.requests.executed();
        let memory = memory.lock();
        let mut malformed = false;
        let mut used = vec![false; self.parts.queues.len()];
        let mut all = Vec::new();
        if !self.parts.holds_all() {
            all = self.parts.requests.absent.take_done();
        }
        for executed in executed {
            let queue = executed.queue();
            if self.parts.registers.is_resetting(queue) {
                self.drop_requests(queue, 1);
                self.finish_queue_reset(queue);
                continue;
            }
            match executed {
                Executed::Done(done) => all.push(done),
                Executed::Missed(taken) => {
                    self.parts.requests.absent.requests.push(taken);
                    if memory.is_bus_master() {
                        self.parts.requests.absent.miss(now);
                    }
                }
            }
        }
        let holds = self.parts.holds_all();
        for done in all {
            let (Some(virtqueue), Some(used)) = (
                self.parts.queues.get_mut(done.queue),
                used.get_mut(done.queue),
            ) else {
                continue;
            };
            if done.outcome.is_some() && (holds || !virtqueue.is_in(&memory)) {
                self.parts.requests.absent.done.push(done);
                if memory.is_bus_master() && !holds {
                    self.parts.requests.absent.miss(now);
                }
                continue;
            }
            virtqueue.done_with(1);
            let requests = &mut self.parts.tally.counters.requests;
            let Some(outcome) = done.outcome else {
                requests.dropped += 1;
                malformed = true;
                continue;
            };
            let given =
                virtqueue.give_back((done.head, done.descriptors), outcome.written, &memory);
            if given.is_err() {
                requests.dropped += 1;
                malformed = true;
                continue;
            }
            self.of_type.given_back(done.queue, outcome.ok);
            requests.completed += 1;
            requests.failed += u64::from(!outcome.ok);
            *requests.kinds.entry(outcome.kind).or_default() += 1;
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
            let absent = std::mem::take(&mut self.parts.requests.absent);
            let requests = absent.requests.iter().map(|taken| taken.queue);
            for queue in requests.chain(absent.done.iter().map(|done| done.queue)) {
                self.drop_requests(queue, 1);
            }
        }
        if malformed || given_up {
            self.needs_reset("the driver's virtqueues or buffers can't be used");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::interrupts::Interrupts;
    use crate::device::offer::Offer;
    use crate::device::parts::Parts;
    use crate::device::queues::{Done, Ended, Virtqueue};
    use crate::memory::tests::{file, reachable};
    use crate::pci;
    use crate::registers::{QueueRegisters, Registers};
    use crate::settings::Settings;
    use crate::types::null::Null;

    #[test]
    fn what_can_not_be_given_back_is_not_completed() {
        let mut parts = Parts::new(
            Offer::default(),
            Registers::new(0, 1, 256, 0),
            pci::Config::new(9, 0, 0, 56),
            Settings::default(),
        );
        parts.pci.write(4, &[6, 0]);
        let mut state = State::new(Arc::new(Null::new(9, 1)), parts, Interrupts::new(0));
        let memory = reachable();
        memory.map(0, 0x1_0000, 0, file(0x1_0000)).unwrap();
        let registers = QueueRegisters {
            size: 16,
            vector: 0,
            resetting: false,
            enabled: true,
            desc: 0x1000,
            driver: 0x2000,
            device: 0x3000,
        };
        let (queue, _) = Virtqueue::new(&registers, 0);
        state.parts.queues.push(queue);
        let done = |head| {
            Executed::Done(Done {
                queue: 0,
                head,
                descriptors: 1,
                outcome: Some(Ended {
                    kind: "any".into(),
                    ok: true,
                    written: 0,
                }),
            })
        };
        let work = Arc::clone(&state.work);
        let executed = vec![done(3), done(999)];
        state.give_back(&work, executed, &memory, Instant::now());
        let requests = state.report().counters.requests;
        assert_eq!((requests.completed, requests.dropped), (1, 1));
        assert_eq!(requests.kinds["any"], 1);
        assert!(state.report().status & 64 != 0);
    }
}
