// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vfio-user socket: the only file that knows the `vfio_user` crate.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    vfio_region_info, VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion};

use crate::device::Device;
use crate::eventfd::Eventfd;
use crate::memory;
use crate::pci::{BAR_SIZE, CONFIG_SIZE, MSIX_BAR_SIZE};

/// The longest access to a register or to configuration space that a guest can make by way of QEMU.
const MAX_ACCESS: usize = CONFIG_SIZE;

/// Why the device can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves this socket.
    #[error("{0}: another process is listening there")]
    InUse(String),
    /// The socket can't be made.
    #[error("{path}: can't listen")]
    Listen {
        /// The socket's path.
        path: String,
        /// Why.
        #[source]
        source: vfio_user::Error,
    },
    /// No client can be accepted any more.
    #[error("can't accept clients")]
    Accept(#[source] vfio_user::Error),
}

/// A vfio-user server that listens.
pub struct Server(vfio_user::Server);

impl Server {
    /// Listens on `path` for the client of a device with that many MSI-X vectors, or, with none, INTx. A socket that a dead process has left there is
    /// replaced.
    pub fn listen(path: &Path, vectors: u16) -> Result<Self, Error> {
        if UnixStream::connect(path).is_ok() {
            return Err(Error::InUse(path.display().to_string()));
        }
        // Only a socket is removed: anything else there makes bind() fail.
        if std::fs::symlink_metadata(path)
            .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()))
        {
            let _ = std::fs::remove_file(path);
        }
        let server = vfio_user::Server::new(path, true, interrupts(vectors), regions(vectors));
        server.map(Self).map_err(|source| Error::Listen {
            path: path.display().to_string(),
            source,
        })
    }

    /// Serves one client after another, for ever.
    pub fn run(&self, device: &Device) -> Result<(), Error> {
        loop {
            // The crate panics on some messages that no client should send, and a device can ask to hang up.
            match catch_unwind(AssertUnwindSafe(|| self.0.run(&mut Adapter(device)))) {
                Ok(Ok(())) => tracing::info!("the client has disconnected"),
                Ok(Err(error @ vfio_user::Error::SocketAccept(_))) => {
                    return Err(Error::Accept(error))
                }
                Ok(Err(error)) => tracing::warn!(%error, "the connection ended"),
                Err(cause) if cause.is::<HangUp>() => tracing::info!("hung up, as asked to"),
                Err(_) => tracing::warn!("the client broke the protocol: the connection ended"),
            }
            device.disconnected();
        }
    }
}

fn regions(vectors: u16) -> Vec<ServerRegion> {
    let size = |index| match index {
        VFIO_PCI_BAR0_REGION_INDEX => BAR_SIZE,
        VFIO_PCI_BAR2_REGION_INDEX if vectors > 0 => MSIX_BAR_SIZE,
        VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SIZE as u64,
        _ => 0,
    };
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| ServerRegion {
            region_info: vfio_region_info {
                argsz: size_of::<vfio_region_info>() as u32,
                index,
                size: size(index),
                flags: if size(index) > 0 {
                    VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
                } else {
                    0
                },
                ..Default::default()
            },
            sparse_areas: Vec::new(),
            mmap_fd: None,
        })
        .collect()
}

fn interrupts(vectors: u16) -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| match index {
            VFIO_PCI_MSIX_IRQ_INDEX if vectors > 0 => IrqInfo {
                index,
                flags: VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
                count: vectors.into(),
            },
            VFIO_PCI_INTX_IRQ_INDEX if vectors == 0 => IrqInfo {
                index,
                flags: VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED,
                count: 1,
            },
            _ => IrqInfo {
                index,
                flags: 0,
                count: 0,
            },
        })
        .collect()
}

/// What the client asks of the device, in the device's own terms.
struct Adapter<'a>(&'a Device);

/// Unwinds through the crate, which closes the connection on no other request of a server's.
struct HangUp;

impl Adapter<'_> {
    fn hang_up_if_asked_to(&self) {
        if self.0.hangs_up() {
            resume_unwind(Box::new(HangUp));
        }
    }
}

impl ServerBackend for Adapter<'_> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if data.len() > MAX_ACCESS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.0.read_config(offset, data, Instant::now()),
            VFIO_PCI_BAR0_REGION_INDEX => self.0.read_bar(offset, data, Instant::now()),
            _ => data.fill(0),
        }
        self.hang_up_if_asked_to();
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.0.write_config(offset, data, Instant::now()),
            VFIO_PCI_BAR0_REGION_INDEX => self.0.write_bar(offset, data, Instant::now()),
            _ => {}
        }
        self.hang_up_if_asked_to();
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        self.0.connected();
        // Memory without a file, or that may not be written, is no guest RAM (a ROM, another device's registers).
        match fd {
            Some(file) if flags.contains(DmaMapFlags::READ_WRITE) => {
                match self.0.memory().map(address, size, offset, file) {
                    // It may be no guest RAM either: a flash, memory that is shared with somebody else.
                    Err(error @ memory::Error::Unsafe) => {
                        tracing::warn!(%error, address, size, "memory that the device will not reach");
                        Ok(())
                    }
                    result => result.map_err(|error| Errno::from(error).into()),
                }
            }
            _ => Ok(()),
        }
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            self.0.memory().clear();
        } else {
            let unmapped = self.0.memory().unmap(address, size);
            unmapped.map_err(Errno::from)?;
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.0.connected();
        self.0.reset();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        let mut fds = fds
            .into_iter()
            .map(|file| Eventfd::try_from(OwnedFd::from(file)))
            .collect::<Result<Vec<_>, _>>()?;
        let signals = flags & VFIO_IRQ_SET_DATA_EVENTFD != 0;
        match index {
            // No count takes everything away (VFIO_DEVICE_SET_IRQS).
            VFIO_PCI_MSIX_IRQ_INDEX | VFIO_PCI_INTX_IRQ_INDEX if count == 0 => {
                self.0.clear_interrupts();
            }
            VFIO_PCI_MSIX_IRQ_INDEX if signals => {
                self.0.set_vectors(start as usize, count as usize, fds);
            }
            VFIO_PCI_INTX_IRQ_INDEX if flags & VFIO_IRQ_SET_ACTION_MASK != 0 => {
                self.0.mask_intx();
            }
            VFIO_PCI_INTX_IRQ_INDEX if flags & VFIO_IRQ_SET_ACTION_UNMASK != 0 => {
                self.0.unmask_intx();
            }
            VFIO_PCI_INTX_IRQ_INDEX if signals && flags & VFIO_IRQ_SET_ACTION_TRIGGER != 0 => {
                self.0.set_intx(fds.pop());
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use vfio_user::Client;

    use crate::device::Offer;
    use crate::settings::Settings;
    use crate::types::null::Null;

    /// A device of type 9 with a virtqueue, served at the path until the test program ends.
    fn serve(intx: bool) -> (tempfile::TempDir, std::path::PathBuf, Arc<Device>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let offer = Offer {
            intx,
            ..Offer::default()
        };
        let device = Arc::new(Device::new(
            Arc::new(Null::new(9, 1)),
            offer,
            Settings::default(),
        ));
        let server = Server::listen(&path, device.vectors()).unwrap();
        let served = Arc::clone(&device);
        std::thread::spawn(move || server.run(&served));
        (folder, path, device)
    }

    fn vendor(client: &mut Client) -> Option<[u8; 4]> {
        let mut id = [0; 4];
        let read = client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut id);
        read.is_ok().then_some(id)
    }

    #[test]
    fn a_client_finds_the_device() {
        let (_folder, path, device) = serve(false);
        let mut client = Client::new(&path).unwrap();
        assert_eq!(vendor(&mut client), Some([0xf4, 0x1a, 0x49, 0x10]));
        let bar = VFIO_PCI_BAR0_REGION_INDEX;
        client.region_write(bar, 0x14, &[1]).unwrap();
        let mut status = [0];
        client.region_read(bar, 0x14, &mut status).unwrap();
        assert_eq!((status, device.report().status), ([1], 1));
        client.reset().unwrap();
        assert_eq!(device.report().status, 0);
        assert!(device.report().connected);
    }

    #[test]
    fn interrupts_are_what_the_device_has() {
        for (intx, msix_vectors, intx_vectors) in [(false, 2, 0), (true, 0, 1)] {
            let (_folder, path, _device) = serve(intx);
            let mut client = Client::new(&path).unwrap();
            let mut count = |index| client.get_irq_info(index).unwrap().count;
            assert_eq!(count(VFIO_PCI_MSIX_IRQ_INDEX), msix_vectors);
            assert_eq!(count(VFIO_PCI_INTX_IRQ_INDEX), intx_vectors);
        }
    }

    #[test]
    fn a_device_that_hangs_up_serves_the_next_client() {
        let (_folder, path, device) = serve(false);
        let mut client = Client::new(&path).unwrap();
        assert!(vendor(&mut client).is_some());
        device.act("hang-up").unwrap();
        assert_eq!(vendor(&mut client), None);
        assert_eq!(vendor(&mut client), None);
        let mut client = Client::new(&path).unwrap();
        assert!(vendor(&mut client).is_some());
    }

    #[test]
    fn sockets_are_replaced_only_when_nobody_listens() {
        let (folder, path, _device) = serve(false);
        assert!(matches!(Server::listen(&path, 1), Err(Error::InUse(_))));
        let left = folder.path().join("left");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        assert!(Server::listen(&left, 1).is_ok());
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(
            Server::listen(&file, 1),
            Err(Error::Listen { .. })
        ));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}
