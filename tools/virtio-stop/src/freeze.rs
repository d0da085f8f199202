// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! File systems that are frozen: what is written to them waits, and what was written is on the
//! disk.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::ioctl;
use crate::mounts::Mount;

/// File systems that can be frozen. Their folders are opened before, and need no look-up later. If
/// this process dies, what is frozen is thawed, unless all its children die with it.
#[derive(Debug)]
pub struct FileSystems {
    all: Vec<(PathBuf, File)>,
    guard: Option<Guard>,
}

impl FileSystems {
    /// Opens them where they are mounted.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; [`Error::Guard`].
    pub fn open(mounts: &[Mount]) -> Result<Self> {
        let open = |mount: &Mount| {
            let point = mount.point.clone();
            match File::open(&point) {
                Ok(folder) => Ok((point, folder)),
                Err(error) => Err(Error::file(point, error)),
            }
        };
        let all = mounts.iter().map(open).collect::<Result<Vec<_>>>()?;
        let guard = match all.as_slice() {
            [] => None,
            all => {
                let points = all.iter().map(|(point, _)| point.as_path());
                Some(Guard::start(points).map_err(Error::Guard)?)
            }
        };
        Ok(Self { all, guard })
    }

    /// Readable once nothing would thaw what is frozen, should this process die.
    pub(crate) fn guard(&self) -> Option<BorrowedFd<'_>> {
        self.guard.as_ref().and_then(Guard::death)
    }

    /// This process goes on. If that is not said again within `patience`, what is frozen is thawed.
    pub(crate) fn is_alive(&self, patience: Duration) {
        if let Some(guard) = &self.guard {
            guard.hears(patience);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Freezes the one with this number: the first one first, one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Freeze`]: it can't be, or is frozen already.
    pub fn freeze(&self, at: usize) -> Result<()> {
        self.ask(at, |folder| {
            self.guard.as_ref().map_or(Ok(()), Guard::freezes)?;
            ioctl::freeze(folder).inspect_err(|_| self.has_thawed())
        })
        .map_err(|(point, source)| Error::Freeze { point, source })
    }

    /// Thaws the one with this number, the last one that was frozen.
    ///
    /// # Errors
    ///
    /// [`Error::Thaw`]: it is not frozen any more, or the disk has failed.
    pub fn thaw(&self, at: usize) -> Result<()> {
        let thawed = self.ask(at, |folder| ioctl::thaw(folder));
        self.has_thawed();
        thawed.map_err(|(point, source)| Error::Thaw { point, source })
    }

    fn ask(
        &self,
        at: usize,
        ask: impl FnOnce(&File) -> io::Result<()>,
    ) -> std::result::Result<(), (PathBuf, io::Error)> {
        let Some((point, folder)) = self.all.get(at) else {
            return Ok(());
        };
        ask(folder).map_err(|error| (point.clone(), error))
    }

    fn has_thawed(&self) {
        if let Some(guard) = &self.guard {
            guard.has_thawed();
        }
    }
}
