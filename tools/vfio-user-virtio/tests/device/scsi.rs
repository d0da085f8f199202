// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The SCSI host: commands to its units, what makes no sense, and events.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use vfio_user_virtio::types::scsi::Scsi;
use vfio_user_virtio::types::store::Store;
use vfio_user_virtio::types::Type;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{Driver, D, MEMORY, NEEDS_RESET, QUEUE_SIZE, READY, S, SECTORS};
use crate::queue_reset::{offer, reset_queue};

const CONTROL: u16 = 0;
const EVENT: u16 = 1;
const REQUEST: u16 = 2;
const RESPONSE: u64 = 0x100;
const DATA: u64 = 0x200;
const CDB: usize = 32;
const SENSE: usize = 96;

const GOOD: (u8, u8) = (0, 0);
const CHECK: (u8, u8) = (0, 2);

/// A host with units of [`SECTORS`] each, and their contents, one after the other.
pub(crate) fn scsi(units: u16) -> (Arc<dyn Type>, File) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file()
        .set_len(SECTORS * 512 * u64::from(units))
        .unwrap();
    let stores = Store::open(file.path(), false).unwrap().split(units);
    (Arc::new(Scsi::new(stores, "disks", 1)), file.into_file())
}

fn ready() -> Driver {
    Driver::of(scsi(2).0, D)
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    /// Response and status.
    end: (u8, u8),
    /// Sense key and code.
    sense: (u8, u8),
    left: u32,
    data: Vec<u8>,
}

/// Gives a command to unit `lun` of `target`, with `output` for it or room for `room` bytes from it.
fn give(driver: &mut Driver, target: u8, lun: u8, cdb: &[u8], output: &[u8], room: u32) -> Came {
    let at = driver.buffer();
    let mut header = vec![1, target, 0x40, lun, 0, 0, 0, 0];
    header.resize(19, 0);
    header.extend(cdb);
    header.resize(19 + CDB, 0);
    let write = |driver: &Driver, bytes: &[u8], at| {
        driver.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    };
    write(driver, &header, at);
    write(driver, &[0xff; 12 + SENSE], at + RESPONSE);
    write(driver, output, at + DATA);
    let request = (at, header.len() as u32, false);
    let response = (at + RESPONSE, 12 + SENSE as u32, true);
    let mut buffers = vec![request, response];
    if !output.is_empty() {
        buffers.insert(1, (at + DATA, output.len() as u32, false));
    }
    if room > 0 {
        buffers.push((at + DATA, room, true));
    }
    driver.add(REQUEST, &buffers, false);
    driver.notify(REQUEST);
    driver.serve();
    let response = driver.bytes(at + RESPONSE, 12 + SENSE);
    Came {
        end: (response[11], response[10]),
        sense: (response[14], response[24]),
        left: u32::from_le_bytes(response[4..8].try_into().unwrap()),
        data: driver.bytes(at + DATA, room as usize),
    }
}

/// As [`give`], to the first unit, without data for it.
fn ask(driver: &mut Driver, cdb: &[u8], room: u32) -> Came {
    give(driver, 0, 0, cdb, &[], room)
}

fn transfer_10(operation: u8, block: u8, blocks: u8) -> [u8; 10] {
    [operation, 0, 0, 0, 0, block, 0, 0, blocks, 0]
}

const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;

#[test]
fn what_is_written_is_in_its_part_of_the_file_and_is_read_back() {
    let (of_type, contents) = scsi(2);
    let mut driver = Driver::of(of_type, D);
    for lun in 0..2u8 {
        let bytes: Vec<u8> = (0..1024u32).map(|n| (n * 7 % 251) as u8 + lun).collect();
        let came = give(&mut driver, 0, lun, &transfer_10(WRITE_10, 3, 2), &bytes, 0);
        assert_eq!((came.end, came.left), (GOOD, 0));
        let mut file = vec![0; 1024];
        let start = u64::from(lun) * SECTORS * 512;
        contents.read_exact_at(&mut file, start + 3 * 512).unwrap();
        assert_eq!(file, bytes);
        let came = give(
            &mut driver,
            0,
            lun,
            &transfer_10(READ_10, 3, 2),
            &[],
            1024 + 8,
        );
        assert_eq!((came.end, came.left), (GOOD, 8));
        assert_eq!(came.data[..1024], bytes);
    }
    let mut read_16 = [0; 16];
    (read_16[0], read_16[9], read_16[13]) = (0x88, 3, 1);
    assert_eq!(ask(&mut driver, &read_16, 512).data[..3], [0, 7, 14]);
}

#[test]
fn a_transfer_that_reaches_beyond_the_unit_or_the_buffers_is_refused() {
    let mut driver = ready();
    let last = SECTORS as u8 - 1;
    assert_eq!(
        ask(&mut driver, &transfer_10(READ_10, last, 1), 512).end,
        GOOD
    );
    for (block, blocks) in [(last, 2), (last + 1, 1)] {
        let came = ask(&mut driver, &transfer_10(READ_10, block, blocks), 1024);
        assert_eq!((came.end, came.sense), (CHECK, (5, 0x21)));
    }
    let mut read_16 = [0xff; 16];
    read_16[0] = 0x88;
    assert_eq!(ask(&mut driver, &read_16, 512).sense, (5, 0x21));
    let came = ask(&mut driver, &transfer_10(READ_10, 0, 2), 1023);
    assert_eq!((came.end, came.left), ((1, 0), 1023));
    let came = give(
        &mut driver,
        0,
        0,
        &transfer_10(WRITE_10, 0, 2),
        &[1; 512],
        0,
    );
    assert_eq!(came.end, (1, 0));
    let came = ask(&mut driver, &transfer_10(READ_10, 0, 1), 512);
    assert_eq!(came.data, [0; 512], "nothing was written");
}

#[test]
fn units_tell_what_they_are() {
    let mut driver = ready();
    let came = ask(&mut driver, &[0x12, 0, 0, 0, 36], 64);
    assert_eq!((came.end, came.left), (GOOD, 28));
    assert_eq!(
        came.data[..16],
        *b"\x00\x00\x06\x02\x1f\x00\x00\x02virtio  "
    );
    let came = ask(&mut driver, &[0x12, 1, 0x80, 0, 64], 64);
    assert_eq!(came.data[..11], *b"\x00\x80\x00\x07disks-0");
    let came = ask(&mut driver, &[0x12, 1, 0x83, 0, 64], 64);
    assert_eq!(
        came.data[..23],
        *b"\x00\x83\x00\x13\x02\x01\x00\x0fvirtio  disks-0"
    );
    assert_eq!(
        ask(&mut driver, &[0x12, 1, 0x99, 0, 64], 64).sense,
        (5, 0x24)
    );
    let last = (SECTORS as u32 - 1).to_be_bytes();
    assert_eq!(
        ask(&mut driver, &[0x25], 8).data,
        [last, [0, 0, 2, 0]].concat()
    );
    let mut capacity_16 = [0; 16];
    (capacity_16[0], capacity_16[1], capacity_16[13]) = (0x9e, 0x10, 12);
    assert_eq!(
        ask(&mut driver, &capacity_16, 12).data,
        [[0; 4], last, [0, 0, 2, 0]].concat()
    );
    let mut luns = [0; 12];
    (luns[0], luns[9]) = (0xa0, 64);
    let came = ask(&mut driver, &luns, 64);
    assert_eq!(came.left, 40);
    assert_eq!(
        came.data[..24],
        [[0, 0, 0, 16, 0, 0, 0, 0], [0; 8], [0, 1, 0, 0, 0, 0, 0, 0]].concat()
    );
    // It has a write cache.
    let came = ask(&mut driver, &[0x1a, 0, 8, 0, 64], 64);
    assert_eq!(
        (came.data[0], &came.data[4..7], came.left),
        (23, &[8, 18, 4][..], 40)
    );
    let came = ask(&mut driver, &[0x5a, 0, 8, 0, 0, 0, 0, 0, 64], 64);
    assert_eq!(
        (came.data[1], &came.data[8..11], came.left),
        (26, &[8, 18, 4][..], 36)
    );
    assert_eq!(ask(&mut driver, &[0x1a, 0, 1, 0, 64], 64).sense, (5, 0x24));
    for cdb in [[0x00], [0x35], [0x91]] {
        assert_eq!(ask(&mut driver, &cdb, 0).end, GOOD);
    }
    assert_eq!(
        ask(&mut driver, &[0x03, 0, 0, 0, 18], 18).data[..3],
        [0x70, 0, 0]
    );
    assert_eq!(ask(&mut driver, &[0xdd], 0).sense, (5, 0x20));
}

#[test]
fn commands_are_counted_by_their_names() {
    let mut driver = ready();
    for cdb in [
        &[0x00, 0, 0, 0, 0, 0][..],
        &[0x03, 0, 0, 0, 18, 0],
        &[0x12, 0, 0, 0, 36, 0],
        &[0x1a, 0, 0x3f, 0, 64, 0],
        &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 64, 0],
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0],
        &[0xff, 0, 0, 0, 0, 0],
    ] {
        ask(&mut driver, cdb, 64);
    }
    let kinds = driver.report().counters.requests.kinds;
    let counted: Vec<_> = kinds.iter().map(|(kind, n)| (&**kind, *n)).collect();
    assert_eq!(
        counted,
        [
            ("inquiry", 1),
            ("mode_sense", 2),
            ("read_capacity", 1),
            ("report_luns", 1),
            ("request_sense", 1),
            ("synchronize_cache", 1),
            ("test_unit_ready", 1),
            ("unsupported", 1),
        ]
    );
}

#[test]
fn what_is_not_there_is_refused() {
    let mut driver = ready();
    let inquiry = [0x12, 0, 0, 0, 36];
    assert_eq!(give(&mut driver, 1, 0, &inquiry, &[], 36).end, (3, 0));
    let came = give(&mut driver, 0, 2, &inquiry, &[], 36);
    assert_eq!((came.end, came.data[0]), (GOOD, 0x7f));
    assert_eq!(
        give(&mut driver, 0, 2, &[0x00], &[], 0).sense,
        (5, 0x25),
        "no such unit"
    );
}

#[test]
fn commands_fail_when_asked_to() {
    let mut driver = ready();
    driver.set("io_error_every", "1");
    let came = ask(&mut driver, &transfer_10(READ_10, 0, 1), 512);
    assert_eq!((came.end, came.sense, came.left), (CHECK, (4, 0x44), 512));
    assert_eq!(driver.report().counters.requests.failed, 1);
}

#[test]
fn the_driver_chooses_how_long_a_command_is_until_the_next_reset() {
    let mut driver = ready();
    let size = |driver: &Driver, at: usize| driver.config()[at];
    assert_eq!((size(&driver, 20), size(&driver, 24)), (96, 32));
    for (at, value) in [(20, 18u32), (24, 16), (24, 0), (24, 257), (0, 5)] {
        driver
            .device
            .write_bar(0x2000 + at, &value.to_le_bytes(), driver.now);
    }
    assert_eq!((size(&driver, 20), size(&driver, 24)), (18, 16));
    assert_eq!(size(&driver, 0), 1, "only that can be written");
    // TEST UNIT READY.
    let at = driver.buffer();
    driver
        .memory
        .write_slice(&[1, 0, 0x40, 0], GuestAddress(at))
        .unwrap();
    let buffers = [(at, 19 + 16, false), (at + RESPONSE, 12 + 18, true)];
    driver.add(REQUEST, &buffers, false);
    driver.notify(REQUEST);
    driver.serve();
    assert_eq!(driver.used_element(REQUEST, 0), (0, 12 + 18));
    driver.bring_up(!0);
    assert_eq!((size(&driver, 20), size(&driver, 24)), (96, 32));
}

#[test]
fn a_request_without_room_for_the_response_needs_a_reset() {
    let mut driver = ready();
    let at = driver.buffer();
    driver.add(
        REQUEST,
        &[(at, 51, false), (at + RESPONSE, 107, true)],
        false,
    );
    driver.notify(REQUEST);
    driver.serve();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

fn control(driver: &mut Driver, number: u8, room: u32) -> Vec<u8> {
    control_of(driver, number, 24, room)
}

/// As [`control`], with a request of that many bytes.
fn control_of(driver: &mut Driver, number: u8, size: u32, room: u32) -> Vec<u8> {
    let at = driver.buffer();
    driver
        .memory
        .write_slice(&[number, 0, 0, 0], GuestAddress(at))
        .unwrap();
    driver
        .memory
        .write_slice(&[0xff; 5], GuestAddress(at + RESPONSE))
        .unwrap();
    driver.add(
        CONTROL,
        &[(at, size, false), (at + RESPONSE, room, true)],
        false,
    );
    driver.notify(CONTROL);
    driver.serve();
    driver.bytes(at + RESPONSE, 5)
}

#[test]
fn task_management_is_refused_and_there_are_no_notifications() {
    let mut driver = ready();
    assert_eq!(control(&mut driver, 0, 1)[0], 11);
    for query in [1, 2] {
        assert_eq!(control(&mut driver, query, 5), [0; 5]);
    }
    assert_eq!(driver.status(), READY);
    control(&mut driver, 3, 5);
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn room_for_events_is_left_alone() {
    let mut driver = ready();
    let at = driver.buffer();
    driver.add(EVENT, &[(at, 16, true)], false);
    driver.notify(EVENT);
    driver.serve();
    assert_eq!(driver.used(EVENT), 0);
    assert_eq!(driver.stop(), READY | 32);
}

/// Makes room for an event available.
fn add_room(driver: &mut Driver) -> u64 {
    let at = driver.buffer();
    driver
        .memory
        .write_slice(&[0xff; 17], GuestAddress(at))
        .unwrap();
    driver.add(EVENT, &[(at, 16, true)], false);
    driver.notify(EVENT);
    driver.serve();
    at
}

fn resize(driver: &mut Driver, unit: u8, sectors: u64) {
    driver
        .device
        .act(&format!("resize:{unit}:{sectors}"))
        .unwrap();
    driver.serve();
}

/// The capacity of unit `lun` has changed.
const fn event(lun: u8) -> [u8; 17] {
    [
        3, 0, 0, 0, 1, 0, 0, lun, 0, 0, 0, 0, 0x2a, 9, 0, 0, /* not written */ 0xff,
    ]
}

#[test]
fn a_resize_is_told_and_takes_effect() {
    let (of_type, contents) = scsi(2);
    let mut driver = Driver::of(of_type, D);
    let length = || contents.metadata().unwrap().len() / 512;
    let [first, second] = [(); 2].map(|()| add_room(&mut driver));
    resize(&mut driver, 1, 2 * SECTORS);
    assert_eq!(driver.used(EVENT), 1);
    assert_eq!(driver.used_element(EVENT, 0), (0, 16));
    assert_eq!(driver.bytes(first, 17), event(1));
    assert_eq!(length(), 3 * SECTORS);
    let last = 2 * SECTORS as u8 - 1;
    let read = transfer_10(READ_10, last, 1);
    assert_eq!(give(&mut driver, 0, 1, &read, &[], 512).end, GOOD);
    let capacity = give(&mut driver, 0, 1, &[0x25], &[], 8);
    assert_eq!(capacity.data[..4], [0, 0, 0, last]);

    resize(&mut driver, 1, 2 * SECTORS);
    assert_eq!(driver.used(EVENT), 1, "nothing has changed");

    // The other unit comes after it.
    resize(&mut driver, 0, 8);
    assert_eq!(driver.bytes(second, 17), event(0));
    assert_eq!(length(), 3 * SECTORS);
    let read = transfer_10(READ_10, 8, 1);
    assert_eq!(give(&mut driver, 0, 0, &read, &[], 512).sense, (5, 0x21));
    assert_eq!(give(&mut driver, 0, 1, &read, &[], 512).end, GOOD);
    resize(&mut driver, 0, SECTORS);
    assert!(driver.device.act("resize:0:65").is_err());
    let report = driver.report();
    assert_eq!(report.of_type["sectors"], serde_json::json!([64, 128]));
    let counters = report.counters;
    assert_eq!(counters.configuration_changes, 0);
    assert_eq!(counters.requests.kinds["event"], 2);
    assert_eq!(driver.status(), READY);
}

#[test]
fn resizes_that_make_no_sense_are_refused() {
    let mut driver = ready();
    add_room(&mut driver);
    for action in [
        "resize:1:0",
        "resize:2:8",
        "resize:8",
        "resize:1:x",
        "resize:x:8",
        "resize:65537:8",
        "resize:1:36028797018963968",
        "resize:1:36028797018963967",
        "resize:1:8:8",
        "resize:",
        "resize",
        "link:up",
    ] {
        assert!(driver.device.act(action).is_err(), "{action}");
    }
    driver.serve();
    assert_eq!(driver.used(EVENT), 0);
    assert_eq!(driver.report().of_type["sectors"][1], SECTORS);
}

#[test]
fn events_wait_for_room_and_what_is_lost_is_told() {
    let mut driver = ready();
    for sectors in 1..=40 {
        resize(&mut driver, 1, sectors);
    }
    assert_eq!(driver.report().of_type["pending_events"], 32);
    let at = add_room(&mut driver);
    let mut missed = event(1);
    missed[3] = 0x80;
    assert_eq!(driver.bytes(at, 17), missed);
    let at = add_room(&mut driver);
    assert_eq!(driver.bytes(at, 17), event(1));
    for _ in 0..31 {
        add_room(&mut driver);
    }
    assert_eq!(driver.used(EVENT), 32, "one has nothing to tell");
    assert_eq!(driver.status(), READY);
}

#[test]
fn a_host_that_is_stopped_tells_after_the_resume() {
    for offer in [D, S] {
        let mut driver = Driver::of(scsi(2).0, offer);
        let at = add_room(&mut driver);
        driver.set("resume", "after:10");
        driver.stop();
        let interrupts = driver.report().counters.interrupts;
        resize(&mut driver, 1, 128);
        driver.advance(Duration::from_millis(5));
        driver.resume();
        driver.advance(Duration::from_millis(9));
        assert_eq!(driver.used(EVENT), 0);
        assert_eq!(driver.report().counters.interrupts, interrupts);
        driver.advance(Duration::from_millis(1));
        driver.serve();
        assert_eq!(driver.status(), READY);
        assert_eq!(driver.bytes(at, 17), event(1));
        let requests = driver.report().counters.requests;
        assert_eq!((requests.taken_while_stopped, requests.in_flight), (0, 0));
    }
}

#[test]
fn an_event_that_was_lost_with_its_virtqueue_is_told_again() {
    let mut driver = Driver::of(scsi(2).0, offer(D));
    driver.set("io_delay_us", "1000");
    add_room(&mut driver);
    resize(&mut driver, 1, 128);
    // The buffer is there when its time has come, and the virtqueue is not.
    driver.device.memory().clear();
    driver.map_part(MEMORY / 2, MEMORY / 2);
    driver.advance(Duration::from_millis(1));
    driver.device.memory().clear();
    driver.map_all();
    assert_eq!(driver.used(EVENT), 0);
    assert_eq!(driver.report().of_type["pending_events"], 1);
    reset_queue(&driver, EVENT);
    driver.lay_out_queue(EVENT, QUEUE_SIZE, None);
    let at = add_room(&mut driver);
    driver.advance(Duration::from_millis(1));
    assert_eq!(driver.used(EVENT), 1);
    assert_eq!(driver.bytes(at, 17), event(1));
    assert_eq!(driver.report().of_type["pending_events"], 0);
    assert_eq!(driver.report().counters.requests.dropped, 1);
    assert_eq!(driver.status(), READY);
}

#[test]
fn an_event_that_was_on_its_way_is_left_until_the_resume() {
    let mut driver = Driver::of(scsi(2).0, S);
    driver.set("leave_requests", "true");
    driver.set("io_delay_us", "5000");
    let at = add_room(&mut driver);
    resize(&mut driver, 1, 128);
    driver.stop();
    let stops = driver.report().counters.stops;
    assert_eq!(stops.last_requests_when_acknowledged, 1);
    driver.advance(Duration::from_millis(10));
    assert_eq!(driver.used(EVENT), 0);
    driver.resume();
    driver.serve();
    assert_eq!(driver.bytes(at, 17), event(1));
}

#[test]
fn events_are_told_while_requests_are_kept() {
    for hold in ["always", "until-stop"] {
        let mut driver = ready();
        let at = add_room(&mut driver);
        driver.set("io_hold", hold);
        let came = ask(&mut driver, &[0x00], 0);
        assert_eq!(came.end, (0xff, 0xff), "it is kept");
        resize(&mut driver, 1, 128);
        assert_eq!(driver.bytes(at, 17), event(1));
        assert_eq!(driver.report().counters.requests.in_flight, 1);
    }
}

#[test]
fn a_reset_drops_events_and_who_has_not_asked_for_them_gets_none() {
    const CHANGE: u64 = 1 << 2;
    let mut driver = ready();
    resize(&mut driver, 1, 128);
    driver.bring_up(!0);
    add_room(&mut driver);
    assert_eq!(driver.used(EVENT), 0);
    driver.bring_up(!CHANGE);
    add_room(&mut driver);
    resize(&mut driver, 1, 64);
    assert_eq!(driver.used(EVENT), 0);
    assert_eq!(driver.report().of_type["pending_events"], 0);
}

#[test]
fn too_little_room_for_an_event_needs_a_reset() {
    let mut driver = ready();
    let at = driver.buffer();
    driver.add(EVENT, &[(at, 15, true)], false);
    driver.notify(EVENT);
    resize(&mut driver, 1, 128);
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn data_in_both_directions_is_a_failure() {
    const FAILURE: (u8, u8) = (9, 0);
    let (of_type, contents) = scsi(1);
    let mut driver = Driver::of(of_type, D);
    for command in [READ_10, WRITE_10] {
        let came = give(
            &mut driver,
            0,
            0,
            &transfer_10(command, 0, 1),
            &[7; 512],
            512,
        );
        assert_eq!((came.end, came.left), (FAILURE, 1024));
    }
    let mut file = [1; 512];
    contents.read_exact_at(&mut file, 0).unwrap();
    assert_eq!(file, [0; 512], "nothing was done");
}

#[test]
fn an_answer_that_does_not_fit_is_an_overrun() {
    const OVERRUN: (u8, u8) = (1, 0);
    let mut driver = ready();
    let inquiry = |asked| [0x12, 0, 0, 0, asked, 0];
    for (asked, room, end) in [
        (36, 36, GOOD),
        (255, 36, GOOD),
        (5, 5, GOOD),
        (36, 35, OVERRUN),
    ] {
        let came = ask(&mut driver, &inquiry(asked), room);
        assert_eq!((came.end, came.left), (end, 0), "{asked} {room}");
    }
}

#[test]
fn a_control_request_that_is_too_short_needs_a_reset() {
    for (kind, size) in [(0, 24), (1, 16), (2, 16)] {
        let mut driver = ready();
        control_of(&mut driver, kind, size, 5);
        assert_eq!(driver.status(), READY);
        control_of(&mut driver, kind, size - 1, 5);
        assert_eq!(driver.status(), READY | NEEDS_RESET);
    }
}
