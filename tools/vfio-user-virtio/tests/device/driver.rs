// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A small driver for the device, in the same process: what a guest does, by register accesses and shared memory.

use std::fs::File;
use std::time::{Duration, Instant};

use vfio_user_virtio::blk::Disk;
use vfio_user_virtio::device::{Device, Report};
use vfio_user_virtio::settings::{Acknowledge, Settings};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) const READY: u8 = 1 | 2 | 4 | 8;
pub(crate) const DEVICE_STOPPED: u8 = 32;
pub(crate) const NEEDS_RESET: u8 = 64;
pub(crate) const VIRTIO_F_DEVICE_STOP: u64 = 1 << 39;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const SECTORS: u64 = 64;

const VERSION_1: u64 = 1 << 32;
const QUEUE_SIZE: u16 = 16;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const INDIRECT: u64 = 0x4000;
const BUFFERS: u64 = 0x1_0000;
const BUFFER: u64 = 0x2000;
const DATA: u64 = 0x100;
const STATUS: u64 = 0x1f00;
const MEMORY: u64 = 0x10_0000;

pub(crate) fn settings() -> Settings {
    Settings {
        acknowledge: Acknowledge::AtOnce,
        io_delay_us: 0,
        io_depth: 128,
        take_while_stopped: false,
        forget_notifications: false,
    }
}

/// A device, its driver, and a clock that moves only when told to.
pub(crate) struct Driver {
    pub(crate) device: Device,
    pub(crate) disk: File,
    pub(crate) now: Instant,
    memory: GuestMemoryMmap,
    avail: u16,
}

impl Driver {
    /// A driver that has found the device and reset it.
    pub(crate) fn new(settings: Settings) -> Self {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(SECTORS * 512).unwrap();
        let device = Device::new(Disk::open(disk.path()).unwrap(), true, settings);
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY).unwrap();
        device
            .memory()
            .map(0, MEMORY, 0, file.try_clone().unwrap())
            .unwrap();
        let memory = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(0),
            MEMORY as usize,
            Some(FileOffset::new(file, 0)),
        )])
        .unwrap();
        Self {
            device,
            disk: disk.into_file(),
            now: Instant::now(),
            memory,
            avail: 0,
        }
    }

    /// A driver that has brought the device up with all features that it offers.
    pub(crate) fn ready(settings: Settings) -> Self {
        let mut driver = Self::new(settings);
        driver.bring_up(!0);
        assert_eq!(driver.status(), READY);
        driver
    }

    pub(crate) fn bring_up(&mut self, features: u64) {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        let accepted = self.offered() & features;
        for (select, half) in [(0u32, accepted as u32), (1, (accepted >> 32) as u32)] {
            self.write32(0x08, select);
            self.write32(0x0c, half);
        }
        self.set_status(11);
        self.write16(0x16, 0);
        self.write16(0x18, QUEUE_SIZE);
        self.write16(0x1a, 1);
        for (register, address) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED)] {
            self.write32(register, address as u32);
            self.write32(register + 4, 0);
        }
        self.memory.write_obj(0u32, GuestAddress(AVAIL)).unwrap();
        self.memory.write_obj(0u32, GuestAddress(USED)).unwrap();
        self.avail = 0;
        self.write16(0x1c, 1);
        self.set_status(READY);
    }

    pub(crate) fn offered(&self) -> u64 {
        let mut offered = 0;
        for select in [1u32, 0] {
            self.write32(0x00, select);
            let mut half = [0; 4];
            self.device.read_bar(0x04, &mut half);
            offered = (offered << 32) | u64::from(u32::from_le_bytes(half));
        }
        offered
    }

    pub(crate) fn accept_only_version_1(&mut self) {
        self.bring_up(VERSION_1);
    }

    fn write32(&self, offset: u64, value: u32) {
        self.device
            .write_bar(offset, &value.to_le_bytes(), self.now);
    }

    fn write16(&self, offset: u64, value: u16) {
        self.device
            .write_bar(offset, &value.to_le_bytes(), self.now);
    }

    pub(crate) fn status(&self) -> u8 {
        let mut status = [0];
        self.device.read_bar(0x14, &mut status);
        status[0]
    }

    /// Writes the status, and reads it again as a driver should.
    pub(crate) fn set_status(&self, status: u8) -> u8 {
        self.device.write_bar(0x14, &[status], self.now);
        self.status()
    }

    pub(crate) fn stop(&self) -> u8 {
        self.set_status(READY | DEVICE_STOPPED)
    }

    pub(crate) fn resume(&self) -> u8 {
        self.set_status(READY)
    }

    /// Makes a chain of one descriptor a buffer available, directly or by an indirect table, and notifies.
    pub(crate) fn make_available(&mut self, buffers: &[(u64, u32, bool)], indirect: bool) {
        let slot = self.avail % QUEUE_SIZE;
        let table = if indirect { INDIRECT } else { DESC };
        let first = if indirect { 0 } else { slot * 3 % QUEUE_SIZE };
        let index = |nth: usize| (usize::from(first) + nth) as u16 % QUEUE_SIZE;
        for (nth, (address, length, writable)) in buffers.iter().enumerate() {
            let more = nth + 1 < buffers.len();
            self.descriptor(
                table,
                index(nth),
                *address,
                *length,
                u16::from(more) | (u16::from(*writable) << 1),
                index(nth + 1),
            );
        }
        if indirect {
            self.descriptor(DESC, slot, INDIRECT, buffers.len() as u32 * 16, 4, 0);
        }
        self.publish(if indirect { slot } else { first });
    }

    fn descriptor(&self, table: u64, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = GuestAddress(table + u64::from(index) * 16);
        self.memory.write_obj(address, at).unwrap();
        self.memory
            .write_obj(
                [length.to_le(), u32::from(flags) | (u32::from(next) << 16)],
                GuestAddress(at.0 + 8),
            )
            .unwrap();
    }

    /// Puts a chain's head into the available ring, and notifies.
    pub(crate) fn publish(&mut self, head: u16) {
        let slot = u64::from(self.avail % QUEUE_SIZE);
        self.memory
            .write_obj(head, GuestAddress(AVAIL + 4 + slot * 2))
            .unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
        self.notify();
    }

    pub(crate) fn set_avail_index(&self, index: u16) {
        self.memory
            .write_obj(index, GuestAddress(AVAIL + 2))
            .unwrap();
    }

    pub(crate) fn notify(&self) {
        self.device.write_bar(0x3000, &0u16.to_le_bytes(), self.now);
    }

    /// Buffers of a block request with `length` bytes of data: its slot, and what to make available.
    pub(crate) fn request(
        &self,
        kind: u32,
        sector: u64,
        length: u32,
    ) -> (u64, [(u64, u32, bool); 3]) {
        let at = BUFFERS + u64::from(self.avail % QUEUE_SIZE) * BUFFER;
        self.memory.write_obj([kind, 0], GuestAddress(at)).unwrap();
        self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
        self.memory
            .write_obj(0xffu8, GuestAddress(at + STATUS))
            .unwrap();
        (
            at,
            [
                (at, 16, false),
                (at + DATA, length, kind != 1),
                (at + STATUS, 1, true),
            ],
        )
    }

    /// Makes a read of a sector available.
    pub(crate) fn submit_read(&mut self, sector: u64) -> u64 {
        let (at, buffers) = self.request(0, sector, 512);
        self.make_available(&buffers, false);
        at
    }

    pub(crate) fn fill(&self, at: u64, data: &[u8]) {
        self.memory
            .write_slice(data, GuestAddress(at + DATA))
            .unwrap();
    }

    pub(crate) fn data(&self, at: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory
            .read_slice(&mut data, GuestAddress(at + DATA))
            .unwrap();
        data
    }

    /// The status byte of a request: 0xff as long as it is not finished.
    pub(crate) fn outcome(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at + STATUS)).unwrap()
    }

    pub(crate) fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    /// The device works for a while.
    pub(crate) fn serve(&mut self) {
        self.device.serve(self.now);
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.serve();
    }

    pub(crate) fn report(&self) -> Report {
        self.device.report()
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        self.device.set(name, value).unwrap();
    }
}
