// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: requests to disks, of which only the buffers make sense.

use std::sync::Arc;

use arbitrary::Arbitrary;
use vfio_user_virtio::buffers::{Buffer, Guest, Reader, Work, Writer};
use vfio_user_virtio::memory::Memory;
use vfio_user_virtio::types::{Request, Type};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::{self, Kind, MEMORY};
use command::{Command, Layout};
use model::Model;

mod command;
mod model;

/// What the device may read lies below, what it may write above.
const WRITABLE: u64 = MEMORY / 2;

/// A disk, and what it is asked for.
#[derive(Arbitrary, Debug)]
pub struct Input {
    disk: Disk,
    commands: Vec<Command>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Disk {
    Blk { read_only: bool, zoned: bool },
    Scsi,
}

/// `lengths` as buffers one after the other from `start` on, as far as there are `bytes` for them.
fn buffers(start: u64, lengths: impl IntoIterator<Item = u16>, bytes: u64) -> Vec<Buffer> {
    let mut at = start;
    let mut buffers = Vec::new();
    for length in lengths {
        let length = u64::from(length).min(start + bytes - at);
        buffers.push(Buffer {
            address: at,
            length: length as u32,
        });
        at += length;
    }
    buffers
}

/// Two disks of the same type that are asked for the same. What is in the buffers that they may write is the other's, with all bits
/// inverted, so that each byte that they have written is known: it is the same for both.
struct Twins {
    disks: [Arc<dyn Type>; 2],
    memory: Memory,
    is_blk: bool,
    /// What either has.
    model: Model,
}

/// Asks the disk for all of it.
///
/// # Panics
///
/// If it touches what is not its own, says that it has written what it has not, reads something other than what was written, or has
/// something else in the end.
pub fn run(mut input: Input) {
    input.commands.truncate(32);
    let kind = match input.disk {
        Disk::Blk { read_only, zoned } => Kind::Blk {
            queues: false,
            read_only,
            zoned,
        },
        Disk::Scsi => Kind::Scsi,
    };
    let memory = Memory::default();
    let file = guest::memory_file();
    memory.map(0, MEMORY, 0, file).expect("memory");
    memory.set_bus_master(true);
    let mut twins = Twins {
        disks: [kind.make(), kind.make()],
        memory,
        is_blk: !matches!(kind, Kind::Scsi),
        model: Model::new(if matches!(kind, Kind::Scsi) { 2 } else { 1 }),
    };
    for command in &input.commands {
        if let Some((queue, bytes, layout)) = command.request() {
            twins.execute(queue, &bytes, layout, command.room());
        }
        for twin in 0..twins.disks.len() {
            twins.configure(twin, command);
        }
    }
    for disk in &twins.disks {
        twins.model.check(&disk.file().expect("a disk has one"));
    }
}

fn configuration(disk: &dyn Type) -> [u8; 256] {
    let mut config = [0; 256];
    disk.configuration(&mut config);
    config
}

/// What lies where a disk may write, before it does: never the same for both.
fn canary(twin: usize) -> Vec<u8> {
    let inverted = if twin == 0 { 0 } else { 0xff };
    let bytes = (0..MEMORY - WRITABLE).map(|at| (at * 167 + (at >> 8)) as u8 ^ inverted);
    bytes.collect()
}

impl Twins {
    fn configure(&mut self, twin: usize, command: &Command) {
        let disk = &self.disks[twin];
        match command {
            Command::Configuration { offset, value } => {
                disk.write_configuration((*offset).into(), &value.to_le_bytes());
            }
            Command::Negotiated(features) => disk.negotiated(*features),
            Command::Resize { unit, sectors } => {
                let (unit, action) = if self.is_blk {
                    (0, format!("resize:{sectors}"))
                } else {
                    (*unit, format!("resize:{unit}:{sectors}"))
                };
                // It may be refused.
                if disk.act(&action).is_ok() {
                    self.model.resize(unit.into(), (*sectors).into());
                }
            }
            Command::Reset => disk.reset(),
            _ => {}
        }
        configuration(&**disk);
        disk.report();
    }

    fn execute(&mut self, queue: usize, bytes: &[u8], layout: &Layout, room: Option<u64>) {
        let bytes = bytes.get(..WRITABLE as usize).unwrap_or(bytes);
        let rest = [u16::MAX];
        let input = layout.input.iter().take(8).copied().chain(rest);
        let input = buffers(0, input, bytes.len() as u64);
        let output = layout.output.iter().take(8).copied();
        // Bytes at the end of the memory are nobody's.
        let output = match room {
            Some(room) => buffers(WRITABLE, output.chain(rest), room.min(WRITABLE - 0x1000)),
            None => buffers(WRITABLE, output.chain([layout.room]), WRITABLE - 0x1000),
        };
        let room: usize = output.iter().map(|buffer| buffer.length as usize).sum();
        let work = Work::default();
        let guest = Guest {
            memory: &self.memory,
            work: &work,
        };
        let mut after = Vec::new();
        for (twin, disk) in self.disks.iter().enumerate() {
            let canary = canary(twin);
            let writable = GuestAddress(WRITABLE);
            let guest_memory = self.memory.lock();
            guest_memory
                .write_slice(bytes, GuestAddress(0))
                .and_then(|()| guest_memory.write_slice(&canary, writable))
                .expect("memory");
            drop(guest_memory);
            let outcome = disk.execute(Request {
                queue,
                input: Reader::new(guest, &input),
                output: Writer::new(guest, &output),
                fail: layout.fail,
            });
            let mut all = vec![0; MEMORY as usize];
            let guest_memory = self.memory.lock();
            guest_memory
                .read_slice(&mut all, GuestAddress(0))
                .expect("memory");
            drop(guest_memory);
            let (readable, written) = all.split_at(WRITABLE as usize);
            assert_eq!(&readable[..bytes.len()], bytes, "what the driver has made");
            assert_eq!(written[room..], canary[room..], "what is nobody's");
            let outcome = outcome.map(|outcome| (outcome.kind, outcome.ok, outcome.written));
            after.push((outcome.ok(), written[..room].to_vec()));
        }
        let [(outcome, one), (other_outcome, other)] = &after[..] else {
            panic!("there are two");
        };
        assert_eq!(outcome, other_outcome, "the twins differ");
        let Some((kind, ok, claimed)) = *outcome else {
            // The device would need a reset.
            return;
        };
        let written = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        assert_eq!(
            claimed as usize, written,
            "bytes said to be written: {kind}"
        );
        if self.is_blk {
            let (status, data) = one.split_last().expect("it is given back");
            assert_eq!(Some(status), other.last(), "no status");
            assert_eq!(*status == 0, ok, "{kind} and {status}");
            assert!(*status <= 2, "a status of {status}");
            assert!(!(ok && layout.fail), "what is to fail: {kind}");
            if ok {
                self.model.blk(kind, bytes, data);
            }
        } else if ok {
            let config = configuration(&*self.disks[0]);
            self.model.scsi(kind, bytes, one, &config);
        }
    }
}
