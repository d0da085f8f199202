// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_SUSPEND: S-DEV-1 to S-DEV-4, and what the judge says of its drivers.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::{read, write};
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::eventfd::Eventfd;
use vfio_user_virtio::status::{Protocol, Stop};

use crate::driver::{
    disk, Driver, D, MEMORY, NEEDS_RESET, READY, S, SUSPEND, SUSPENDED, VERSION_1, VIRTIO_F_39,
    VIRTIO_F_SUSPEND,
};

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_idle_device_is_suspended_at_the_first_look_and_runs_again_at_the_next() {
    let driver = Driver::suspendable();
    assert_eq!(
        driver.offered() & (VIRTIO_F_SUSPEND | VIRTIO_F_39),
        VIRTIO_F_SUSPEND
    );
    assert_eq!(driver.report().protocol, Protocol::Suspend);
    assert_eq!(driver.stop(), SUSPENDED);
    assert_eq!(driver.resume(), READY);
    let stops = driver.report().counters.stops;
    assert_eq!(
        (stops.acknowledged, stops.resumed, stops.last_status_reads),
        (1, 1, 1)
    );
    assert!(
        driver.breaches().is_empty(),
        "{:?}",
        driver.report().breaches
    );
}

#[test]
fn s_dev_1_suspend_is_ignored_without_driver_ok() {
    let mut driver = Driver::found(disk(1, false).0, S);
    driver.negotiate(!0);
    assert_eq!(driver.set_status(11 | SUSPEND), 11);
    assert_eq!(driver.report().stop, Stop::Running);
    assert_eq!(driver.breaches(), ["S-DRV-1"]);
}

#[test]
fn suspend_is_ignored_without_the_feature() {
    let mut driver = Driver::found(disk(1, false).0, S);
    driver.bring_up(VERSION_1);
    assert_eq!(driver.set_status(READY | SUSPEND), READY);
    assert_eq!(driver.report().stop, Stop::Running);
    assert_eq!(driver.breaches(), ["S-DRV-1"]);
}

#[test]
fn a_device_that_offers_both_is_suspended() {
    let offer = Offer { suspend: true, ..D };
    let mut driver = Driver::of(disk(1, false).0, offer);
    assert_eq!(driver.report().protocol, Protocol::Suspend);
    driver.bring_up(!VIRTIO_F_SUSPEND);
    assert_eq!(driver.report().protocol, Protocol::DeviceStop);
    assert_eq!(driver.stop(), READY | 32);
}

#[test]
fn s_dev_2_nothing_is_taken_or_signalled_while_suspended() {
    let mut driver = Driver::suspendable();
    driver.stop();
    let interrupts = driver.report().counters.interrupts;
    let at = driver.submit_read(0);
    driver.serve();
    driver.advance(MS);
    assert_eq!(
        (driver.outcome(at), driver.report().counters.requests.taken),
        (0xff, 0)
    );
    assert_eq!(driver.report().counters.interrupts, interrupts);
    driver.resume();
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
}

#[test]
fn s_dev_2_a_suspended_device_says_nothing_whatever_happens() {
    for resume in ["at-once", "after:10"] {
        let mut driver = Driver::suspendable();
        driver.set("resume", resume);
        let signalled = listen(&driver);
        driver.stop();
        driver.submit_read(0);
        driver.device.act("resize:32").unwrap();
        driver.advance(MS);
        if resume != "at-once" {
            assert_eq!(driver.resume(), SUSPENDED);
            driver.submit_read(0);
            driver.device.act("resize:16").unwrap();
            driver.advance(MS);
        }
        driver.device.act("needs-reset").unwrap();
        driver.advance(MS);
        assert_eq!(driver.status(), SUSPENDED | NEEDS_RESET);
        assert_eq!(raised(&signalled), 0);
        driver.resume();
        driver.advance(10 * MS);
        assert_eq!(driver.status(), READY | NEEDS_RESET);
        assert_eq!(raised(&signalled), 1, "the change and NEEDS_RESET");
    }
}

#[test]
fn s_dev_2_needs_reset_of_a_suspended_device_is_told_at_the_resume() {
    let mut driver = Driver::suspendable();
    let signalled = listen(&driver);
    driver.stop();
    driver.device.act("needs-reset").unwrap();
    assert_eq!(driver.status(), SUSPENDED | NEEDS_RESET, "to who looks");
    assert_eq!(raised(&signalled), 0);
    assert_eq!(driver.resume(), READY | NEEDS_RESET);
    assert_eq!(raised(&signalled), 1);

    driver.bring_up(!0);
    driver.write16(0x10, 1);
    driver.stop();
    driver.device.act("needs-reset").unwrap();
    driver.bring_up(!0);
    driver.write16(0x10, 1);
    driver.stop();
    driver.resume();
    assert_eq!(raised(&signalled), 1, "forgotten by a reset");
}

#[test]
fn needs_reset_is_told_at_once_while_a_suspension_is_pending_or_under_device_stop() {
    let driver = Driver::suspendable();
    let signalled = listen(&driver);
    driver.set("acknowledge", "never");
    driver.stop();
    driver.device.act("needs-reset").unwrap();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
    assert_eq!(raised(&signalled), 1);

    let driver = Driver::ready();
    let signalled = listen(&driver);
    driver.stop();
    driver.device.act("needs-reset").unwrap();
    assert_eq!(raised(&signalled), 1);
}

#[test]
fn s_dev_2_a_suspended_device_ignores_writes_to_its_configuration() {
    const WRITEBACK: usize = 0x20;
    let mut driver = Driver::suspendable();
    let write = |driver: &Driver, value| driver.device.write_bar(0x2020, &[value], driver.now);
    driver.set("resume", "after:10");
    driver.stop();
    write(&driver, 0);
    driver.resume();
    write(&driver, 0);
    driver.advance(10 * MS);
    assert_eq!((driver.status(), driver.config()[WRITEBACK]), (READY, 1));
    assert_eq!(driver.breaches(), ["S-DRV-2", "S-DRV-3"]);
    write(&driver, 0);
    assert_eq!(driver.config()[WRITEBACK], 0);
}

#[test]
fn the_planted_bug_tells_of_the_suspension() {
    let driver = Driver::suspendable();
    let signalled = listen(&driver);
    driver.set("notify_when_stopped", "true");
    assert_eq!(driver.stop(), SUSPENDED);
    assert_eq!(raised(&signalled), 1);
}

#[test]
fn the_planted_bug_changes_the_configuration_while_suspended() {
    let driver = Driver::suspendable();
    let signalled = listen(&driver);
    driver.set("change_while_stopped", "true");
    driver.stop();
    driver.device.act("resize:32").unwrap();
    assert_eq!((driver.config()[0], raised(&signalled)), (32, 1));
}

#[test]
fn the_planted_bug_takes_requests_while_suspended() {
    let mut driver = Driver::suspendable();
    driver.set("take_while_stopped", "true");
    driver.stop();
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (SUSPENDED, 0));
    assert_eq!(driver.report().counters.requests.taken_while_stopped, 1);
}

#[test]
fn patience_does_not_run_out_while_the_device_is_suspended() {
    let mut driver = Driver::suspendable();
    driver.device.memory().clear();
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.stop(), SUSPENDED);
    driver.advance(Duration::from_secs(60));
    driver.resume();
    driver.serve();
    assert_eq!(driver.status(), READY, "it has missed it just now");
    driver.map_all();
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
}

#[test]
fn a_write_of_nothing_is_none_of_the_drivers() {
    let driver = Driver::suspendable();
    driver.stop();
    for offset in [0x14, 0x2000, 0x3000] {
        driver.device.write_bar(offset, &[], driver.now);
    }
    assert!(driver.breaches().is_empty());
}

#[test]
fn s_dev_2_a_change_of_the_configuration_is_told_at_the_resume() {
    let driver = Driver::suspendable();
    let before = driver.config();
    driver.stop();
    driver.device.act("resize:32").unwrap();
    assert_eq!((driver.config(), driver.read(0x15, 1)), (before, 0));
    assert_eq!(driver.report().counters.configuration_changes, 0);
    driver.resume();
    assert_eq!((driver.config()[0], driver.read(0x15, 1)), (32, 1));
    assert_eq!(driver.report().counters.configuration_changes, 1);
}

#[test]
fn s_dev_3_the_device_suspends_or_needs_a_reset() {
    let driver = Driver::suspendable();
    driver.set("acknowledge", "needs-reset");
    assert_eq!(driver.stop(), READY | NEEDS_RESET);

    let driver = Driver::suspendable();
    driver.set("resume", "needs-reset");
    driver.stop();
    assert_eq!(driver.resume(), SUSPENDED | NEEDS_RESET);
}

#[test]
fn s_dev_4_what_was_taken_is_finished_and_signalled_before_the_device_is_suspended() {
    let mut driver = Driver::suspendable();
    driver.set("io_delay_us", "5000");
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.stop(), READY, "a pending suspension shows neither");
    driver.advance(4 * MS);
    assert_eq!(driver.status(), READY);
    driver.advance(MS);
    assert_eq!((driver.status(), driver.outcome(at)), (SUSPENDED, 0));
    let stops = driver.report().counters.stops;
    assert_eq!(stops.last_requests_when_acknowledged, 0);
}

/// A driver of a suspended device that has three of its requests.
fn left(settings: &[(&str, &str)]) -> (Driver, [u64; 3]) {
    let mut driver = Driver::suspendable();
    driver.set("leave_requests", "true");
    for (name, value) in settings {
        driver.set(name, value);
    }
    let at = [(); 3].map(|()| {
        let (at, buffers) = driver.request(0, 0, 512);
        // Three descriptors each, of sixteen.
        driver.make_available(&buffers, false);
        driver.serve();
        at
    });
    assert_eq!(driver.report().counters.requests.in_flight, 3);
    assert_eq!(driver.stop(), SUSPENDED);
    let stops = driver.report().counters.stops;
    assert_eq!(
        (
            stops.acknowledged_with_requests,
            stops.last_requests_when_acknowledged
        ),
        (1, 3)
    );
    (driver, at)
}

/// How many interrupts the device has raised.
fn raised(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match read(eventfd, &mut count) {
        Ok(_) => write(eventfd, &count).map(|_| u64::from_ne_bytes(count)),
        Err(_) => Ok(0),
    }
    .unwrap()
}

/// What the device signals vector 0 and 1 by: the virtqueue's and the configuration's.
fn listen(driver: &Driver) -> OwnedFd {
    let file = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let vectors = [(); 2].map(|()| Eventfd::try_from(file.try_clone().unwrap()).unwrap());
    driver.device.set_vectors(0, 2, vectors.into());
    driver.write16(0x10, 1);
    file
}

#[test]
fn s_dev_4_what_was_taken_can_be_left_until_the_resume() {
    for settings in [
        &[("io_delay_us", "5000")][..],
        &[("io_hold", "until-stop")],
        &[("io_delay_us", "5000"), ("resume", "after:20")],
        &[("io_hold", "until-stop"), ("resume", "after:20")],
    ] {
        let (mut driver, at) = left(settings);
        let signalled = listen(&driver);
        let outcomes = |driver: &Driver| at.map(|at| driver.outcome(at));
        driver.advance(100 * MS);
        assert_eq!((outcomes(&driver), driver.used(0)), ([0xff; 3], 0));
        if driver.resume() == SUSPENDED {
            driver.advance(19 * MS);
            assert_eq!((outcomes(&driver), driver.used(0)), ([0xff; 3], 0));
            assert_eq!(raised(&signalled), 0);
            driver.advance(MS);
        }
        assert_eq!(driver.status(), READY);
        driver.serve();
        assert_eq!((outcomes(&driver), driver.used(0)), ([0; 3], 3));
        assert_eq!(raised(&signalled), 1);
        assert_eq!(driver.report().counters.requests.in_flight, 0);
    }
}

#[test]
fn requests_that_are_left_stay_so_though_the_setting_does_not() {
    let (mut driver, at) = left(&[("io_delay_us", "5000")]);
    driver.set("leave_requests", "false");
    driver.set("io_delay_us", "0");
    driver.advance(100 * MS);
    assert_eq!(at.map(|at| driver.outcome(at)), [0xff; 3]);
    driver.resume();
    assert_eq!(driver.stop(), READY, "now they are waited for");
    driver.serve();
    assert_eq!(driver.status(), SUSPENDED);
    assert_eq!(at.map(|at| driver.outcome(at)), [0; 3]);
}

#[test]
fn requests_that_are_left_can_be_left_again_or_kept_or_survive_a_stop_that_is_dropped() {
    let (mut driver, at) = left(&[("io_hold", "always")]);
    driver.resume();
    driver.advance(MS);
    assert_eq!(driver.used(0), 0, "kept");
    assert_eq!(driver.stop(), SUSPENDED);
    let stops = driver.report().counters.stops;
    assert_eq!(stops.acknowledged_with_requests, 2);
    driver.set("io_hold", "no");
    driver.advance(MS);
    assert_eq!(driver.used(0), 0);
    driver.set("drop_stop", "after:10");
    driver.advance(10 * MS);
    driver.serve();
    assert_eq!(driver.status(), READY);
    assert_eq!(at.map(|at| driver.outcome(at)), [0; 3]);
}

#[test]
fn a_reset_drops_the_requests_that_are_left() {
    for by_status in [true, false] {
        let (mut driver, at) = left(&[("io_delay_us", "5000")]);
        match by_status {
            true => assert_eq!(driver.set_status(0), 0),
            false => driver.device.reset(),
        }
        let requests = driver.report().counters.requests;
        assert_eq!((requests.in_flight, requests.dropped), (0, 3));
        driver.bring_up(!0);
        driver.advance(100 * MS);
        assert_eq!(at.map(|at| driver.outcome(at)), [0xff; 3]);
        let at = driver.submit_read(0);
        driver.serve();
        driver.advance(5 * MS);
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    }
}

#[test]
fn device_stop_leaves_no_requests() {
    let mut driver = Driver::ready();
    driver.set("leave_requests", "true");
    driver.set("io_delay_us", "5000");
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.stop(), READY);
    driver.advance(5 * MS);
    assert_eq!((driver.status(), driver.outcome(at)), (READY | 32, 0));
    let stops = driver.report().counters.stops;
    assert_eq!(stops.acknowledged_with_requests, 0);
}

#[test]
fn a_pending_suspension_can_not_be_called_off() {
    let mut driver = Driver::suspendable();
    driver.set("acknowledge", "after:100");
    driver.stop();
    assert_eq!(driver.set_status(READY), READY);
    driver.advance(100 * MS);
    assert_eq!(driver.status(), SUSPENDED);
    assert_eq!(driver.breaches(), ["STATUS-1"]);
}

#[test]
fn a_resume_can_take_its_time() {
    let mut driver = Driver::suspendable();
    driver.set("resume", "after:50");
    driver.stop();
    assert_eq!(driver.resume(), SUSPENDED);
    driver.advance(49 * MS);
    assert_eq!(driver.status(), SUSPENDED);
    driver.advance(MS);
    assert_eq!(driver.status(), READY);
    assert_eq!(driver.report().counters.stops.last_resume_us, 50_000);
}

#[test]
fn a_strict_device_is_resumed_by_the_strict_form_only() {
    let driver = Driver::suspendable();
    driver.stop();
    assert_eq!(driver.set_status(READY), SUSPENDED);
    assert_eq!(driver.set_status(READY | SUSPEND), READY);

    driver.set("resume_form", "any");
    driver.stop();
    assert_eq!(driver.set_status(READY), READY);
    assert_eq!(
        driver.breaches(),
        ["STATUS-1"; 2],
        "either way it is a breach"
    );
}

#[test]
fn a_strict_device_goes_on_resuming_when_suspend_is_cleared_meanwhile() {
    let mut driver = Driver::suspendable();
    driver.set("resume", "after:10");
    driver.stop();
    assert_eq!(driver.resume(), SUSPENDED);
    assert_eq!(driver.set_status(READY), SUSPENDED);
    assert_eq!(driver.report().stop, Stop::Resuming);
    driver.advance(10 * MS);
    assert_eq!(driver.status(), READY);
    let stops = driver.report().counters.stops;
    assert_eq!((stops.requested, stops.resumed), (1, 1));
    assert_eq!(stops.last_resume_us, 10_000);
    assert_eq!(driver.breaches(), ["STATUS-1"]);
}

#[test]
fn a_device_by_the_rfc_for_qemu_is_resumed_by_the_other_form_only() {
    let mut driver = Driver::suspendable();
    driver.set("resume_form", "cleared");
    assert_eq!(driver.stop(), SUSPENDED);
    let at = driver.submit_read(0);
    driver.device.act("forget-breaches").unwrap();
    assert_eq!(driver.set_status(READY | SUSPEND), SUSPENDED, "again");
    driver.serve();
    assert_eq!(
        (driver.report().stop, driver.outcome(at)),
        (Stop::Stopped, 0xff)
    );
    assert!(driver.breaches().is_empty(), "which the text asks for");
    assert_eq!(driver.set_status(READY), READY);
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
    assert_eq!(driver.breaches(), ["STATUS-1"]);
    let stops = driver.report().counters.stops;
    assert_eq!(
        (stops.requested, stops.acknowledged, stops.resumed),
        (1, 1, 1)
    );
}

#[test]
fn a_device_by_the_rfc_for_qemu_is_suspended_again_while_it_resumes() {
    let mut driver = Driver::suspendable();
    driver.set("resume_form", "cleared");
    driver.set("resume", "after:10");
    driver.stop();
    assert_eq!(driver.set_status(READY), SUSPENDED);
    assert_eq!(driver.set_status(READY | SUSPEND), SUSPENDED);
    driver.advance(20 * MS);
    assert_eq!(driver.status(), SUSPENDED);
    assert_eq!(driver.set_status(READY), SUSPENDED);
    driver.advance(10 * MS);
    assert_eq!(driver.status(), READY);
    let stops = driver.report().counters.stops;
    assert_eq!((stops.requested, stops.resumed), (1, 1));
}

#[test]
fn s_drv_2_buffers_added_without_a_notification_are_seen() {
    let mut driver = Driver::suspendable();
    let (_, buffers) = driver.request(0, 0, 512);
    driver.add(0, &buffers, false);
    driver.stop();
    assert!(driver.breaches().is_empty(), "added before");
    let (_, buffers) = driver.request(0, 0, 512);
    driver.add(0, &buffers, false);
    driver.status();
    assert_eq!(driver.breaches(), ["S-DRV-2"]);
    assert_eq!(
        driver.report().breaches[0].seen,
        "1 buffers added to virtqueue 0 after setting SUSPEND"
    );
}

/// S-DEV-2 holds for the device; the judge is none, and may not do what the device would.
#[test]
fn the_judge_looks_and_touches_nothing() {
    for bus_master in [true, false] {
        let mut driver = Driver::suspendable();
        driver.submit_read(0);
        driver.serve();
        assert_eq!(driver.stop(), SUSPENDED);
        driver.set_bus_master(bus_master);
        let at = [(); 2].map(|()| {
            let (at, buffers) = driver.request(0, 0, 512);
            driver.add(0, &buffers, false);
            at
        });
        let queues = |driver: &Driver| {
            let image = driver.device.freeze().unwrap().image().unwrap();
            image["parts"]["queues"].clone()
        };
        let all = |driver: &Driver| (driver.bytes(0, MEMORY as usize), queues(driver));
        let before = all(&driver);
        driver.status();
        driver.write16(0x16, 0);
        assert!(all(&driver) == before);
        assert_eq!(
            driver.report().breaches[0].seen,
            "2 buffers added to virtqueue 0 after setting SUSPEND"
        );
        assert_eq!(driver.report().breach_count, 1, "seen once");
        driver.resume();
        driver.set_bus_master(true);
        driver.serve();
        assert_eq!(at.map(|at| driver.outcome(at)), [0; 2]);
    }
}

#[test]
fn s_drv_3_buffers_added_before_the_device_runs_again_are_seen() {
    let mut driver = Driver::suspendable();
    driver.set("resume", "after:10");
    driver.stop();
    driver.resume();
    let (_, buffers) = driver.request(0, 0, 512);
    driver.add(0, &buffers, false);
    driver.advance(10 * MS);
    assert_eq!(driver.status(), READY);
    assert_eq!(driver.breaches(), ["S-DRV-3"]);
    driver.submit_read(0);
    driver.status();
    assert_eq!(driver.report().breach_count, 1);
}

#[test]
fn s_drv_4_a_virtqueue_that_is_altered_while_suspended_is_seen() {
    let mut driver = Driver::suspendable();
    let lay_out = |driver: &Driver| {
        driver.write16(0x16, 0);
        driver.write16(0x1a, 1);
        driver.write16(0x1c, 0);
    };
    driver.stop();
    lay_out(&driver);
    assert_eq!(driver.breaches(), ["S-DRV-4"; 2]);
    driver.device.act("forget-breaches").unwrap();
    driver.bring_up(!0);
    assert!(driver.breaches().is_empty(), "after a reset it may");
}

#[test]
fn s_drv_4_buffers_that_are_detached_while_suspended_are_seen() {
    let mut driver = Driver::suspendable();
    driver.set("io_depth", "1");
    driver.set("io_hold", "always");
    driver.set("leave_requests", "true");
    for _ in 0..3 {
        driver.submit_read(0);
    }
    driver.serve();
    assert_eq!(driver.report().counters.requests.in_flight, 1);
    assert_eq!(driver.stop(), SUSPENDED);
    driver.set_avail_index(0, 1);
    driver.status();
    assert_eq!(driver.breaches(), ["S-DRV-4"]);
    assert_eq!(
        driver.report().breaches[0].seen,
        "2 buffers detached from virtqueue 0 after setting SUSPEND"
    );
}

#[test]
fn d_has_no_such_rules() {
    let mut driver = Driver::ready();
    driver.stop();
    driver.write16(0x1a, 1);
    driver.submit_read(0);
    driver.device.write_bar(0x2020, &[0], driver.now);
    driver.resume();
    assert!(driver.breaches().is_empty());
}

#[test]
fn s_drv_2_a_write_to_the_configuration_is_seen() {
    let driver = Driver::suspendable();
    driver.stop();
    driver.device.write_bar(0x2020, &[0], driver.now);
    assert_eq!(driver.breaches(), ["S-DRV-2"]);
}
