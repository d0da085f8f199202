// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! File systems that are frozen: what is written to them waits, and what was written is on the
//! disk.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{is_unsupported, Error, Result};
use crate::guard::Guard;
use crate::ioctl;
use crate::mounts::{Mount, Place};
use crate::thaws::Thaws;

/// File systems that can be frozen. Their folders are opened before, and need no look-up later. If
/// this process dies, what is frozen is thawed, unless all its children die with it.
#[derive(Debug)]
pub struct FileSystems {
    all: Vec<(PathBuf, Arc<File>)>,
    guard: Option<Guard>,
    thaws: Thaws,
}

impl FileSystems {
    /// Opens them where they are mounted.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; [`Error::Freeze`] if another one is mounted there now; [`Error::Guard`].
    pub fn open(mounts: &[Mount]) -> Result<Self> {
        let all = mounts.iter().map(open).collect::<Result<Vec<_>>>()?;
        let guard = match all.as_slice() {
            [] => None,
            all => {
                // What is mounted there may be another one by the time the guard looks.
                let same = all.iter().map(|(_, folder)| of_process(folder));
                let same = same.collect::<io::Result<Vec<_>>>();
                let guard = same.and_then(|same| Guard::start(same.iter().map(PathBuf::as_path)));
                Some(guard.map_err(Error::Guard)?)
            }
        };
        let folders = all.iter().map(|(_, folder)| Arc::clone(folder));
        let thaws = Thaws::ready(folders.map(|folder| move || ioctl::thaw(&folder)));
        Ok(Self {
            all,
            guard,
            thaws: thaws.map_err(Error::Owner)?,
        })
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
        let Some((point, folder)) = self.all.get(at) else {
            return Ok(());
        };
        let frozen = self.guard.as_ref().map_or(Ok(()), |guard| {
            guard.freezes(at)?;
            ioctl::freeze(folder).inspect_err(|_| guard.has_thawed(at))
        });
        frozen.map_err(|source| Error::Freeze {
            point: point.clone(),
            source,
        })
    }

    /// Shows that somebody else has frozen all of them. They must not be about to be frozen: who
    /// would freeze one meanwhile would fail. Returns where those are mounted that can't be frozen
    /// at all.
    ///
    /// # Errors
    ///
    /// [`Error::NotFrozen`]: one of them is not, and is not after this either; [`Error::Freeze`].
    pub fn are_frozen(&self) -> Result<Vec<&Path>> {
        let mut unfit = Vec::new();
        for (point, folder) in &self.all {
            // No guard: if this process is killed in between, the guard could not know whose freeze it
            // thaws, and the thaw of who has frozen the others thaws this one, too.
            match is_frozen(|| ioctl::freeze(folder), || ioctl::thaw(folder)) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Err(Error::NotFrozen(point.clone())),
                Ok(None) => unfit.push(point.as_path()),
                Err(source) => {
                    let point = point.clone();
                    return Err(Error::Freeze { point, source });
                }
            }
        }
        Ok(unfit)
    }

    /// Begins to thaw the one with this number.
    pub fn begin_thaw(&self, at: usize) {
        self.thaws.begin(at);
    }

    /// Waits until another one of those is thawed: each of them, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::Thaw`]: it is not frozen any more, or the disk has failed.
    pub fn thawed(&self) -> Result<()> {
        let Some((at, thawed)) = self.thaws.next() else {
            return Ok(());
        };
        if let Some(guard) = &self.guard {
            guard.has_thawed(at);
        }
        thawed.map_err(|source| Error::Thaw {
            point: self
                .all
                .get(at)
                .map_or_else(PathBuf::new, |(point, _)| point.clone()),
            source,
        })
    }
}

/// Nothing tells whether a file system is frozen but a freeze, which fails then. `None`: it can't
/// be.
fn is_frozen(
    freeze: impl FnOnce() -> io::Result<()>,
    thaw: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<bool>> {
    match freeze() {
        Ok(()) => match thaw() {
            // Somebody else thaws it at the same time.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Ok(Some(false)),
        },
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(Some(true)),
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folder where a file system is mounted, if it still is, and can be seen there.
fn open(mount: &Mount) -> Result<(PathBuf, Arc<File>)> {
    let point = mount.point.clone();
    let opened = File::open(&point).and_then(|folder| {
        let place = Place::of(&folder, Path::new(""))?;
        Ok((folder, place))
    });
    match opened {
        Ok((folder, place)) if place.is_in(mount) => Ok((point, Arc::new(folder))),
        Ok(_) => {
            let source = io::Error::other("another file system is mounted there, or hides it");
            Err(Error::Freeze { point, source })
        }
        Err(error) => Err(Error::file(point, error)),
    }
}

/// What another process can open the very same folder by.
fn of_process(folder: &File) -> io::Result<PathBuf> {
    // As /proc has it, which may be that of other process numbers.
    let process = Path::new("/proc").join(fs::read_link("/proc/self")?);
    Ok(process.join("fd").join(folder.as_raw_fd().to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use crate::device::System;
    use crate::mounts::{mount_of, mounts};

    use super::*;

    fn root() -> Mount {
        let all = mounts(&System::default()).unwrap();
        mount_of(&all, Path::new("/")).unwrap().clone()
    }

    #[test]
    fn only_what_is_still_mounted_is_frozen() {
        assert!(open(&root()).is_ok());
        let other = Mount {
            id: root().id + 1,
            ..root()
        };
        assert!(matches!(open(&other), Err(Error::Freeze { .. })));
    }

    #[test]
    fn what_can_be_frozen_was_not_and_is_not_afterwards() {
        let thaws = std::cell::Cell::new(0);
        let fails = |errno: rustix::io::Errno| move || Err(errno.into());
        let thaw = || {
            thaws.set(thaws.get() + 1);
            Ok(())
        };
        use rustix::io::Errno;
        assert_eq!(is_frozen(fails(Errno::BUSY), thaw).unwrap(), Some(true));
        assert_eq!(is_frozen(fails(Errno::OPNOTSUPP), thaw).unwrap(), None);
        is_frozen(fails(Errno::IO), thaw).unwrap_err();
        assert_eq!(thaws.get(), 0);
        assert_eq!(is_frozen(|| Ok(()), thaw).unwrap(), Some(false));
        assert_eq!(thaws.get(), 1);
        // Somebody else was faster.
        let thawed = is_frozen(|| Ok(()), fails(Errno::INVAL)).unwrap();
        assert_eq!(thawed, Some(false));
        is_frozen(|| Ok(()), fails(Errno::IO)).unwrap_err();
    }

    #[test]
    fn another_process_finds_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        fs::remove_dir(folder.path()).unwrap();
        let stat = Command::new("stat")
            .args(["-L", "-c", "%i"])
            .arg(of_process(&file).unwrap())
            .output()
            .unwrap();
        let inode = file.metadata().unwrap().ino();
        assert_eq!(
            String::from_utf8(stat.stdout).unwrap(),
            format!("{inode}\n")
        );
    }
}
