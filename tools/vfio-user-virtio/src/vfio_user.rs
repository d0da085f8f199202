// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vfio-user socket of a device: what a client such as QEMU sends, by docs/interop/vfio-user.rst of QEMU.
//!
//! | | |
//! |---|---|
//! | [`message`] | what messages look like |
//! | [`connection`] | reads one message at a time, and nothing beyond it; sends replies |
//! | [`version`] | what is agreed on at the beginning |
//! | [`session`], [`irqs`] | what the messages of a client do to the device |
//!
//! The client is not trusted: a message is refused with an errno, and the next one is read. The connection ends only where it can't
//! be told any more where the next one begins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use crate::device::Device;
use crate::socket;
use connection::Connection;
use session::Session;

mod connection;
mod irqs;
mod message;
mod session;
mod version;

/// A vfio-user server that listens.
#[derive(Debug)]
pub struct Server(UnixListener);

impl Server {
    /// Listens on `path`. A socket that a dead process has left there is replaced.
    pub fn listen(path: &Path) -> io::Result<Self> {
        socket::listen(path).map(Self)
    }

    /// Serves one client after another, for ever.
    pub fn run(&self, device: &Device) -> ! {
        loop {
            let client = Arc::new(socket::accept(&self.0));
            device.connected(Arc::clone(&client));
            match Session::new(device, Connection::new(client)).run() {
                Ok(()) => tracing::info!("the client has disconnected"),
                Err(error) => tracing::info!(%error, "the connection ended"),
            }
            device.disconnected();
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
