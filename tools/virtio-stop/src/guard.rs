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
use std::thread;
use std::time::Duration;

use rustix::process::setsid;
use signal_hook::consts::{
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};
use signal_hook::flag;

use crate::instance::{self, Instance};
use crate::ioctl;
use crate::memory::STACK;

/// The name by which it knows what to do.
pub(crate) const NAME: &str = "virtio-stop: guard";

/// What it is told, each with a number in four bytes: which one, or within how many milliseconds
/// there will be more.
const FREEZE: u8 = b'f';
const THAWED: u8 = b't';
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

    /// This one will be frozen. An error: the guard does not live any more.
    pub(crate) fn freezes(&self, at: usize) -> io::Result<()> {
        self.tell(FREEZE, at as u128)
    }

    /// This one is not frozen, or not any more.
    pub(crate) fn has_thawed(&self, at: usize) {
        // If it is dead, nobody guards anything.
        let _ = self.tell(THAWED, at as u128);
    }

    /// It hears of this one again within that time, or thaws what is frozen.
    pub(crate) fn hears(&self, patience: Duration) {
        // If it is dead, that is seen elsewhere.
        let _ = self.tell(ALIVE, patience.as_millis());
    }

    /// Readable once it is dead: it says nothing else.
    pub(crate) fn death(&self) -> Option<BorrowedFd<'_>> {
        self.0.stream().map(AsFd::as_fd)
    }

    fn tell(&self, what: u8, number: u128) -> io::Result<()> {
        let told = message(what, u32::try_from(number).unwrap_or(u32::MAX));
        let stream = self.0.stream();
        stream.map_or(Ok(()), |mut stream| stream.write_all(&told))
    }
}

fn message(what: u8, number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_ne_bytes();
    [what, a, b, c, d]
}

/// In the other instance.
pub(crate) fn watch(mut words: ArgsOs) -> io::Result<()> {
    let mut stream = instance::stream(&mut words)?;
    // What ends this one's terminal, or all of a job, does not end it.
    setsid()?;
    let folders = words.map(File::open).collect::<io::Result<Vec<_>>>()?;
    live_on()?;
    instance::is_ready(&mut stream)?;
    let mut frozen = vec![false; folders.len()];
    look_until_end(&mut stream, &mut frozen);
    let frozen = folders.iter().zip(frozen).rev();
    let frozen = frozen.filter_map(|(folder, is_frozen)| is_frozen.then_some(folder));
    thread::scope(|scope| {
        for folder in frozen {
            // The last one may not have been frozen yet.
            let thaw = move || ioctl::thaw(folder);
            // One whose disk does not answer keeps no other one frozen, if there is the memory.
            let thread = thread::Builder::new().stack_size(STACK);
            if thread.spawn_scoped(scope, thaw).is_err() {
                let _ = thaw();
            }
        }
    });
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

/// Which ones are frozen when the other instance ends, however that is seen, or does not go on.
fn look_until_end(stream: &mut UnixStream, frozen: &mut [bool]) {
    let mut told = [0; 5];
    while stream.read_exact(&mut told).is_ok() {
        let [what, a, b, c, d] = told;
        let number = u32::from_ne_bytes([a, b, c, d]);
        match what {
            ALIVE => {
                let patience = Duration::from_millis(number.max(1).into());
                if stream.set_read_timeout(Some(patience)).is_err() {
                    return;
                }
            }
            what => {
                if let Some(is_frozen) = frozen.get_mut(number as usize) {
                    *is_frozen = what == FREEZE;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn frozen_at_end(stream: &mut UnixStream) -> Vec<bool> {
        let mut frozen = vec![false; 3];
        look_until_end(stream, &mut frozen);
        frozen
    }

    #[test]
    fn what_is_frozen_at_the_end_is_known() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        for (what, at) in [
            (FREEZE, 0),
            (FREEZE, 1),
            (FREEZE, 2),
            (THAWED, 1),
            (FREEZE, 417),
        ] {
            (&theirs).write_all(&message(what, at)).unwrap();
        }
        drop(theirs);
        assert_eq!(frozen_at_end(&mut ours), [true, false, true]);
    }

    #[test]
    fn an_error_is_the_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&message(FREEZE, 0)).unwrap();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(frozen_at_end(&mut ours), [true, false, false]);
    }

    #[test]
    fn who_is_not_heard_of_does_not_go_on() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        for (what, number) in [(FREEZE, 0), (FREEZE, 1), (ALIVE, 20), (THAWED, 1)] {
            (&theirs).write_all(&message(what, number)).unwrap();
        }
        let begin = Instant::now();
        assert_eq!(frozen_at_end(&mut ours), [true, false, false]);
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_signal_does_not_end_it() {
        live_on().unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        signal_hook::low_level::raise(SIGTSTP).unwrap();
    }
}
