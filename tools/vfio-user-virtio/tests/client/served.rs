// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that is served, and files that clients give it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use vfio_user_virtio::device::{Device, Offer};
use vfio_user_virtio::settings::Settings;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::vfio_user::Server;
use vm_memory::{Bytes, GuestAddress};

/// A device of type 9 with one virtqueue, served until the test program ends.
pub(crate) struct Served {
    folder: tempfile::TempDir,
    pub(crate) device: Arc<Device>,
}

impl Served {
    pub(crate) fn new(intx: bool) -> Self {
        let offer = Offer {
            intx,
            ..Offer::default()
        };
        let of_type = Arc::new(Null::new(9, 1));
        let device = Arc::new(Device::new(of_type, offer, Settings::default()));
        let served = Self {
            folder: tempfile::tempdir().unwrap(),
            device: Arc::clone(&device),
        };
        let server = Server::listen(&served.path()).unwrap();
        std::thread::spawn(move || server.run(&device));
        served
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(self.folder.path()).join("socket")
    }

    /// The driver has set Bus Master Enable.
    fn set_bus_master(&self) {
        self.device.write_config(4, &[6, 0], Instant::now());
    }

    /// Whether the device, as a bus master, reaches that guest address.
    pub(crate) fn reaches(&self, address: u64) -> bool {
        self.set_bus_master();
        let memory = self.device.memory().lock();
        memory.read_obj::<u8>(GuestAddress(address)).is_ok()
    }

    /// Its only interrupt is raised, if there is a way.
    pub(crate) fn interrupt(&self) {
        self.set_bus_master();
        self.device.act("needs-reset").unwrap();
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "not yet: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn memory_file(size: u64) -> File {
    let file = unsealed_file(size);
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

pub(crate) fn unsealed_file(size: u64) -> File {
    let file = File::from(memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(size).unwrap();
    file
}

/// As a client makes it that waits for it.
pub(crate) fn blocking_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::empty()).unwrap()
}

/// Waits for a signal. Returns how many there were.
pub(crate) fn signals(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).unwrap();
    u64::from_ne_bytes(count)
}
