// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An instance of this program that thaws what this one has frozen, should this one die: the kernel
//! resumes devices then, but thaws nothing.

use std::env::ArgsOs;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::setsid;
use signal_hook::consts::{
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};
use signal_hook::flag;

use crate::instance::{self, Instance};
use crate::ioctl;

/// The name by which it knows what to do.
pub(crate) const NAME: &str = "virtio-stop: guard";

const FREEZE: u8 = b'f';
const THAWED: u8 = b't';
/// And within how many milliseconds there will be more, in four bytes.
const ALIVE: u8 = b'a';

/// The other instance, as this one sees it.
#[derive(Debug)]
pub(crate) struct Guard(Instance);

impl Guard {
    /// For file systems that are frozen in this order, by where they are mounted.
    pub(crate) fn start<'a>(points: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let instance = Instance::start(NAME, points)?;
        if let Some(stream) = instance.stream() {
            // Should it be paused, this one goes on.
            stream.set_nonblocking(true)?;
        }
        Ok(Self(instance))
    }

    /// The next one will be frozen. An error: the guard does not live any more.
    pub(crate) fn freezes(&self) -> io::Result<()> {
        self.tell(&[FREEZE])
    }

    /// The last one that was to be frozen is not, or not any more.
    pub(crate) fn has_thawed(&self) {
        // If it is dead, nobody guards anything.
        let _ = self.tell(&[THAWED]);
    }

    /// It hears of this one again within that time, or thaws what is frozen.
    pub(crate) fn hears(&self, patience: Duration) {
        let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let [a, b, c, d] = milliseconds.to_ne_bytes();
        // If it is dead, that is seen elsewhere.
        let _ = self.tell(&[ALIVE, a, b, c, d]);
    }

    /// Readable once it is dead: it says nothing else.
    pub(crate) fn death(&self) -> Option<BorrowedFd<'_>> {
        self.0.stream().map(AsFd::as_fd)
    }

    fn tell(&self, what: &[u8]) -> io::Result<()> {
        let stream = self.0.stream();
        stream.map_or(Ok(()), |mut stream| stream.write_all(what))
    }
}

/// In the other instance.
pub(crate) fn watch(mut words: ArgsOs) -> io::Result<()> {
    let mut stream = instance::stream(&mut words)?;
    // What ends this one's terminal, or all of a job, does not end it.
    setsid()?;
    let folders = words.map(File::open).collect::<io::Result<Vec<_>>>()?;
    live_on()?;
    instance::is_ready(&mut stream)?;
    let frozen = frozen_at_end(&mut stream);
    for folder in folders.iter().take(frozen).rev() {
        // The last one may not have been frozen yet.
        let _ = ioctl::thaw(folder);
    }
    Ok(())
}

/// What asks all processes of a service to end, or to pause, does not concern this one: it ends
/// when the other one does.
fn live_on() -> io::Result<()> {
    for signal in [
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU,
    ] {
        // Nobody looks at what it sets.
        flag::register(signal, Arc::default())?;
    }
    // What a kernel that runs out of memory kills is not this, which needs next to none. Where that
    // is not allowed, it guards nevertheless.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    Ok(())
}

/// How many are frozen when the other instance ends, however that is seen, or does not go on.
fn frozen_at_end(stream: &mut UnixStream) -> usize {
    let mut frozen: usize = 0;
    let mut told = [0];
    while stream.read_exact(&mut told).is_ok() {
        frozen = match told {
            [FREEZE] => frozen.saturating_add(1),
            [THAWED] => frozen.saturating_sub(1),
            _ if expect(stream).is_ok() => frozen,
            _ => break,
        };
    }
    frozen
}

/// Reads within which time there will be more.
fn expect(stream: &mut UnixStream) -> io::Result<()> {
    let mut milliseconds = [0; 4];
    stream.read_exact(&mut milliseconds)?;
    let patience = u32::from_ne_bytes(milliseconds).max(1);
    stream.set_read_timeout(Some(Duration::from_millis(patience.into())))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_frozen_at_the_end_is_counted() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[FREEZE, FREEZE, THAWED, FREEZE]).unwrap();
        drop(theirs);
        assert_eq!(frozen_at_end(&mut ours), 2);
    }

    #[test]
    fn an_error_is_the_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&[FREEZE]).unwrap();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(frozen_at_end(&mut ours), 1);
    }

    #[test]
    fn who_is_not_heard_of_does_not_go_on() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let [a, b, c, d] = 20_u32.to_ne_bytes();
        let told = [FREEZE, FREEZE, ALIVE, a, b, c, d, THAWED];
        (&theirs).write_all(&told).unwrap();
        let begin = Instant::now();
        assert_eq!(frozen_at_end(&mut ours), 1);
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_signal_does_not_end_it() {
        live_on().unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        signal_hook::low_level::raise(SIGTSTP).unwrap();
    }
}
