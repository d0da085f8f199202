// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::buffers::Buffer;

const RING: u64 = 0x1000;
const DRIVER_EVENTS: u64 = 0x3000;
const DEVICE_EVENTS: u64 = 0x3004;
const TABLES: u64 = 0x4000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn state(size: u16) -> PackedState {
    PackedState {
        size,
        event_idx: true,
        ring: RING,
        driver_events: DRIVER_EVENTS,
        device_events: DEVICE_EVENTS,
        next_avail: Position::START,
        next_used: Position::START,
    }
}

/// A driver of one virtqueue, by the text of the specification.
struct Driver {
    memory: GuestMemoryMmap,
    size: u16,
    avail: Position,
    used: Position,
    free: u16,
    /// By buffer ID: how many descriptors it has.
    chains: BTreeMap<u16, u16>,
    next_id: u16,
}

impl Driver {
    fn new(size: u16) -> Self {
        Self {
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap(),
            size,
            avail: Position::START,
            used: Position::START,
            free: size,
            chains: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn write(&self, at: u64, buffer: Buffer, id: u16, flags: u16) {
        let memory = &self.memory;
        memory.write_obj(buffer.address, GuestAddress(at)).unwrap();
        memory
            .write_obj(buffer.length, GuestAddress(at + LENGTH))
            .unwrap();
        memory.write_obj(id, GuestAddress(at + ID)).unwrap();
        memory.write_obj(flags, GuestAddress(at + FLAGS)).unwrap();
    }

    /// Makes descriptors available as they are. The first one comes last.
    fn publish(&mut self, id: u16, descriptors: &[(Buffer, u16)]) {
        let length = descriptors.len() as u16;
        for (nth, (buffer, flags)) in descriptors.iter().enumerate().rev() {
            let at = self.avail.advanced(nth as u16, self.size);
            let mark = if at.wrap { AVAIL } else { USED };
            let place = RING + 16 * u64::from(at.index);
            self.write(place, *buffer, id, flags | mark);
        }
        self.avail = self.avail.advanced(length, self.size);
    }

    /// Makes a chain of so many buffers available, the last of which the device writes. Returns its ID, or none if there is no room.
    fn add(&mut self, buffers: u16, indirect: bool) -> Option<u16> {
        let length = if indirect { 1 } else { buffers };
        if length > self.free {
            return None;
        }
        let id = (0..)
            .map(|nth| self.next_id.wrapping_add(nth))
            .find(|id| !self.chains.contains_key(id))?;
        self.next_id = id.wrapping_add(7919);
        let all = chain_of(id, buffers);
        if indirect {
            let table = TABLES + 0x100 * u64::from(self.avail.index);
            for (nth, buffer) in (0..).zip(&all) {
                let last = nth + 1 == u64::from(buffers);
                // All flags but WRITE, and the ID, mean nothing here (2.8.8).
                let flags = if last { WRITE | NEXT } else { INDIRECT };
                self.write(table + 16 * nth, *buffer, 0xffff, flags);
            }
            let buffer = Buffer {
                address: table,
                length: 16 * u32::from(buffers),
            };
            self.publish(id, &[(buffer, INDIRECT | WRITE)]);
        } else {
            let descriptors: Vec<(Buffer, u16)> = (1..)
                .zip(&all)
                .map(|(nth, buffer)| (*buffer, if nth == buffers { WRITE } else { NEXT }))
                .collect();
            self.publish(id, &descriptors);
        }
        self.free -= length;
        self.chains.insert(id, length);
        Some(id)
    }

    /// The ID and the length of the next chain that was given back.
    fn next_used(&mut self) -> Option<(u16, u32)> {
        let at = GuestAddress(RING + 16 * u64::from(self.used.index));
        let [_, _, length, rest]: [u32; 4] = self.memory.read_obj(at).unwrap();
        let (id, flags) = (rest as u16, (rest >> 16) as u16);
        if (flags & AVAIL != 0) != self.used.wrap || (flags & USED != 0) != self.used.wrap {
            return None;
        }
        assert_eq!(flags & WRITE != 0, length > 0);
        let descriptors = self.chains.remove(&id).expect("a chain that is in flight");
        self.used = self.used.advanced(descriptors, self.size);
        self.free += descriptors;
        Some((id, length))
    }

    fn want(&self, events: u32) {
        let at = GuestAddress(DRIVER_EVENTS);
        self.memory.write_obj(events, at).unwrap();
    }
}

/// The buffers of the chain with that ID.
fn chain_of(id: u16, buffers: u16) -> Vec<Buffer> {
    let buffer = |nth| Buffer {
        address: (u64::from(id) << 16) | u64::from(nth),
        length: u32::from(nth) + 1,
    };
    (0..buffers).map(buffer).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Add(u16, bool),
    Take,
    GiveBack(prop::sample::Index, u32),
    /// The driver wants to be told when this many more descriptors are used.
    Want(u16),
    Interrupt,
    Judge,
    /// The device goes on from its state.
    Hand,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u16..6, any::<bool>()).prop_map(|(buffers, indirect)| Act::Add(buffers, indirect)),
        6 => Just(Act::Take),
        6 => (any::<prop::sample::Index>(), 0u32..9).prop_map(|(which, written)| Act::GiveBack(which, written)),
        1 => (0u16..20).prop_map(Act::Want),
        2 => Just(Act::Interrupt),
        2 => Just(Act::Judge),
        1 => Just(Act::Hand),
    ]
}

proptest! {
    #[test]
    fn chains_are_taken_in_order_and_come_back_whole(
        size in 1u16..18,
        acts in prop::collection::vec(act(), 0..600),
    ) {
        let mut driver = Driver::new(size);
        let mut packed = Packed::try_from(state(size)).unwrap();
        let mut available = Vec::new();
        let mut taken: Vec<(u16, u16)> = Vec::new();
        // What the driver has made available and the device has given back, in descriptors since the beginning.
        let (mut added, mut judged, mut seen) = (0u16, 0u16, 0u16);
        let (mut used, mut asked, mut event) = (0u32, None, None::<u32>);
        for act in acts {
            match act {
                Act::Add(buffers, indirect) => {
                    if let Some(id) = driver.add(buffers, indirect) {
                        added += if indirect { 1 } else { buffers };
                        available.push((id, buffers));
                    }
                }
                Act::Take => {
                    let chain = packed.next(&driver.memory).unwrap();
                    if available.is_empty() {
                        prop_assert_eq!(chain, None);
                        continue;
                    }
                    let (id, buffers) = available.remove(0);
                    let chain = chain.unwrap();
                    let mut expected = chain_of(id, buffers);
                    let last = expected.pop();
                    prop_assert_eq!(chain.head, id);
                    prop_assert_eq!(&chain.input, &expected);
                    prop_assert_eq!(&chain.output, &Vec::from_iter(last));
                    taken.push((id, chain.descriptors));
                }
                Act::GiveBack(which, written) => {
                    if taken.is_empty() {
                        prop_assert_eq!(driver.next_used(), None);
                        continue;
                    }
                    let (id, descriptors) = taken.remove(which.index(taken.len()));
                    packed.give_back(id, descriptors, written, &driver.memory).unwrap();
                    prop_assert_eq!(driver.next_used(), Some((id, written)));
                    used += u32::from(descriptors);
                }
                Act::Want(more) => {
                    let place = driver.used.advanced(more % size, size);
                    let wrap = u32::from(place.wrap) << 15;
                    driver.want(u32::from(place.index) | wrap | (2 << 16));
                    event = Some(used + u32::from(more % size));
                }
                Act::Interrupt => {
                    let wants = packed.wants_interrupt(&driver.memory);
                    // 2.8.10: when the descriptor at that place was used meanwhile. More than a round later nobody can tell.
                    match (asked, event) {
                        (Some(asked), Some(event)) if used - asked <= u32::from(size) && used <= event + u32::from(size) => {
                            prop_assert_eq!(wants, asked <= event && event < used);
                        }
                        (Some(_), Some(_)) => {}
                        (None, _) if event.is_some() => prop_assert!(wants),
                        _ => prop_assert!(wants),
                    }
                    asked = Some(used);
                }
                Act::Judge => {
                    let now = packed.available(Observed::new(&driver.memory)).unwrap();
                    // What was both added and taken away again in between is not looked for. Nor is a whole ring that the device has
                    // taken since.
                    if added - judged < size || added - judged == size && !available.is_empty() {
                        prop_assert_eq!(packed.added(seen, now), added - judged);
                    }
                    (judged, seen) = (added, now);
                }
                Act::Hand => {
                    packed = Packed::try_from(packed.state()).unwrap();
                    asked = None;
                }
            }
        }
    }

    #[test]
    fn no_ring_makes_it_go_outside(
        size in 1u16..=256,
        words in prop::collection::vec((0u64..0x100, any::<u32>()), 0..200),
        takes in 0usize..20,
    ) {
        let driver = Driver::new(size);
        let mut packed = Packed::try_from(state(size)).unwrap();
        for (nth, value) in words {
            driver.memory.write_obj(value, GuestAddress(RING + 4 * nth)).unwrap();
        }
        for _ in 0..takes {
            if let Ok(Some(chain)) = packed.next(&driver.memory) {
                packed.give_back(chain.head, chain.descriptors, 1, &driver.memory).unwrap();
            }
            packed.wants_interrupt(&driver.memory);
            let now = packed.available(Observed::new(&driver.memory)).unwrap();
            prop_assert!(now < 2 * size && packed.outstanding() <= size);
        }
    }
}

#[test]
fn what_is_no_chain_is_the_drivers_error() {
    let buffer = |address, length| Buffer { address, length };
    let one = buffer(0, 1);
    for descriptors in [
        vec![(one, NEXT); 4],
        vec![(one, NEXT | WRITE), (one, 0)],
        vec![(buffer(0, u32::MAX), NEXT), (one, 0)],
        vec![(buffer(TABLES, 0), INDIRECT)],
        vec![(buffer(TABLES, 17), INDIRECT)],
        vec![(buffer(TABLES, 16), INDIRECT | NEXT), (one, 0)],
        vec![(one, NEXT), (buffer(TABLES, 16), INDIRECT)],
        vec![(buffer(TABLES, 16 * 257), INDIRECT)],
    ] {
        let mut driver = Driver::new(4);
        let mut packed = Packed::try_from(state(4)).unwrap();
        driver.publish(1, &descriptors);
        let next = packed.next(&driver.memory);
        assert!(matches!(next, Err(Error::Malformed(_))), "{descriptors:?}");
    }
}

#[test]
fn descriptors_that_are_in_flight_can_not_be_made_available() {
    let mut driver = Driver::new(2);
    let mut packed = Packed::try_from(state(2)).unwrap();
    let one = (
        Buffer {
            address: 0,
            length: 1,
        },
        0,
    );
    driver.publish(1, &[one]);
    driver.publish(2, &[one]);
    assert!(packed.next(&driver.memory).unwrap().is_some());
    assert!(packed.next(&driver.memory).unwrap().is_some());
    driver.publish(3, &[one]);
    let next = packed.next(&driver.memory);
    assert!(matches!(next, Err(Error::Malformed(_))));
}

#[test]
fn a_driver_may_take_a_whole_ring_back() {
    for size in [1, 2, 7, 16] {
        let mut driver = Driver::new(size);
        let packed = Packed::try_from(state(size)).unwrap();
        let look = |driver: &Driver| packed.available(Observed::new(&driver.memory)).unwrap();
        let none = look(&driver);
        for _ in 0..size {
            driver.add(1, false).unwrap();
        }
        let all = look(&driver);
        assert_eq!(packed.added(none, all), size);
        for index in 0..size {
            let flags = GuestAddress(RING + 16 * u64::from(index) + FLAGS);
            driver.memory.write_obj(0u16, flags).unwrap();
        }
        assert_eq!(packed.added(all, look(&driver)), 0u16.wrapping_sub(size));
    }
}

#[test]
fn no_more_is_given_back_than_was_taken() {
    let mut driver = Driver::new(16);
    let mut packed = Packed::try_from(state(16)).unwrap();
    let id = driver.add(2, false).unwrap();
    packed.next(&driver.memory).unwrap().unwrap();
    for descriptors in [0, 3, u16::MAX] {
        let given_back = packed.give_back(id, descriptors, 1, &driver.memory);
        assert!(matches!(given_back, Err(Error::Malformed(_))));
    }
    assert_eq!(packed.give_back(id, 2, 1, &driver.memory), Ok(()));
}

#[test]
fn what_is_gone_is_found_when_it_is_back() {
    let mut driver = Driver::new(4);
    let mut packed = Packed::try_from(state(4)).unwrap();
    driver.add(1, true);
    let gone = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), TABLES as usize)]).unwrap();
    let mut ring = vec![0; TABLES as usize];
    driver
        .memory
        .read_slice(&mut ring, GuestAddress(0))
        .unwrap();
    gone.write_slice(&ring, GuestAddress(0)).unwrap();
    assert_eq!(packed.next(&gone), Err(Error::Gone), "its table");
    let gone = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RING as usize)]).unwrap();
    assert_eq!(packed.next(&gone), Err(Error::Gone), "its ring");
    assert_eq!(packed.available(Observed::new(&gone)), None);
    assert!(packed.next(&driver.memory).unwrap().is_some());
}

#[test]
fn notifications_are_asked_for_when_nothing_is_left() {
    for (event_idx, expected) in [(true, [[1 << 15, 2], [0, 2]]), (false, [[0, 0], [0, 0]])] {
        let mut driver = Driver::new(1);
        let mut packed = Packed::try_from(PackedState {
            event_idx,
            ..state(1)
        })
        .unwrap();
        let events = |driver: &Driver| -> [u16; 2] {
            driver.memory.read_obj(GuestAddress(DEVICE_EVENTS)).unwrap()
        };
        assert_eq!(packed.next(&driver.memory), Ok(None));
        let first = events(&driver);
        driver.add(1, false);
        packed.next(&driver.memory).unwrap();
        assert_eq!(packed.next(&driver.memory), Ok(None));
        let second = events(&driver);
        assert_eq!([first, second], expected);
    }
}

#[test]
fn the_driver_may_want_no_used_buffer_notifications() {
    let driver = Driver::new(4);
    let mut packed = Packed::try_from(PackedState {
        event_idx: false,
        ..state(4)
    })
    .unwrap();
    for (events, wanted) in [
        (1 << 16, false),
        (0, true),
        (2 << 16, true),
        (3 << 16, true),
    ] {
        driver.want(events);
        assert_eq!(packed.wants_interrupt(&driver.memory), wanted);
    }
}

#[test]
fn a_state_that_can_not_be_is_refused() {
    let place = |index, wrap| Position { index, wrap };
    let good = state(4);
    assert!(Packed::try_from(good).is_ok());
    for bad in [
        PackedState {
            ring: RING + 8,
            ..good
        },
        PackedState {
            driver_events: DRIVER_EVENTS + 2,
            ..good
        },
        PackedState {
            device_events: DEVICE_EVENTS + 1,
            ..good
        },
        PackedState {
            ring: u64::MAX - 15,
            ..good
        },
        PackedState { size: 0, ..good },
        PackedState { size: 257, ..good },
        PackedState {
            next_avail: place(4, true),
            ..good
        },
        PackedState {
            next_used: place(4, false),
            ..good
        },
        PackedState {
            next_used: place(1, true),
            ..good
        },
    ] {
        assert!(Packed::try_from(bad).is_err(), "{bad:?}");
    }
}
