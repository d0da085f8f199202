// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client, and a driver's part of it, by another implementation of the protocol.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use vfio_user::Client;

use crate::servers::Servers;

const BAR: u32 = 0;
const PAGE: u64 = 4096;

/// One that has connected to the device `x`.
pub(crate) struct Driver {
    client: Client,
    memory: File,
}

impl Driver {
    pub(crate) fn connect(servers: &Servers) -> Self {
        let memory = File::from(memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap());
        memory.set_len(1 << 20).unwrap();
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        Self {
            client: Client::new(&servers.path("device")).unwrap(),
            memory,
        }
    }

    /// A page of memory, which begins where its number says.
    pub(crate) fn map(&mut self, number: u64) {
        let (at, file) = (number * PAGE, self.memory.as_raw_fd());
        self.client.dma_map(at, at, PAGE, file).unwrap();
    }

    /// Brings the device up with `features`, which are more than 32 bits.
    pub(crate) fn bring_up(&mut self, features: u64) {
        self.set_status(1);
        self.set_status(3);
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            for (at, value) in [(0x08, select), (0x0c, half)] {
                let value = value.to_le_bytes();
                self.client.region_write(BAR, at, &value).unwrap();
            }
        }
        self.set_status(11);
        assert_eq!(self.set_status(15), 15);
    }

    /// Writes the status, and looks at it.
    pub(crate) fn set_status(&mut self, status: u8) -> u8 {
        self.client.region_write(BAR, 0x14, &[status]).unwrap();
        self.status()
    }

    pub(crate) fn status(&mut self) -> u8 {
        let mut status = [0];
        self.client.region_read(BAR, 0x14, &mut status).unwrap();
        status[0]
    }
}
