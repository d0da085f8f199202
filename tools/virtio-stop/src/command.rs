// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! COMMAND, which is started before anything stops, and told to go later.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::executable::{Executable, Mounts};
use crate::held;
use crate::instance::Instance;

/// A program that waits to be told to go. If it is dropped before, it has never run.
pub struct Command {
    instance: Instance,
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
        let instance = held::start(&executable.path, words);
        let instance = instance.map_err(|source| Error::Command {
            path: executable.path.clone(),
            source,
        })?;
        Ok(Self {
            instance,
            _executable: executable,
        })
    }

    /// Lets it go.
    ///
    /// # Errors
    ///
    /// It was killed before.
    pub fn go(&mut self) -> io::Result<()> {
        held::go(&self.instance)
    }

    /// Sends it a signal, of which it hears though it may be paused.
    pub fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.instance.signal(signal);
            self.instance.signal(Signal::CONT);
        }
    }

    /// How it has ended, once it has: the error is why it could not be executed.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.instance.wait()?;
        match held::failure(&self.instance) {
            Some(error) => Err(error),
            None => Ok(status),
        }
    }
}

/// Readable once it has ended.
impl AsFd for Command {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use crate::instance::tests::{in_time, shell, until_paused};

    use super::*;

    #[test]
    fn one_that_is_paused_hears_of_signals() {
        let status = in_time(|| {
            let (all, still) = (&[], &[]);
            let mut command = Command {
                instance: shell("printf r; kill -STOP $$; read line").unwrap(),
                _executable: Executable::find("sh".as_ref(), Mounts { all, still }).unwrap(),
            };
            until_paused(&command.instance);
            command.signal(Signal::TERM.as_raw());
            command.wait().unwrap()
        });
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    }
}
