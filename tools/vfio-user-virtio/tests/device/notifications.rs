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
