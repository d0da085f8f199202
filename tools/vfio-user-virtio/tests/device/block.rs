// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests: what a driver asks is done, and what makes no sense is refused.

use std::os::unix::fs::FileExt;

use vfio_user_virtio::buffers::PATIENCE;

use crate::driver::{disk, Driver, D, EVENT_IDX, NEEDS_RESET, READY, SECTORS};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn outcome_of(kind: u32, sector: u64, length: u32) -> u8 {
    let mut driver = Driver::ready();
    let (at, buffers) = driver.request(kind, sector, length);
    driver.make_available(&buffers, false);
    driver.serve();
    assert_eq!(driver.used(0), 1);
    driver.outcome(at)
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_back() {
    for indirect in [false, true] {
        let (of_type, contents) = disk(1, false);
        let mut driver = Driver::of(of_type, D);
        let data: Vec<u8> = (0..1024u32).map(|n| (n * 7 % 251) as u8).collect();
        let (at, buffers) = driver.request(OUT, 3, 1024);
        driver.fill(at, &data);
        driver.make_available(&buffers, indirect);
        driver.serve();
        assert_eq!(driver.outcome(at), OK);
        let mut file = vec![0; 1024];
        contents.read_exact_at(&mut file, 3 * 512).unwrap();
        assert_eq!(file, data);

        let (at, buffers) = driver.request(IN, 3, 1024);
        driver.make_available(&buffers, indirect);
        driver.serve();
        assert_eq!((driver.outcome(at), driver.data(at, 1024)), (OK, data));
    }
}

#[test]
fn the_status_is_one_byte() {
    let driver = Driver::ready();
    driver.write16(0x14, 0);
    driver.write32(0x14, 0);
    assert_eq!(driver.status(), READY);
}

#[test]
fn flush_and_get_id_succeed() {
    assert_eq!(outcome_of(FLUSH, 0, 0), OK);
    assert_eq!(outcome_of(GET_ID, 0, 20), OK);
}

#[test]
fn the_driver_chooses_the_cache_mode_until_the_next_reset() {
    const WRITEBACK: usize = 32;
    let mut driver = Driver::ready();
    assert_eq!(driver.config()[WRITEBACK], 1);
    driver
        .device
        .write_bar(0x2000 + WRITEBACK as u64, &[0], driver.now);
    assert_eq!(driver.config()[WRITEBACK], 0);
    let (at, buffers) = driver.request(OUT, 0, 512);
    driver.make_available(&buffers, false);
    driver.serve();
    assert_eq!(driver.outcome(at), OK);
    driver.bring_up(!0);
    assert_eq!(driver.config()[WRITEBACK], 1);
}

#[test]
fn requests_that_reach_beyond_the_disk_fail() {
    for kind in [IN, OUT] {
        assert_eq!(outcome_of(kind, SECTORS - 1, 512), OK);
        assert_eq!(outcome_of(kind, SECTORS - 1, 1024), IOERR);
        assert_eq!(outcome_of(kind, SECTORS, 512), IOERR);
        assert_eq!(outcome_of(kind, u64::MAX, 512), IOERR);
    }
}

#[test]
fn a_request_for_no_sectors_is_carried_out_and_changes_nothing() {
    for kind in [IN, OUT] {
        let (of_type, contents) = disk(1, false);
        let before = vec![7; 512 * SECTORS as usize];
        contents.write_all_at(&before, 0).unwrap();
        let mut driver = Driver::of(of_type, D);
        for (sector, expected) in [
            (0, OK),
            (SECTORS, OK),
            (SECTORS + 1, IOERR),
            (u64::MAX, IOERR),
        ] {
            let (at, [header, _, status]) = driver.request(kind, sector, 0);
            // Without a buffer, and with one of no bytes.
            for buffers in [&[header, status][..], &[header, (at, 0, false), status]] {
                driver.make_available(buffers, false);
                driver.serve();
                assert_eq!(driver.outcome(at), expected, "{kind} {sector}");
            }
        }
        let mut after = vec![0; before.len()];
        contents.read_exact_at(&mut after, 0).unwrap();
        assert!(after == before);
        assert_eq!(contents.metadata().unwrap().len(), 512 * SECTORS);
    }
}

#[test]
fn parts_of_sectors_are_refused() {
    assert_eq!(outcome_of(IN, 0, 511), IOERR);
    assert_eq!(outcome_of(OUT, 0, 513), IOERR);
}

#[test]
fn unknown_requests_are_unsupported() {
    assert_eq!(outcome_of(77, 0, 512), UNSUPP);
}

#[test]
fn a_chain_without_room_for_the_status_needs_a_reset() {
    let mut driver = Driver::ready();
    let (_, buffers) = driver.request(IN, 0, 512);
    driver.make_available(&buffers[..1], false);
    driver.serve();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
    assert_eq!(driver.report().counters.requests.in_flight, 0);
}

#[test]
fn buffers_outside_of_memory_need_a_reset() {
    let mut driver = Driver::ready();
    driver.make_available(&[(u64::MAX - 8, 16, false), (0x1_0000, 1, true)], false);
    driver.serve();
    assert_eq!(driver.status(), READY, "it may be gone for a moment only");
    driver.advance(2 * PATIENCE);
    assert_eq!(driver.report().counters.requests.in_flight, 0);
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn an_available_index_that_runs_away_needs_a_reset() {
    let mut driver = Driver::ready();
    driver.set_avail_index(0, 1000);
    driver.notify(0);
    driver.serve();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn a_head_that_does_not_exist_needs_a_reset() {
    let mut driver = Driver::ready();
    driver.publish(0, 0xfff0);
    driver.notify(0);
    driver.serve();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn a_device_that_needs_a_reset_works_again_after_one() {
    let mut driver = Driver::ready();
    driver.publish(0, 0xfff0);
    driver.notify(0);
    driver.serve();
    driver.bring_up(!0);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (READY, OK));
}

#[test]
fn the_driver_may_do_without_the_event_index() {
    let mut driver = Driver::new();
    driver.bring_up(!EVENT_IDX);
    for _ in 0..40 {
        let at = driver.submit_read(1);
        driver.serve();
        assert_eq!(driver.outcome(at), OK);
    }
}

#[test]
fn no_more_requests_are_worked_on_than_io_depth() {
    let mut driver = Driver::ready();
    driver.set("io_depth", "2");
    driver.set("io_delay_us", "1000");
    for _ in 0..5 {
        driver.submit_read(0);
    }
    driver.serve();
    assert_eq!(driver.report().counters.requests.in_flight, 2);
    for done in [2, 4, 5] {
        driver.advance(std::time::Duration::from_millis(1));
        assert_eq!(driver.used(0), done);
        driver.serve();
    }
}

#[test]
fn a_reset_drops_what_was_taken() {
    let mut driver = Driver::ready();
    driver.set("io_delay_us", "1000");
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.report().counters.requests.in_flight, 1);
    driver.bring_up(!0);
    driver.advance(std::time::Duration::from_secs(1));
    assert_eq!((driver.outcome(at), driver.used(0)), (0xff, 0));
    assert_eq!(driver.report().counters.requests.dropped, 1);
}

/// Virtio 1.4, 5.2.5.2 and 5.2.6.2: what a driver that can't flush has written is stable when it is completed.
#[test]
fn the_cache_mode_begins_as_the_features_have_it() {
    const WRITEBACK: usize = 32;
    const FLUSH: u64 = 1 << 9;
    const CONFIG_WCE: u64 = 1 << 11;
    let mut driver = Driver::new();
    for (left_out, begins, chosen) in [
        (0, 1, 0),
        (FLUSH, 0, 1),
        (CONFIG_WCE, 1, 1),
        (FLUSH | CONFIG_WCE, 0, 0),
    ] {
        driver.negotiate(!left_out);
        let config = || driver.config()[WRITEBACK];
        assert_eq!(config(), begins, "{left_out:#x}");
        let choice = [1 - begins];
        let at = 0x2000 + WRITEBACK as u64;
        driver.device.write_bar(at, &choice, driver.now);
        assert_eq!(config(), chosen, "{left_out:#x}");
        let writeback = &driver.report().of_type["writeback"];
        assert_eq!(*writeback, chosen != 0);
    }
}

/// Virtio 1.4, 2.7.8.2: it counts the bytes from the first one on.
#[test]
fn the_used_length_does_not_count_what_is_behind_bytes_that_were_not_written() {
    for (sector, length, used) in [(0, 512, 513), (SECTORS, 512, 0), (0, 511, 0)] {
        let mut driver = Driver::ready();
        let (_, buffers) = driver.request(IN, sector, length);
        driver.make_available(&buffers, false);
        driver.serve();
        assert_eq!(driver.used_element(0, 0).1, used);
    }
    let mut driver = Driver::ready();
    let (_, buffers) = driver.request(OUT, SECTORS, 512);
    driver.make_available(&buffers, false);
    driver.serve();
    assert_eq!(driver.used_element(0, 0).1, 1);
}
