// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The signals that ask a process to end, and those that would keep it from what it has begun.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::ioctl::ignore;

/// Catches SIGHUP, SIGINT, SIGQUIT and SIGTERM from now on, but those that are ignored, for example
/// by nohup(1).
#[derive(Debug)]
pub struct Signals {
    /// Each, and whether it has come.
    caught: Vec<(i32, Arc<AtomicBool>)>,
    told: UnixStream,
    /// Without it `told` would end if none is caught.
    _tell: UnixStream,
}

impl Signals {
    /// Begins.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn catch() -> io::Result<Self> {
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        let mut caught = Vec::new();
        let status = status();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if !is_ignored(&status, signal) {
                let has_come = Arc::new(AtomicBool::new(false));
                // In this order: who is told finds which one it was.
                flag::register(signal, Arc::clone(&has_come))?;
                pipe::register(signal, tell.try_clone()?)?;
                caught.push((signal, has_come));
            }
        }
        Ok(Self {
            caught,
            told,
            _tell: tell,
        })
    }

    /// One that has come, and was not taken; if there are several, any.
    pub fn last(&self) -> Option<i32> {
        let mut caught = self.caught.iter();
        let found = caught.find(|(_, has_come)| has_come.load(Ordering::SeqCst));
        found.map(|(signal, _)| *signal)
    }

    /// One that has come, once. There may be more.
    pub fn take(&self) -> Option<i32> {
        let mut bytes = [0; 64];
        while (&self.told).read(&mut bytes).is_ok_and(|count| count > 0) {}
        let mut caught = self.caught.iter();
        let found = caught.find(|(_, has_come)| has_come.swap(false, Ordering::SeqCst));
        found.map(|(signal, _)| *signal)
    }
}

/// SIGTSTP does not pause this process from now on: what it has frozen would wait longer than what
/// it has stopped. It pauses programs that are started later.
///
/// # Errors
///
/// What the kernel says.
pub fn outlast_suspend_key() -> io::Result<()> {
    if !is_ignored(&status(), SIGTSTP) {
        // Other programs do not inherit a handler, but would inherit that it is ignored. Nobody
        // looks at what it sets.
        flag::register(SIGTSTP, Arc::default())?;
    }
    Ok(())
}

/// This process, and programs that are started later, are not paused from now on if they use the
/// terminal from the background: they can write, and if they read, that fails.
pub fn ignore_background() {
    // Not with a handler: the kernel would call it again and again.
    ignore(SIGTTIN);
    ignore(SIGTTOU);
}

/// The kernel keeps how children have ended, though whoever has executed this program ignores
/// SIGCHLD.
pub(crate) fn keep_status_of_children() -> io::Result<()> {
    if is_ignored(&status(), SIGCHLD) {
        flag::register(SIGCHLD, Arc::default())?;
    }
    Ok(())
}

fn status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
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
        // Each of several, and once: none hides another one.
        for signal in [SIGQUIT, SIGHUP, SIGQUIT] {
            signal_hook::low_level::raise(signal).unwrap();
        }
        assert_eq!(signals.take(), Some(SIGHUP));
        assert_eq!(signals.take(), Some(SIGQUIT));
        assert_eq!(signals.take(), None);
    }

    #[test]
    fn a_child_whose_signal_is_ignored_leaves_its_status() {
        ignore(SIGCHLD);
        keep_status_of_children().unwrap();
        let status = std::process::Command::new("true").status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn neither_the_suspend_key_nor_the_terminal_pauses() {
        outlast_suspend_key().unwrap();
        signal_hook::low_level::raise(SIGTSTP).unwrap();
        ignore_background();
        let status = status();
        assert!(is_ignored(&status, SIGTTIN) && is_ignored(&status, SIGTTOU));
    }
}
