// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A small driver for the device, in the same process: what a guest does, by register accesses and shared memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use vfio_user_virtio::device::{Device, Files, Frozen, Offer};
use vfio_user_virtio::report::Report;
use vfio_user_virtio::settings::{Error, Settings};
use vfio_user_virtio::types::blk::Disk;
use vfio_user_virtio::types::store::Store;
use vfio_user_virtio::types::Type;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) const READY: u8 = 1 | 2 | 4 | 8;
pub(crate) const DEVICE_STOPPED: u8 = 32;
pub(crate) const SUSPEND: u8 = 16;
pub(crate) const SUSPENDED: u8 = READY & !4 | SUSPEND;
pub(crate) const NEEDS_RESET: u8 = 64;
pub(crate) const VIRTIO_F_39: u64 = 1 << 39;
pub(crate) const VIRTIO_F_SUSPEND: u64 = 1 << 43;
pub(crate) const NOTIFICATION_DATA: u64 = 1 << 38;
pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const SECTORS: u64 = 64;

pub(crate) const QUEUE_SIZE: u16 = 16;
/// Each virtqueue has its rings, and a table for indirect descriptors, in a place of its own.
const RINGS: u64 = 0x1000;
const DESC: u64 = 0;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const INDIRECT: u64 = 0x3000;
const BUFFERS: u64 = 0x8_0000;
const BUFFER: u64 = 0x2000;
const SLOTS: u64 = 64;
const DATA: u64 = 0x100;
const STATUS: u64 = 0x1f00;
pub(crate) const MEMORY: u64 = 0x10_0000;

pub(crate) const D: Offer = Offer {
    device_stop: true,
    suspend: false,
    notif_config_data: false,
    long_common: false,
    ring_reset: false,
    packed: false,
    notification_data: false,
    intx: false,
};
pub(crate) const S: Offer = Offer {
    device_stop: false,
    suspend: true,
    ..D
};

/// A device, its driver, and a clock that moves only when told to.
pub(crate) struct Driver {
    pub(crate) device: Device,
    pub(crate) now: Instant,
    pub(crate) memory: GuestMemoryMmap,
    file: File,
    queues: u16,
    avail: Vec<u16>,
    next_slot: u64,
}

/// A file of guest memory, as QEMU makes it.
pub(crate) fn memory_file() -> File {
    let file = File::from(memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(MEMORY).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

/// A disk of [`SECTORS`], and its contents.
pub(crate) fn disk(queues: u16, read_only: bool) -> (Arc<dyn Type>, File) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SECTORS * 512).unwrap();
    let store = Store::open(file.path(), read_only).unwrap();
    let disk = Disk::new(store, "disk", queues, read_only);
    (Arc::new(disk), file.into_file())
}

impl Driver {
    /// A driver that has found the device and not touched it.
    pub(crate) fn found(of_type: Arc<dyn Type>, offer: Offer) -> Self {
        let queues = of_type.describe().queues;
        let device = Device::new(of_type, offer, Settings::default());
        let file = memory_file();
        let memory = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(0),
            MEMORY as usize,
            Some(FileOffset::new(file.try_clone().unwrap(), 0)),
        )])
        .unwrap();
        let driver = Self {
            device,
            now: Instant::now(),
            memory,
            file,
            queues,
            avail: vec![0; usize::from(queues)],
            next_slot: 0,
        };
        driver.map_all();
        driver
    }

    /// The device reaches all of the driver's memory.
    pub(crate) fn map_all(&self) {
        let file = self.file.try_clone().unwrap();
        self.device.memory().clear();
        self.device.map(0, MEMORY, 0, file).unwrap();
    }

    /// The device reaches that part of the driver's memory, too.
    pub(crate) fn map_part(&self, at: u64, size: u64) {
        let file = self.file.try_clone().unwrap();
        self.device.map(at, size, at, file).unwrap();
    }

    /// Its memory makes no sense any more, and is not to be looked at; the device has other memory in its place, with `contents`.
    pub(crate) fn exchange_memory(&self, contents: &[u8]) {
        self.device.memory().clear();
        self.file
            .write_all_at(&vec![0xff; MEMORY as usize], 0)
            .unwrap();
        let file = memory_file();
        file.write_all_at(contents, 0).unwrap();
        self.device.map(0, MEMORY, 0, file).unwrap();
    }

    /// Another process goes on with the stopped device, which is of this type.
    pub(crate) fn hand_over(&mut self, of_type: Box<dyn Type>, offer: Offer) {
        let frozen = self.device.freeze().unwrap();
        let (image, files) = (frozen.image().unwrap().to_string(), files_of(&frozen));
        drop(frozen);
        let image = serde_json::from_str(&image).unwrap();
        self.device = Device::restore(of_type, offer, image, files, true).unwrap();
    }

    /// A driver that has brought this device up with all features that it offers.
    pub(crate) fn of(of_type: Arc<dyn Type>, offer: Offer) -> Self {
        let mut driver = Self::found(of_type, offer);
        driver.bring_up(!0);
        assert_eq!(driver.status(), READY);
        driver
    }

    /// A driver that has found a disk and not touched it.
    pub(crate) fn new() -> Self {
        Self::found(disk(1, false).0, D)
    }

    /// A driver that has brought up a disk that can be stopped by VIRTIO_F_DEVICE_STOP.
    pub(crate) fn ready() -> Self {
        Self::of(disk(1, false).0, D)
    }

    /// A driver that has brought up a disk that can be stopped by VIRTIO_F_SUSPEND.
    pub(crate) fn suspendable() -> Self {
        Self::of(disk(1, false).0, S)
    }

    pub(crate) fn bring_up(&mut self, features: u64) {
        self.negotiate(features);
        self.lay_out(None);
        self.set_status(READY);
    }

    /// Lays all virtqueues out, with one register's address that many bytes from where it should be.
    pub(crate) fn lay_out(&mut self, shifted: Option<(u64, u64)>) {
        for queue in 0..self.queues {
            self.lay_out_queue(queue, QUEUE_SIZE, shifted);
        }
    }

    /// Lays one virtqueue out, empty, and enables it.
    pub(crate) fn lay_out_queue(&mut self, queue: u16, size: u16, shifted: Option<(u64, u64)>) {
        self.write16(0x16, queue);
        self.write16(0x18, size);
        self.write16(0x1a, queue);
        for (register, part) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED)] {
            let shift = shifted.filter(|(of, _)| *of == register);
            let address = ring(queue, part) + shift.map_or(0, |(_, by)| by);
            self.write32(register, address as u32);
            self.write32(register + 4, 0);
        }
        for part in [AVAIL, USED] {
            self.memory
                .write_obj(0u32, GuestAddress(ring(queue, part)))
                .unwrap();
        }
        if self.report().features & PACKED != 0 {
            self.memory
                .write_slice(&[0; 0x1000], GuestAddress(ring(queue, DESC)))
                .unwrap();
        }
        self.write16(0x1c, 1);
        self.avail[usize::from(queue)] = 0;
    }

    /// Writes the PCI command register: memory, and, if it may reach the driver's memory, bus master.
    pub(crate) fn set_bus_master(&self, enabled: bool) {
        let command = if enabled { 6u16 } else { 2 };
        let bytes = command.to_le_bytes();
        self.device.write_config(4, &bytes, self.now);
    }

    /// Resets the device and accepts those of the features that it offers, without FEATURES_OK's being looked at.
    pub(crate) fn negotiate(&mut self, features: u64) {
        self.accept(self.offered() & features);
    }

    /// Resets the device and accepts features, offered or not, without FEATURES_OK's being looked at.
    pub(crate) fn accept(&mut self, accepted: u64) {
        self.set_bus_master(true);
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        for (select, half) in [(0u32, accepted as u32), (1, (accepted >> 32) as u32)] {
            self.write32(0x08, select);
            self.write32(0x0c, half);
        }
        self.set_status(11);
    }

    pub(crate) fn offered(&self) -> u64 {
        let mut offered = 0;
        for select in [1u32, 0] {
            self.write32(0x00, select);
            offered = (offered << 32) | self.read(0x04, 4);
        }
        offered
    }

    /// Reads a register.
    pub(crate) fn read(&self, offset: u64, length: usize) -> u64 {
        let mut bytes = [0; 8];
        self.device.read_bar(offset, &mut bytes[..length], self.now);
        u64::from_le_bytes(bytes)
    }

    /// The device configuration space.
    pub(crate) fn config(&self) -> [u8; 64] {
        let mut config = [0; 64];
        self.device.read_bar(0x2000, &mut config, self.now);
        config
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.device
            .write_bar(offset, &value.to_le_bytes(), self.now);
    }

    pub(crate) fn write16(&self, offset: u64, value: u16) {
        self.device
            .write_bar(offset, &value.to_le_bytes(), self.now);
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(0x14, 1) as u8
    }

    /// Writes the status.
    pub(crate) fn write_status(&self, status: u8) {
        self.device.write_bar(0x14, &[status], self.now);
    }

    /// Writes the status, and reads it again as a driver should.
    pub(crate) fn set_status(&self, status: u8) -> u8 {
        self.write_status(status);
        self.status()
    }

    /// Asks for a stop as the negotiated protocol has it.
    pub(crate) fn stop(&self) -> u8 {
        match self.suspends() {
            false => self.set_status(READY | DEVICE_STOPPED),
            true => self.set_status(READY | SUSPEND),
        }
    }

    /// Asks for a resume.
    pub(crate) fn resume(&self) -> u8 {
        match self.suspends() {
            false => self.set_status(READY),
            true => self.set_status(READY | SUSPEND),
        }
    }

    fn suspends(&self) -> bool {
        self.report().features & VIRTIO_F_SUSPEND != 0
    }

    /// Makes a chain of one descriptor a buffer available, directly or by an indirect table, and notifies.
    pub(crate) fn make_available(&mut self, buffers: &[(u64, u32, bool)], indirect: bool) {
        self.add(0, buffers, indirect);
        self.notify(0);
    }

    /// Makes a chain available in `queue`, without a notification.
    pub(crate) fn add(&mut self, queue: u16, buffers: &[(u64, u32, bool)], indirect: bool) {
        let slot = self.avail[usize::from(queue)] % QUEUE_SIZE;
        let table = ring(queue, if indirect { INDIRECT } else { DESC });
        let first = if indirect { 0 } else { slot * 3 % QUEUE_SIZE };
        let index = |nth: usize| (usize::from(first) + nth) as u16 % QUEUE_SIZE;
        for (nth, (address, length, writable)) in buffers.iter().enumerate() {
            let more = nth + 1 < buffers.len();
            let flags = u16::from(more) | (u16::from(*writable) << 1);
            self.descriptor(
                table,
                index(nth),
                (*address, *length, flags, index(nth + 1)),
            );
        }
        if indirect {
            let length = buffers.len() as u32 * 16;
            self.descriptor(ring(queue, DESC), slot, (table, length, 4, 0));
        }
        self.publish(queue, if indirect { slot } else { first });
    }

    /// Writes a descriptor: address, length, flags and next.
    pub(crate) fn descriptor(&self, table: u64, index: u16, descriptor: (u64, u32, u16, u16)) {
        let (address, length, flags, next) = descriptor;
        let at = GuestAddress(table + u64::from(index) * 16);
        self.memory.write_obj(address, at).unwrap();
        self.memory
            .write_obj(
                [length.to_le(), u32::from(flags) | (u32::from(next) << 16)],
                GuestAddress(at.0 + 8),
            )
            .unwrap();
    }

    /// Puts a chain's head into the available ring.
    pub(crate) fn publish(&mut self, queue: u16, head: u16) {
        let avail = &mut self.avail[usize::from(queue)];
        let slot = u64::from(*avail % QUEUE_SIZE);
        *avail = avail.wrapping_add(1);
        let index = *avail;
        self.memory
            .write_obj(head, GuestAddress(ring(queue, AVAIL) + 4 + slot * 2))
            .unwrap();
        self.set_avail_index(queue, index);
    }

    pub(crate) fn set_avail_index(&self, queue: u16, index: u16) {
        self.memory
            .write_obj(index, GuestAddress(ring(queue, AVAIL) + 2))
            .unwrap();
    }

    pub(crate) fn notify(&self, queue: u16) {
        if self.report().features & NOTIFICATION_DATA != 0 {
            let data = u32::from(queue)
                | (u32::from(self.avail[usize::from(queue) % self.avail.len()]) << 16);
            return self.write32(0x3000 + u64::from(queue) * 4, data);
        }
        self.device.write_bar(
            0x3000 + u64::from(queue) * 4,
            &queue.to_le_bytes(),
            self.now,
        );
    }

    /// A buffer of [`BUFFER`] bytes that was not in use for a while.
    pub(crate) fn buffer(&mut self) -> u64 {
        let at = BUFFERS + self.next_slot % SLOTS * BUFFER;
        self.next_slot += 1;
        at
    }

    /// Buffers of a block request with `length` bytes of data: where it is, and what to make available.
    pub(crate) fn request(
        &mut self,
        kind: u32,
        sector: u64,
        length: u32,
    ) -> (u64, [(u64, u32, bool); 3]) {
        let at = self.buffer();
        self.memory.write_obj([kind, 0], GuestAddress(at)).unwrap();
        self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
        self.memory
            .write_obj(0xffu8, GuestAddress(at + STATUS))
            .unwrap();
        // Reads, and requests for the name.
        let writable = matches!(kind, 0 | 8);
        (
            at,
            [
                (at, 16, false),
                (at + DATA, length, writable),
                (at + STATUS, 1, true),
            ],
        )
    }

    /// Makes a read of a sector available, and notifies.
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
        self.bytes(at + DATA, length)
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(at)).unwrap();
        data
    }

    /// The status byte of a request: 0xff as long as it is not finished.
    pub(crate) fn outcome(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at + STATUS)).unwrap()
    }

    /// How many chains of `queue` were given back.
    pub(crate) fn used(&self, queue: u16) -> u16 {
        self.memory
            .read_obj(GuestAddress(ring(queue, USED) + 2))
            .unwrap()
    }

    /// The head and the length of the chain that was given back as number `nth`.
    pub(crate) fn used_element(&self, queue: u16, nth: u16) -> (u32, u32) {
        let at = ring(queue, USED) + 4 + u64::from(nth % QUEUE_SIZE) * 8;
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).unwrap();
        (head, length)
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
        self.try_set(name, value).unwrap();
    }

    pub(crate) fn try_set(&self, name: &str, value: &str) -> Result<(), Error> {
        let changes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.device.set(&changes, self.now)
    }

    /// The rules that the driver has broken.
    pub(crate) fn breaches(&self) -> Vec<std::borrow::Cow<'static, str>> {
        let report = self.report();
        report
            .breaches
            .iter()
            .map(|breach| breach.rule.clone())
            .collect()
    }
}

/// Where a part of a virtqueue lies.
pub(crate) fn ring(queue: u16, part: u64) -> u64 {
    RINGS + u64::from(queue) * 0x4000 + part
}

/// By what a frozen device reaches the guest, once more.
pub(crate) fn files_of(frozen: &Frozen<'_>) -> Files {
    let owned = |file: BorrowedFd<'_>| file.try_clone_to_owned().unwrap();
    let files = frozen.files();
    Files {
        maps: files
            .maps
            .into_iter()
            .map(|(map, file)| (map, owned(file)))
            .collect(),
        vectors: files
            .vectors
            .into_iter()
            .map(|file| file.map(owned))
            .collect(),
        intx: files.intx.map(owned),
    }
}
