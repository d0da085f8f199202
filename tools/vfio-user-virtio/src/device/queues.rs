// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtqueues: what the driver has made available is taken, and given back.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::chain::{Chain, Error};
use super::offer::MAX_QUEUE_SIZE;
use crate::registers::QueueRegisters;
use crate::types::{Outcome, Type, Wants};

const AVAILABLE: Error = Error::Malformed("an available ring that makes no sense");

/// A request that was taken from a virtqueue.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Taken {
    pub(super) queue: usize,
    pub(super) chain: Chain,
    pub(super) fail: bool,
}

/// What has become of a request that was due.
#[derive(Debug)]
pub(super) enum Executed {
    Done(Done),
    /// Its buffers are not there now.
    Missed(Taken),
}

impl Executed {
    pub(super) fn queue(&self) -> usize {
        match self {
            Self::Done(done) => done.queue,
            Self::Missed(taken) => taken.queue,
        }
    }
}

/// A request that was carried out. Without an outcome its buffers made no sense.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) queue: usize,
    pub(super) head: u16,
    pub(super) outcome: Option<Outcome>,
}

/// How a split virtqueue is written.
mod split {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use virtio_queue::{Queue, QueueState};

    #[derive(Deserialize, Serialize)]
    #[serde(remote = "QueueState")]
    struct Fields {
        max_size: u16,
        next_avail: u16,
        next_used: u16,
        event_idx_enabled: bool,
        size: u16,
        ready: bool,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    }

    #[derive(Deserialize, Serialize)]
    struct State(#[serde(with = "Fields")] QueueState);

    pub(super) fn serialize<S: Serializer>(
        queue: &Queue,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        State(queue.state()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Queue, D::Error> {
        let state = State::deserialize(deserializer)?.0;
        Queue::try_from(state).map_err(serde::de::Error::custom)
    }
}

/// One virtqueue.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Virtqueue {
    #[serde(with = "split")]
    queue: Queue,
    /// There may be something in it that the device has not seen.
    pub(super) notified: bool,
    /// Taken and not given back.
    in_flight: usize,
    /// The available index at the last look on behalf of the judge.
    judged: u16,
}

impl Virtqueue {
    /// The virtqueue that the driver has laid out, with the features that it has accepted, and whether it can be used: its addresses are aligned (virtio 1.4, 2.7). One that
    /// can't is not to be looked at.
    pub(super) fn new(registers: &QueueRegisters, accepted: u64) -> Option<(Self, bool)> {
        let event_idx = accepted & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let mut queue = Queue::new(MAX_QUEUE_SIZE).ok()?;
        let mut valid = true;
        if registers.enabled {
            valid = queue.try_set_size(registers.size).is_ok()
                && queue
                    .try_set_desc_table_address(GuestAddress(registers.desc))
                    .is_ok()
                && queue
                    .try_set_avail_ring_address(GuestAddress(registers.driver))
                    .is_ok()
                && queue
                    .try_set_used_ring_address(GuestAddress(registers.device))
                    .is_ok();
            queue.set_event_idx(event_idx);
            queue.set_ready(valid);
        }
        let virtqueue = Self {
            queue,
            notified: true,
            in_flight: 0,
            judged: 0,
        };
        Some((virtqueue, valid))
    }

    /// Whether the driver has enabled it, and it can be used.
    pub(super) fn is_ready(&self) -> bool {
        self.queue.ready()
    }

    /// Whether all of it is there.
    pub(super) fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        let size = usize::from(self.queue.size());
        let parts = [
            (self.queue.desc_table(), 16 * size, Permissions::Read),
            (self.queue.avail_ring(), 6 + 2 * size, Permissions::Read),
            (self.queue.used_ring(), 6 + 8 * size, Permissions::Write),
        ];
        !self.queue.ready()
            || parts.into_iter().all(|(address, length, access)| {
                memory.check_range(GuestAddress(address), length, access)
            })
    }

    /// Whether the device has a use for what may be in it.
    pub(super) fn is_wanted(&self, index: usize, of_type: &dyn Type) -> bool {
        self.notified
            && match of_type.wants(index) {
                Wants::All | Wants::Forever => true,
                Wants::Some(buffers) => self.in_flight < buffers,
            }
    }

    /// Takes the next chain. With none, notifications are on.
    pub(super) fn take(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Error> {
        let next = self.next(memory);
        match &next {
            Ok(Some(_)) => self.in_flight += 1,
            Ok(None) | Err(Error::Malformed(_)) => self.notified = false,
            // It is still there to be found.
            Err(Error::Gone) => {}
        }
        next
    }

    fn next(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Error> {
        if !self.queue.ready() {
            return Ok(None);
        }
        if !self.is_in(memory) {
            return Err(Error::Gone);
        }
        let before = self.queue.next_avail();
        for _ in 0..2 {
            let mut heads = self.queue.iter(memory).map_err(|_| AVAILABLE)?;
            if let Some(head) = heads.next().map(|chain| chain.head_index()) {
                let (table, size) = (self.queue.desc_table(), self.queue.size());
                let chain = Chain::read(memory, table, size, head);
                if chain == Err(Error::Gone) {
                    self.queue.set_next_avail(before);
                }
                return chain.map(Some);
            }
            if !self
                .queue
                .enable_notification(memory)
                .map_err(|_| AVAILABLE)?
            {
                return Ok(None);
            }
        }
        // The ring says that there is more, but can't be read.
        Err(AVAILABLE)
    }

    /// What was taken is out of its hands: given back, kept, or dropped.
    pub(super) fn done_with(&mut self, requests: usize) {
        self.in_flight = self.in_flight.saturating_sub(requests);
    }

    /// Whether none of its requests is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Gives a chain back.
    pub(super) fn give_back(
        &mut self,
        head: u16,
        written: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), virtio_queue::Error> {
        self.queue.add_used(memory, head, written)
    }

    /// Whether the driver wants to be told of what was given back (2.7.7: by a flag, or by the event index).
    pub(super) fn wants_interrupt(&mut self, memory: &GuestMemoryMmap) -> bool {
        // With a fence, after which what the driver wants is read.
        let wants = self.queue.needs_notification(memory).unwrap_or(true);
        if self.queue.event_idx_enabled() {
            return wants;
        }
        let flags = memory.load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
        flags.map_or(true, |flags| {
            u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0
        })
    }

    /// How many buffers the driver has added since the last look.
    pub(super) fn added(&mut self, memory: &GuestMemoryMmap) -> u16 {
        if !self.queue.ready() {
            return 0;
        }
        let index = match self.queue.avail_idx(memory, Ordering::Acquire) {
            Ok(index) => index.0,
            Err(_) => return 0,
        };
        index.wrapping_sub(std::mem::replace(&mut self.judged, index))
    }
}
