// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The signals that ask a process to end.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_usize;
use signal_hook::low_level::pipe;

/// Catches SIGHUP, SIGINT and SIGTERM from now on, but those that are ignored, for example by
/// nohup(1).
#[derive(Debug)]
pub struct Signals {
    last: Arc<AtomicUsize>,
    told: UnixStream,
}

impl Signals {
    /// Begins.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn catch() -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            if !is_ignored(&status, signal) {
                // In this order: who is told finds which one it was.
                register_usize(signal, Arc::clone(&last), signal.unsigned_abs() as usize)?;
                pipe::register(signal, tell.try_clone()?)?;
            }
        }
        Ok(Self { last, told })
    }

    /// The last one that has come, if one has since [`take`](Self::take).
    pub fn last(&self) -> Option<i32> {
        i32::try_from(self.last.load(Ordering::SeqCst))
            .ok()
            .filter(|&signal| signal != 0)
    }

    /// The last one that has come, once.
    pub fn take(&self) -> Option<i32> {
        let mut bytes = [0; 64];
        while (&self.told).read(&mut bytes).is_ok_and(|count| count > 0) {}
        let last = self.last.swap(0, Ordering::SeqCst);
        i32::try_from(last).ok().filter(|&signal| signal != 0)
    }
}

/// Readable once a signal has come.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

/// Whether a signal is ignored, by the contents of /proc/PID/status.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal.saturating_sub(1)).unwrap_or(u32::MAX);
    mask.unwrap_or(0)
        .checked_shr(bit)
        .is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found() {
        let status = "Name:\tsh\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }

    #[test]
    fn a_signal_is_told_once() {
        let signals = Signals::catch().unwrap();
        assert_eq!(signals.last(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(signals.last(), Some(SIGTERM));
        let mut fds = [rustix::event::PollFd::new(
            &signals,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(
            rustix::event::poll(&mut fds, Some(&Default::default())),
            Ok(1)
        );
        assert_eq!(signals.take(), Some(SIGTERM));
        assert_eq!(signals.take(), None);
        let mut fds = [rustix::event::PollFd::new(
            &signals,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(
            rustix::event::poll(&mut fds, Some(&Default::default())),
            Ok(0)
        );
    }
}
