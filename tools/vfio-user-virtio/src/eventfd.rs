// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client's files for interrupts.

use std::fs::read_link;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{preadv2, retry_on_intr, write, Errno, ReadWriteFlags};

/// Who signals is not kept waiting for longer than two of these.
const LOOK: Duration = Duration::from_millis(100);

/// An eventfd(2) of the client's. To signal it never waits for the client for long.
#[derive(Debug)]
pub struct Eventfd(Arc<Watched>);

/// One that somebody has an eye on.
#[derive(Debug)]
struct Watched {
    file: OwnedFd,
    /// How often somebody began to write to it, and has done that.
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Watched {
    fn write(&self) -> Result<(), Errno> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let written = retry_on_intr(|| write(&self.file, &1u64.to_ne_bytes()));
        self.ended.fetch_add(1, Ordering::SeqCst);
        match written {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Which write it is that somebody waits for.
    fn waiting(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) != ended).then_some(ended)
    }

    /// Whether there is room for a signal.
    fn has_room(&self) -> Result<bool, Errno> {
        let mut files = [PollFd::new(&self.file, PollFlags::OUT)];
        retry_on_intr(|| poll(&mut files, Some(&Timespec::default())))?;
        let [file] = files;
        Ok(file.revents().contains(PollFlags::OUT))
    }

    /// Takes its count away, so that there is room for a signal. A write can't be told not to wait where the file is not (RWF_NOWAIT), but a
    /// read can. Where there is room nobody waits for any: whoever writes has not been running since, and the count is the client's to
    /// take.
    fn make_room(&self) {
        if self.has_room() != Ok(false) {
            return;
        }
        let mut count = [0; 8];
        // Where a vector of the file's own position is read, that is -1.
        let taken = preadv2(
            &self.file,
            &mut [IoSliceMut::new(&mut count)],
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        );
        tracing::warn!(
            ?taken,
            "the client has an interrupt wait: what it had not seen of it is lost"
        );
    }
}

/// Has an eye on the eventfds of all clients.
#[derive(Debug, Default)]
struct Watch {
    files: Mutex<Vec<(Weak<Watched>, Option<u64>)>>,
    added: Condvar,
}

impl Watch {
    /// The one of this process.
    fn get() -> Result<&'static Self, Errno> {
        static WATCH: Mutex<Option<&Watch>> = Mutex::new(None);
        let mut started = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = *started {
            return Ok(watch);
        }
        static FILES: Watch = Watch {
            files: Mutex::new(Vec::new()),
            added: Condvar::new(),
        };
        let thread = thread::Builder::new().name("eventfd".to_owned());
        thread.spawn(|| FILES.run()).map_err(|_| Errno::AGAIN)?;
        Ok(started.insert(&FILES))
    }

    fn add(&self, file: &Arc<Watched>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push((Arc::downgrade(file), None));
        self.added.notify_all();
    }

    /// Makes room where somebody waits for the same write as at the last look, for ever.
    fn run(&self) -> ! {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            files.retain_mut(|(file, before)| {
                let Some(file) = file.upgrade() else {
                    return false;
                };
                let waiting = file.waiting();
                if waiting.is_some() && waiting == *before {
                    file.make_room();
                }
                *before = waiting;
                true
            });
            files = if files.is_empty() {
                let wait = self.added.wait(files);
                wait.unwrap_or_else(PoisonError::into_inner)
            } else {
                drop(files);
                thread::sleep(LOOK);
                self.files.lock().unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

impl TryFrom<OwnedFd> for Eventfd {
    type Error = Errno;

    /// A write to anything else could wait for whoever made it: a pipe that nobody reads, a file on a file system of the client's.
    fn try_from(file: OwnedFd) -> Result<Self, Errno> {
        let name = read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        match name {
            Ok(name) if name.as_os_str() == "anon_inode:[eventfd]" => {}
            _ => return Err(Errno::INVAL),
        }
        let watched = Arc::new(Watched {
            file,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        Watch::get()?.add(&watched);
        Ok(Self(watched))
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl Eventfd {
    /// Signals whoever waits for it. One whose count is at its limit is signalled already.
    ///
    /// O_NONBLOCK belongs to the client's open file too, and is the client's to choose. So this looks before it writes. Only the same
    /// client can fill the count between the two: [`Watch`] ends that.
    pub fn signal(&self) -> Result<(), Errno> {
        if self.0.has_room()? {
            self.0.write()
        } else {
            Ok(())
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

    /// The client fills the count after this has looked.
    #[test]
    fn nobody_waits_for_room_for_ever() {
        let (eventfd, file) = pair();
        let (done, is_done) = std::sync::mpsc::channel();
        for _ in 0..2 {
            write(&file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            let (watched, done) = (Arc::clone(&eventfd.0), done.clone());
            thread::spawn(move || done.send(watched.write()).unwrap());
            let written = is_done.recv_timeout(Duration::from_secs(20));
            assert_eq!(written, Ok(Ok(())));
            assert_eq!(count(&file), 1);
        }
    }

    /// Whoever writes may not be running any more, and has written.
    #[test]
    fn what_the_client_has_not_seen_yet_is_not_taken_away() {
        // Nobody waits for a count that is not there.
        let file = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let eventfd = Eventfd::try_from(file.try_clone().unwrap()).unwrap();
        eventfd.0.begun.fetch_add(1, Ordering::SeqCst);
        eventfd.signal().unwrap();
        eventfd.0.make_room();
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
