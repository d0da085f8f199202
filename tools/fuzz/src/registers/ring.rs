// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rings of a virtqueue, split or packed.

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Driver, AVAIL, INDIRECT, RINGS, USED, VIRTIO_F_RING_PACKED};

/// Flags of a descriptor.
const NEXT: u16 = 1;
const IS_INDIRECT: u16 = 4;
const IS_AVAIL: u16 = 1 << 7;
const IS_USED: u16 = 1 << 15;

impl Driver {
    /// Both sides begin with an empty virtqueue.
    pub(super) fn start_ring(&mut self, queue: usize, size: u16) {
        let rings = queue as u64 * RINGS;
        if self.has(VIRTIO_F_RING_PACKED) {
            self.fill(rings, &vec![0; 16 * usize::from(size)]);
        }
        for part in [AVAIL, USED] {
            self.fill(rings + part, &[0; 4]);
        }
        self.size[queue] = size;
        self.avail[queue] = 0;
        self.used[queue] = 0;
    }

    /// Descriptor of the ring, and wrap counter, where a packed virtqueue has got that far (virtio 1.4, 2.8.1).
    fn place(&self, queue: usize, at: u16) -> (u16, bool) {
        (at % self.size[queue], at < self.size[queue])
    }

    /// That many descriptors further in a packed virtqueue.
    fn after(&self, queue: usize, at: u16, by: i32) -> u16 {
        (i32::from(at) + by).rem_euclid(2 * i32::from(self.size[queue])) as u16
    }

    /// Where the next buffer is made available, as a notification has it (4.1.5.2).
    pub(super) fn next(&self, queue: u16) -> u16 {
        let queue = usize::from(queue % 5);
        if !self.has(VIRTIO_F_RING_PACKED) {
            return self.avail[queue];
        }
        let (index, wrap) = self.place(queue, self.avail[queue]);
        index | (u16::from(wrap) << 15)
    }

    pub(super) fn descriptor(
        &self,
        table: u64,
        index: u16,
        at: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let rest = u64::from(length) | (u64::from(flags) << 32) | (u64::from(next) << 48);
        let bytes = [at.to_le_bytes(), rest.to_le_bytes()].concat();
        self.fill(table + u64::from(index) * 16, &bytes);
    }

    pub(super) fn publish(&mut self, queue: u8, head: u16, by: i8) {
        let queue = usize::from(queue % 5);
        let rings = queue as u64 * RINGS;
        let at = self.avail[queue];
        if self.has(VIRTIO_F_RING_PACKED) {
            self.mark(queue, at, head & !(IS_AVAIL | IS_USED));
            self.avail[queue] = self.after(queue, at, by.into());
            return;
        }
        let slot = u64::from(at % self.size[queue]);
        self.fill(rings + AVAIL + 4 + slot * 2, &head.to_le_bytes());
        self.avail[queue] = at.wrapping_add_signed(by.into());
        self.fill(rings + AVAIL + 2, &self.avail[queue].to_le_bytes());
    }

    /// The descriptor there is available from now on.
    fn mark(&self, queue: usize, at: u16, flags: u16) {
        let (index, wrap) = self.place(queue, at);
        let flags = flags | if wrap { IS_AVAIL } else { IS_USED };
        let place = queue as u64 * RINGS + u64::from(index) * 16 + 14;
        self.fill(place, &flags.to_le_bytes());
    }

    /// Makes a chain available whose head, or buffer ID, is `head`: address, length and flags of each buffer.
    pub(super) fn chain(
        &mut self,
        queue: u8,
        head: u16,
        indirect: bool,
        buffers: &[(u64, u32, u16)],
    ) {
        let rings = u64::from(queue % 5) * RINGS;
        let packed = self.has(VIRTIO_F_RING_PACKED);
        let length = buffers.len() as u32 * 16;
        let parts = (1usize..).zip(buffers).map(|(nth, (at, length, flags))| {
            let more = nth < buffers.len();
            (*at, *length, flags | if more { NEXT } else { 0 })
        });
        let mut parts: Vec<(u64, u32, u16)> = parts.collect();
        if indirect {
            for (nth, (at, length, flags)) in (0..).zip(parts) {
                let (third, fourth) = if packed {
                    (head, flags & !NEXT)
                } else {
                    (flags, nth + 1)
                };
                self.descriptor(rings + INDIRECT, nth, at, length, third, fourth);
            }
            parts = vec![(rings + INDIRECT, length, IS_INDIRECT)];
        }
        if packed {
            return self.packed_chain(usize::from(queue % 5), head, &parts);
        }
        for (slot, (at, length, flags)) in (head..).zip(parts) {
            self.descriptor(rings, slot, at, length, flags, slot + 1);
        }
        self.publish(queue, head, 1);
    }

    /// The first descriptor is made available last: the device may look at any time.
    fn packed_chain(&mut self, queue: usize, id: u16, parts: &[(u64, u32, u16)]) {
        let start = self.avail[queue];
        let mut at = start;
        for (address, length, flags) in parts {
            let (index, wrap) = self.place(queue, at);
            let taken = if wrap { IS_USED } else { IS_AVAIL };
            let rings = queue as u64 * RINGS;
            self.descriptor(rings, index, *address, *length, id, taken);
            if at != start {
                self.mark(queue, at, *flags);
            }
            at = self.after(queue, at, 1);
        }
        if let Some((_, _, flags)) = parts.first() {
            self.mark(queue, start, *flags);
        }
        self.avail[queue] = at;
    }

    /// Head, or buffer ID, and length of the next chain that was given back, which had so many descriptors.
    pub(super) fn next_used(&mut self, queue: u8, descriptors: u16) -> Option<(u32, u32)> {
        let queue = usize::from(queue);
        let (rings, at) = (queue as u64 * RINGS, self.used[queue]);
        let read = |at: u64| -> u32 { self.memory.read_obj(GuestAddress(at)).expect("memory") };
        if !self.has(VIRTIO_F_RING_PACKED) {
            if (read(rings + USED) >> 16) as u16 == at {
                return None;
            }
            let element = rings + USED + 4 + u64::from(at % self.size[queue]) * 8;
            self.used[queue] = at.wrapping_add(1);
            return Some((read(element), read(element + 4)));
        }
        let (index, wrap) = self.place(queue, at);
        let descriptor = rings + u64::from(index) * 16;
        let (length, last) = (read(descriptor + 8), read(descriptor + 12));
        let flags = (last >> 16) as u16;
        if (flags & IS_AVAIL != 0, flags & IS_USED != 0) != (wrap, wrap) {
            return None;
        }
        self.used[queue] = self.after(queue, at, descriptors.into());
        Some((last & 0xffff, length))
    }
}
