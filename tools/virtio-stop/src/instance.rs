// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other instances of this program: they are in memory before anything stops, and do a thing that
//! this one can't do itself. What to do, each knows from its name.

use std::env::ArgsOs;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::{fcntl_setfd, FdFlags};

use crate::ioctl::inherited;
use crate::memory;
use crate::signals;

const READY: u8 = b'r';

/// Starts one, with these words. Returns when it is ready. The other end of the stream is its own.
pub(crate) fn start<W: AsRef<OsStr>>(
    name: &str,
    words: impl IntoIterator<Item = W>,
) -> io::Result<(Child, UnixStream)> {
    signals::keep_status_of_children()?;
    let (mut ours, theirs) = UnixStream::pair()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name);
    command.arg(theirs.as_raw_fd().to_string()).args(words);
    let mut child = command.spawn()?;
    drop(theirs);
    let mut answer = [0];
    match ours.read_exact(&mut answer) {
        Ok(()) => Ok((child, ours)),
        Err(error) => {
            drop(ours);
            child.wait()?;
            Err(error)
        }
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
