// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An instance of this program that becomes COMMAND when it is told to.

use std::env::ArgsOs;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{getpid, getppid, set_parent_process_death_signal, Signal};

use crate::instance::{self, Instance};

/// The name by which it knows what to do.
pub(crate) const NAME: &str = "virtio-stop: held";

const GO: u8 = b'g';

/// Starts one that will execute `path`, with these words, the first of which is its name. When the
/// other end of the stream is closed, it ends; one byte makes it go. If the program can't be
/// executed then, it sends the error number.
pub(crate) fn start(path: &Path, words: &[OsString]) -> io::Result<Instance> {
    let parent = getpid().as_raw_nonzero().to_string().into();
    let first = [parent, path.into()];
    Instance::start(NAME, first.iter().chain(words))
}

/// Lets it go.
pub(crate) fn go(held: &Instance) -> io::Result<()> {
    let stream = held.stream();
    stream.map_or(Ok(()), |mut stream| stream.write_all(&[GO]))
}

/// After it has ended: why it could not become the program.
pub(crate) fn failure(held: &Instance) -> Option<io::Error> {
    let mut errno = [0; 4];
    held.stream()?.read_exact(&mut errno).ok()?;
    Some(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
}

/// In the other instance. Returns only if it does not become the program.
pub(crate) fn become_program(mut words: ArgsOs) -> io::Result<()> {
    let mut stream = instance::stream(&mut words)?;
    let (Some(parent), Some(path), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // It must neither go on nor stay when nobody holds the devices any more.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let is_alive = getppid().is_some_and(|pid| *pid.as_raw_nonzero().to_string() == *parent);
    if !is_alive {
        return Ok(());
    }
    let mut command = Command::new(path);
    command.arg0(name).args(words);
    instance::is_ready(&mut stream)?;
    let mut told = [0];
    if stream.read(&mut told)? == 0 {
        return Ok(());
    }
    // COMMAND may tidy up.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = command.exec();
    stream.write_all(&error.raw_os_error().unwrap_or_default().to_ne_bytes())
}
