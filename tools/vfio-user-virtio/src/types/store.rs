// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What disks keep their data in: a file, in sectors.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rustix::fs::{fallocate, FallocateFlags};
use serde::{Deserialize, Serialize};

use crate::buffers::{Guest, Reader, Writer};
use crate::types::RestoreError;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// Data is copied by way of a buffer of this size, whatever the size of the request.
const CHUNK: usize = 64 * 1024;
/// What the file system is asked to zero at once.
const STEP: u64 = 64 * 1024 * 1024;

/// Where in its file a [`Store`] is, in sectors but for the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    start: u64,
    sectors: u64,
    room: Option<u64>,
}

/// A file, or a part of one, in sectors of 512 bytes.
#[derive(Debug)]
pub struct Store {
    file: Arc<File>,
    start: u64,
    sectors: AtomicU64,
    /// How many sectors there are room for before the next part.
    room: Option<u64>,
}

impl Store {
    /// The file `path`, its size rounded down to whole sectors.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        Self::new(OpenOptions::new().read(true).write(!read_only).open(path)?)
    }

    /// A file that is open already.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            start: 0,
            sectors: AtomicU64::new(size(&file)? / SECTOR),
            file: Arc::new(file),
            room: None,
        })
    }

    /// Equal parts of it, one after the other, of whole sectors each.
    pub fn split(&self, parts: u16) -> Vec<Self> {
        let sectors = self.sectors() / u64::from(parts.max(1));
        let part = |number: u64| Self {
            file: Arc::clone(&self.file),
            start: self.start + number * sectors * SECTOR,
            sectors: AtomicU64::new(sectors),
            room: (number + 1 < u64::from(parts)).then_some(sectors),
        };
        (0..u64::from(parts)).map(part).collect()
    }

    /// What it is in.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Where in the file it is.
    pub fn save(&self) -> Place {
        Place {
            start: self.start,
            sectors: self.sectors(),
            room: self.room,
        }
    }

    /// From now on it is there. An error if the file has not as much.
    pub fn restore(&mut self, place: &Place) -> Result<(), RestoreError> {
        let end = place
            .sectors
            .checked_mul(SECTOR)
            .and_then(|bytes| bytes.checked_add(place.start));
        let size = size(&self.file).unwrap_or(0);
        if end.is_none_or(|end| end > size) {
            return Err(RestoreError::Fit("the file is too short"));
        }
        self.start = place.start;
        self.sectors = AtomicU64::new(place.sectors);
        self.room = place.room;
        Ok(())
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Relaxed)
    }

    /// Whether it can have that many sectors.
    pub fn can_have(&self, sectors: u64) -> bool {
        sectors > 0 && self.end(sectors).is_some()
    }

    /// Where it ends in the file, with that many sectors.
    fn end(&self, sectors: u64) -> Option<u64> {
        if self.room.is_some_and(|room| sectors > room) {
            return None;
        }
        sectors.checked_mul(SECTOR)?.checked_add(self.start)
    }

    /// Changes its size to that many sectors, and with it that of the file, unless another part comes after it. Returns whether it is
    /// another now.
    pub fn resize(&self, sectors: u64) -> io::Result<bool> {
        let end = self.end(sectors).ok_or(io::ErrorKind::InvalidInput)?;
        // What is cut off must be out of the driver's reach before it is gone.
        let before = self.sectors.swap(sectors, Ordering::Relaxed);
        if self.room.is_none() {
            if let Err(error) = self.file.set_len(end) {
                self.sectors.store(before, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(before != sectors)
    }

    /// Has what was written survive a power failure.
    pub fn flush(&self, guest: Guest<'_>) -> io::Result<()> {
        guest.away(|| self.file.sync_data())
    }

    /// Fills `output` with what is stored from `sector` on.
    pub fn read(&self, sector: u64, output: &mut Writer<'_>) -> io::Result<()> {
        let mut left = output.available_bytes();
        let mut offset = self.offset(sector, left as u64)?;
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            let file = || self.file.read_exact_at(chunk, offset);
            output.guest().away(file)?;
            output.write_all(chunk)?;
            offset += chunk.len() as u64;
            left -= chunk.len();
        }
        Ok(())
    }

    /// Stores all of `input` from `sector` on.
    pub fn write(&self, sector: u64, input: &mut Reader<'_>) -> io::Result<()> {
        let mut left = input.available_bytes();
        let mut offset = self.offset(sector, left as u64)?;
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            input.read_exact(chunk)?;
            input
                .guest()
                .away(|| self.file.write_all_at(chunk, offset))?;
            offset += chunk.len() as u64;
            left -= chunk.len();
        }
        Ok(())
    }

    /// Makes the `length` bytes at `offset`, as [`offset`](Self::offset) has given it, read as zeroes; with `unmap` their room is given
    /// back where the file system can do that. Leaves off when `guest` does not want it any more.
    pub fn zero(&self, offset: u64, length: u64, unmap: bool, guest: Guest<'_>) -> io::Result<()> {
        let flags = if unmap {
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE
        };
        let zeroes = vec![0; CHUNK];
        let mut by_file_system = true;
        let mut done = 0;
        while done < length {
            let at = offset + done;
            if by_file_system {
                let step = (length - done).min(STEP);
                let zeroed = guest.away(|| Ok(fallocate(&*self.file, flags, at, step).is_ok()));
                by_file_system = zeroed?;
                done += if by_file_system { step } else { 0 };
            } else {
                let step = (length - done).min(CHUNK as u64);
                let zeroes = zeroes.get(..step as usize).unwrap_or_default();
                guest.away(|| self.file.write_all_at(zeroes, at))?;
                done += step;
            }
        }
        Ok(())
    }

    /// The offset in the file at which `length` bytes from `sector` on lie, if they do.
    pub fn offset(&self, sector: u64, length: u64) -> io::Result<u64> {
        let end = sector.checked_add(length / SECTOR);
        if length % SECTOR != 0 || end.is_none_or(|end| end > self.sectors()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.start + sector * SECTOR)
    }
}

/// The size of a file or a block device, in bytes.
fn size(mut file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut file, io::SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Work;
    use crate::memory::Memory;

    #[test]
    fn nothing_is_zeroed_for_a_request_that_nobody_wants() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 1024]).unwrap();
        let store = Store::open(file.path(), false).unwrap();
        let (memory, work) = (Memory::default(), Work::default());
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        work.abandon();
        assert!(store.zero(0, 1024, true, guest).is_err());
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 1024]);
        let work = Work::default();
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        store.zero(512, 512, false, guest).unwrap();
        let expected = [[7; 512], [0; 512]].concat();
        assert_eq!(std::fs::read(file.path()).unwrap(), expected);
    }
}
