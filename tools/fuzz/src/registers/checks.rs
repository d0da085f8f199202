// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after everything that a guest has done.

use vm_memory::{Bytes, GuestAddress};

use super::acts::{Act, PLAIN, SETTINGS};
use super::driver::{Driver, BUFFERS, READY, RINGS, USED};
use super::Input;
use crate::guest::{self, check_reset, Kind, MEMORY};

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
    pub(super) fn leave_requests(&mut self, kind: Kind) {
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

    /// Has the device carry out a few requests. With `errors` it lets some of them fail.
    pub(super) fn check_requests(&mut self, kind: Kind, errors: bool) {
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
