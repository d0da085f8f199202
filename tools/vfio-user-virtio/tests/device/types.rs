// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Device types, beyond what a disk does with requests.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use serde_json::json;
use vfio_user_virtio::types::blk::Disk;
use vfio_user_virtio::types::net::peer::NUMBERED;
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::rng::Rng;
use vfio_user_virtio::types::store::Store;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{disk, Driver, D, MEMORY, NEEDS_RESET, READY, S, SECTORS};

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A request with ranges of sectors: (sector, sectors, flags).
fn ranges(driver: &mut Driver, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
    let (at, buffers) = driver.request(kind, 0, ranges.len() as u32 * 16);
    let bytes: Vec<u8> = ranges
        .iter()
        .flat_map(|(sector, sectors, flags)| {
            let mut bytes = sector.to_le_bytes().to_vec();
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes
        })
        .collect();
    driver.fill(at, &bytes);
    driver.make_available(&buffers, false);
    driver.serve();
    driver.outcome(at)
}

#[test]
fn blk_discard_and_write_zeroes_leave_zeroes_where_they_were_asked_to() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        let (of_type, contents) = disk(1, false);
        contents
            .write_all_at(&[7; SECTORS as usize * 512], 0)
            .unwrap();
        let mut driver = Driver::of(of_type, D);
        assert_eq!(
            ranges(
                &mut driver,
                kind,
                &[(8, 8, flags), (32, 1, flags), (40, 0, flags)]
            ),
            OK
        );
        let mut bytes = [0; SECTORS as usize * 512];
        contents.read_exact_at(&mut bytes, 0).unwrap();
        for (sector, bytes) in bytes.chunks(512).enumerate() {
            let zero = (8..16).contains(&sector) || sector == 32;
            assert_eq!(bytes, [if zero { 0 } else { 7 }; 512], "sector {sector}");
        }
    }
}

#[test]
fn blk_discard_gives_room_back() {
    let (of_type, contents) = disk(1, false);
    contents
        .write_all_at(&[7; SECTORS as usize * 512], 0)
        .unwrap();
    contents.sync_all().unwrap();
    let before = contents.metadata().unwrap().blocks();
    let mut driver = Driver::of(of_type, D);
    assert_eq!(ranges(&mut driver, DISCARD, &[(0, SECTORS as u32, 0)]), OK);
    assert!(contents.metadata().unwrap().blocks() < before);
}

#[test]
fn blk_ranges_that_make_no_sense_are_refused_and_nothing_is_done() {
    let (of_type, contents) = disk(1, false);
    contents
        .write_all_at(&[7; SECTORS as usize * 512], 0)
        .unwrap();
    let mut driver = Driver::of(of_type, D);
    let good = (0, 8, 0);
    for (kind, bad, expected) in [
        (DISCARD, (SECTORS, 1, 0), IOERR),
        (DISCARD, (u64::MAX, 1, 0), IOERR),
        (DISCARD, (0, u32::MAX, 0), IOERR),
        (DISCARD, (0, 1, 1), UNSUPP),
        (WRITE_ZEROES, (0, 1, 2), UNSUPP),
    ] {
        assert_eq!(
            ranges(&mut driver, kind, &[good, bad]),
            expected,
            "{kind} {bad:?}"
        );
    }
    assert_eq!(ranges(&mut driver, DISCARD, &[]), IOERR);
    assert_eq!(ranges(&mut driver, DISCARD, &[good; 17]), IOERR);
    let mut bytes = [0; SECTORS as usize * 512];
    contents.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn blk_a_read_only_disk_can_only_be_read() {
    let mut driver = Driver::of(disk(1, true).0, D);
    assert_ne!(driver.offered() & (1 << 5), 0);
    assert_eq!(ranges(&mut driver, 1, &[(0, 0, 0); 32]), IOERR);
    assert_eq!(ranges(&mut driver, DISCARD, &[(0, 1, 0)]), IOERR);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), OK);
    assert!(driver.device.act("resize:32").is_err());
}

#[test]
fn blk_every_one_of_several_queues_works() {
    let mut driver = Driver::of(disk(4, false).0, D);
    assert_eq!((driver.read(0x12, 2), driver.config()[34]), (4, 4));
    assert_ne!(driver.offered() & (1 << 12), 0);
    let requests: Vec<u64> = (0..4)
        .map(|queue| {
            let (at, buffers) = driver.request(0, 0, 512);
            driver.add(queue, &buffers, false);
            driver.notify(queue);
            at
        })
        .collect();
    driver.serve();
    for (queue, at) in requests.into_iter().enumerate() {
        assert_eq!((driver.outcome(at), driver.used(queue as u16)), (OK, 1));
    }
}

#[test]
fn blk_a_resize_is_told_and_takes_effect() {
    let (of_type, contents) = disk(1, false);
    let mut driver = Driver::of(of_type, D);
    driver.device.act("resize:128").unwrap();
    assert_eq!((driver.config()[0], driver.read(0x15, 1)), (128, 1));
    assert_eq!(driver.report().counters.configuration_changes, 1);
    assert_eq!(contents.metadata().unwrap().len(), 128 * 512);
    let at = driver.submit_read(127);
    driver.serve();
    assert_eq!(driver.outcome(at), OK);
    driver.device.act("resize:16").unwrap();
    let at = driver.submit_read(16);
    driver.serve();
    assert_eq!(driver.outcome(at), IOERR);
    driver.device.act("resize:16").unwrap();
    assert_eq!(driver.read(0x15, 1), 2, "no change, no new generation");
}

#[test]
fn blk_a_zoned_disk_reports_its_zones() {
    const ZONE_REPORT: u32 = 16;
    const ZONE: u64 = 32768;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((2 * ZONE + 8) * 512).unwrap();
    let store = Store::open(file.path(), false).unwrap();
    let disk = Disk::new(store, "disk", 1, false).zoned();
    let mut driver = Driver::of(Arc::new(disk), D);
    driver.negotiate(!(1 << 17));
    assert_eq!(driver.status(), 3, "not without zones (5.2.5.2)");
    driver.bring_up(!0);
    let optional = (1 << 13) | (1 << 14) | (1 << 17);
    assert_eq!(
        driver.offered() & optional,
        1 << 17,
        "no discard, no write zeroes"
    );
    assert_eq!(driver.read(0x2000 + 72, 4), ZONE);
    assert_eq!(driver.read(0x2000 + 92, 1), 1, "host-managed");
    for (sector, length, starts) in [
        (0, 64 * 4, &[0, ZONE, 2 * ZONE][..]),
        (ZONE, 64 * 4, &[ZONE, 2 * ZONE]),
        (0, 64 * 2, &[0]),
        (2 * ZONE + 8, 64 * 2, &[]),
    ] {
        let at = driver.buffer();
        let (status, data) = (at + 0x1f00, at + 0x100);
        for (at, bytes) in [
            (at, u64::from(ZONE_REPORT)),
            (at + 8, sector),
            (status, 0xff),
        ] {
            driver.memory.write_obj(bytes, GuestAddress(at)).unwrap();
        }
        let buffers = [(at, 16, false), (data, length, true), (status, 1, true)];
        driver.make_available(&buffers, false);
        driver.serve();
        assert_eq!(driver.outcome(at), OK);
        let report = driver.bytes(data, length as usize);
        let number = |at: usize| u64::from_le_bytes(report[at..at + 8].try_into().unwrap());
        assert_eq!(number(0), starts.len() as u64);
        for (nth, start) in starts.iter().enumerate() {
            let at = 64 * (1 + nth);
            assert_eq!(number(at + 8), *start);
            assert_eq!(number(at), ZONE.min(2 * ZONE + 8 - start), "its capacity");
            let kind = if *start == 2 * ZONE { [2, 0xd] } else { [1, 0] };
            assert_eq!(report[at + 24..at + 26], kind);
        }
    }
    for (sector, expected) in [(2 * ZONE - 1, OK), (2 * ZONE, IOERR), (2 * ZONE + 7, IOERR)] {
        let (at, buffers) = driver.request(1, sector, 512);
        driver.make_available(&buffers, false);
        driver.serve();
        assert_eq!(driver.outcome(at), expected, "a write to {sector}");
    }
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(ranges(&mut driver, kind, &[(2 * ZONE, 1, 0)]), UNSUPP);
    }
}

#[test]
fn rng_fills_buffers() {
    let mut driver = Driver::of(Arc::new(Rng::open().unwrap()), D);
    let at = driver.buffer();
    driver.make_available(&[(at, 64, true)], false);
    driver.serve();
    assert_eq!(driver.used_element(0, 0), (0, 64));
    assert_ne!(driver.bytes(at, 64), [0; 64]);
    driver.make_available(&[(at, 64, false)], false);
    driver.serve();
    assert_eq!(driver.status(), READY | NEEDS_RESET, "no room");
}

/// 5.4.6.2: a device must place one or more random bytes into each buffer. The kernel's driver takes a length of 0 for the end.
#[test]
fn rng_a_request_that_is_to_fail_gets_as_little_as_a_device_may_give() {
    let mut driver = Driver::of(Arc::new(Rng::open().unwrap()), D);
    driver.set("io_error_every", "1");
    for nth in 0..2 {
        let at = driver.buffer();
        driver.make_available(&[(at, 64, true)], false);
        driver.serve();
        assert_eq!(driver.used_element(0, nth).1, 1);
        assert_eq!(driver.bytes(at + 1, 63), [0; 63]);
    }
    assert_eq!(driver.status(), READY);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.completed, requests.failed), (2, 2));
}

#[test]
fn null_takes_buffers_and_keeps_them_and_can_be_stopped_all_the_same() {
    for offer in [D, S] {
        let mut driver = Driver::of(Arc::new(Null::new(25, 2)), offer);
        let at = driver.buffer();
        for queue in 0..2 {
            driver.add(queue, &[(at, 64, true)], false);
            driver.notify(queue);
        }
        driver.serve();
        let requests = driver.report().counters.requests;
        assert_eq!(
            (requests.taken, requests.kept, requests.in_flight),
            (2, 2, 0)
        );
        assert_eq!((driver.used(0), driver.used(1)), (0, 0));
        assert_ne!(driver.stop(), READY);
        assert_eq!(driver.resume(), READY);
    }
}

#[test]
fn null_is_what_it_was_told_to_be() {
    let null = Null::new(5, 2)
        .with_features(0x9)
        .with_config(vec![1, 2, 3])
        .with_answers(0x2);
    let mut driver = Driver::of(Arc::new(null), D);
    assert_eq!(driver.offered() & 0xff, 0x9);
    assert_eq!(driver.config()[..4], [1, 2, 3, 0]);
    let at = driver.buffer();
    driver
        .memory
        .write_slice(&[7; 64], GuestAddress(at))
        .unwrap();
    for queue in 0..2 {
        let room = at + 32 * u64::from(queue);
        driver.add(queue, &[(at, 8, false), (room, 32, true)], false);
        driver.notify(queue);
    }
    driver.serve();
    assert_eq!((driver.used(0), driver.used(1)), (0, 1));
    assert_eq!(driver.used_element(1, 0), (0, 32));
    assert_eq!(driver.bytes(at, 64), [[7; 32], [0; 32]].concat());
    let requests = driver.report().counters.requests;
    assert_eq!((requests.kept, requests.completed), (1, 1));
}

pub(crate) const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 5];

/// The card of several pairs: the answer comes by the pair that was asked, as long as the driver wants that one, and the control
/// virtqueue is the last.
#[test]
fn net_answers_by_the_pair_that_was_asked() {
    let mut driver = Driver::of(Arc::new(Net::new(MAC, 2).mergeable()), D);
    for (active, receive) in [(1_u16, RECEIVE), (2, 2)] {
        let mut command = vec![4, 0];
        command.extend(active.to_le_bytes());
        assert_eq!(control_by(&mut driver, 4, &command), 0);
        assert_eq!(driver.report().of_type["pairs"], active);
        let at = driver.buffer();
        driver.add(receive, &[(at, 1526, true)], false);
        driver.notify(receive);
        transmit_by(&mut driver, 3, &numbered(u64::from(active)));
        assert_eq!(driver.used(receive), 1, "{active} active");
    }
    let by_pair = driver.report().of_type["by_pair"].clone();
    let traffic = |transmitted, received| json!({"transmitted": transmitted, "received": received});
    assert_eq!(by_pair, json!([traffic(0, 1), traffic(2, 1)]));
    let mut command = vec![4, 0];
    command.extend(3_u16.to_le_bytes());
    assert_eq!(control_by(&mut driver, 4, &command), 1);
}

fn net() -> Driver {
    Driver::of(Arc::new(Net::new(MAC, 1)), D)
}

fn numbered(number: u64) -> Vec<u8> {
    let mut frame = [&[0xff; 6], &MAC[..], &NUMBERED.to_be_bytes()].concat();
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

pub(crate) fn transmit(driver: &mut Driver, frame: &[u8]) {
    transmit_by(driver, TRANSMIT, frame);
}

fn transmit_by(driver: &mut Driver, queue: u16, frame: &[u8]) {
    let at = driver.buffer();
    driver
        .memory
        .write_slice(&[0; 12], GuestAddress(at))
        .unwrap();
    driver
        .memory
        .write_slice(frame, GuestAddress(at + 12))
        .unwrap();
    driver.add(queue, &[(at, 12 + frame.len() as u32, false)], false);
    driver.notify(queue);
    driver.serve();
    driver.serve();
}

pub(crate) fn make_room(driver: &mut Driver) -> u64 {
    let at = driver.buffer();
    driver.add(RECEIVE, &[(at, 1526, true)], false);
    driver.notify(RECEIVE);
    driver.serve();
    at
}

fn control(driver: &mut Driver, command: &[u8]) -> u8 {
    control_by(driver, CONTROL, command)
}

fn control_by(driver: &mut Driver, queue: u16, command: &[u8]) -> u8 {
    let at = driver.buffer();
    driver
        .memory
        .write_slice(command, GuestAddress(at))
        .unwrap();
    driver
        .memory
        .write_obj(0xffu8, GuestAddress(at + 0x100))
        .unwrap();
    driver.add(
        queue,
        &[(at, command.len() as u32, false), (at + 0x100, 1, true)],
        false,
    );
    driver.notify(queue);
    driver.serve();
    driver.bytes(at + 0x100, 1)[0]
}

#[test]
fn net_what_the_peer_sends_is_received() {
    let mut driver = net();
    assert_eq!(driver.config()[..8], [0x52, 0x54, 0, 0, 0, 5, 1, 0]);
    let at = make_room(&mut driver);
    assert_eq!(driver.used(RECEIVE), 0, "nothing to say");
    transmit(&mut driver, &numbered(0));
    assert_eq!((driver.used(TRANSMIT), driver.used(RECEIVE)), (1, 1));
    let received = driver.bytes(at, 12 + 60);
    assert_eq!(received[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(received[12..18], MAC, "sent back");
    assert_eq!(received[24..], numbered(0)[12..]);
    let peer = &driver.report().of_type["peer"];
    assert_eq!((&peer["numbered"], &peer["lost"]), (&1.into(), &0.into()));
}

#[test]
fn net_frames_wait_for_buffers_and_are_not_lost_by_a_stop() {
    let mut driver = net();
    transmit(&mut driver, &numbered(0));
    transmit(&mut driver, &numbered(1));
    assert_eq!(driver.used(RECEIVE), 0);
    assert_eq!(
        driver.stop(),
        READY | 32,
        "frames that the device has not received for the driver are no requests"
    );
    make_room(&mut driver);
    make_room(&mut driver);
    assert_eq!(driver.used(RECEIVE), 0);
    driver.resume();
    driver.serve();
    assert_eq!(driver.used(RECEIVE), 2);
    assert_eq!(driver.report().of_type["received"], 2);
}

#[test]
fn net_what_can_not_be_kept_is_counted() {
    let mut driver = net();
    for number in 0..1030 {
        transmit(&mut driver, &numbered(number));
    }
    assert_eq!(driver.report().of_type["overflowed"], 6);
    transmit(&mut driver, &[0; 1515]);
    assert_eq!(driver.report().of_type["too_long"], 1);
    assert_eq!(driver.status(), READY);
}

#[test]
fn net_a_receive_buffer_that_is_too_short_needs_a_reset() {
    let mut driver = net();
    let at = driver.buffer();
    driver.add(RECEIVE, &[(at, 20, true)], false);
    transmit(&mut driver, &numbered(0));
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

/// Nothing waits for a virtqueue that nobody has a use for: here there is nothing to receive.
#[test]
fn net_a_virtqueue_that_is_not_wanted_need_not_be_there() {
    let mut driver = Driver::found(Arc::new(Net::new(MAC, 1)), D);
    driver.negotiate(!0);
    // Once it is enabled it stays where it is.
    driver.write16(0x16, RECEIVE);
    driver.write16(0x18, 16);
    driver.write32(0x30, MEMORY as u32);
    driver.write16(0x1c, 1);
    driver.lay_out(None);
    driver.set_status(READY);
    // Of no protocol that the peer answers.
    transmit(&mut driver, &[0; 60]);
    assert_eq!((driver.status(), driver.used(TRANSMIT)), (READY, 1));
}

#[test]
fn net_control_commands() {
    let mut driver = net();
    assert_eq!(control(&mut driver, &[0, 0, 1]), OK, "promiscuous");
    assert_eq!(
        control(&mut driver, &[1, 1, 2, 2, 2, 2, 2, 2]),
        OK,
        "another address"
    );
    assert_eq!(driver.config()[..6], [2; 6]);
    assert_eq!(control(&mut driver, &[1, 1, 2]), 1, "half an address");
    assert_eq!(control(&mut driver, &[9, 9]), 1, "unknown");
    assert_eq!(control(&mut driver, &[0, 1, 1]), OK, "all multicast");
    assert_eq!(control(&mut driver, &[0, 1]), 1, "on or off?");
    for not_offered in [2, 5, 6, 255] {
        assert_eq!(control(&mut driver, &[0, not_offered, 1]), 1);
    }
    let tables = |unicast: u32, multicast: u32, addresses: usize| {
        let mut command = vec![1, 0];
        command.extend(unicast.to_le_bytes());
        command.extend([2; 6].repeat(unicast.min(2) as usize));
        command.extend(multicast.to_le_bytes());
        command.extend([3; 6].repeat(addresses));
        command
    };
    assert_eq!(control(&mut driver, &tables(0, 0, 0)), OK);
    assert_eq!(control(&mut driver, &tables(2, 1, 1)), OK);
    for (unicast, multicast, addresses) in
        [(2, 1, 0), (2, 1, 2), (u32::MAX, 0, 0), (1, u32::MAX, 1)]
    {
        let command = tables(unicast, multicast, addresses);
        assert_eq!(control(&mut driver, &command), 1, "it does not add up");
    }
    assert_eq!(control(&mut driver, &[1, 0, 0, 0, 0, 0]), 1, "one table");
    let vlans = |driver: &Driver| driver.report().of_type["vlans"].clone();
    for (command, left) in [(0, vec![5]), (0, vec![5]), (1, vec![]), (1, vec![])] {
        // To add one that is there, or to delete one that is not, changes nothing, and nothing says that it is an error.
        assert_eq!(control(&mut driver, &[2, command, 5, 0]), OK);
        assert_eq!(vlans(&driver), serde_json::Value::from(left));
    }
    assert_eq!(control(&mut driver, &[2, 0, 5]), 1, "half a number");
    driver.bring_up(!0);
    assert_eq!(driver.config()[..6], MAC, "its own again");
}

#[test]
fn net_the_link_goes_down_and_up() {
    let mut driver = net();
    driver.device.act("link:down").unwrap();
    assert_eq!(
        (
            driver.config()[6],
            driver.report().counters.configuration_changes
        ),
        (0, 1)
    );
    make_room(&mut driver);
    transmit(&mut driver, &numbered(0));
    assert_eq!(driver.used(RECEIVE), 0);
    driver.device.act("link:up").unwrap();
    transmit(&mut driver, &numbered(1));
    assert_eq!(driver.used(RECEIVE), 1);
    assert!(driver.device.act("link:sideways").is_err());
}
