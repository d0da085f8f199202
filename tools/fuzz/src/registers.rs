// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: register accesses, virtqueues, memory that comes and goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use vfio_user_virtio::pci::BAR_SIZE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::guest::{self, check_counters, check_reset, Device, Kind, Offers, MEMORY};

/// The PCI command that lets the device answer, and reach the memory.
const MEMORY_AND_MASTER: [u8; 2] = [6, 0];
const READY: u8 = 1 | 2 | 4 | 8;
const QUEUE_SIZE: u16 = 16;
/// Each virtqueue has its rings, and a table for indirect descriptors, in a place of its own.
const RINGS: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const INDIRECT: u64 = 0x3000;
/// Behind those of five virtqueues.
const BUFFERS: u64 = 5 * RINGS;

/// What the user can choose that a guest would notice.
const SETTINGS: &[(&str, &str)] = &[
    ("acknowledge", "at-once"),
    ("acknowledge", "after:1-20"),
    ("acknowledge", "never"),
    ("acknowledge", "given-up:5"),
    ("acknowledge", "needs-reset"),
    ("resume", "at-once"),
    ("resume", "after:3"),
    ("resume", "never"),
    ("resume", "needs-reset"),
    ("resume_form", "strict"),
    ("resume_form", "any"),
    ("resume_form", "cleared"),
    ("drop_stop", "never"),
    ("drop_stop", "after:7"),
    ("show_status", "as-is"),
    ("show_status", "always:0xff"),
    ("show_status", "stopping:0x00"),
    ("show_status", "resuming:0x80"),
    ("refuse_features", "true"),
    ("refuse_features", "false"),
    ("refuse_to_stop", "true"),
    ("take_while_stopped", "true"),
    ("take_while_stopped", "false"),
    ("change_while_stopped", "true"),
    ("notify_when_stopped", "true"),
    ("leave_requests", "true"),
    ("leave_requests", "false"),
    ("forget_notifications", "true"),
    ("io_delay_us", "0"),
    ("io_delay_us", "5000"),
    ("io_hold", "no"),
    ("io_hold", "always"),
    ("io_hold", "until-stop"),
    ("io_depth", "1"),
    ("io_depth", "128"),
    ("io_order", "reversed"),
    ("io_order", "shuffled"),
    ("io_error_every", "0"),
    ("io_error_every", "2"),
    ("hang_up", "on-stop"),
];
const ACTIONS: &[&str] = &[
    "behave",
    "needs-reset",
    "forget-breaches",
    "hang-up",
    "resize:32",
    "resize:64",
    "resize:0:16",
    "resize:1:32",
    "link:down",
    "link:up",
];

/// A device, and what its guest does.
#[derive(Arbitrary, Debug)]
pub struct Input {
    kind: Kind,
    offers: Offers,
    intx: bool,
    acts: Vec<Act>,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Read(Place, u8),
    Write(Place, u64, u8),
    Status(u8),
    BringUp(Layout),
    Fill {
        at: u16,
        bytes: Vec<u8>,
    },
    Descriptor {
        queue: u8,
        index: u8,
        indirect: bool,
        address: Address,
        length: u32,
        flags: u8,
        next: u16,
    },
    /// A head in the available ring, and the index moved on.
    Publish {
        queue: u8,
        head: u16,
        by: i8,
    },
    Chain {
        queue: u8,
        indirect: bool,
        request: [u8; 16],
        data: Vec<u8>,
        outputs: Vec<(Address, u16)>,
        room: u16,
    },
    Notify(u8),
    Serve(u8),
    Map(u8, u8),
    Unmap(u8, u8),
    MapAll,
    Set(u8),
    Do(u8),
    FunctionReset,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Common(u8),
    Bar(u16),
    Config(u8),
}

/// A place in BAR 0.
fn in_bar(at: u16) -> u64 {
    u64::from(at) % BAR_SIZE
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Address {
    Memory(u16),
    Indirect(u8),
    Any(u64),
}

impl Address {
    fn value(self) -> u64 {
        match self {
            Self::Memory(at) => BUFFERS + u64::from(at) % (MEMORY - BUFFERS),
            Self::Indirect(queue) => u64::from(queue % 5) * RINGS + INDIRECT,
            Self::Any(address) => address,
        }
    }
}

/// How a driver sets the device up.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Layout {
    /// Those that it does not accept.
    refused: u64,
    /// A virtqueue has two to that power of entries.
    size: u8,
    /// One register of one virtqueue, and what is wrong with it.
    odd: Option<(u8, u8, i16)>,
}

const PLAIN: Layout = Layout {
    refused: 0,
    size: 4,
    odd: None,
};

struct Driver {
    device: Device,
    memory: GuestMemoryMmap,
    file: File,
    queues: u16,
    size: u16,
    avail: [u16; 5],
    now: Instant,
}

impl Driver {
    fn new(input: &Input) -> Self {
        let of_type = input.kind.make();
        let queues = of_type.describe().queues;
        let file = guest::memory_file();
        Self {
            device: guest::device(of_type, input.offers.offer(input.intx)),
            memory: guest::memory(&file),
            file,
            queues,
            size: QUEUE_SIZE,
            avail: [0; 5],
            now: Instant::now(),
        }
    }

    fn map(&self, address: u64, size: u64) {
        let file = self.file.try_clone().expect("a file");
        // What is there already is refused.
        let _ = self.device.map(address, size, address, file);
    }

    fn map_all(&self) {
        self.device.memory().clear();
        self.map(0, MEMORY);
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.device.write_bar(offset, bytes, self.now);
    }

    fn status(&self) -> u8 {
        let mut status = [0];
        self.device.read_bar(0x14, &mut status, self.now);
        status[0]
    }

    fn fill(&self, at: u64, bytes: &[u8]) {
        // What is beyond the end is left out.
        let _ = self.memory.write(bytes, GuestAddress(at % MEMORY));
    }

    fn bring_up(&mut self, layout: Layout) {
        self.device.write_config(4, &MEMORY_AND_MASTER, self.now);
        for status in [0, 1, 3] {
            self.write(0x14, &[status]);
        }
        let offered = self.device.report().offered & !layout.refused;
        for (select, half) in [(0u32, offered as u32), (1, (offered >> 32) as u32)] {
            self.write(0x08, &select.to_le_bytes());
            self.write(0x0c, &half.to_le_bytes());
        }
        self.write(0x14, &[11]);
        self.size = 1 << (layout.size % 9);
        for queue in 0..self.queues {
            self.write(0x16, &queue.to_le_bytes());
            self.write(0x18, &self.size.to_le_bytes());
            self.write(0x1a, &queue.to_le_bytes());
            let rings = u64::from(queue) * RINGS;
            for (nth, part) in [0, AVAIL, USED].into_iter().enumerate() {
                let odd = layout.odd.filter(|(of, which, _)| {
                    u16::from(*of) % self.queues == queue && usize::from(which % 3) == nth
                });
                let by = odd.map_or(0, |(.., by)| i64::from(by));
                let address = (rings + part).wrapping_add_signed(by);
                self.write(0x20 + nth as u64 * 8, &(address as u32).to_le_bytes());
                let high = (address >> 32) as u32;
                self.write(0x24 + nth as u64 * 8, &high.to_le_bytes());
            }
            for part in [AVAIL, USED] {
                self.fill(rings + part, &[0; 4]);
            }
            self.write(0x1c, &1u16.to_le_bytes());
        }
        self.avail = [0; 5];
        self.write(0x14, &[READY]);
    }

    fn descriptor(&self, table: u64, index: u16, at: u64, length: u32, flags: u16, next: u16) {
        let rest = u64::from(length) | (u64::from(flags) << 32) | (u64::from(next) << 48);
        let bytes = [at.to_le_bytes(), rest.to_le_bytes()].concat();
        self.fill(table + u64::from(index) * 16, &bytes);
    }

    fn publish(&mut self, queue: u8, head: u16, by: i8) {
        let queue = usize::from(queue % 5);
        let ring = queue as u64 * RINGS + AVAIL;
        let slot = u64::from(self.avail[queue] % self.size);
        self.fill(ring + 4 + slot * 2, &head.to_le_bytes());
        self.avail[queue] = self.avail[queue].wrapping_add_signed(by.into());
        self.fill(ring + 2, &self.avail[queue].to_le_bytes());
    }

    fn chain(&mut self, queue: u8, indirect: bool, inputs: &[u8], outputs: &[(u64, u32)]) {
        self.fill(BUFFERS, inputs);
        let rings = u64::from(queue % 5) * RINGS;
        let table = rings + if indirect { INDIRECT } else { 0 };
        let mut buffers: Vec<(u64, u32, u16)> = vec![(BUFFERS, inputs.len() as u32, 0)];
        buffers.extend(outputs.iter().map(|(at, length)| (*at, *length, 2)));
        if inputs.is_empty() && buffers.len() > 1 {
            buffers.remove(0);
        }
        let count = buffers.len() as u16;
        for (nth, (at, length, flags)) in (0u16..).zip(buffers) {
            let more = u16::from(nth + 1 < count);
            self.descriptor(table, nth, at, length, flags | more, nth + 1);
        }
        if indirect {
            self.descriptor(rings, 0, table, u32::from(count) * 16, 4, 0);
        }
        self.publish(queue, 0, 1);
    }

    fn set(&self, name: &str, value: &str) {
        let change = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.device.set(&change, self.now).expect("a setting");
    }

    fn notify(&self, queue: u8) {
        let queue = u16::from(queue % 6);
        self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
    }

    fn serve(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.device.serve(self.now);
        check_counters(&self.device);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Read(place, length) => {
                let data = &mut [0; 8][..usize::from(length % 9)];
                match place {
                    Place::Common(at) => self.device.read_bar((*at).into(), data, self.now),
                    Place::Bar(at) => self.device.read_bar(in_bar(*at), data, self.now),
                    Place::Config(at) => self.device.read_config((*at).into(), data, self.now),
                }
            }
            Act::Write(place, value, length) => {
                let data = &value.to_le_bytes()[..usize::from(length % 9)];
                match place {
                    Place::Common(at) => self.write((*at).into(), data),
                    Place::Bar(at) => self.write(in_bar(*at), data),
                    Place::Config(at) => self.device.write_config((*at).into(), data, self.now),
                }
            }
            Act::Status(status) => {
                self.write(0x14, &[*status]);
                self.status();
            }
            Act::BringUp(layout) => self.bring_up(*layout),
            Act::Fill { at, bytes } => self.fill(u64::from(*at) * 2, bytes),
            Act::Descriptor {
                queue,
                index,
                indirect,
                address,
                length,
                flags,
                next,
            } => {
                let table = u64::from(queue % 5) * RINGS + if *indirect { INDIRECT } else { 0 };
                let (at, flags) = (address.value(), u16::from(*flags));
                self.descriptor(table, (*index).into(), at, *length, flags, *next);
            }
            Act::Publish { queue, head, by } => self.publish(*queue, *head, *by),
            Act::Chain {
                queue,
                indirect,
                request,
                data,
                outputs,
                room,
            } => {
                let inputs = [&request[..], data].concat();
                let mut outputs: Vec<(u64, u32)> = outputs
                    .iter()
                    .take(8)
                    .map(|(address, length)| (address.value(), u32::from(*length)))
                    .collect();
                outputs.push((BUFFERS + 0x1000, u32::from(*room % 0x2000)));
                self.chain(*queue, *indirect, &inputs, &outputs);
                self.notify(*queue);
            }
            Act::Notify(queue) => self.notify(*queue),
            Act::Serve(milliseconds) => self.serve(u64::from(*milliseconds) * 10),
            Act::Map(page, pages) => {
                self.map(
                    u64::from(page % 32) * 0x1000,
                    u64::from(pages % 32) * 0x1000,
                );
            }
            Act::Unmap(page, pages) => {
                let (page, pages) = (u64::from(page % 32), u64::from(pages % 64));
                // A part of a map is refused.
                let _ = self.device.memory().unmap(page * 0x1000, pages * 0x1000);
            }
            Act::MapAll => self.map_all(),
            Act::Set(which) => {
                let (name, value) = SETTINGS[usize::from(*which) % SETTINGS.len()];
                self.set(name, value);
            }
            Act::Do(which) => {
                // Another type's is refused.
                let _ = self
                    .device
                    .act(ACTIONS[usize::from(*which) % ACTIONS.len()]);
            }
            Act::FunctionReset => self.device.reset(),
        }
    }

    /// After a reset a driver that does nothing wrong can use the device, whatever it was before, and is given back what it has asked
    /// for, once. With the settings of `acts` that change when, in which order, and how.
    fn check_use(&mut self, input: &Input) {
        let kind = input.kind;
        self.device.act("behave").expect("it can");
        if matches!(kind, Kind::Net { .. }) {
            self.device.act("link:up").expect("it can");
        }
        check_reset(&self.device, self.now);
        let fresh = guest::device(kind.make(), input.offers.offer(input.intx));
        let space = guest::configuration_space(&fresh, self.now);
        let common = guest::common_configuration(&fresh, self.now);
        self.check_common(&common);
        self.map_all();
        self.bring_up(PLAIN);
        assert_eq!(self.status(), READY, "the device does not come up");
        let mut errors = false;
        for act in &input.acts {
            let Act::Set(which) = act else { continue };
            let (name, value) = SETTINGS[usize::from(*which) % SETTINGS.len()];
            if name.starts_with("io_") && name != "io_hold" {
                self.set(name, value);
                errors = self.device.report().settings.io_error_every != 0;
            }
        }
        self.check_requests(kind, errors);
        self.leave_requests(kind);
        check_reset(&self.device, self.now);
        self.check_common(&common);
        self.check_silence();
        self.device.reset();
        assert_eq!(guest::configuration_space(&self.device, self.now), space);
        self.check_common(&common);
    }

    /// Has the device take requests, and a buffer for an event, which are not carried out yet if they are delayed.
    fn leave_requests(&mut self, kind: Kind) {
        let room = (BUFFERS + 0x1000, 0x800);
        if matches!(kind, Kind::Scsi) {
            for sectors in [20, 21] {
                let resize = format!("resize:0:{sectors}");
                self.device.act(&resize).expect("it can");
            }
        }
        for queue in 0..3 {
            self.chain(queue, false, &[0; 72], &[room]);
            self.notify(queue);
        }
        self.chain(1, false, &[], &[room]);
        self.notify(1);
        self.serve(0);
    }

    /// After a reset nothing is written, whatever was asked for before.
    fn check_silence(&mut self) {
        let contents = |driver: &Self| {
            let mut contents = vec![0; MEMORY as usize];
            let memory = &driver.memory;
            memory
                .read_slice(&mut contents, GuestAddress(0))
                .expect("memory");
            contents
        };
        let before = contents(self);
        self.serve(100);
        assert!(contents(self) == before, "written to after a reset");
    }

    /// The registers read like those of a device that nobody has used.
    fn check_common(&self, fresh: &[u64]) {
        let common = guest::common_configuration(&self.device, self.now);
        assert_eq!(common, fresh, "after a reset");
    }

    /// Has the device carry out a few requests. With `errors` it lets some of them fail.
    fn check_requests(&mut self, kind: Kind, errors: bool) {
        const REQUESTS: u16 = 4;
        const ROOM: u32 = 0x401;
        const CANARY: [u8; 8] = [0xa5; 8];
        // What is asked for, and how much of the room is written when all is well.
        let (queue, request, room, written): (u8, Vec<u8>, u32, u32) = match kind {
            // A read of the first two sectors.
            Kind::Blk { .. } => (0, vec![0; 16], ROOM, ROOM),
            // TEST UNIT READY of the first unit.
            Kind::Scsi => (2, [&[1, 0, 0x40][..], &[0; 48]].concat(), 108, 108),
            // A frame that means nothing to anybody.
            Kind::Net { .. } => (1, vec![0; 12 + 60], 0, 0),
            Kind::Rng => (0, Vec::new(), ROOM, ROOM),
            Kind::Null => (1, vec![0; 1], ROOM, ROOM),
        };
        let before = self.device.report().counters.requests;
        let rings = u64::from(queue) * RINGS;
        let place = |nth: u16| BUFFERS + u64::from(nth) * 0x1000;
        for nth in 0..REQUESTS {
            let (head, at) = (nth * 4, place(nth));
            self.fill(at, &request);
            self.fill(at + 0x800 + u64::from(room), &CANARY);
            let mut parts = vec![(at, request.len() as u32, 0), (at + 0x800, room, 2)];
            parts.retain(|(_, length, _)| *length > 0);
            let count = parts.len() as u16;
            for (slot, (at, length, flags)) in (0..).zip(parts) {
                let more = u16::from(slot + 1 < count);
                let (slot, next) = (head + slot, head + slot + 1);
                self.descriptor(rings, slot, at, length, flags | more, next);
            }
            self.publish(queue, head, 1);
        }
        self.notify(queue);
        // Also one after the other, each of which is delayed.
        for _ in 0..2 * REQUESTS {
            self.serve(5);
        }
        let after = self.device.report().counters.requests;
        let completed = after.completed - before.completed;
        assert_eq!(completed, u64::from(REQUESTS), "{kind:?}");
        assert!(errors || after.failed == before.failed, "{kind:?}");
        let used = |at: u64| {
            let at = GuestAddress(rings + USED + at);
            self.memory.read_obj::<u32>(at).expect("memory")
        };
        assert_eq!(used(0) >> 16, u32::from(REQUESTS), "the used index");
        let elements = (0..u64::from(REQUESTS)).map(|nth| (used(4 + nth * 8), used(8 + nth * 8)));
        let mut elements: Vec<(u32, u32)> = elements.collect();
        elements.sort_unstable();
        for (nth, (id, length)) in (0..REQUESTS).zip(elements) {
            assert_eq!(id, u32::from(nth * 4), "a request that is given back");
            assert!(
                length == written || errors && length <= room,
                "{length} bytes"
            );
            let end = GuestAddress(place(nth) + 0x800 + u64::from(room));
            let canary: [u8; 8] = self.memory.read_obj(end).expect("memory");
            assert_eq!(canary, CANARY, "behind a buffer");
        }
    }
}

/// Has the guest do all of it.
///
/// # Panics
///
/// If the device forgets a request, is not as after power-on after a reset, or can't be used then.
pub fn run(mut input: Input) {
    input.acts.truncate(64);
    let mut driver = Driver::new(&input);
    driver.map_all();
    for act in &input.acts {
        driver.act(act);
    }
    driver.serve(0);
    driver.check_use(&input);
}
