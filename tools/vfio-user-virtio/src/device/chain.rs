// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A chain of descriptors (virtio 1.4, 2.7.5, 2.8.5), copied from the guest's memory: what the driver writes there later changes nothing.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::offer::MAX_QUEUE_SIZE;
use crate::buffers::Buffer;

/// Bytes in a descriptor.
const SIZE: u32 = 16;

/// Why a chain can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// A part of it is not there now.
    #[error("not in the guest's memory")]
    Gone,
    /// The driver's error.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The buffers of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    /// The index of its first descriptor; in a packed virtqueue its buffer ID.
    pub(super) head: u16,
    /// How many descriptors of a packed virtqueue's ring it takes up.
    pub(super) descriptors: u16,
    /// What the device may read.
    pub(super) input: Vec<Buffer>,
    /// What it may write.
    pub(super) output: Vec<Buffer>,
}

/// A descriptor, copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) buffer: Buffer,
    /// Its flags and the next one's index; in a packed virtqueue its buffer ID and its flags.
    pub(super) rest: [u16; 2],
}

impl Descriptor {
    /// The descriptor with that index in the table at the guest's address `table`.
    pub(super) fn read(memory: &GuestMemoryMmap, table: u64, index: u32) -> Result<Self, Error> {
        let at = table
            .checked_add(u64::from(index) * u64::from(SIZE))
            .ok_or(Error::Gone)?;
        let bytes: [u8; SIZE as usize] =
            memory.read_obj(GuestAddress(at)).map_err(|_| Error::Gone)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, r0, r1, r2, r3] = bytes;
        Ok(Self {
            buffer: Buffer {
                address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
                length: u32::from_le_bytes([l0, l1, l2, l3]),
            },
            rest: [u16::from_le_bytes([r0, r1]), u16::from_le_bytes([r2, r3])],
        })
    }
}

/// A table of descriptors.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    entries: u32,
    /// How long a chain in it may be. In an indirect table as long as in the largest virtqueue: drivers do not heed the size of this one.
    most: u16,
    indirect: bool,
}

impl Chain {
    /// The chain that begins with descriptor `head` of a split virtqueue, of the table at `address` with that many `entries`.
    pub(super) fn read(
        memory: &GuestMemoryMmap,
        address: u64,
        entries: u16,
        head: u16,
    ) -> Result<Self, Error> {
        let mut chain = Self {
            head,
            ..Self::default()
        };
        let table = Table {
            address,
            entries: entries.into(),
            most: entries,
            indirect: false,
        };
        if let Some(indirect) = chain.follow(memory, table, head)? {
            chain.follow(memory, indirect, 0)?;
        }
        chain.of_allowed_length()
    }

    /// 2.7.5.1, 2.8.6: the driver must not make a longer one.
    pub(super) fn of_allowed_length(self) -> Result<Self, Error> {
        let buffers = self.input.iter().chain(&self.output);
        let bytes: u64 = buffers.map(|buffer| u64::from(buffer.length)).sum();
        match u32::try_from(bytes) {
            Ok(_) => Ok(self),
            Err(_) => Err(Error::Malformed("a chain of more than 2^32 bytes")),
        }
    }

    /// Adds a buffer.
    pub(super) fn add(&mut self, buffer: Buffer, writable: bool) -> Result<(), Error> {
        if writable {
            self.output.push(buffer);
        } else if self.output.is_empty() {
            self.input.push(buffer);
        } else {
            // 2.7.4.2, 2.8.17.
            return Err(Error::Malformed("a buffer to read after one to write"));
        }
        Ok(())
    }

    /// Adds all buffers of the indirect table that `buffer` of a packed virtqueue refers to (2.8.8).
    pub(super) fn add_table(
        &mut self,
        memory: &GuestMemoryMmap,
        buffer: Buffer,
    ) -> Result<(), Error> {
        let entries = table_entries(buffer)?;
        if entries > u32::from(MAX_QUEUE_SIZE) {
            return Err(Error::Malformed("a chain that is too long"));
        }
        for index in 0..entries {
            let Descriptor {
                buffer,
                rest: [_, flags],
            } = Descriptor::read(memory, buffer.address, index)?;
            self.add(buffer, u32::from(flags) & VRING_DESC_F_WRITE != 0)?;
        }
        Ok(())
    }

    /// Whether all of its buffers are there.
    pub(super) fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        let mut buffers = self.input.iter().chain(&self.output);
        buffers.all(|buffer| buffer.is_in(memory))
    }

    /// Adds the buffers in `table` from `first` on. Returns the indirect table that they end with.
    fn follow(
        &mut self,
        memory: &GuestMemoryMmap,
        table: Table,
        first: u16,
    ) -> Result<Option<Table>, Error> {
        let mut index = first;
        for _ in 0..table.most {
            if u32::from(index) >= table.entries {
                return Err(Error::Malformed("a descriptor that does not exist"));
            }
            let Descriptor {
                buffer,
                rest: [flags, next],
            } = Descriptor::read(memory, table.address, index.into())?;
            let flags = u32::from(flags);
            let more = flags & VRING_DESC_F_NEXT != 0;
            if flags & VRING_DESC_F_INDIRECT != 0 {
                return indirect(table, buffer, more).map(Some);
            }
            self.add(buffer, flags & VRING_DESC_F_WRITE != 0)?;
            if !more {
                return Ok(None);
            }
            index = next;
        }
        Err(Error::Malformed("a chain that is too long, or a loop"))
    }
}

/// The table that `buffer`, a descriptor in `table`, refers to (2.7.5.3).
fn indirect(table: Table, buffer: Buffer, more: bool) -> Result<Table, Error> {
    if table.indirect {
        return Err(Error::Malformed("an indirect table in an indirect table"));
    }
    if more {
        return Err(Error::Malformed("an indirect table and a next descriptor"));
    }
    Ok(Table {
        address: buffer.address,
        entries: table_entries(buffer)?,
        most: MAX_QUEUE_SIZE,
        indirect: true,
    })
}

/// How many descriptors the indirect table in `buffer` has.
fn table_entries(buffer: Buffer) -> Result<u32, Error> {
    if buffer.length == 0 || buffer.length % SIZE != 0 {
        return Err(Error::Malformed(
            "an indirect table of parts of descriptors",
        ));
    }
    Ok(buffer.length / SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    const TABLE: u64 = 0x1000;
    const OTHER: u64 = 0x4000;

    type Descriptor = (u64, u32, u16, u16);

    /// The chain from descriptor 0 on, with these descriptors in a virtqueue of 16, and those in the table at `OTHER`.
    fn read(direct: &[Descriptor], other: &[Descriptor]) -> Result<(usize, usize), Error> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        for (table, descriptors) in [(TABLE, direct), (OTHER, other)] {
            for (nth, (address, length, flags, next)) in descriptors.iter().enumerate() {
                let at = GuestAddress(table + nth as u64 * 16);
                memory.write_obj(*address, at).unwrap();
                let rest = [*length, u32::from(*flags) | (u32::from(*next) << 16)];
                memory.write_obj(rest, GuestAddress(at.0 + 8)).unwrap();
            }
        }
        let chain = Chain::read(&memory, TABLE, 16, 0)?;
        Ok((chain.input.len(), chain.output.len()))
    }

    #[test]
    fn chains_are_followed_also_into_an_indirect_table() {
        let direct = [(0, 1, NEXT, 2), (0, 0, 9, 9), (0, 1, WRITE, 0)];
        assert_eq!(read(&direct, &[]), Ok((1, 1)));
        let direct = [(0, 1, NEXT, 1), (OTHER, 48, INDIRECT | WRITE, 0)];
        let other = [(0, 1, NEXT, 2), (0, 1, 0, 0), (0, 1, WRITE, 0)];
        assert_eq!(read(&direct, &other), Ok((2, 1)));
    }

    #[test]
    fn what_is_no_chain_is_the_drivers_error() {
        let table = |length, flags| [(OTHER, length, flags, 0)];
        let long: Vec<Descriptor> = (0..300).map(|nth| (0, 1, NEXT, nth + 1)).collect();
        for (direct, other) in [
            (&[(0, 1, NEXT, 0)][..], &[][..]),
            (&[(0, 1, NEXT, 16)], &[]),
            (&[(0, 1, NEXT | WRITE, 1), (0, 1, 0, 0)], &[]),
            (&[(0, u32::MAX, NEXT, 1), (0, 1, 0, 0)], &[]),
            (&table(15, INDIRECT), &[]),
            (&table(0, INDIRECT), &[]),
            (&table(16, INDIRECT | NEXT), &[]),
            (&table(16, INDIRECT), &[(0, 1, NEXT, 1)]),
            (&table(16, INDIRECT), &[(OTHER, 16, INDIRECT, 0)]),
            (&table(65_535 * 16, INDIRECT), &long),
        ] {
            let result = read(direct, other);
            assert!(matches!(result, Err(Error::Malformed(_))), "{direct:?}");
        }
        let gone = [(u64::MAX, 32, INDIRECT, 0)];
        assert_eq!(read(&gone, &[]), Err(Error::Gone));
    }
}
