// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory, as far as the client, and the driver, let the device reach it.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{fcntl_get_seals, fstatfs, SealFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionCollectionError, GuestRegionMmap,
};

/// The most maps at a time. Each holds a file descriptor. QEMU makes one for each part of the guest's memory that differs from its
/// neighbours: about ten of a PC with one memory backend, and one more for each memory module that is plugged in.
pub const MAX_MAPS: usize = 128;

/// The most memory of a device, so that there are addresses left in this process for the others.
const MAX_SIZE: u64 = 1 << 40;

/// Maps begin and end at borders of such pages.
pub const PAGE_SIZE: u64 = 4096;

/// HUGETLBFS_MAGIC of <linux/magic.h>.
const HUGETLBFS_MAGIC: i64 = 0x958458f6;

/// Why something can't be mapped, or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An access could kill this process (SIGBUS), when the client cuts the file short, or when there is no huge page left.
    #[error("the file is no memfd of ordinary pages that is sealed against shrinking")]
    Unsafe,
    /// Address, size and offset have to be multiples of the page size, and the size more than 0.
    #[error("these are no pages")]
    Pages,
    /// Beyond the end of the file or of the address space.
    #[error("beyond the end")]
    Beyond,
    /// Something is mapped there.
    #[error("something is mapped there")]
    Exists,
    /// More maps than [`MAX_MAPS`], or more than 1 TiB in all.
    #[error("too many maps, or too large ones")]
    TooMany,
    /// An unmap of a part of a map.
    #[error("a part of a map")]
    Part,
    /// mmap(2) fails.
    #[error("can't map: {0}")]
    Map(Errno),
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        match error {
            Error::Unsafe => Self::PERM,
            Error::Pages | Error::Beyond | Error::Part => Self::INVAL,
            Error::Exists => Self::EXIST,
            Error::TooMany => Self::NOSPC,
            Error::Map(errno) => errno,
        }
    }
}

/// What is mapped where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// The guest's address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// The memory that is mapped now. Whoever accesses it holds [`Memory::lock`], so that an unmap waits for the access to end. The device
/// reaches it while it is a bus master, which it is not at first.
#[derive(Debug, Default)]
pub struct Memory(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    all: Arc<GuestMemoryMmap>,
    none: GuestMemoryMmap,
    bus_master: bool,
}

/// What the device can reach, for as long as this lives: all that is mapped, or nothing.
#[derive(Debug)]
pub struct Reachable<'a>(RwLockReadGuard<'a, Maps>);

impl Deref for Reachable<'_> {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &GuestMemoryMmap {
        match self.0.bus_master {
            true => &self.0.all,
            false => &self.0.none,
        }
    }
}

impl Reachable<'_> {
    /// Whether what is missing is missing although the device is a bus master.
    pub fn is_bus_master(&self) -> bool {
        self.0.bus_master
    }
}

/// What is mapped, for an observer from outside, such as a debugger is: whether the device could reach it makes no difference, and nothing
/// can be written.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a>(&'a GuestMemoryMmap);

impl<'a> Observed<'a> {
    /// A view of `memory`.
    pub fn new(memory: &'a GuestMemoryMmap) -> Self {
        Self(memory)
    }

    /// The little-endian word at `address`. What was written before it can be seen then. None: it is not there, or not aligned.
    pub fn load(&self, address: GuestAddress) -> Option<u16> {
        let word = self.0.load(address, Ordering::Acquire);
        word.ok().map(u16::from_le)
    }
}

impl Memory {
    /// Has an observer look. An unmap waits for it.
    pub fn observe<T>(&self, look: impl FnOnce(Observed<'_>) -> T) -> T {
        look(Observed::new(&self.read().all))
    }

    /// What the device can reach.
    pub fn lock(&self) -> Reachable<'_> {
        Reachable(self.read())
    }

    fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Maps> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the device reach the memory, or no more (PCI, Bus Master Enable). When it returns, nothing goes on that is not allowed.
    pub fn set_bus_master(&self, enabled: bool) {
        self.write().bus_master = enabled;
    }

    /// How many maps there are.
    pub fn maps(&self) -> usize {
        self.read().all.num_regions()
    }

    /// All that is mapped, whether or not the device may reach it now.
    pub fn all(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.read().all)
    }

    /// Maps `size` bytes of `file` from `offset` on at the guest address `address`.
    pub fn map(&self, address: u64, size: u64, offset: u64, file: File) -> Result<(), Error> {
        pages(address, size)?;
        pages(offset, size)?;
        if !is_safe(&file) {
            return Err(Error::Unsafe);
        }
        // The file can't become shorter any more.
        let length = file.metadata().map_or(0, |meta| meta.len());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(Error::Beyond);
        }
        let mut maps = self.write();
        let memory = &mut maps.all;
        let there: u64 = memory.iter().map(|region| region.len()).sum();
        if memory.num_regions() >= MAX_MAPS || size > MAX_SIZE - there {
            return Err(Error::TooMany);
        }
        let mmap = GuestRegionMmap::from_range(
            GuestAddress(address),
            usize::try_from(size).map_err(|_| Error::Beyond)?,
            Some(FileOffset::new(file, offset)),
        )
        .map_err(|error| match error {
            FromRangesError::MmapRegion(MmapRegionError::Mmap(error)) => {
                Error::Map(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
            }
            _ => Error::Beyond,
        })?;
        let mapped = memory.insert_region(Arc::new(mmap));
        *memory = Arc::new(mapped.map_err(|error| match error {
            GuestRegionCollectionError::MemoryRegionOverlap => Error::Exists,
            _ => Error::Beyond,
        })?);
        Ok(())
    }

    /// Takes away all maps within `size` bytes from `address` on. When it returns nobody accesses them any more.
    pub fn unmap(&self, address: u64, size: u64) -> Result<(), Error> {
        pages(address, size)?;
        let end = address.checked_add(size).ok_or(Error::Beyond)?;
        let mut maps = self.write();
        let memory = &mut maps.all;
        let reached: Vec<_> = memory
            .iter()
            .map(|region| (region.start_addr(), region.len()))
            .filter(|(start, length)| start.0 < end && address < start.0 + length)
            .collect();
        if reached
            .iter()
            .any(|(start, length)| start.0 < address || end < start.0 + length)
        {
            return Err(Error::Part);
        }
        for (start, length) in reached {
            if let Ok((rest, _)) = memory.remove_region(start, length) {
                *memory = Arc::new(rest);
            }
        }
        Ok(())
    }

    /// Takes away everything.
    pub fn clear(&self) {
        self.write().all = Arc::default();
    }
}

/// What is mapped there, with the files.
pub fn files(memory: &GuestMemoryMmap) -> Vec<(Map, BorrowedFd<'_>)> {
    let files = memory.iter().filter_map(|region| {
        let file = region.file_offset()?;
        let map = Map {
            address: region.start_addr().0,
            size: region.len(),
            offset: file.start(),
        };
        Some((map, file.file().as_fd()))
    });
    files.collect()
}

fn pages(start: u64, size: u64) -> Result<(), Error> {
    let whole = start % PAGE_SIZE == 0 && size % PAGE_SIZE == 0 && size > 0;
    whole.then_some(()).ok_or(Error::Pages)
}

/// Whether an access to the file can't kill this process, whatever the client does to it later.
fn is_safe(file: &File) -> bool {
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    sealed && fstatfs(file).is_ok_and(|of| of.f_type != HUGETLBFS_MAGIC)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags};

    fn unsealed(size: u64) -> File {
        let file = File::from(memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap());
        file.set_len(size).unwrap();
        file
    }

    /// A file that can be mapped.
    pub(crate) fn file(size: u64) -> File {
        let file = unsealed(size);
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        file
    }

    /// Memory that the device reaches as soon as it is mapped.
    pub(crate) fn reachable() -> Memory {
        let memory = Memory::default();
        memory.set_bus_master(true);
        memory
    }

    fn is_reached(memory: &Memory, address: u64) -> bool {
        memory.lock().read_obj::<u32>(GuestAddress(address)).is_ok()
    }

    #[test]
    fn mapped_memory_is_reached_and_unmapped_memory_is_not() {
        let memory = reachable();
        memory.map(0x1_0000, 0x2000, 0x1000, file(0x3000)).unwrap();
        memory.map(0x8_0000, 0x1000, 0, file(0x1000)).unwrap();
        memory
            .lock()
            .write_obj(42u32, GuestAddress(0x1_1ffc))
            .unwrap();
        assert!(!is_reached(&memory, 0x1_1ffd));
        memory.unmap(0, 0x2_0000).unwrap();
        assert!(!is_reached(&memory, 0x1_0000));
        assert!(is_reached(&memory, 0x8_0000));
        memory.clear();
        assert!(!is_reached(&memory, 0x8_0000));
    }

    #[test]
    fn only_a_bus_master_reaches_memory() {
        let memory = Memory::default();
        memory.map(0, 0x1000, 0, file(0x1000)).unwrap();
        for enabled in [false, true, false] {
            memory.set_bus_master(enabled);
            assert_eq!(memory.lock().is_bus_master(), enabled);
            assert_eq!(is_reached(&memory, 0), enabled);
            assert_eq!((memory.maps(), files(&memory.all()).len()), (1, 1));
            let observed = |at| memory.observe(|memory| memory.load(GuestAddress(at)));
            assert_eq!(
                (observed(0), observed(1), observed(0x1000)),
                (Some(0), None, None)
            );
        }
        memory.unmap(0, 0x1000).unwrap();
        assert_eq!(memory.maps(), 0);
    }

    #[test]
    fn maps_are_taken_away_whole() {
        let memory = reachable();
        memory.map(0x1000, 0x2000, 0, file(0x2000)).unwrap();
        memory.map(0x3000, 0x2000, 0, file(0x2000)).unwrap();
        for (address, size) in [
            (0x1000, 0x1000),
            (0x2000, 0x1000),
            (0, 0x2000),
            (0x2000, 0x3000),
            (0x1000, 0x3000),
        ] {
            assert_eq!(memory.unmap(address, size), Err(Error::Part));
            assert!(is_reached(&memory, 0x1000) && is_reached(&memory, 0x3000));
        }
        assert_eq!(memory.unmap(0x1000, 0x800), Err(Error::Pages));
        assert_eq!(
            memory.unmap(0x1000, u64::MAX & !(PAGE_SIZE - 1)),
            Err(Error::Beyond)
        );
        memory.unmap(0x10_0000, 0x1000).unwrap();
        memory.unmap(0x1000, 0x4000).unwrap();
        assert!(!is_reached(&memory, 0x1000) && !is_reached(&memory, 0x3000));
    }

    #[test]
    fn bad_maps_are_refused() {
        let memory = Memory::default();
        let map = |address, size, offset, file| memory.map(address, size, offset, file);
        assert_eq!(map(0, 0x2000, 0, file(0x1000)), Err(Error::Beyond));
        assert_eq!(map(0, 0x1000, 0x1000, file(0x1000)), Err(Error::Beyond));
        let last = u64::MAX - 0xfff;
        assert_eq!(map(last, 0x2000, 0, file(0x2000)), Err(Error::Beyond));
        assert_eq!(map(0, 0x1000, last, file(0x2000)), Err(Error::Beyond));
        assert_eq!(map(0, 0, 0, file(0x1000)), Err(Error::Pages));
        assert_eq!(map(0, 1, 0, file(0x1000)), Err(Error::Pages));
        assert_eq!(map(0x800, 0x1000, 0, file(0x1000)), Err(Error::Pages));
        assert_eq!(map(0, 0x1000, 0x800, file(0x2000)), Err(Error::Pages));
        map(0x1000, 0x2000, 0, file(0x2000)).unwrap();
        assert_eq!(map(0x2000, 0x1000, 0, file(0x1000)), Err(Error::Exists));
        let sealed = file(0x1000);
        fcntl_add_seals(&sealed, SealFlags::FUTURE_WRITE).unwrap();
        assert_eq!(map(0, 0x1000, 0, sealed), Err(Error::Map(Errno::PERM)));
    }

    #[test]
    fn files_that_can_be_cut_short_are_not_mapped() {
        let memory = reachable();
        let regular = tempfile::tempfile().unwrap();
        regular.set_len(0x1000).unwrap();
        for file in [unsealed(0x1000), regular] {
            assert_eq!(memory.map(0, 0x1000, 0, file), Err(Error::Unsafe));
        }
        assert!(!is_reached(&memory, 0));
    }

    #[test]
    fn there_is_a_limit_of_maps() {
        let memory = Memory::default();
        let file = file(0x1000);
        let map = |address| memory.map(address, 0x1000, 0, file.try_clone().unwrap());
        for index in 0..MAX_MAPS as u64 {
            map(index * PAGE_SIZE).unwrap();
        }
        let next = MAX_MAPS as u64 * PAGE_SIZE;
        assert_eq!(map(next), Err(Error::TooMany));
        memory.unmap(0, PAGE_SIZE).unwrap();
        map(next).unwrap();
        memory.clear();
        // Neither is there.
        let file = self::file(MAX_SIZE + PAGE_SIZE);
        let map = |size| memory.map(0, size, 0, file.try_clone().unwrap());
        assert_eq!(map(MAX_SIZE + PAGE_SIZE), Err(Error::TooMany));
        map(MAX_SIZE).unwrap();
        assert_eq!(
            memory.map(MAX_SIZE, PAGE_SIZE, 0, file.try_clone().unwrap()),
            Err(Error::TooMany)
        );
    }
}
