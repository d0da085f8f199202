// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel tells of virtio devices that come and go, and of virtio_device_stop.

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

    /// Takes all that have come, and says what may have happened.
    pub(crate) fn take(&self) -> News {
        let mut buffer = [0; LONGEST];
        let mut news = News::default();
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => news.hear(buffer.get(..length).unwrap_or_default()),
                // There were too many: nobody knows.
                Err(Errno::NOBUFS) => news.missed = true,
                Err(Errno::INTR) => {}
                Err(_) => return news,
            }
        }
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct News {
    /// A virtio device has come.
    pub(crate) added: bool,
    /// virtio_device_stop was unloaded. Its folder in sysfs goes right after the kernel says so.
    pub(crate) unloaded: bool,
    /// Anything may have happened: uevents were lost.
    pub(crate) missed: bool,
}

impl News {
    fn hear(&mut self, message: &[u8]) {
        let has = |wanted: &[u8]| {
            message
                .split(|&byte| byte == 0)
                .any(|field| field == wanted)
        };
        self.added |= has(b"ACTION=add") && has(b"SUBSYSTEM=virtio");
        self.unloaded |= has(b"ACTION=remove") && has(b"DEVPATH=/module/virtio_device_stop");
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(action: &str, path: &str, subsystem: &str) -> News {
        let mut news = News::default();
        let message =
            format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0");
        news.hear(message.as_bytes());
        news
    }

    #[test]
    fn only_new_virtio_devices_and_the_end_of_the_module_count() {
        let nothing = News::default();
        assert!(news("add", "/devices/x/virtio0", "virtio").added);
        assert_eq!(news("change", "/devices/x/virtio0", "virtio"), nothing);
        assert_eq!(news("add", "/devices/x", "virtio-ports"), nothing);
        assert!(news("remove", "/module/virtio_device_stop", "module").unloaded);
        assert_eq!(news("add", "/module/virtio_device_stop", "module"), nothing);
        assert_eq!(news("remove", "/module/virtio_blk", "module"), nothing);
        assert_eq!(news("", "", ""), nothing);
    }

    #[test]
    fn nothing_has_come_at_first() {
        assert_eq!(Uevents::listen().unwrap().take(), News::default());
    }
}
