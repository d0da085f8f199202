// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When the driver is told that buffers were used.

use rustix::event::{eventfd, EventfdFlags};
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::eventfd::Eventfd;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{disk, ring, Driver, D, EVENT_IDX};

/// Virtio 1.4, 2.7.7: VIRTQ_AVAIL_F_NO_INTERRUPT, where there is no event index.
#[test]
fn a_driver_that_wants_no_used_buffer_notifications_gets_none() {
    for intx in [false, true] {
        let mut driver = Driver::found(disk(1, false).0, Offer { intx, ..D });
        let file = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let file = Eventfd::try_from(file).unwrap();
        if intx {
            driver.device.set_intx(Some(file));
        } else {
            driver.device.set_vectors(0, 1, vec![file]);
        }
        for (features, flags, told) in [
            (!EVENT_IDX, 1u16, false),
            (!EVENT_IDX, 0, true),
            // The flag means nothing then (2.7.10): the event index is 0, so that the first one is told.
            (!0, 1, true),
        ] {
            driver.bring_up(features);
            driver.read(0x1000, 1);
            driver.device.unmask_intx();
            driver
                .memory
                .write_obj(flags, GuestAddress(ring(0, 0x1000)))
                .unwrap();
            let before = driver.report().counters.interrupts;
            let at = driver.submit_read(0);
            driver.serve();
            let after = driver.report().counters.interrupts;
            assert_eq!((driver.outcome(at), after - before), (0, u64::from(told)));
            if intx {
                assert_eq!(driver.read(0x1000, 1), u64::from(told));
            }
        }
    }
}

/// Virtio 1.4, 4.1.4.5.1.
#[test]
fn the_interrupt_status_tells_of_what_msix_does_not() {
    const QUEUE: u64 = 1;
    const CONFIGURATION: u64 = 2;
    let pci_status = |driver: &Driver| {
        let mut status = [0; 2];
        driver.device.read_config(6, &mut status, driver.now);
        u16::from_le_bytes(status)
    };
    for (intx, enabled) in [(true, false), (false, false), (false, true)] {
        let mut driver = Driver::of(disk(1, false).0, Offer { intx, ..D });
        if enabled {
            driver.device.write_config(0x42, &[0, 0x80], driver.now);
        }
        assert_eq!((driver.read(0x1000, 1), pci_status(&driver)), (0, 0x10));
        driver.submit_read(0);
        driver.serve();
        let shown = if enabled { 0x10 } else { 0x18 };
        assert_eq!(pci_status(&driver), shown);
        assert_eq!(driver.read(0x1000, 1), if enabled { 0 } else { QUEUE });
        assert_eq!(pci_status(&driver), 0x10);
        driver.device.act("resize:32").unwrap();
        assert_eq!(pci_status(&driver), shown);
        assert_eq!(driver.read(0x1000, 1), CONFIGURATION);
        assert_eq!((driver.read(0x1000, 1), pci_status(&driver)), (0, 0x10));
    }
}
