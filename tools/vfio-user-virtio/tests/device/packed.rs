// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_RING_PACKED: a device whose virtqueues are packed serves them, stops and resumes, and is judged as with split ones.

use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};
use vfio_user_virtio::buffers::PATIENCE;
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::eventfd::Eventfd;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{disk, ring, Driver, D, EVENT_IDX, NEEDS_RESET, PACKED, READY, S, SUSPENDED};

const MS: Duration = Duration::from_millis(1);
/// Not a power of 2.
const SIZE: u16 = 10;
const EVENTS: u64 = 0x1000;
const INDIRECT: u64 = 0x3000;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A disk with one packed virtqueue, and where its driver is in that.
struct Packed {
    driver: Driver,
    avail: (u16, bool),
    used: (u16, bool),
}

fn advance(at: &mut (u16, bool), by: u16) {
    at.0 += by;
    if at.0 >= SIZE {
        *at = (at.0 - SIZE, !at.1);
    }
}

impl Packed {
    fn of(offer: Offer, features: u64) -> Self {
        let offer = Offer {
            packed: true,
            ..offer
        };
        let mut driver = Driver::found(disk(1, false).0, offer);
        driver.negotiate(features);
        driver.lay_out_queue(0, SIZE, None);
        driver.set_status(READY);
        assert_ne!(driver.report().features & PACKED, 0);
        assert_eq!(driver.read(0x18, 2), u64::from(SIZE));
        Self {
            driver,
            avail: (0, true),
            used: (0, true),
        }
    }

    fn flags_at(at: (u16, bool)) -> GuestAddress {
        GuestAddress(ring(0, 0) + 16 * u64::from(at.0) + 14)
    }

    /// Makes a read available; its ID is where it begins. Without a notification.
    fn add(&mut self, indirect: bool) -> u64 {
        let (address, buffers) = self.driver.request(0, 0, 512);
        let (id, mut head) = (self.avail.0, None);
        let count = buffers.len() as u16;
        for (nth, (address, length, writable)) in (0..).zip(&buffers) {
            let flags = u16::from(nth + 1 < count) | (u16::from(*writable) << 1);
            if indirect {
                let table = ring(0, INDIRECT) + 0x40 * u64::from(id);
                self.driver
                    .descriptor(table, nth, (*address, *length, 0, flags & 2));
                continue;
            }
            head.get_or_insert((self.avail, flags));
            self.put((*address, *length), id, flags, nth > 0);
        }
        if indirect {
            let table = ring(0, INDIRECT) + 0x40 * u64::from(id);
            head = Some((self.avail, 4));
            self.put((table, 16 * u32::from(count)), id, 4, false);
        }
        let (at, flags) = head.unwrap();
        self.mark(at, flags);
        address
    }

    fn put(&mut self, (address, length): (u64, u32), id: u16, flags: u16, published: bool) {
        let at = self.avail;
        let before: u16 = self.driver.memory.read_obj(Self::flags_at(at)).unwrap();
        self.driver
            .descriptor(ring(0, 0), at.0, (address, length, id, before));
        if published {
            self.mark(at, flags);
        }
        advance(&mut self.avail, 1);
    }

    fn mark(&self, at: (u16, bool), flags: u16) {
        let flags = flags | if at.1 { AVAIL } else { USED };
        let place = Self::flags_at(at);
        self.driver.memory.write_obj(flags, place).unwrap();
    }

    fn notify(&mut self) {
        self.driver.notify(0);
        self.driver.serve();
    }

    /// The ID and the length of the next chain that was given back, which had so many descriptors.
    fn next_used(&mut self, descriptors: u16) -> Option<(u16, u32)> {
        let at = self.used;
        let flags: u16 = self.driver.memory.read_obj(Self::flags_at(at)).unwrap();
        if (flags & AVAIL != 0, flags & USED != 0) != (at.1, at.1) {
            return None;
        }
        let place = Self::flags_at(at).0;
        let length = self
            .driver
            .memory
            .read_obj(GuestAddress(place - 6))
            .unwrap();
        let id = self
            .driver
            .memory
            .read_obj(GuestAddress(place - 2))
            .unwrap();
        advance(&mut self.used, descriptors);
        Some((id, length))
    }

    /// A read that is carried out at once.
    fn reads(&mut self) {
        let id = self.avail.0;
        let at = self.add(false);
        self.notify();
        assert_eq!(self.driver.outcome(at), 0);
        assert_eq!(self.next_used(3), Some((id, 513)));
    }
}

#[test]
fn requests_go_round_and_round() {
    for (features, indirect) in [(!0, false), (!0, true), (!EVENT_IDX, false)] {
        let mut packed = Packed::of(D, features);
        packed.driver.set("io_order", "shuffled");
        for _ in 0..20 {
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(packed.avail.0);
                packed.add(indirect);
            }
            packed.notify();
            let descriptors = if indirect { 1 } else { 3 };
            let mut used: Vec<u16> = (0..3)
                .map(|_| packed.next_used(descriptors).unwrap())
                .map(|(id, length)| {
                    assert_eq!(length, 513);
                    id
                })
                .collect();
            assert_eq!(packed.next_used(descriptors), None);
            used.sort_unstable();
            ids.sort_unstable();
            assert_eq!(used, ids);
        }
        assert_eq!(packed.driver.status(), READY);
    }
}

#[test]
fn who_does_not_accept_it_has_split_virtqueues() {
    let offer = Offer { packed: true, ..D };
    let mut driver = Driver::found(disk(1, false).0, offer);
    assert_ne!(driver.offered() & PACKED, 0);
    driver.bring_up(!PACKED);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.outcome(at), driver.used(0)), (0, 1));
    assert_eq!(Driver::ready().offered() & PACKED, 0);
}

#[test]
fn used_buffer_notifications_come_as_the_driver_wants_them() {
    let mut packed = Packed::of(D, !0);
    let file = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let file = Eventfd::try_from(file).unwrap();
    packed.driver.device.set_vectors(0, 1, vec![file]);
    let mut after = (0, true);
    advance(&mut after, 6 + 6 + 4);
    let second = u32::from(after.0) | (u32::from(after.1) << 15) | (2 << 16);
    // Not at all, for each, and for one of the second read from then on.
    for (events, expected) in [(1 << 16, &[0, 0][..]), (0, &[1, 1]), (second, &[0, 1, 0])] {
        let at = GuestAddress(ring(0, EVENTS));
        packed.driver.memory.write_obj(events, at).unwrap();
        for told in expected {
            let before = packed.driver.report().counters.interrupts;
            packed.reads();
            let after = packed.driver.report().counters.interrupts;
            assert_eq!(after - before, *told, "{events:#x}");
        }
    }
}

#[test]
fn a_device_with_packed_virtqueues_stops_and_goes_on_where_it_was() {
    for offer in [D, S] {
        let mut packed = Packed::of(offer, !0);
        for _ in 0..5 {
            packed.reads();
            packed.driver.set("io_hold", "until-stop");
            let id = packed.avail.0;
            let at = packed.add(true);
            packed.notify();
            assert_eq!(packed.driver.outcome(at), 0xff);
            assert_eq!(packed.driver.stop(), READY);
            packed.driver.serve();
            assert_ne!(packed.driver.status(), READY);
            assert_eq!(packed.next_used(1), Some((id, 513)));
            assert_eq!(packed.driver.resume(), READY);
            packed.driver.set("io_hold", "no");
        }
        packed.reads();
        assert!(packed.driver.breaches().is_empty());
    }
}

#[test]
fn what_a_suspension_has_left_is_given_back_after_it() {
    let mut packed = Packed::of(S, !0);
    packed.driver.set("leave_requests", "true");
    packed.driver.set("io_hold", "always");
    let at = packed.add(false);
    packed.notify();
    assert_eq!(packed.driver.stop(), SUSPENDED);
    packed.driver.set("io_hold", "no");
    packed.driver.serve();
    assert_eq!(
        (packed.driver.outcome(at), packed.next_used(3)),
        (0xff, None)
    );
    packed.driver.resume();
    packed.driver.serve();
    assert_eq!(
        (packed.driver.outcome(at), packed.next_used(3)),
        (0, Some((0, 513)))
    );
    packed.reads();
}

#[test]
fn s_drv_2_buffers_that_are_added_to_a_suspended_device_are_seen() {
    for (added, resumed, expected) in [
        (0, false, vec![]),
        (1, false, vec!["S-DRV-2"]),
        (2, false, vec!["S-DRV-2"]),
        (1, true, vec!["S-DRV-3"]),
    ] {
        let mut packed = Packed::of(S, !0);
        packed.driver.set("resume", "after:1");
        // To another round than the one in which the driver began.
        for _ in 0..4 {
            packed.reads();
        }
        packed.driver.stop();
        if resumed {
            packed.driver.resume();
        }
        for _ in 0..added {
            packed.add(false);
        }
        packed.driver.status();
        assert_eq!(packed.driver.breaches(), expected);
        let seen = packed.driver.report().breaches;
        let count = format!("{} buffers added", 3 * added);
        assert!(
            seen.iter().all(|breach| breach.seen.starts_with(&count)),
            "{seen:?}"
        );
    }
}

#[test]
fn s_drv_4_buffers_that_are_taken_back_from_a_suspended_device_are_seen() {
    let mut packed = Packed::of(S, !0);
    packed.driver.set("acknowledge", "after:1");
    packed.reads();
    // Available, and not taken.
    let at = packed.avail;
    packed.add(true);
    packed.driver.stop();
    assert!(packed.driver.breaches().is_empty());
    let flags: u16 = if at.1 { USED } else { AVAIL };
    packed
        .driver
        .memory
        .write_obj(flags, Packed::flags_at(at))
        .unwrap();
    packed.driver.status();
    assert_eq!(packed.driver.breaches(), ["S-DRV-4"]);
}

/// Virtio 1.4, 2.8: the ring has to be aligned to 16 bytes, what belongs to it to 4.
#[test]
fn a_packed_virtqueue_that_is_not_aligned_needs_a_reset() {
    for (register, off) in [(0x20, 8), (0x28, 2), (0x30, 2), (0x30, 1)] {
        let offer = Offer { packed: true, ..D };
        let mut driver = Driver::found(disk(1, false).0, offer);
        driver.negotiate(!0);
        driver.lay_out(Some((register, off)));
        driver.set_status(READY);
        assert_eq!(driver.status(), READY | NEEDS_RESET, "{register:#x}");
    }
}

#[test]
fn a_chain_that_makes_no_sense_needs_a_reset() {
    let mut packed = Packed::of(D, !0);
    for _ in 0..SIZE {
        packed.put((0, 1), 0, 1, true);
    }
    packed.notify();
    assert_eq!(packed.driver.status(), READY | NEEDS_RESET);
    assert_eq!(packed.driver.report().counters.requests.taken, 0);
}

#[test]
fn a_packed_virtqueue_that_is_gone_is_waited_for() {
    for indirect in [false, true] {
        let mut packed = Packed::of(D, !0);
        let at = packed.add(indirect);
        packed.driver.device.memory().clear();
        packed.notify();
        assert_eq!(packed.driver.status(), READY);
        packed.driver.map_all();
        packed.driver.serve();
        assert_eq!(packed.driver.outcome(at), 0);
        // The same for the result of one that was taken before.
        packed.driver.set("io_delay_us", "1000");
        packed.used = packed.avail;
        let (id, descriptors) = (packed.avail.0, if indirect { 1 } else { 3 });
        packed.add(indirect);
        packed.notify();
        packed.driver.device.memory().clear();
        packed.driver.map_part(0x8_0000, 0x8_0000);
        packed.driver.advance(MS);
        assert_eq!(packed.next_used(descriptors), None);
        packed.driver.map_part(0, 0x8_0000);
        packed.driver.serve();
        assert_eq!(packed.next_used(descriptors), Some((id, 513)));
        packed.driver.device.memory().clear();
        packed.add(indirect);
        packed.notify();
        packed.driver.advance(PATIENCE);
        assert_eq!(packed.driver.status(), READY | NEEDS_RESET);
    }
}

#[test]
fn a_packed_virtqueue_can_be_reset() {
    let offer = Offer {
        ring_reset: true,
        ..D
    };
    let mut packed = Packed::of(offer, !0);
    packed.reads();
    packed.driver.write16(0x16, 0);
    packed.driver.write16(0x3a, 1);
    packed.driver.lay_out_queue(0, SIZE, None);
    (packed.avail, packed.used) = ((0, true), (0, true));
    packed.reads();
}
