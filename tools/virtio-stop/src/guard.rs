// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An instance of this program that thaws what this one has frozen, should this one die: the kernel
//! resumes devices then, but thaws nothing.

use std::env::ArgsOs;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;

use rustix::process::setsid;

use crate::instance;
use crate::ioctl;

/// The name by which it knows what to do.
pub(crate) const NAME: &str = "virtio-stop: guard";

const FREEZE: u8 = b'f';
const THAWED: u8 = b't';

/// The other instance, as this one sees it.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    /// `None`: it is to end.
    stream: Option<UnixStream>,
}

impl Guard {
    /// For file systems that are frozen in this order, by where they are mounted.
    pub(crate) fn start<'a>(points: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let (child, stream) = instance::start(NAME, points)?;
        let stream = Some(stream);
        Ok(Self { child, stream })
    }

    /// The next one will be frozen. An error: the guard does not live any more.
    pub(crate) fn freezes(&self) -> io::Result<()> {
        self.tell(FREEZE)
    }

    /// The last one that was to be frozen is not, or not any more.
    pub(crate) fn has_thawed(&self) {
        // If it is dead, nobody guards anything.
        let _ = self.tell(THAWED);
    }

    fn tell(&self, what: u8) -> io::Result<()> {
        self.stream
            .as_ref()
            .map_or(Ok(()), |mut stream| stream.write_all(&[what]))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stream = None;
        // Nobody else would take its status.
        let _ = self.child.wait();
    }
}

/// In the other instance.
pub(crate) fn watch(mut words: ArgsOs) -> io::Result<()> {
    let mut stream = instance::stream(&mut words)?;
    // What ends this one's terminal, or all of a job, does not end it.
    setsid()?;
    let folders = words.map(File::open).collect::<io::Result<Vec<_>>>()?;
    instance::is_ready(&mut stream)?;
    let mut frozen: usize = 0;
    let mut told = [0];
    while stream.read(&mut told)? > 0 {
        frozen = match told {
            [FREEZE] => frozen.saturating_add(1),
            _ => frozen.saturating_sub(1),
        };
    }
    for folder in folders.iter().take(frozen).rev() {
        // The last one may not have been frozen yet.
        let _ = ioctl::thaw(folder);
    }
    Ok(())
}
