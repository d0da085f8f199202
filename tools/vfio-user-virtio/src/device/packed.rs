// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A packed virtqueue (virtio 1.4, 2.8): one ring of descriptors, in which the driver makes chains available and the device marks them
//! as used, and a word from each side to the other about when it wants to be notified.

use std::sync::atomic::{fence, Ordering};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE,
    VRING_PACKED_EVENT_FLAG_ENABLE, VRING_PACKED_EVENT_F_WRAP_CTR,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::chain::{Chain, Descriptor, Error};
use super::offer::MAX_QUEUE_SIZE;
use crate::memory::Observed;

const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
/// The wrap counter of a descriptor in event suppression structures.
const WRAP: u16 = 1 << VRING_PACKED_EVENT_F_WRAP_CTR;
/// Where the flags are in a descriptor, and what the device writes before them.
const LENGTH: u64 = 8;
const ID: u64 = 12;
const FLAGS: u64 = 14;

/// A place in the ring, and the wrap counter there (2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The descriptor's index.
    pub(super) index: u16,
    /// The wrap counter: 1 at first, the other one in each further round.
    pub(super) wrap: bool,
}

impl Position {
    /// Where both sides begin.
    pub(super) const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// How far it is from the start, in two rounds of a ring of `size`.
    fn number(self, size: u16) -> u16 {
        self.index + if self.wrap { 0 } else { size }
    }

    /// `by` descriptors further, at most one round.
    fn advanced(self, by: u16, size: u16) -> Self {
        match (self.index + by).checked_sub(size) {
            None => Self {
                index: self.index + by,
                ..self
            },
            Some(index) => Self {
                index,
                wrap: !self.wrap,
            },
        }
    }

    /// How many descriptors there are from here to `to`, less than two rounds.
    fn distance(self, to: Self, size: u16) -> u16 {
        distance(self.number(size), to.number(size), size)
    }
}

/// From one number of a position to another one.
fn distance(from: u16, to: u16, size: u16) -> u16 {
    let rounds = 2 * size;
    (to + rounds - from % rounds) % rounds
}

/// A virtqueue as plain data: where it lies, and how far the device has got. Not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PackedState {
    /// How many descriptors the ring has, not necessarily a power of 2.
    pub(super) size: u16,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub(super) event_idx: bool,
    /// The guest's address of the descriptor ring.
    pub(super) ring: u64,
    /// That of the driver event suppression structure.
    pub(super) driver_events: u64,
    /// That of the device event suppression structure.
    pub(super) device_events: u64,
    /// Where the next chain is made available.
    pub(super) next_avail: Position,
    /// Where the next one is given back.
    pub(super) next_used: Position,
}

/// The virtqueue.
#[derive(Debug)]
pub(super) struct Packed {
    state: PackedState,
    /// Where the device was to give back next when it last thought of a used buffer notification.
    signalled: Option<Position>,
}

impl TryFrom<PackedState> for Packed {
    type Error = Error;

    /// 2.8: the ring has to be aligned to 16 bytes, the event suppression structures to 4.
    fn try_from(state: PackedState) -> Result<Self, Error> {
        let aligned = state.ring % 16 == 0
            && state.driver_events % 4 == 0
            && state.device_events % 4 == 0
            && state.ring.checked_add(16 * u64::from(state.size)).is_some();
        if !aligned {
            return Err(Error::Malformed("a virtqueue is not aligned"));
        }
        let packed = Self {
            state,
            signalled: None,
        };
        let inside = |position: Position| position.index < state.size;
        if state.size > MAX_QUEUE_SIZE
            || !inside(state.next_avail)
            || !inside(state.next_used)
            || packed.outstanding() > state.size
        {
            return Err(Error::Malformed("a virtqueue that can't be"));
        }
        Ok(packed)
    }
}

impl Packed {
    pub(super) fn state(&self) -> PackedState {
        self.state
    }

    /// How many descriptors were taken and not given back.
    fn outstanding(&self) -> u16 {
        let PackedState {
            next_used,
            next_avail,
            size,
            ..
        } = self.state;
        next_used.distance(next_avail, size)
    }

    /// Whether all of it is there.
    pub(super) fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        let ring = 16 * usize::from(self.state.size);
        [
            (self.state.ring, ring, Permissions::ReadWrite),
            (self.state.driver_events, 4, Permissions::Read),
            (self.state.device_events, 4, Permissions::Write),
        ]
        .into_iter()
        .all(|(address, length, access)| memory.check_range(GuestAddress(address), length, access))
    }

    /// Where a part of a descriptor is.
    fn address(&self, at: Position, part: u64) -> GuestAddress {
        GuestAddress(self.state.ring + 16 * u64::from(at.index) + part)
    }

    /// Whether the driver has made the descriptor available (2.8.1). What it has written before can be read then.
    fn is_available(&self, memory: &GuestMemoryMmap, at: Position) -> Result<bool, Error> {
        let flags = memory.load(self.address(at, FLAGS), Ordering::Acquire);
        Ok(says_available(
            u16::from_le(flags.map_err(|_| Error::Gone)?),
            at.wrap,
        ))
    }

    /// Takes the next chain. With none, notifications are on.
    pub(super) fn next(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Error> {
        if !self.is_in(memory) {
            return Err(Error::Gone);
        }
        let at = self.state.next_avail;
        if !self.is_available(memory, at)? {
            self.enable_notification(memory)?;
            if !self.is_available(memory, at)? {
                return Ok(None);
            }
        }
        let chain = self.read(memory)?;
        self.state.next_avail = at.advanced(chain.descriptors, self.state.size);
        Ok(Some(chain))
    }

    /// The chain that is available. Its buffer ID is in its last descriptor (2.8.6).
    fn read(&self, memory: &GuestMemoryMmap) -> Result<Chain, Error> {
        let size = self.state.size;
        let mut chain = Chain::default();
        let mut at = self.state.next_avail;
        for descriptors in 1..=size - self.outstanding() {
            let Descriptor {
                buffer,
                rest: [id, flags],
            } = Descriptor::read(memory, self.state.ring, at.index.into())?;
            let flags = u32::from(flags);
            let more = flags & VRING_DESC_F_NEXT != 0;
            if flags & VRING_DESC_F_INDIRECT == 0 {
                chain.add(buffer, flags & VRING_DESC_F_WRITE != 0)?;
            } else if more || descriptors > 1 {
                // 2.8.8.
                return Err(Error::Malformed("an indirect table among descriptors"));
            } else {
                chain.add_table(memory, buffer)?;
            }
            chain.head = id;
            chain.descriptors = descriptors;
            if !more {
                return chain.of_allowed_length();
            }
            at = at.advanced(1, size);
        }
        // Of the descriptors that are in flight the driver can make nothing available.
        Err(Error::Malformed("a chain that is too long"))
    }

    /// Has the driver notify when it makes the next chain available (2.8.10). What is available by now has to be looked for afterwards.
    fn enable_notification(&self, memory: &GuestMemoryMmap) -> Result<(), Error> {
        let Position { index, wrap } = self.state.next_avail;
        let events = if self.state.event_idx {
            let place = index | if wrap { WRAP } else { 0 };
            u32::from(place) | (VRING_PACKED_EVENT_FLAG_DESC << 16)
        } else {
            VRING_PACKED_EVENT_FLAG_ENABLE << 16
        };
        memory
            .store(
                events.to_le(),
                GuestAddress(self.state.device_events),
                Ordering::Release,
            )
            .map_err(|_| Error::Gone)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Gives back the chain with buffer ID `id` that had so many descriptors. The flags come last: they say that the rest is there.
    pub(super) fn give_back(
        &mut self,
        id: u16,
        descriptors: u16,
        written: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), Error> {
        if descriptors == 0 || descriptors > self.outstanding() {
            return Err(Error::Malformed("more than was taken"));
        }
        let at = self.state.next_used;
        let mut flags = if at.wrap { AVAIL | USED } else { 0 };
        if written > 0 {
            // 2.8.4: there is a length.
            flags |= VRING_DESC_F_WRITE as u16;
        }
        memory
            .write_obj(written.to_le(), self.address(at, LENGTH))
            .and_then(|()| memory.write_obj(id.to_le(), self.address(at, ID)))
            .and_then(|()| memory.store(flags.to_le(), self.address(at, FLAGS), Ordering::Release))
            .map_err(|_| Error::Gone)?;
        self.state.next_used = at.advanced(descriptors, self.state.size);
        Ok(())
    }

    /// Whether the driver wants to be told of what was given back since this was last asked.
    pub(super) fn wants_interrupt(&mut self, memory: &GuestMemoryMmap) -> bool {
        let (now, size) = (self.state.next_used, self.state.size);
        let before = self.signalled.replace(now);
        // What the driver wants is read after what was given back can be seen.
        fence(Ordering::SeqCst);
        let events = memory.load(GuestAddress(self.state.driver_events), Ordering::Relaxed);
        let Ok(events) = events.map(u32::from_le) else {
            return true;
        };
        match (events >> 16) & 3 {
            VRING_PACKED_EVENT_FLAG_DISABLE => false,
            VRING_PACKED_EVENT_FLAG_DESC if self.state.event_idx => before.is_none_or(|before| {
                let place = events as u16;
                let event = Position {
                    index: place & !WRAP,
                    wrap: place & WRAP != 0,
                };
                before.distance(event, size) < before.distance(now, size)
            }),
            _ => true,
        }
    }

    /// For an observer: up to where the driver has made descriptors available, as a number of its own in two rounds. None: it can't be
    /// told now.
    pub(super) fn available(&self, memory: Observed<'_>) -> Option<u16> {
        let size = self.state.size;
        let mut at = self.state.next_avail;
        for _ in self.outstanding()..size {
            if !says_available(memory.load(self.address(at, FLAGS))?, at.wrap) {
                break;
            }
            at = at.advanced(1, size);
        }
        Some(at.number(size))
    }

    /// How many descriptors there are between two results of [`Self::available`], of which `to` is the newer one. More than half of what
    /// fits means backwards, and so does a whole ring when none is left.
    pub(super) fn added(&self, from: u16, to: u16) -> u16 {
        let size = self.state.size;
        let none_left = to == self.state.next_avail.number(size);
        match distance(from, to, size) {
            forwards if forwards < size || forwards == size && !none_left => forwards,
            forwards => forwards.wrapping_sub(2 * size),
        }
    }
}

/// Whether a descriptor with such flags is available where the wrap counter is `wrap` (2.8.1).
fn says_available(flags: u16, wrap: bool) -> bool {
    (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
}

#[cfg(test)]
mod tests;
