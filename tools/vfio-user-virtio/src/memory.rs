// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory, as far as the client lets the device reach it.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

/// The memory that is mapped now. Whoever accesses it holds [`Memory::lock`], so that an unmap waits for the access to end.
#[derive(Debug, Default)]
pub struct Memory(RwLock<Arc<GuestMemoryMmap>>);

impl Memory {
    /// What is mapped, for as long as the guard lives.
    pub fn lock(&self) -> RwLockReadGuard<'_, Arc<GuestMemoryMmap>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps `size` bytes of `file` from `offset` on at the guest address `address`.
    pub fn map(&self, address: u64, size: u64, offset: u64, file: File) -> io::Result<()> {
        // Beyond the end of the file an access would kill this process (SIGBUS).
        if offset
            .checked_add(size)
            .is_none_or(|end| end > file.metadata().map_or(0, |meta| meta.len()))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the mapping reaches beyond the end of the file",
            ));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let region = GuestRegionMmap::from_range(
            GuestAddress(address),
            size,
            Some(FileOffset::new(file, offset)),
        )
        .map_err(io::Error::other)?;
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *memory = Arc::new(
            memory
                .insert_region(Arc::new(region))
                .map_err(io::Error::other)?,
        );
        Ok(())
    }

    /// Takes away all regions that lie within `size` bytes from `address` on.
    pub fn unmap(&self, address: u64, size: u64) {
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let within = |start: u64, length: u64| {
            start >= address && start - address <= size.saturating_sub(length)
        };
        let gone: Vec<_> = memory
            .iter()
            .map(|region| (region.start_addr(), region.len()))
            .filter(|(start, length)| *length <= size && within(start.0, *length))
            .collect();
        for (start, length) in gone {
            if let Ok((rest, _)) = memory.remove_region(start, length) {
                *memory = Arc::new(rest);
            }
        }
    }

    /// Takes away everything.
    pub fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn file(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn mapped_memory_is_reached_and_unmapped_memory_is_not() {
        let memory = Memory::default();
        memory.map(0x1_0000, 0x2000, 0x1000, file(0x3000)).unwrap();
        memory.map(0x8_0000, 0x1000, 0, file(0x1000)).unwrap();
        memory
            .lock()
            .write_obj(42u32, GuestAddress(0x1_1ffc))
            .unwrap();
        assert!(memory
            .lock()
            .write_obj(42u32, GuestAddress(0x1_1ffd))
            .is_err());
        memory.unmap(0, 0x2_0000);
        assert!(memory
            .lock()
            .read_obj::<u32>(GuestAddress(0x1_0000))
            .is_err());
        assert!(memory
            .lock()
            .read_obj::<u32>(GuestAddress(0x8_0000))
            .is_ok());
        memory.unmap(0, u64::MAX);
        assert!(memory
            .lock()
            .read_obj::<u32>(GuestAddress(0x8_0000))
            .is_err());
    }

    #[test]
    fn bad_maps_are_refused() {
        let memory = Memory::default();
        assert!(
            memory.map(0, 0x2000, 0, file(0x1000)).is_err(),
            "beyond the end of the file"
        );
        assert!(
            memory
                .map(u64::MAX - 0xfff, 0x2000, 0, file(0x2000))
                .is_err(),
            "beyond the end of the address space"
        );
        assert!(memory.map(0, 0, 0, file(0x1000)).is_err(), "nothing");
        memory.map(0, 0x1000, 0, file(0x1000)).unwrap();
        assert!(
            memory.map(0x800, 0x1000, 0, file(0x1000)).is_err(),
            "overlap"
        );
    }
}
