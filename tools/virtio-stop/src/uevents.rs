// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel tells of virtio devices that come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{SocketAddrNetlink, KOBJECT_UEVENT};
use rustix::net::{bind, recv, socket_with, AddressFamily, RecvFlags, SocketFlags, SocketType};

/// The group that the kernel sends to.
const KERNEL: u32 = 1;

/// Longer than any uevent.
const LONGEST: usize = 8192;

/// A socket that gets uevents.
#[derive(Debug)]
pub(crate) struct Uevents(OwnedFd);

impl Uevents {
    /// Those from now on.
    pub(crate) fn listen() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(KOBJECT_UEVENT);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Takes all that have come; whether a virtio device may have come since.
    pub(crate) fn added(&self) -> bool {
        let mut buffer = [0; LONGEST];
        let mut added = false;
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => added |= is_added(buffer.get(..length).unwrap_or_default()),
                // There were too many: nobody knows.
                Err(Errno::NOBUFS) => added = true,
                Err(Errno::INTR) => {}
                Err(_) => return added,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_added(message: &[u8]) -> bool {
    let has = |wanted: &[u8]| {
        message
            .split(|&byte| byte == 0)
            .any(|field| field == wanted)
    };
    has(b"ACTION=add") && has(b"SUBSYSTEM=virtio")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_virtio_devices_count() {
        let message = |action: &str, subsystem: &str| {
            format!("{action}@/devices/x\0ACTION={action}\0DEVPATH=/x\0SUBSYSTEM={subsystem}\0")
        };
        assert!(is_added(message("add", "virtio").as_bytes()));
        assert!(!is_added(message("change", "virtio").as_bytes()));
        assert!(!is_added(message("add", "virtio-ports").as_bytes()));
        assert!(!is_added(b""));
    }

    #[test]
    fn nothing_has_come_at_first() {
        assert!(!Uevents::listen().unwrap().added());
    }
}
