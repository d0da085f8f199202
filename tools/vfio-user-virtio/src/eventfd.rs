// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client's files for interrupts.

use std::fs::read_link;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{retry_on_intr, write, Errno};

/// An eventfd(2) of the client's. To signal it never waits for the client.
#[derive(Debug)]
pub struct Eventfd(OwnedFd);

impl TryFrom<OwnedFd> for Eventfd {
    type Error = Errno;

    /// A write to anything else could wait for whoever made it: a pipe that nobody reads, a file on a file system of the client's.
    fn try_from(file: OwnedFd) -> Result<Self, Errno> {
        let name = read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        match name {
            Ok(name) if name.as_os_str() == "anon_inode:[eventfd]" => Ok(Self(file)),
            _ => Err(Errno::INVAL),
        }
    }
}

impl Eventfd {
    /// The file, once more.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Signals whoever waits for it. One whose count is at its limit is signalled already.
    ///
    /// O_NONBLOCK belongs to the client's open file too, and is the client's to choose. So this looks before it writes: only the same
    /// client can fill the count between the two.
    pub fn signal(&self) -> Result<(), Errno> {
        let mut files = [PollFd::new(&self.0, PollFlags::OUT)];
        retry_on_intr(|| poll(&mut files, Some(&Timespec::default())))?;
        let [file] = files;
        if !file.revents().contains(PollFlags::OUT) {
            return Ok(());
        }
        match retry_on_intr(|| write(&self.0, &1u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{eventfd, EventfdFlags};
    use rustix::io::read;

    /// An eventfd that blocks who writes to it at its limit.
    fn pair() -> (Eventfd, OwnedFd) {
        let file = eventfd(0, EventfdFlags::empty()).unwrap();
        (Eventfd::try_from(file.try_clone().unwrap()).unwrap(), file)
    }

    fn count(file: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        read(file, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn signals_are_counted() {
        let (eventfd, file) = pair();
        eventfd.signal().unwrap();
        eventfd.signal().unwrap();
        assert_eq!(count(&file), 2);
    }

    #[test]
    fn one_at_its_limit_is_signalled_already() {
        let (eventfd, file) = pair();
        write(&file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        eventfd.signal().unwrap();
        assert_eq!(count(&file), u64::MAX - 1);
        eventfd.signal().unwrap();
        assert_eq!(count(&file), 1);
    }

    #[test]
    fn only_eventfds_are_taken() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for file in [one.into(), other.into(), OwnedFd::from(file)] {
            assert_eq!(Eventfd::try_from(file).unwrap_err(), Errno::INVAL);
        }
    }
}
