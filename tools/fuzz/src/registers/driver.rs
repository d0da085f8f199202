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
pub(super) const VIRTIO_F_RING_PACKED: u32 = 34;
const VIRTIO_F_NOTIFICATION_DATA: u32 = 38;
const VIRTIO_F_NOTIF_CONFIG_DATA: u32 = 39;
pub(super) const VIRTIO_F_RING_RESET: u32 = 40;
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
    /// The features that it has accepted.
    pub(super) accepted: u64,
    pub(super) size: [u16; 5],
    /// How far it has got in making available: an index of a split virtqueue, a descriptor of two rounds of a packed one.
    pub(super) avail: [u16; 5],
    /// Likewise in looking for what was given back.
    pub(super) used: [u16; 5],
    /// By which it notifies the virtqueues.
    numbers: [u16; 6],
    own_numbers: bool,
    pub(super) now: Instant,
}

impl Driver {
    pub(super) fn new(input: &Input) -> Self {
        let (of_type, offer) = (input.kind.make(), input.offer());
        let queues = of_type.describe().queues;
        let file = guest::memory_file();
        Self {
            device: guest::device(of_type, offer),
            memory: guest::memory(&file),
            file,
            queues,
            accepted: 0,
            size: [1; 5],
            avail: [0; 5],
            used: [0; 5],
            numbers: [0, 1, 2, 3, 4, 5],
            own_numbers: offer.notif_config_data,
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

    /// A register of two bytes.
    pub(super) fn read(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.device.read_bar(offset, &mut bytes, self.now);
        u16::from_le_bytes(bytes)
    }

    /// Whether that feature was negotiated.
    pub(super) fn has(&self, bit: u32) -> bool {
        self.accepted & (1 << bit) != 0
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
        self.accepted = self.device.report().offered & !layout.refused;
        let halves = [self.accepted as u32, (self.accepted >> 32) as u32];
        for (select, half) in (0u32..).zip(halves) {
            self.write(0x08, &select.to_le_bytes());
            self.write(0x0c, &half.to_le_bytes());
        }
        self.write(0x14, &[11]);
        for queue in 0..self.queues {
            self.lay_out(queue, layout);
        }
        self.write(0x14, &[READY]);
    }

    /// Lays a virtqueue out, empty, and enables it.
    pub(super) fn lay_out(&mut self, queue: u16, layout: Layout) {
        let size = match self.has(VIRTIO_F_RING_PACKED) {
            true => u16::from(layout.size) + 1,
            false => 1 << (layout.size % 9),
        };
        self.write(0x16, &queue.to_le_bytes());
        self.write(0x18, &size.to_le_bytes());
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
        self.start_ring(queue.into(), size);
        self.numbers[usize::from(queue)] =
            if self.own_numbers && self.has(VIRTIO_F_NOTIF_CONFIG_DATA) {
                self.read(0x38)
            } else {
                queue
            };
        self.write(0x1c, &1u16.to_le_bytes());
    }

    /// Resets a virtqueue. Nothing of it is being carried out.
    pub(super) fn reset_queue(&self, queue: u16) {
        self.write(0x16, &queue.to_le_bytes());
        self.write(0x3a, &1u16.to_le_bytes());
    }

    /// Makes a request available that is in one buffer.
    pub(super) fn request(
        &mut self,
        queue: u8,
        indirect: bool,
        inputs: &[u8],
        outputs: &[(u64, u32)],
    ) {
        self.fill(BUFFERS, inputs);
        let mut buffers: Vec<(u64, u32, u16)> = vec![(BUFFERS, inputs.len() as u32, 0)];
        buffers.extend(outputs.iter().map(|(at, length)| (*at, *length, 2)));
        if inputs.is_empty() && buffers.len() > 1 {
            buffers.remove(0);
        }
        self.chain(queue, 0, indirect, &buffers);
    }

    pub(super) fn set(&self, name: &str, value: &str) {
        let change = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.device.set(&change, self.now).expect("a setting");
    }

    /// Notifies as the driver has promised (virtio 1.4, 4.1.5.2).
    pub(super) fn notify(&self, queue: u8) {
        let queue = u16::from(queue % 6);
        let number = self.numbers[usize::from(queue)];
        let at = 0x3000 + u64::from(queue) * 4;
        if self.has(VIRTIO_F_NOTIFICATION_DATA) {
            let data = u32::from(number) | (u32::from(self.next(queue)) << 16);
            self.write(at, &data.to_le_bytes());
        } else {
            self.write(at, &number.to_le_bytes());
        }
    }

    pub(super) fn serve(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.device.serve(self.now);
        check_counters(&self.device);
    }
}
