// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other instances of this program: they are in memory before anything stops, and do a thing that
//! this one can't do itself. What to do, each knows from its name.

use std::env::ArgsOs;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{fcntl_setfd, Errno, FdFlags};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use crate::ioctl::inherited;
use crate::memory;
use crate::signals;
use crate::waiting::timespec;

const READY: u8 = b'r';

/// How long one that is paused stays so that has to go on.
const PAUSE: Duration = Duration::from_millis(100);

/// One that was started. When this is dropped, it has ended, paused or not: it ends when its stream
/// does.
#[derive(Debug)]
pub(crate) struct Instance {
    child: Child,
    pidfd: OwnedFd,
    /// `None`: it is to end.
    stream: Option<UnixStream>,
}

impl Instance {
    /// Starts one, with these words. Returns when it is ready. The other end of the stream is its
    /// own.
    pub(crate) fn start<W: AsRef<OsStr>>(
        name: &str,
        words: impl IntoIterator<Item = W>,
    ) -> io::Result<Self> {
        signals::keep_status_of_children()?;
        let (ours, theirs) = UnixStream::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name);
        command.arg(theirs.as_raw_fd().to_string()).args(words);
        let child = command.spawn()?;
        drop(theirs);
        Self::when_ready(child, ours)
    }

    pub(crate) fn when_ready(child: Child, stream: UnixStream) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let stream = Some(stream);
        let mut this = Self {
            child,
            pidfd,
            stream,
        };
        while !is_readable(this.stream.as_ref())? {
            this.signal(Signal::CONT);
        }
        let mut answer = [0];
        if let Some(stream) = &mut this.stream {
            stream.read_exact(&mut answer)?;
        }
        Ok(this)
    }

    /// This end of its stream.
    pub(crate) fn stream(&self) -> Option<&UnixStream> {
        self.stream.as_ref()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has ended, however long that takes.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

/// Readable once it has ended.
impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stream = None;
        // Nobody else would take its status. It may be paused at any time.
        while matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::CONT);
            let _ = is_readable(Some(&self.pidfd));
        }
    }
}

/// Within [`PAUSE`].
fn is_readable(fd: Option<&impl AsFd>) -> io::Result<bool> {
    let Some(fd) = fd else { return Ok(true) };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&timespec(PAUSE))) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// In the other instance: the stream, whose number is the first word.
pub(crate) fn stream(words: &mut ArgsOs) -> io::Result<UnixStream> {
    let fd = words
        .next()
        .and_then(|word| word.to_str()?.parse::<RawFd>().ok());
    let fd = fd.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(inherited(fd)?.into())
}

/// In the other instance: it has opened all that it needs, and stays in memory.
pub(crate) fn is_ready(stream: &mut UnixStream) -> io::Result<()> {
    memory::lock().map_err(io::Error::other)?;
    stream.write_all(&[READY])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;
    use std::process::Stdio;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A shell whose standard input and output are the stream.
    pub(crate) fn shell(script: &str) -> io::Result<Instance> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Instance::when_ready(child, ours)
    }

    /// Whatever happens, the test ends.
    pub(crate) fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = channel();
        thread::spawn(move || done.send(what()));
        is_done.recv_timeout(LONG).unwrap()
    }

    #[test]
    fn one_that_is_paused_before_it_is_ready_goes_on() {
        in_time(|| shell("kill -STOP $$; printf r; read line").map(drop)).unwrap();
    }

    #[test]
    fn one_that_does_not_become_ready_is_an_error() {
        in_time(|| shell("exit 1").map(drop)).unwrap_err();
    }

    #[test]
    fn one_that_is_paused_ends_when_it_has_to() {
        in_time(|| {
            let instance = shell("printf r; kill -STOP $$; read line").unwrap();
            until_paused(&instance);
            drop(instance);
        });
    }

    pub(crate) fn until_paused(instance: &Instance) {
        let stat = format!("/proc/{}/stat", instance.child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            thread::yield_now();
        }
    }
}
