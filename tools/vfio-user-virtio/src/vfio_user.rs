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
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::boundary::Boundary;
use crate::device::Device;
use crate::socket;
use connection::Connection;
use session::Session;

pub use version::Limits;

mod connection;
mod irqs;
mod message;
mod session;
mod version;

/// Between two messages: where a server is.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It waits for a client.
    Listening,
    /// It waits for a message of this client's.
    InSession {
        /// The connection.
        client: Arc<UnixStream>,
        /// What was agreed on with it, if that was done.
        limits: Option<Limits>,
    },
}

/// A vfio-user server that listens.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    boundary: Boundary<Standing>,
    /// Where it begins.
    first: Mutex<Standing>,
}

impl Server {
    /// Listens on `path`. A socket that a dead process has left there is replaced.
    pub fn listen(path: &Path) -> io::Result<Self> {
        Self::new(socket::listen(path)?, Standing::Listening)
    }

    /// Goes on with a socket that listens already, and from there.
    pub fn new(listener: UnixListener, first: Standing) -> io::Result<Self> {
        // Who has connected may be gone before it is accepted.
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            boundary: Boundary::new()?,
            first: Mutex::new(first),
        })
    }

    /// What it listens on.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it can be made to stand still.
    pub fn boundary(&self) -> &Boundary<Standing> {
        &self.boundary
    }

    /// Serves one client after another, until a system call fails that can't.
    pub fn run(&self, device: &Device) -> io::Result<()> {
        let mut standing = std::mem::replace(
            &mut *self.first.lock().unwrap_or_else(PoisonError::into_inner),
            Standing::Listening,
        );
        loop {
            let (client, limits) = match std::mem::replace(&mut standing, Standing::Listening) {
                Standing::InSession { client, limits } => (client, limits),
                Standing::Listening => {
                    self.boundary
                        .wait(self.listener.as_fd(), || Standing::Listening)?;
                    let Some(client) = socket::accept(&self.listener) else {
                        continue;
                    };
                    (Arc::new(client), None)
                }
            };
            serve(device, &client, limits, &self.boundary);
        }
    }
}

/// Serves one client until it is gone. `limits` are what was agreed on with it, if that was done.
pub fn serve(
    device: &Device,
    client: &Arc<UnixStream>,
    limits: Option<Limits>,
    boundary: &Boundary<Standing>,
) {
    device.connected(Arc::clone(client));
    let connection = Connection::new(Arc::clone(client));
    let mut session = Session::new(device, connection, limits);
    match session.run(boundary) {
        Ok(()) => tracing::info!("the client has disconnected"),
        Err(error) => tracing::info!(%error, "the connection ended"),
    }
    // Another process may have it open, too: a successor that did not take over.
    let _ = client.shutdown(Shutdown::Both);
    if session.has_agreed() {
        device.disconnected();
    } else {
        device.unused();
    }
}
