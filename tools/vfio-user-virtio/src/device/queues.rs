// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtqueues: what the driver has made available is taken, and given back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueState;
use vm_memory::GuestMemoryMmap;

use super::chain::{Chain, Error};
use super::offer::MAX_QUEUE_SIZE;
use super::packed::{Packed, PackedState, Position};
use super::split::{Split, SplitState};
use crate::memory::Observed;
use crate::registers::QueueRegisters;
use crate::types::{Outcome, Type, Wants};

/// A request that was taken from a virtqueue.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    pub(super) queue: usize,
    /// As its chain has them.
    pub(super) head: u16,
    pub(super) descriptors: u16,
    pub(super) outcome: Option<Ended>,
}

/// An [`Outcome`], which another process may have come to.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ended {
    pub(super) kind: Cow<'static, str>,
    pub(super) ok: bool,
    pub(super) written: u32,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self {
            kind: outcome.kind.into(),
            ok: outcome.ok,
            written: outcome.written,
        }
    }
}

/// A ring as plain data: where it lies, and how far the device has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RingState {
    Split(#[serde(with = "SplitState")] QueueState),
    Packed(PackedState),
}

impl RingState {
    /// A ring that the driver has laid out, with the features that it has accepted.
    fn laid_out(registers: &QueueRegisters, accepted: u64) -> Self {
        let event_idx = accepted & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        if accepted & (1 << VIRTIO_F_RING_PACKED) != 0 {
            return Self::Packed(PackedState {
                size: registers.size,
                event_idx,
                ring: registers.desc,
                driver_events: registers.driver,
                device_events: registers.device,
                next_avail: Position::START,
                next_used: Position::START,
            });
        }
        Self::Split(QueueState {
            max_size: MAX_QUEUE_SIZE,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: event_idx,
            size: registers.size,
            ready: true,
            desc_table: registers.desc,
            avail_ring: registers.driver,
            used_ring: registers.device,
        })
    }
}

/// What the driver makes buffers available in, and the device gives them back.
#[derive(Debug, Deserialize)]
#[serde(try_from = "RingState")]
enum Ring {
    Split(Split),
    Packed(Packed),
}

impl TryFrom<RingState> for Ring {
    type Error = Error;

    fn try_from(state: RingState) -> Result<Self, Error> {
        match state {
            RingState::Split(state) => state.try_into().map(Self::Split),
            RingState::Packed(state) => state.try_into().map(Self::Packed),
        }
    }
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = match self {
            Self::Split(split) => RingState::Split(split.state()),
            Self::Packed(packed) => RingState::Packed(packed.state()),
        };
        state.serialize(serializer)
    }
}

/// One virtqueue.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Virtqueue {
    /// None: the driver has not enabled it, or it can't be used.
    ring: Option<Ring>,
    /// There may be something in it that the device has not seen.
    pub(super) notified: bool,
    /// Taken and not given back.
    in_flight: usize,
}

impl Virtqueue {
    /// The virtqueue that the driver has laid out, with the features that it has accepted, and whether it can be used: its addresses are
    /// aligned. One that can't is not to be looked at.
    pub(super) fn new(registers: &QueueRegisters, accepted: u64) -> (Self, bool) {
        let ring = registers
            .enabled
            .then(|| Ring::try_from(RingState::laid_out(registers, accepted)))
            .transpose();
        let valid = ring.is_ok();
        let virtqueue = Self {
            ring: ring.unwrap_or_default(),
            notified: true,
            in_flight: 0,
        };
        (virtqueue, valid)
    }

    /// Whether the driver has enabled it, and it can be used.
    pub(super) fn is_enabled(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether all of it is there.
    pub(super) fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        self.ring.as_ref().is_none_or(|ring| match ring {
            Ring::Split(split) => split.is_in(memory),
            Ring::Packed(packed) => packed.is_in(memory),
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
        let next = match &mut self.ring {
            None => Ok(None),
            Some(Ring::Split(split)) => split.next(memory),
            Some(Ring::Packed(packed)) => packed.next(memory),
        };
        match &next {
            Ok(Some(_)) => self.in_flight += 1,
            Ok(None) | Err(Error::Malformed(_)) => self.notified = false,
            // It is still there to be found.
            Err(Error::Gone) => {}
        }
        next
    }

    /// What was taken is out of its hands: given back, kept, or dropped.
    pub(super) fn done_with(&mut self, requests: usize) {
        self.in_flight = self.in_flight.saturating_sub(requests);
    }

    /// Whether none of its requests is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Gives back the chain with that head and so many descriptors.
    pub(super) fn give_back(
        &mut self,
        (head, descriptors): (u16, u16),
        written: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), Error> {
        match &mut self.ring {
            None => Ok(()),
            Some(Ring::Split(split)) => split.give_back(head, written, memory),
            Some(Ring::Packed(packed)) => packed.give_back(head, descriptors, written, memory),
        }
    }

    /// Whether the driver wants to be told of what was given back.
    pub(super) fn wants_interrupt(&mut self, memory: &GuestMemoryMmap) -> bool {
        match &mut self.ring {
            None => false,
            Some(Ring::Split(split)) => split.wants_interrupt(memory),
            Some(Ring::Packed(packed)) => packed.wants_interrupt(memory),
        }
    }

    /// For an observer: up to where there are buffers. None: it can't be told now.
    pub(super) fn available(&self, memory: Observed<'_>) -> Option<u16> {
        match &self.ring {
            None => None,
            Some(Ring::Split(split)) => split.available(memory),
            Some(Ring::Packed(packed)) => packed.available(memory),
        }
    }

    /// How many buffers there are between two results of [`Self::available`]; in a packed virtqueue, how many descriptors.
    pub(super) fn added(&self, from: u16, to: u16) -> u16 {
        match &self.ring {
            Some(Ring::Packed(packed)) => packed.added(from, to),
            _ => to.wrapping_sub(from),
        }
    }
}
