// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What other devices let a driver get away with, and this one does not. Also in README.md.

use std::sync::Arc;
use std::time::Duration;

use vfio_user_virtio::device::Offer;
use vfio_user_virtio::types::blk::Disk;
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::rng::Rng;
use vfio_user_virtio::types::scsi::Scsi;
use vfio_user_virtio::types::store::Store;
use vfio_user_virtio::types::Type;

use crate::driver::{Driver, D, MEMORY, NEEDS_RESET, READY, S, SECTORS};

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const ZONED: u64 = 1 << 17;

fn store() -> Store {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512).unwrap();
    Store::new(file).unwrap()
}

/// Each type, and each with a key of its own that it can be given.
fn types() -> Vec<Arc<dyn Type>> {
    let disk = || Disk::new(store(), "disk", 2, false);
    let card = || Net::new([0x52, 0x54, 0, 0, 0, 1], 2);
    vec![
        Arc::new(disk()),
        Arc::new(disk().zoned()),
        Arc::new(Disk::new(store(), "disk", 1, true)),
        Arc::new(Scsi::new(store().split(2), "host", 1)),
        Arc::new(card()),
        Arc::new(card().mergeable()),
        Arc::new(Rng::open().unwrap()),
        Arc::new(Null::new(5, 2).with_features(5)),
    ]
}

/// What devices offer whatever they are.
fn offers() -> [Offer; 4] {
    let more = Offer {
        packed: true,
        ring_reset: true,
        notification_data: true,
        ..S
    };
    let neither = Offer {
        device_stop: false,
        ..D
    };
    [D, S, neither, more]
}

/// 2.2.1: the driver MUST NOT accept a feature which the device did not offer. 2.1.1: FEATURES_OK tells whether the device has agreed.
#[test]
fn no_type_agrees_to_a_feature_that_it_has_not_offered() {
    for of_type in types() {
        for offer in offers() {
            let mut driver = Driver::found(Arc::clone(&of_type), offer);
            let offered = driver.offered();
            driver.accept(offered);
            assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
            for bit in (0..64).filter(|bit| offered & (1 << bit) == 0) {
                driver.accept(offered | (1 << bit));
                let status = driver.status();
                assert_eq!(status, ACKNOWLEDGE | DRIVER, "{bit}, {of_type:?}");
                // It is no start, either.
                assert_eq!(driver.set_status(READY) & DRIVER_OK, 0);
            }
        }
    }
}

/// 6.1: a device MAY refuse a driver that does not accept VERSION_1; this one has no other interface. A zoned disk without ZONED makes no
/// sense (5.2.6.2).
#[test]
fn no_type_agrees_to_a_set_of_features_that_makes_no_sense() {
    for of_type in types() {
        let mut driver = Driver::found(of_type, D);
        let offered = driver.offered();
        driver.accept(offered & !(1 << 32));
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
        if offered & ZONED != 0 && driver.report().device_id == 2 {
            driver.accept(offered & !ZONED);
            assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
        }
    }
}

/// 3.1.1: FEATURES_OK comes before DRIVER_OK.
#[test]
fn drivers_do_not_start_a_device_without_having_agreed() {
    for start in [DRIVER_OK, DRIVER | DRIVER_OK, 7] {
        let mut driver = Driver::new();
        driver.set_bus_master(true);
        driver.set_status(0);
        driver.set_status(ACKNOWLEDGE);
        driver.set_status(ACKNOWLEDGE | DRIVER);
        driver.lay_out(None);
        assert_eq!(driver.set_status(start), ACKNOWLEDGE | DRIVER, "{start}");
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!((driver.used(0), driver.outcome(at)), (0, 0xff));
        assert_eq!(driver.report().counters.requests.taken, 0);
    }
}

/// 2.1.1: the driver MUST NOT clear a device status bit. Only a reset does.
#[test]
fn bits_that_a_driver_clears_stay() {
    let mut driver = Driver::ready();
    for written in 1..=READY {
        assert_eq!(driver.set_status(written), READY, "{written:#x}");
    }
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.used(0), driver.outcome(at)), (1, 0));
    assert_eq!(driver.set_status(0), 0);
}

/// A ring that is nowhere is told of, by NEEDS_RESET, and not only in a log: but not before it is sure that it does not come.
#[test]
fn a_ring_outside_of_memory_is_told_of() {
    for register in [0x20, 0x28, 0x30] {
        let mut driver = Driver::new();
        driver.negotiate(!0);
        driver.lay_out(Some((register, MEMORY)));
        assert_eq!(driver.set_status(READY), READY);
        driver.notify(0);
        driver.serve();
        assert_eq!(driver.status(), READY, "it may come yet");
        driver.advance(Duration::from_secs(60));
        assert_eq!(driver.status(), READY | NEEDS_RESET, "{register:#x}");
        assert_eq!(driver.set_status(0), 0);
        driver.bring_up(!0);
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!((driver.used(0), driver.outcome(at)), (1, 0));
    }
}
