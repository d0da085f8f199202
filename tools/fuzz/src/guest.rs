// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices, and the guest's memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arbitrary::Arbitrary;
use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
pub use vfio_user_virtio::device::Device;
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::settings::Settings;
use vfio_user_virtio::types::blk::Disk;
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::rng::Rng;
use vfio_user_virtio::types::scsi::Scsi;
use vfio_user_virtio::types::store::Store;
use vfio_user_virtio::types::Type;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 0x2_0000;
/// Sectors of a disk.
pub const SECTORS: u64 = 64;

/// A type of device.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Kind {
    /// A disk.
    Blk {
        /// With two virtqueues.
        queues: bool,
        /// That can't be written.
        read_only: bool,
        /// In zones.
        zoned: bool,
    },
    /// A SCSI host with two disks.
    Scsi,
    /// A network card.
    Net {
        /// With two pairs of virtqueues.
        pairs: bool,
        /// Whose frames may have several buffers.
        mergeable: bool,
    },
    /// A source of entropy.
    Rng,
    /// A device that does nothing in one of its virtqueues, and answers in the other.
    Null,
}

impl Kind {
    /// A device of this type, as it is after power-on.
    pub fn make(self) -> Arc<dyn Type> {
        match self {
            Self::Blk {
                queues,
                read_only,
                zoned,
            } => {
                let disk = Disk::new(store(read_only), "disk", 1 + u16::from(queues), read_only);
                Arc::new(if zoned { disk.zoned() } else { disk })
            }
            Self::Scsi => Arc::new(Scsi::new(store(false).split(2), "host", 1)),
            Self::Net { pairs, mergeable } => {
                let net = Net::new([2, 0, 0, 0, 0, 1], 1 + u16::from(pairs)).with_dhcp(60);
                Arc::new(if mergeable { net.mergeable() } else { net })
            }
            Self::Rng => Arc::new(Rng::open().expect("there are random bytes")),
            Self::Null => Arc::new(Null::new(5, 2).with_answers(2)),
        }
    }
}

/// What a device offers.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Offers {
    /// VIRTIO_F_DEVICE_STOP.
    DeviceStop,
    /// VIRTIO_F_SUSPEND.
    Suspend,
    /// Both, and VIRTIO_F_RING_RESET.
    Both,
    /// VIRTIO_F_NOTIF_CONFIG_DATA.
    NotifConfigData,
}

impl Offers {
    /// With these interrupts.
    pub fn offer(self, intx: bool) -> Offer {
        let notif_config_data = matches!(self, Self::NotifConfigData);
        Offer {
            device_stop: matches!(self, Self::DeviceStop | Self::Both),
            suspend: matches!(self, Self::Suspend | Self::Both),
            notif_config_data,
            long_common: notif_config_data,
            ring_reset: matches!(self, Self::Both),
            intx,
            ..Offer::default()
        }
    }
}

/// How a device's virtqueues can be driven, besides as ever.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Rings {
    packed: bool,
    notification_data: bool,
    reset: bool,
}

impl Rings {
    /// What is offered, with VIRTIO_F_RING_PACKED, VIRTIO_F_NOTIFICATION_DATA and VIRTIO_F_RING_RESET.
    pub fn offer(self, offer: Offer) -> Offer {
        Offer {
            packed: self.packed,
            notification_data: self.notification_data,
            ring_reset: offer.ring_reset || self.reset,
            ..offer
        }
    }
}

/// A file of guest memory, as QEMU makes it.
pub fn memory_file() -> File {
    let file = File::from(memfd_create("memory", MemfdFlags::ALLOW_SEALING).expect("a file"));
    file.set_len(MEMORY).expect("memory");
    fcntl_add_seals(&file, SealFlags::SHRINK).expect("a seal");
    file
}

/// Memory that this process and a device share.
pub fn memory(file: &File) -> GuestMemoryMmap {
    let offset = FileOffset::new(file.try_clone().expect("a file"), 0);
    let range = (GuestAddress(0), MEMORY as usize, Some(offset));
    GuestMemoryMmap::from_ranges_with_files([range]).expect("an address")
}

/// What a disk has at first: no sector has the same as another one, nor as itself from elsewhere on.
pub fn contents() -> Vec<u8> {
    let bytes = (0..SECTORS * 512).map(|at| (at + at / 256 * 59) as u8);
    bytes.collect()
}

/// A disk's contents. They are in memory: nothing waits for a disk of this machine's.
pub fn store(read_only: bool) -> Store {
    let file = File::from(memfd_create("disk", MemfdFlags::empty()).expect("a file"));
    file.write_all_at(&contents(), 0).expect("memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Store::open(Path::new(&path), read_only).expect("the file is there")
}

/// Checks that no request is lost or counted twice.
///
/// # Panics
///
/// If one is.
pub fn check_counters(device: &Device) {
    let report = device.report();
    let requests = &report.counters.requests;
    assert_eq!(
        requests.taken,
        requests.completed + requests.dropped + requests.kept + requests.in_flight,
        "{requests:?}"
    );
    assert!(requests.failed <= requests.completed, "{requests:?}");
    assert_eq!(requests.kinds.values().sum::<u64>(), requests.completed);
    assert!(report.breaches.len() as u64 <= report.breach_count);
}

/// Resets the device, and checks that its status reads 0 then.
///
/// # Panics
///
/// If it does not.
pub fn check_reset(device: &Device, now: Instant) {
    const STATUS: u64 = 0x14;
    device.write_bar(STATUS, &[0], now);
    device.serve(now);
    let mut status = [0xff];
    device.read_bar(STATUS, &mut status, now);
    assert_eq!(status, [0], "the status after a reset");
    check_counters(device);
    assert_eq!(device.report().counters.requests.in_flight, 0);
}

/// The common configuration as it reads now, but for its generation and the status. The selectors move.
pub fn common_configuration(device: &Device, now: Instant) -> Vec<u64> {
    const SELECTORS: [(u64, usize); 3] = [(0x00, 4), (0x08, 4), (0x16, 2)];
    const OF_HALF: [(u64, usize); 2] = [(0x04, 4), (0x0c, 4)];
    const OF_QUEUE: [(u64, usize); 9] = [
        (0x18, 2),
        (0x1a, 2),
        (0x1c, 2),
        (0x1e, 2),
        (0x20, 8),
        (0x28, 8),
        (0x30, 8),
        (0x38, 2),
        (0x3a, 2),
    ];
    let read = |(offset, length): (u64, usize)| {
        let mut value = [0; 8];
        device.read_bar(offset, &mut value[..length], now);
        u64::from_le_bytes(value)
    };
    let mut all: Vec<u64> = SELECTORS.into_iter().map(read).collect();
    all.extend([(0x10, 2), (0x12, 2)].map(read));
    let queues = read((0x12, 2)) as u16;
    for half in 0..2u32 {
        device.write_bar(0x00, &half.to_le_bytes(), now);
        device.write_bar(0x08, &half.to_le_bytes(), now);
        all.extend(OF_HALF.map(read));
    }
    for queue in 0..=queues {
        device.write_bar(0x16, &queue.to_le_bytes(), now);
        all.extend(OF_QUEUE.map(read));
    }
    all
}

/// The PCI configuration space as it reads now.
pub fn configuration_space(device: &Device, now: Instant) -> [u8; 256] {
    let mut config = [0; 256];
    for (at, word) in (0..).step_by(4).zip(config.chunks_exact_mut(4)) {
        device.read_config(at, word, now);
    }
    config
}

/// A device with these settings.
pub fn device(of_type: Arc<dyn Type>, offer: Offer) -> Device {
    Device::new(of_type, offer, Settings::default())
}
