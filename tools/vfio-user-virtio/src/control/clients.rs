// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is connected to the control socket. There is always room for one more: the client that has asked for nothing for longest goes.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most clients at a time.
const MAX_CLIENTS: usize = 64;

/// How long a reply waits for a client that does not read.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Entry {
    stream: Arc<UnixStream>,
    last_request: Instant,
    hung_up: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<Vec<Entry>>);

/// One of them, as long as this lives.
#[derive(Debug)]
pub(super) struct Client {
    clients: Arc<Clients>,
    stream: Arc<UnixStream>,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client in. None: too many have been hung up on, and are not gone yet.
    pub(super) fn admit(self: &Arc<Self>, stream: UnixStream) -> io::Result<Option<Client>> {
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        let stream = Arc::new(stream);
        let mut entries = self.lock();
        if entries.len() >= 2 * MAX_CLIENTS {
            return Ok(None);
        }
        let mut there: Vec<&mut Entry> =
            entries.iter_mut().filter(|entry| !entry.hung_up).collect();
        if there.len() >= MAX_CLIENTS {
            if let Some(idlest) = there.iter_mut().min_by_key(|entry| entry.last_request) {
                idlest.hung_up = true;
                // Its thread reads, or writes, no more.
                let _ = idlest.stream.shutdown(Shutdown::Both);
            }
        }
        entries.push(Entry {
            stream: Arc::clone(&stream),
            last_request: Instant::now(),
            hung_up: false,
        });
        drop(entries);
        Ok(Some(Client {
            clients: Arc::clone(self),
            stream,
        }))
    }
}

impl Client {
    /// Its connection.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// It has asked for something.
    pub(super) fn has_asked(&self) {
        let mut entries = self.clients.lock();
        let own = |entry: &&mut Entry| Arc::ptr_eq(&entry.stream, &self.stream);
        if let Some(entry) = entries.iter_mut().find(own) {
            entry.last_request = Instant::now();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut entries = self.clients.lock();
        entries.retain(|entry| !Arc::ptr_eq(&entry.stream, &self.stream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// The client's end, and the server's.
    fn admit(clients: &Arc<Clients>) -> (UnixStream, Option<Client>) {
        let (client, server) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        (client, clients.admit(server).unwrap())
    }

    fn is_connected(mut client: &UnixStream) -> bool {
        matches!(client.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn the_idlest_client_makes_room() {
        let clients = Arc::new(Clients::default());
        let all: Vec<_> = (0..MAX_CLIENTS).map(|_| admit(&clients)).collect();
        all[0].1.as_ref().unwrap().has_asked();
        let connected = || all.iter().map(|(client, _)| is_connected(client));
        assert!(connected().all(|connected| connected));
        let (another, _server) = admit(&clients);
        let expected = (0..MAX_CLIENTS).map(|index| index != 1);
        assert!(connected().eq(expected) && is_connected(&another));
    }

    #[test]
    fn there_is_a_limit_of_those_that_are_not_gone_yet() {
        let clients = Arc::new(Clients::default());
        let mut all: Vec<_> = (0..2 * MAX_CLIENTS).map(|_| admit(&clients)).collect();
        assert!(all.iter().all(|(_, server)| server.is_some()));
        assert!(admit(&clients).1.is_none());
        all.pop();
        assert!(admit(&clients).1.is_some());
    }

    #[test]
    fn no_reply_waits_for_ever() {
        let clients = Arc::new(Clients::default());
        let (_client, server) = admit(&clients);
        let timeout = server.unwrap().stream().write_timeout().unwrap();
        assert_eq!(timeout, Some(REPLY_TIMEOUT));
    }
}
