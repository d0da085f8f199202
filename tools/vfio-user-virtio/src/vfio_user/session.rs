// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the messages of a client do to the device.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS,
    VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};

use super::connection::{Connection, Message};
use super::irqs;
use super::message::Request;
use super::version::{negotiate, Limits};
use super::Standing;
use crate::boundary::Boundary;
use crate::device::Device;
use crate::memory;
use crate::pci::{BAR_SIZE, CONFIG_SIZE, MSIX_BAR_SIZE};

/// How the server is to access what is mapped: by mmap(2), by read(2) and write(2).
const MAP_ACCESS: u32 = (1 << 2) | (1 << 3);
const MAP_READ_WRITE: u32 = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

const DONE: Result<Vec<u8>, Errno> = Ok(Vec::new());

/// A client's connection, and what it has come to.
#[derive(Debug)]
pub(super) struct Session<'a> {
    device: &'a Device,
    connection: Connection,
    /// What was agreed on. None: nothing yet.
    limits: Option<Limits>,
    /// Only the first of each is worth a warning: a client can do the same thing again and again.
    told_of_refusals: bool,
    told_of_unsafe_memory: bool,
}

impl<'a> Session<'a> {
    /// A session that has come to `limits`.
    pub(super) fn new(device: &'a Device, connection: Connection, limits: Option<Limits>) -> Self {
        Self {
            device,
            connection,
            limits,
            told_of_refusals: false,
            told_of_unsafe_memory: false,
        }
    }

    /// Whether the client has had anything done.
    pub(super) fn has_agreed(&self) -> bool {
        self.limits.is_some()
    }

    /// Serves the client until it goes.
    pub(super) fn run(&mut self, boundary: &Boundary<Standing>) -> io::Result<()> {
        loop {
            let standing = || Standing::InSession {
                client: self.connection.client(),
                limits: self.limits,
            };
            boundary.wait(&self.connection, standing)?;
            let Some(message) = self.connection.receive()? else {
                return Ok(());
            };
            let Message {
                header,
                request,
                files,
            } = message;
            let result = request.and_then(|request| self.perform(request, files));
            if let Err(error) = result {
                if !self.told_of_refusals {
                    tracing::warn!(%error, ?header, "a message of the client's was refused");
                }
                self.told_of_refusals = true;
            }
            if header.wants_reply() {
                let result = result.as_deref().map_err(|error| *error);
                self.connection.reply(&header.reply(result))?;
            }
        }
    }

    /// Does what the client asks for. Returns the reply's payload.
    fn perform(&mut self, request: Request, files: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let limits = match (&request, self.limits) {
            (Request::Version { .. }, Some(_)) => return Err(Errno::INVAL),
            (
                Request::Version {
                    major,
                    capabilities,
                },
                None,
            ) => {
                let (limits, reply) = negotiate(*major, capabilities)?;
                self.limits = Some(limits);
                return Ok(reply);
            }
            (_, limits) => limits.ok_or(Errno::INVAL)?,
        };
        let now = Instant::now();
        match request {
            Request::Version { .. } => DONE,
            Request::DmaMap {
                flags,
                offset,
                address,
                size,
            } => {
                let file = files.into_iter().next().map(File::from);
                if flags & !(MAP_READ_WRITE | MAP_ACCESS) != 0
                    || (flags & MAP_ACCESS != 0 && file.is_none())
                {
                    return Err(Errno::INVAL);
                }
                // Memory without a file, or that may not be written, is no guest RAM (a ROM, another device's registers).
                match file {
                    Some(file) if flags & MAP_READ_WRITE == MAP_READ_WRITE => {
                        self.map(limits, (address, size, offset), file)
                    }
                    _ => DONE,
                }
            }
            Request::DmaUnmap {
                argsz,
                flags,
                address,
                size,
            } => {
                match (flags, address, size) {
                    (0, ..) => self.device.memory().unmap(address, size)?,
                    (VFIO_DMA_UNMAP_FLAG_ALL, 0, 0) => self.device.memory().clear(),
                    _ => return Err(Errno::INVAL),
                }
                let [argsz, flags] = [argsz, flags].map(u32::to_ne_bytes);
                let range = [address, size].map(u64::to_ne_bytes).concat();
                Ok([&argsz[..], &flags, &range].concat())
            }
            Request::DeviceGetInfo => Ok(words([
                16,
                VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
                VFIO_PCI_NUM_REGIONS,
                VFIO_PCI_NUM_IRQS,
            ])),
            Request::DeviceGetRegionInfo { index } => {
                let size = self.region_size(index)?;
                let flags = match size {
                    0 => 0,
                    _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
                };
                let mut reply = words([32, flags, index, 0]);
                reply.extend([size, 0].map(u64::to_ne_bytes).concat());
                Ok(reply)
            }
            Request::DeviceGetIrqInfo { index } => {
                let (flags, count) = irqs::info(self.device, index)?;
                Ok(words([16, flags, index, count]))
            }
            Request::DeviceSetIrqs {
                flags,
                index,
                start,
                count,
            } => {
                irqs::set(self.device, flags, index, start, count, files)?;
                DONE
            }
            Request::RegionRead {
                offset,
                region,
                count,
            } => {
                self.check_access(limits, region, offset, count.into())?;
                let mut data = vec![0; count as usize];
                match region {
                    VFIO_PCI_CONFIG_REGION_INDEX => self.device.read_config(offset, &mut data, now),
                    VFIO_PCI_BAR0_REGION_INDEX => self.device.read_bar(offset, &mut data, now),
                    _ => {}
                }
                Ok([access(offset, region, count), data].concat())
            }
            Request::RegionWrite {
                offset,
                region,
                data,
            } => {
                self.check_access(limits, region, offset, data.len() as u64)?;
                match region {
                    VFIO_PCI_CONFIG_REGION_INDEX => self.device.write_config(offset, &data, now),
                    VFIO_PCI_BAR0_REGION_INDEX => self.device.write_bar(offset, &data, now),
                    _ => {}
                }
                Ok(access(offset, region, data.len() as u32))
            }
            Request::DeviceReset => {
                self.device.reset();
                DONE
            }
        }
    }

    fn map(
        &mut self,
        limits: Limits,
        (address, size, offset): (u64, u64, u64),
        file: File,
    ) -> Result<Vec<u8>, Errno> {
        if self.device.memory().maps() as u64 >= limits.max_dma_maps {
            return Err(memory::Error::TooMany.into());
        }
        match self.device.map(address, size, offset, file) {
            // It may be no guest RAM either (a flash, memory that is shared with somebody else). A guest that uses it for a virtqueue is
            // told.
            Err(error @ memory::Error::Unsafe) => {
                if !self.told_of_unsafe_memory {
                    tracing::warn!(%error, address, size, "memory that the device will not reach");
                }
                self.told_of_unsafe_memory = true;
                DONE
            }
            result => result.map(|()| Vec::new()).map_err(Errno::from),
        }
    }

    fn region_size(&self, index: u32) -> Result<u64, Errno> {
        match index {
            VFIO_PCI_BAR0_REGION_INDEX => Ok(BAR_SIZE),
            VFIO_PCI_BAR2_REGION_INDEX if self.device.vectors() > 0 => Ok(MSIX_BAR_SIZE),
            VFIO_PCI_CONFIG_REGION_INDEX => Ok(CONFIG_SIZE as u64),
            _ if index < VFIO_PCI_NUM_REGIONS => Ok(0),
            _ => Err(Errno::INVAL),
        }
    }

    fn check_access(
        &self,
        limits: Limits,
        region: u32,
        offset: u64,
        count: u64,
    ) -> Result<(), Errno> {
        let end = offset.checked_add(count).ok_or(Errno::INVAL)?;
        if count > limits.max_data_xfer_size || end > self.region_size(region)? {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

fn words(words: [u32; 4]) -> Vec<u8> {
    words.map(u32::to_ne_bytes).concat()
}

/// The beginning of the reply to a region access.
fn access(offset: u64, region: u32, count: u32) -> Vec<u8> {
    let [region, count] = [region, count].map(u32::to_ne_bytes);
    [&offset.to_ne_bytes()[..], &region, &count].concat()
}
