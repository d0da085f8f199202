// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after everything that a guest has done.

use vm_memory::{Bytes, GuestAddress};

use super::acts::{Act, PLAIN, SETTINGS};
use super::driver::{Driver, BUFFERS, READY, VIRTIO_F_RING_RESET};
use super::Input;
use crate::guest::{self, check_counters, check_reset, Kind, MEMORY};

/// Requests that the device is asked for at a time, each in a place of its own.
const REQUESTS: u16 = 4;
const ROOM: u32 = 0x401;
const CANARY: [u8; 8] = [0xa5; 8];

fn place(nth: u16) -> u64 {
    BUFFERS + u64::from(nth) * 0x1000
}

/// What the device is asked for, in each request.
struct Asked {
    queue: u8,
    descriptors: u16,
    /// How many bytes may be written, and how many are when all is well.
    room: u32,
    written: u32,
}

impl Asked {
    /// Behind the room.
    fn end(&self, nth: u16) -> u64 {
        place(nth) + 0x800 + u64::from(self.room)
    }
}

impl Driver {
    /// After a reset a driver that does nothing wrong can use the device, whatever it was before, and is given back what it has asked
    /// for, once. With the settings of `acts` that change when, in which order, and how.
    pub(super) fn check_use(&mut self, input: &Input) {
        let kind = input.kind;
        self.device.act("behave").expect("it can");
        if matches!(kind, Kind::Net { .. }) {
            self.device.act("link:up").expect("it can");
        }
        check_reset(&self.device, self.now);
        let fresh = guest::device(kind.make(), input.offer());
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
        // All the way round a packed virtqueue.
        for _ in 0..2 {
            self.check_requests(kind, errors);
        }
        if self.has(VIRTIO_F_RING_RESET) {
            self.check_queue_resets(kind);
            self.check_requests(kind, errors);
        }
        self.leave_requests(kind);
        check_reset(&self.device, self.now);
        self.check_common(&common);
        self.check_silence();
        self.device.reset();
        assert_eq!(guest::configuration_space(&self.device, self.now), space);
        self.check_common(&common);
    }

    /// Has the device take requests, and a buffer for an event, which are not carried out yet if they are delayed.
    pub(super) fn leave_requests(&mut self, kind: Kind) {
        let room = (BUFFERS + 0x1000, 0x800);
        if matches!(kind, Kind::Scsi) {
            for sectors in [20, 21] {
                let resize = format!("resize:0:{sectors}");
                self.device.act(&resize).expect("it can");
            }
        }
        for queue in 0..3 {
            self.request(queue, false, &[0; 72], &[room]);
            self.notify(queue);
        }
        self.request(1, false, &[], &[room]);
        self.notify(1);
        self.serve(0);
    }

    /// After resets of all virtqueues none has a request, and they can be laid out anew.
    fn check_queue_resets(&mut self, kind: Kind) {
        const QUEUE_ENABLE: u64 = 0x1c;
        const QUEUE_RESET: u64 = 0x3a;
        self.set("io_hold", "always");
        self.ask(kind);
        self.serve(5);
        let in_flight = self.device.report().counters.requests.in_flight;
        assert!(in_flight > 0, "there is something to drop: {kind:?}");
        for queue in 0..self.queues {
            self.reset_queue(queue);
            assert_eq!((self.read(QUEUE_RESET), self.read(QUEUE_ENABLE)), (0, 0));
        }
        check_counters(&self.device);
        assert_eq!(self.device.report().counters.requests.in_flight, 0);
        self.set("io_hold", "no");
        self.check_silence();
        for queue in 0..self.queues {
            self.lay_out(queue, PLAIN);
        }
    }

    /// After a reset nothing is written, whatever was asked for before.
    pub(super) fn check_silence(&mut self) {
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
    pub(super) fn check_common(&self, fresh: &[u64]) {
        let common = guest::common_configuration(&self.device, self.now);
        assert_eq!(common, fresh, "after a reset");
    }

    /// Asks the device for a few things.
    fn ask(&mut self, kind: Kind) -> Asked {
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
        let mut asked = Asked {
            queue,
            room,
            written,
            descriptors: 0,
        };
        for nth in 0..REQUESTS {
            let at = place(nth);
            self.fill(at, &request);
            self.fill(asked.end(nth), &CANARY);
            let mut parts = vec![(at, request.len() as u32, 0), (at + 0x800, room, 2)];
            parts.retain(|(_, length, _)| *length > 0);
            asked.descriptors = parts.len() as u16;
            self.chain(queue, nth * 4, false, &parts);
        }
        self.notify(queue);
        asked
    }

    /// Has the device carry out a few requests. With `errors` it lets some of them fail.
    pub(super) fn check_requests(&mut self, kind: Kind, errors: bool) {
        let before = self.device.report().counters.requests;
        let asked = self.ask(kind);
        // Also one after the other, each of which is delayed.
        for _ in 0..2 * REQUESTS {
            self.serve(5);
        }
        let after = self.device.report().counters.requests;
        let completed = after.completed - before.completed;
        assert_eq!(completed, u64::from(REQUESTS), "{kind:?}");
        assert!(errors || after.failed == before.failed, "{kind:?}");
        let elements = std::iter::from_fn(|| self.next_used(asked.queue, asked.descriptors));
        let mut elements: Vec<(u32, u32)> = elements.take(2 * usize::from(REQUESTS)).collect();
        assert_eq!(elements.len(), usize::from(REQUESTS), "requests given back");
        elements.sort_unstable();
        for (nth, (id, length)) in (0..REQUESTS).zip(elements) {
            assert_eq!(id, u32::from(nth * 4), "a request that is given back");
            assert!(
                length == asked.written || errors && length <= asked.room,
                "{length} bytes"
            );
            let end = GuestAddress(asked.end(nth));
            let canary: [u8; 8] = self.memory.read_obj(end).expect("memory");
            assert_eq!(canary, CANARY, "behind a buffer");
        }
    }
}
