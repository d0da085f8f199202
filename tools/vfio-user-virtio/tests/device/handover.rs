// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another process goes on with the device, which may have less in hand than it has taken.

use std::time::{Duration, Instant};

use vfio_user_virtio::buffers::PATIENCE;
use vfio_user_virtio::device::{Device, Offer};
use vfio_user_virtio::types::blk::Disk;
use vfio_user_virtio::types::store::Store;

use crate::driver::{disk, files_of, Driver, D, NEEDS_RESET, READY, S};

/// A driver whose device is handed over when it says so.
struct Handed {
    driver: Driver,
    offer: Offer,
    file: std::fs::File,
}

impl Handed {
    fn new(offer: Offer) -> Self {
        let (of_type, file) = disk(1, false);
        Self {
            driver: Driver::of(of_type, offer),
            offer,
            file,
        }
    }

    /// A device of its own goes on.
    fn over(&mut self) {
        let store = Store::new(self.file.try_clone().unwrap()).unwrap();
        let disk = Box::new(Disk::new(store, "disk", 1, false));
        let frozen = self.driver.device.freeze().unwrap();
        let image = frozen.image().unwrap();
        let files = files_of(&frozen);
        drop(frozen);
        self.driver.device = Device::restore(disk, self.offer, image, files, true).unwrap();
    }
}

#[test]
fn a_suspended_device_goes_on_with_requests_that_wait_for_memory() {
    // Nothing is there, or all but the virtqueue: the request has been carried out then.
    for part in [None, Some((0x8_0000, 0x8_0000))] {
        let mut handed = Handed::new(S);
        let driver = &mut handed.driver;
        driver.set("io_delay_us", "1000");
        driver.set("leave_requests", "true");
        let at = driver.submit_read(0);
        driver.serve();
        driver.device.memory().clear();
        driver.advance(Duration::from_millis(1));
        if let Some((at, size)) = part {
            driver.map_part(at, size);
            driver.serve();
        }
        driver.stop();
        assert_eq!(driver.report().counters.requests.in_flight, 1);
        handed.over();
        let driver = &mut handed.driver;
        driver.advance(2 * PATIENCE);
        driver.map_all();
        driver.serve();
        let requests = driver.report().counters.requests;
        assert_eq!((requests.completed, requests.in_flight), (0, 1));
        assert_eq!(driver.resume(), READY);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
        let requests = driver.report().counters.requests;
        assert_eq!((requests.completed, requests.in_flight), (1, 0));
        assert_eq!(requests.kinds["read"], 1);
    }
}

#[test]
fn a_device_that_has_stopped_is_handed_over_while_memory_is_away() {
    for comes_back in [true, false] {
        let mut handed = Handed::new(D);
        let driver = &mut handed.driver;
        driver.device.memory().clear();
        driver.submit_read(0);
        driver.serve();
        driver.stop();
        handed.over();
        let driver = &mut handed.driver;
        if comes_back {
            driver.map_all();
        }
        driver.resume();
        driver.serve();
        driver.advance(PATIENCE);
        driver.advance(PATIENCE);
        assert_eq!(driver.used(0), u16::from(comes_back));
        assert_eq!(driver.status() & NEEDS_RESET == 0, comes_back);
    }
}

#[test]
fn who_waits_for_a_device_that_runs_waits_until_the_deadline() {
    let driver = Driver::ready();
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(!driver.device.wait_until_still(deadline));
    assert!(Instant::now() >= deadline);
    driver.stop();
    assert!(driver.device.wait_until_still(Instant::now()));
}
