// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's driver.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::acts::Layout;
use super::Input;
use crate::guest::{self, check_counters, Device, MEMORY};

/// The PCI command that lets the device answer, and reach the memory.
pub(super) const MEMORY_AND_MASTER: [u8; 2] = [6, 0];
pub(super) const READY: u8 = 1 | 2 | 4 | 8;
pub(super) const QUEUE_SIZE: u16 = 16;
/// Each virtqueue has its rings, and a table for indirect descriptors, in a place of its own.
pub(super) const RINGS: u64 = 0x4000;
pub(super) const AVAIL: u64 = 0x1000;
pub(super) const USED: u64 = 0x2000;
pub(super) const INDIRECT: u64 = 0x3000;
/// Behind those of five virtqueues.
pub(super) const BUFFERS: u64 = 5 * RINGS;

pub(super) struct Driver {
    pub(super) device: Device,
    pub(super) memory: GuestMemoryMmap,
    pub(super) file: File,
    pub(super) queues: u16,
    pub(super) size: u16,
    pub(super) avail: [u16; 5],
    pub(super) now: Instant,
}

impl Driver {
    pub(super) fn new(input: &Input) -> Self {
        let of_type = input.kind.make();
        let queues = of_type.describe().queues;
        let file = guest::memory_file();
        Self {
            device: guest::device(of_type, input.offers.offer(input.intx)),
            memory: guest::memory(&file),
            file,
            queues,
            size: QUEUE_SIZE,
            avail: [0; 5],
            now: Instant::now(),
        }
    }

    pub(super) fn map(&self, address: u64, size: u64) {
        let file = self.file.try_clone().expect("a file");
        // What is there already is refused.
        let _ = self.device.map(address, size, address, file);
    }

    pub(super) fn map_all(&self) {
        self.device.memory().clear();
        self.map(0, MEMORY);
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        self.device.write_bar(offset, bytes, self.now);
    }

    pub(super) fn status(&self) -> u8 {
        let mut status = [0];
        self.device.read_bar(0x14, &mut status, self.now);
        status[0]
    }

    pub(super) fn fill(&self, at: u64, bytes: &[u8]) {
        // What is beyond the end is left out.
        let _ = self.memory.write(bytes, GuestAddress(at % MEMORY));
    }

    pub(super) fn bring_up(&mut self, layout: Layout) {
        self.device.write_config(4, &MEMORY_AND_MASTER, self.now);
        for status in [0, 1, 3] {
            self.write(0x14, &[status]);
        }
        let offered = self.device.report().offered & !layout.refused;
        for (select, half) in [(0u32, offered as u32), (1, (offered >> 32) as u32)] {
            self.write(0x08, &select.to_le_bytes());
            self.write(0x0c, &half.to_le_bytes());
        }
        self.write(0x14, &[11]);
        self.size = 1 << (layout.size % 9);
        for queue in 0..self.queues {
            self.write(0x16, &queue.to_le_bytes());
            self.write(0x18, &self.size.to_le_bytes());
            self.write(0x1a, &queue.to_le_bytes());
            let rings = u64::from(queue) * RINGS;
            for (nth, part) in [0, AVAIL, USED].into_iter().enumerate() {
                let odd = layout.odd.filter(|(of, which, _)| {
                    u16::from(*of) % self.queues == queue && usize::from(which % 3) == nth
                });
                let by = odd.map_or(0, |(.., by)| i64::from(by));
                let address = (rings + part).wrapping_add_signed(by);
                self.write(0x20 + nth as u64 * 8, &(address as u32).to_le_bytes());
                let high = (address >> 32) as u32;
                self.write(0x24 + nth as u64 * 8, &high.to_le_bytes());
            }
            for part in [AVAIL, USED] {
                self.fill(rings + part, &[0; 4]);
            }
            self.write(0x1c, &1u16.to_le_bytes());
        }
        self.avail = [0; 5];
        self.write(0x14, &[READY]);
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
        let ring = queue as u64 * RINGS + AVAIL;
        let slot = u64::from(self.avail[queue] % self.size);
        self.fill(ring + 4 + slot * 2, &head.to_le_bytes());
        self.avail[queue] = self.avail[queue].wrapping_add_signed(by.into());
        self.fill(ring + 2, &self.avail[queue].to_le_bytes());
    }

    pub(super) fn chain(
        &mut self,
        queue: u8,
        indirect: bool,
        inputs: &[u8],
        outputs: &[(u64, u32)],
    ) {
        self.fill(BUFFERS, inputs);
        let rings = u64::from(queue % 5) * RINGS;
        let table = rings + if indirect { INDIRECT } else { 0 };
        let mut buffers: Vec<(u64, u32, u16)> = vec![(BUFFERS, inputs.len() as u32, 0)];
        buffers.extend(outputs.iter().map(|(at, length)| (*at, *length, 2)));
        if inputs.is_empty() && buffers.len() > 1 {
            buffers.remove(0);
        }
        let count = buffers.len() as u16;
        for (nth, (at, length, flags)) in (0u16..).zip(buffers) {
            let more = u16::from(nth + 1 < count);
            self.descriptor(table, nth, at, length, flags | more, nth + 1);
        }
        if indirect {
            self.descriptor(rings, 0, table, u32::from(count) * 16, 4, 0);
        }
        self.publish(queue, 0, 1);
    }

    pub(super) fn set(&self, name: &str, value: &str) {
        let change = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.device.set(&change, self.now).expect("a setting");
    }

    pub(super) fn notify(&self, queue: u8) {
        let queue = u16::from(queue % 6);
        self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
    }

    pub(super) fn serve(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.device.serve(self.now);
        check_counters(&self.device);
    }
}
