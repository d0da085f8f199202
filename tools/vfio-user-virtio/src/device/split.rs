// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A split virtqueue (virtio 1.4, 2.7).

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::chain::{Chain, Error};
use crate::memory::Observed;

const AVAILABLE: Error = Error::Malformed("an available ring that makes no sense");

/// How the crate's state of one is written.
#[derive(Deserialize, Serialize)]
#[serde(remote = "QueueState", deny_unknown_fields)]
pub(super) struct SplitState {
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

/// The virtqueue.
#[derive(Debug)]
pub(super) struct Split(Queue);

impl TryFrom<QueueState> for Split {
    type Error = Error;

    /// 2.7: the descriptor table has to be aligned to 16 bytes, the rings to 2 and 4.
    fn try_from(state: QueueState) -> Result<Self, Error> {
        let queue = Queue::try_from(state);
        queue
            .map(Self)
            .map_err(|_| Error::Malformed("a virtqueue is not aligned"))
    }
}

impl Split {
    pub(super) fn state(&self) -> QueueState {
        self.0.state()
    }

    /// Whether all of it is there.
    pub(super) fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        let size = usize::from(self.0.size());
        let parts = [
            (self.0.desc_table(), 16 * size, Permissions::Read),
            (self.0.avail_ring(), 6 + 2 * size, Permissions::Read),
            (self.0.used_ring(), 6 + 8 * size, Permissions::Write),
        ];
        parts.into_iter().all(|(address, length, access)| {
            memory.check_range(GuestAddress(address), length, access)
        })
    }

    /// Takes the next chain. With none, notifications are on.
    pub(super) fn next(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Error> {
        if !self.is_in(memory) {
            return Err(Error::Gone);
        }
        let before = self.0.next_avail();
        for _ in 0..2 {
            let mut heads = self.0.iter(memory).map_err(|_| AVAILABLE)?;
            if let Some(head) = heads.next().map(|chain| chain.head_index()) {
                let (table, size) = (self.0.desc_table(), self.0.size());
                let chain = Chain::read(memory, table, size, head);
                if chain == Err(Error::Gone) {
                    self.0.set_next_avail(before);
                }
                return chain.map(Some);
            }
            if !self.0.enable_notification(memory).map_err(|_| AVAILABLE)? {
                return Ok(None);
            }
        }
        // The ring says that there is more, but can't be read.
        Err(AVAILABLE)
    }

    /// Gives a chain back.
    pub(super) fn give_back(
        &mut self,
        head: u16,
        written: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), Error> {
        let given_back = self.0.add_used(memory, head, written);
        given_back.map_err(|_| Error::Malformed("a used ring that can't be written"))
    }

    /// Whether the driver wants to be told of what was given back (2.7.7: by a flag, or by the event index).
    pub(super) fn wants_interrupt(&mut self, memory: &GuestMemoryMmap) -> bool {
        // With a fence, after which what the driver wants is read.
        let wants = self.0.needs_notification(memory).unwrap_or(true);
        if self.0.event_idx_enabled() {
            return wants;
        }
        let flags = memory.load(GuestAddress(self.0.avail_ring()), Ordering::Relaxed);
        flags.map_or(true, |flags| {
            u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0
        })
    }

    /// For an observer: the available index. None: it can't be told now.
    pub(super) fn available(&self, memory: Observed<'_>) -> Option<u16> {
        let index = self.0.avail_ring().checked_add(2)?;
        memory.load(GuestAddress(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 0x1_0000;

    /// Whether a virtqueue of eight is in memory that ends at END.
    fn is_in(desc_table: u64, avail_ring: u64, used_ring: u64) -> bool {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let state = QueueState {
            max_size: 8,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: false,
            size: 8,
            ready: true,
            desc_table,
            avail_ring,
            used_ring,
        };
        Split::try_from(state).unwrap().is_in(&memory)
    }

    #[test]
    fn all_of_each_part_has_to_be_there() {
        // 2.7: 16 bytes a descriptor; 6 bytes and 2, or 8, an entry.
        let (table, available, used) = (END - 8 * 16, END - 6 - 8 * 2, END - 8 - 8 * 8);
        assert!(is_in(table, available, used));
        assert!(!is_in(table + 16, available, used));
        assert!(!is_in(table, available + 2, used));
        assert!(!is_in(table, available, used + 4));
    }
}
