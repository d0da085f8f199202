// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! COMMAND, which is started before anything stops, and told to go later.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};

use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use crate::error::{Error, Result};
use crate::executable::{Executable, Mounts};
use crate::held;

/// A program that waits to be told to go. If it is dropped before, it has never run.
pub struct Command {
    child: Child,
    pidfd: OwnedFd,
    /// `None`: it is to end.
    stream: Option<UnixStream>,
    /// Kept open, and in memory, for as long as it may be executed.
    _executable: Executable,
}

impl Command {
    /// Starts it. `words` are its name and its arguments. Its first look at a file is after it was
    /// told to go; what it opens then is its own matter.
    ///
    /// # Errors
    ///
    /// [`Error::CommandNotFound`], [`Error::Command`]; [`Error::CommandStands`] if it would need
    /// what stands still.
    pub fn start(words: &[OsString], mounts: Mounts<'_>) -> Result<Self> {
        let name = words.first().cloned().unwrap_or_default();
        let executable = Executable::find(&name, mounts)?;
        let failed = |source| Error::Command {
            path: executable.path.clone(),
            source,
        };
        let (child, stream) = held::start(&executable.path, words).map_err(failed)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.ok_or_else(|| io::ErrorKind::NotFound.into());
        let pidfd = pidfd.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        Ok(Self {
            child,
            pidfd: pidfd.map_err(failed)?,
            stream: Some(stream),
            _executable: executable,
        })
    }

    /// Lets it go.
    ///
    /// # Errors
    ///
    /// It was killed before.
    pub fn go(&mut self) -> io::Result<()> {
        self.stream.as_mut().map_or(Ok(()), held::go)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            // It may have ended.
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// How it has ended, once it has: the error is why it could not be executed.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        match self.stream.as_mut().and_then(held::failure) {
            Some(error) => Err(error),
            None => Ok(status),
        }
    }
}

/// Readable once it has ended.
impl AsFd for Command {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.stream = None;
        // Nobody else would take its status.
        let _ = self.child.wait();
    }
}
