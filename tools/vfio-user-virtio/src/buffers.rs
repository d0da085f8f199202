// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The buffers of a request, which lie in the guest's memory. Where they lie is known from when the request was taken; what is there is
//! found anew at each access, so that memory that was taken away meanwhile is not touched.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions};

use crate::memory::Memory;

/// Memory that is gone may come back: QEMU takes all of it away, and gives it back in pieces, when firmware changes what a part of it is.
/// That takes less than a millisecond; what is gone for longer than this is the driver's error.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks for memory that went away under a request.
const LOOK: Duration = Duration::from_millis(1);
/// What one access moves at most: a reset and an unmap wait for that, not for the request.
const MOST_AT_ONCE: usize = 64 * 1024;

/// A buffer: where it is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// The guest's address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

impl Buffer {
    /// Whether all of it is there.
    pub fn is_in(&self, memory: &GuestMemoryMmap) -> bool {
        let address = GuestAddress(self.address);
        self.length == 0
            || memory.check_range(address, self.length as usize, Permissions::ReadWrite)
    }
}

/// What the worker, which carries requests out, and whoever resets the device meanwhile know of each other. Each says first what it does,
/// and looks then what the other has said, so that one of the two knows at least.
#[derive(Debug, Default)]
pub struct Work {
    /// The driver has reset the device: the requests are not to be gone on with.
    abandoned: AtomicBool,
    /// The worker does something that may take long, and does not reach for the guest's memory before it has looked again.
    away: AtomicBool,
    /// A part of the request that is being carried out was not there, and did not come back.
    lost: AtomicBool,
    /// Whose virtqueue's request is being carried out.
    queue: AtomicUsize,
    /// The driver has reset these virtqueues, a bit for each: their requests are not to be gone on with, either.
    abandoned_queues: AtomicU64,
}

/// The bit of a virtqueue. There are no more than 64.
fn bit(queue: usize) -> u64 {
    u32::try_from(queue)
        .ok()
        .and_then(|queue| 1u64.checked_shl(queue))
        .unwrap_or(0)
}

impl Work {
    /// The next request, of that virtqueue, is being carried out.
    pub fn begin(&self, queue: usize) {
        self.queue.store(queue, Ordering::SeqCst);
        self.lost.store(false, Ordering::Relaxed);
    }

    /// Nobody wants requests of that virtqueue any more.
    pub fn abandon_queue(&self, queue: usize) {
        self.abandoned_queues.fetch_or(bit(queue), Ordering::SeqCst);
    }

    /// None of them is in the worker's hands any more, and there may be others.
    pub fn queue_is_reset(&self, queue: usize) {
        self.abandoned_queues
            .fetch_and(!bit(queue), Ordering::SeqCst);
    }

    /// Whether the request has missed memory for as long as [`PATIENCE`]: whatever was made of that, it can't be used.
    pub fn has_lost_memory(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Nobody wants the requests any more. Returns whether the worker is away from the guest's memory, and will not come back to it.
    pub fn abandon(&self) -> bool {
        self.abandoned.store(true, Ordering::SeqCst);
        self.away.load(Ordering::SeqCst)
    }
}

/// By what the device reaches buffers, for as long as somebody wants their request to be carried out.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The guest's memory.
    pub memory: &'a Memory,
    /// What the request is a part of.
    pub work: &'a Work,
}

impl Guest<'_> {
    /// Whether the request is still to be carried out.
    pub fn wanted(&self) -> io::Result<()> {
        if self.work.abandoned.load(Ordering::SeqCst) {
            return Err(io::Error::other("the device was reset"));
        }
        let queue = bit(self.work.queue.load(Ordering::SeqCst));
        if self.work.abandoned_queues.load(Ordering::SeqCst) & queue != 0 {
            return Err(io::Error::other("the virtqueue was reset"));
        }
        Ok(())
    }

    /// Has `file` do something to a file, which may take any time. A reset does not wait for it. After one the request is not to be gone on
    /// with, whatever has become of the file.
    pub fn away<T>(&self, file: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.work.away.store(true, Ordering::SeqCst);
        let result = self.wanted().and_then(|()| file());
        self.work.away.store(false, Ordering::SeqCst);
        self.wanted()?;
        result
    }

    /// Has `access` reach the memory. What is not there is waited for, once for a request: a part of it may have been carried out. A driver
    /// that takes the device's Bus Master Enable away is waited for in any case.
    fn reach(
        &self,
        mut access: impl FnMut(&GuestMemoryMmap) -> Result<(), GuestMemoryError>,
    ) -> io::Result<()> {
        let mut missing = Missing::default();
        loop {
            self.wanted()?;
            if self.work.has_lost_memory() {
                return Err(io::Error::other("a part of the request is lost"));
            }
            // The memory is not locked while this waits for it: the client could not map it.
            let (reached, bus_master) = {
                let memory = self.memory.lock();
                (access(&memory), memory.is_bus_master())
            };
            match reached {
                Ok(()) => return Ok(()),
                Err(error) if missing.for_too_long(bus_master, Instant::now()) => {
                    self.work.lost.store(true, Ordering::Relaxed);
                    return Err(io::Error::other(error));
                }
                Err(_) => thread::sleep(LOOK),
            }
        }
    }
}

/// Since when a bus master misses something.
#[derive(Debug, Default)]
struct Missing(Option<Instant>);

impl Missing {
    /// It is still missing at `now`. Returns whether it has been for as long as [`PATIENCE`]. To be no bus master is no error, and ends it.
    fn for_too_long(&mut self, bus_master: bool, now: Instant) -> bool {
        if !bus_master {
            self.0 = None;
            return false;
        }
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= PATIENCE
    }
}

/// Buffers, one after the other.
#[derive(Debug)]
struct Cursor<'a> {
    guest: Guest<'a>,
    left: VecDeque<Buffer>,
    moved: usize,
}

impl Cursor<'_> {
    fn available(&self) -> usize {
        self.left.iter().map(|buffer| buffer.length as usize).sum()
    }

    /// Moves up to `most` bytes by `copy`, which is told where in the guest's memory a part of them is, and which part it is.
    fn advance(
        &mut self,
        most: usize,
        mut copy: impl FnMut(
            &GuestMemoryMmap,
            GuestAddress,
            std::ops::Range<usize>,
        ) -> Result<(), GuestMemoryError>,
    ) -> io::Result<usize> {
        let most = most.min(MOST_AT_ONCE);
        let mut bytes = 0;
        let mut parts = Vec::new();
        for buffer in &self.left {
            if bytes == most {
                break;
            }
            let end = most.min(bytes.saturating_add(buffer.length as usize));
            parts.push((GuestAddress(buffer.address), bytes..end));
            bytes = end;
        }
        self.guest.reach(|memory| {
            parts
                .iter()
                .try_for_each(|(address, part)| copy(memory, *address, part.clone()))
        })?;
        self.skip(bytes);
        self.moved += bytes;
        Ok(bytes)
    }

    /// Leaves the first `bytes` out.
    fn skip(&mut self, mut bytes: usize) {
        while let Some(first) = self.left.front_mut() {
            if let Some(rest) = (first.length as usize)
                .checked_sub(bytes)
                .filter(|n| *n > 0)
            {
                first.address = first.address.wrapping_add(bytes as u64);
                first.length = rest as u32;
                return;
            }
            bytes -= first.length as usize;
            self.left.pop_front();
        }
    }

    /// Ends after `length` bytes. The rest is another's.
    fn split_at(&mut self, length: usize) -> Option<Self> {
        let available = self.available();
        if length > available {
            return None;
        }
        let mut rest = Self {
            guest: self.guest,
            left: self.left.clone(),
            moved: 0,
        };
        rest.skip(length);
        let mut room = length;
        for buffer in &mut self.left {
            buffer.length = buffer.length.min(u32::try_from(room).unwrap_or(u32::MAX));
            room -= buffer.length as usize;
        }
        Some(rest)
    }
}

/// What the driver has written.
#[derive(Debug)]
pub struct Reader<'a>(Cursor<'a>);

/// What the driver wants to read.
#[derive(Debug)]
pub struct Writer<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    /// All of `buffers`.
    pub fn new(guest: Guest<'a>, buffers: &[Buffer]) -> Self {
        Self(Cursor {
            guest,
            left: buffers.iter().copied().collect(),
            moved: 0,
        })
    }

    /// Bytes that were not read yet.
    pub fn available_bytes(&self) -> usize {
        self.0.available()
    }

    /// Bytes that were read.
    pub fn bytes_read(&self) -> usize {
        self.0.moved
    }

    /// Ends after `length` bytes, and returns what is behind them. None: there are not so many.
    pub fn split_at(&mut self, length: usize) -> Option<Self> {
        self.0.split_at(length).map(Self)
    }

    /// By what the buffers are reached.
    pub fn guest(&self) -> Guest<'a> {
        self.0.guest
    }
}

impl<'a> Writer<'a> {
    /// All of `buffers`.
    pub fn new(guest: Guest<'a>, buffers: &[Buffer]) -> Self {
        Self(Cursor {
            guest,
            left: buffers.iter().copied().collect(),
            moved: 0,
        })
    }

    /// By what the buffers are reached.
    pub fn guest(&self) -> Guest<'a> {
        self.0.guest
    }

    /// Bytes that there is still room for.
    pub fn available_bytes(&self) -> usize {
        self.0.available()
    }

    /// Bytes that were written.
    pub fn bytes_written(&self) -> usize {
        self.0.moved
    }

    /// Ends after `length` bytes, and returns the room behind them. None: there is not so much.
    pub fn split_at(&mut self, length: usize) -> Option<Self> {
        self.0.split_at(length).map(Self)
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.advance(to.len(), |memory, address, part| {
            memory.read_slice(to.get_mut(part).unwrap_or_default(), address)
        })
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.advance(from.len(), |memory, address, part| {
            memory.write_slice(from.get(part).unwrap_or_default(), address)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{file, reachable};

    fn memory() -> Memory {
        let memory = reachable();
        memory.map(0, 0x1000, 0, file(0x1000)).unwrap();
        memory
    }

    fn buffers(places: &[(u64, u32)]) -> Vec<Buffer> {
        let buffer = |(address, length): &(u64, u32)| Buffer {
            address: *address,
            length: *length,
        };
        places.iter().map(buffer).collect()
    }

    #[test]
    fn buffers_are_written_and_read_in_their_order() {
        let (memory, work) = (memory(), Work::default());
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        let places = buffers(&[(0x100, 3), (0x40, 0), (0x80, 4), (0x10, 5)]);
        let mut head = Writer::new(guest, &places);
        let mut tail = head.split_at(8).unwrap();
        assert_eq!((head.available_bytes(), tail.available_bytes()), (8, 4));
        assert!(tail.split_at(5).is_none());
        head.write_all(b"headhead").unwrap();
        tail.write_all(b"tail").unwrap();
        assert!(head.write_all(b"more").is_err());
        assert_eq!((head.bytes_written(), tail.bytes_written()), (8, 4));
        let mut reader = Reader::new(guest, &places);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!((&all[..], reader.bytes_read()), (&b"headheadtail"[..], 12));
        let mut bytes = [0; 3];
        memory
            .lock()
            .read_slice(&mut bytes, GuestAddress(0x100))
            .unwrap();
        assert_eq!(&bytes, b"hea");
    }

    #[test]
    fn what_is_abandoned_is_not_gone_on_with() {
        let (memory, work) = (memory(), Work::default());
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        let mut writer = Writer::new(guest, &buffers(&[(0, 0x1000)]));
        writer.write_all(&[1; 16]).unwrap();
        assert!(!work.abandon());
        assert!(writer.write_all(&[1; 16]).is_err());
        assert_eq!(writer.bytes_written(), 16);
    }

    #[test]
    fn only_a_bus_master_loses_patience() {
        let (mut missing, begin) = (Missing::default(), Instant::now());
        let mut at = |time, bus_master| missing.for_too_long(bus_master, begin + time);
        assert!(!at(Duration::ZERO, true));
        assert!(!at(PATIENCE, false));
        assert!(!at(2 * PATIENCE, true), "it begins anew");
        assert!(at(3 * PATIENCE, true));
    }

    #[test]
    fn who_is_no_bus_master_in_the_middle_of_a_request_goes_on_when_it_is_one_again() {
        let (memory, work) = (memory(), Work::default());
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        let mut writer = Writer::new(guest, &buffers(&[(0, 0x1000)]));
        writer.write_all(&[1; 16]).unwrap();
        memory.set_bus_master(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| writer.write_all(&[2; 16]));
            memory.set_bus_master(true);
            waits.join().unwrap().unwrap();
        });
        memory.set_bus_master(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| writer.write_all(&[3; 16]));
            work.abandon();
            assert!(waits.join().unwrap().is_err(), "a reset ends it");
        });
        memory.set_bus_master(true);
        let mut bytes = [0; 48];
        memory
            .lock()
            .read_slice(&mut bytes, GuestAddress(0))
            .unwrap();
        assert_eq!(bytes, [[1; 16], [2; 16], [0; 16]].concat()[..]);
    }

    #[test]
    fn memory_that_comes_back_is_waited_for_and_the_old_one_not_touched() {
        let (memory, work) = (memory(), Work::default());
        let guest = Guest {
            memory: &memory,
            work: &work,
        };
        let mut writer = Writer::new(guest, &buffers(&[(0, 0x1000)]));
        writer.write_all(&[1; 16]).unwrap();
        memory.unmap(0, 0x1000).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| writer.write_all(&[2; 16]));
            memory.map(0, 0x1000, 0, file(0x1000)).unwrap();
            waits.join().unwrap().unwrap();
        });
        let mut bytes = [0; 32];
        memory
            .lock()
            .read_slice(&mut bytes, GuestAddress(0))
            .unwrap();
        assert_eq!(
            (bytes[..16].to_vec(), bytes[16..].to_vec()),
            (vec![0; 16], vec![2; 16])
        );
    }
}
