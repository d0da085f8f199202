// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a thread that serves a socket stands still: between two messages, or two clients, so that another process can go on there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::{read, retry_on_intr, write, Errno};

/// The boundary of one thread. `T` is what it has come to.
#[derive(Debug)]
pub struct Boundary<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Readable as long as the boundary is closed.
    closed: OwnedFd,
}

#[derive(Debug)]
struct State<T> {
    closed: bool,
    /// How often it was opened again.
    opened: u64,
    /// The thread stands there.
    standing: Option<T>,
}

/// The boundary is closed as long as this lives.
#[derive(Debug)]
pub struct Closed<'a, T>(&'a Boundary<T>);

impl<T> Boundary<T> {
    /// An open one.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            state: Mutex::new(State {
                closed: false,
                opened: 0,
                standing: None,
            }),
            changed: Condvar::new(),
            closed: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to read from `socket`, or to accept. While the boundary is closed the thread stands here, with
    /// what it has come to.
    pub fn wait(&self, socket: impl AsFd, come_to: impl Fn() -> T) -> Result<(), Errno> {
        loop {
            let mut files = [
                PollFd::new(&socket, PollFlags::IN),
                PollFd::new(&self.closed, PollFlags::IN),
            ];
            retry_on_intr(|| poll(&mut files, None))?;
            let [_, closed] = files;
            if closed.revents().is_empty() {
                return Ok(());
            }
            let mut state = self.lock();
            let opened = state.opened;
            while state.closed && state.opened == opened {
                if state.standing.is_none() {
                    state.standing = Some(come_to());
                    self.changed.notify_all();
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            // Whoever has waited meanwhile comes first, also if it is closed again already.
            let mut files = [PollFd::new(&socket, PollFlags::IN)];
            retry_on_intr(|| poll(&mut files, Some(&Timespec::default())))?;
            let [socket] = files;
            if !socket.revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Closes it, and waits until the thread stands there, but not beyond `deadline`. Who calls this does so once at a time.
    pub fn close(&self, deadline: Instant) -> Result<Closed<'_, T>, Errno> {
        write(&self.closed, &1u64.to_ne_bytes())?;
        let closed = Closed(self);
        let mut state = self.lock();
        state.closed = true;
        while state.standing.is_none() {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest == Duration::ZERO {
                drop(state);
                return Err(Errno::TIMEDOUT);
            }
            (state, _) = self
                .changed
                .wait_timeout(state, rest)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok(closed)
    }
}

impl<T: Clone> Closed<'_, T> {
    /// What the thread has come to.
    pub fn standing(&self) -> Option<T> {
        self.0.lock().standing.clone()
    }
}

impl<T> Drop for Closed<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = false;
        state.opened += 1;
        // The thread has yet to come here again.
        state.standing = None;
        // It says so no more.
        let _ = read(&self.0.closed, &mut [0; 8]);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_stands_still_between_two_messages_and_reads_nothing() {
        let boundary = Arc::new(Boundary::new().unwrap());
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let (sender, received) = channel();
        let thread = {
            let boundary = Arc::clone(&boundary);
            thread::spawn(move || {
                for number in 0..2 {
                    boundary.wait(&server, || number).unwrap();
                    let mut byte = [0];
                    server.read_exact(&mut byte).unwrap();
                    sender.send(byte).unwrap();
                }
            })
        };
        client.write_all(b"a").unwrap();
        assert_eq!(received.recv_timeout(MINUTE).unwrap(), *b"a");
        let closed = boundary.close(Instant::now() + MINUTE).unwrap();
        assert_eq!(closed.standing(), Some(1));
        client.write_all(b"b").unwrap();
        // It would have been read: the thread was there before the byte.
        assert!(received.recv_timeout(Duration::from_millis(20)).is_err());
        drop(closed);
        assert_eq!(received.recv_timeout(MINUTE).unwrap(), *b"b");
        thread.join().unwrap();
    }

    /// Two successors, one after the other, which both hang.
    #[test]
    fn between_two_times_that_it_is_closed_the_thread_serves() {
        let boundary = Arc::new(Boundary::new().unwrap());
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let thread = {
            let boundary = Arc::clone(&boundary);
            thread::spawn(move || {
                for number in 0..100 {
                    boundary.wait(&server, || number).unwrap();
                    server.read_exact(&mut [0]).unwrap();
                }
            })
        };
        for number in 0..100 {
            let closed = boundary.close(Instant::now() + MINUTE).unwrap();
            assert_eq!(closed.standing(), Some(number));
            client.write_all(b"a").unwrap();
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_is_elsewhere_is_not_waited_for_beyond_the_deadline() {
        let boundary = Boundary::<()>::new().unwrap();
        let late = boundary.close(Instant::now());
        assert_eq!(late.unwrap_err(), Errno::TIMEDOUT);
        // It is open again.
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        boundary.wait(&server, || ()).unwrap();
    }
}
