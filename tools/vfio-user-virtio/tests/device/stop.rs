// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_DEVICE_STOP: D-DEV-1 to D-DEV-4, and when the device answers.

use std::time::Duration;

use crate::driver::{Driver, DEVICE_STOPPED, NEEDS_RESET, READY, VERSION_1, VIRTIO_F_39};
use vfio_user_virtio::status::Stop;

const STOPPED: u8 = READY | DEVICE_STOPPED;
const MS: Duration = Duration::from_millis(1);

#[test]
fn an_idle_device_acknowledges_at_the_first_look() {
    let driver = Driver::ready();
    assert_ne!(driver.offered() & VIRTIO_F_39, 0);
    assert_eq!(driver.stop(), STOPPED);
    assert_eq!(driver.resume(), READY);
    let report = driver.report();
    assert_eq!(
        (
            report.counters.stops.acknowledged,
            report.counters.stops.resumed
        ),
        (1, 1)
    );
    assert_eq!(report.counters.stops.last_status_reads, 1);
    assert_eq!(report.breach_count, 0, "{:?}", report.breaches);
}

#[test]
fn d_dev_1_a_stop_is_ignored_without_driver_ok() {
    let driver = Driver::new();
    driver.set_status(1);
    assert_eq!(driver.set_status(1 | DEVICE_STOPPED), 1);
    assert_eq!(driver.report().stop, Stop::Running);
    assert_eq!(driver.report().breaches[0].rule, "D-DRV-1");
}

#[test]
fn a_stop_is_ignored_without_the_feature() {
    let mut driver = Driver::new();
    driver.bring_up(VERSION_1);
    assert_eq!(driver.stop(), READY);
    assert_eq!(driver.report().stop, Stop::Running);
    assert_eq!(driver.report().breaches[0].rule, "D-DRV-1");
}

#[test]
fn d_dev_2_what_was_taken_is_finished_and_signalled_before_the_acknowledgement() {
    let mut driver = Driver::ready();
    driver.set("io_delay_us", "5000");
    let requests: Vec<u64> = (0..3).map(|_| driver.submit_read(0)).collect();
    driver.serve();
    assert_eq!(driver.stop(), READY, "a pending stop reads clear");
    driver.advance(4 * MS);
    assert_eq!(driver.status(), READY);
    driver.advance(MS);
    assert_eq!(driver.status(), STOPPED);
    assert!(requests.iter().all(|at| driver.outcome(*at) == 0));
    assert_eq!(driver.used(0), 3);
    let stops = driver.report().counters.stops;
    assert_eq!(
        (
            stops.last_requests_when_requested,
            stops.last_requests_when_acknowledged
        ),
        (3, 0)
    );
    assert_eq!(
        (
            stops.requested_with_requests,
            stops.acknowledged_with_requests
        ),
        (1, 0)
    );
}

#[test]
fn requests_that_are_held_until_a_stop_are_finished_before_its_acknowledgement() {
    let mut driver = Driver::ready();
    driver.set("io_hold", "until-stop");
    for stops in 1..=2 {
        let request = driver.submit_read(0);
        driver.serve();
        driver.advance(1000 * MS);
        assert_eq!(driver.outcome(request), 0xff);
        assert_eq!(driver.stop(), READY);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(request)), (STOPPED, 0));
        assert_eq!(
            driver.report().counters.stops.requested_with_requests,
            stops
        );
        driver.resume();
    }
}

#[test]
fn requests_are_held_until_the_setting_changes() {
    let mut driver = Driver::ready();
    driver.set("io_hold", "always");
    let request = driver.submit_read(0);
    driver.serve();
    driver.stop();
    driver.advance(1000 * MS);
    assert_eq!((driver.status(), driver.outcome(request)), (READY, 0xff));
    driver.set("io_hold", "no");
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(request)), (STOPPED, 0));
}

/// Buffers made available before, during and after the acknowledgement, each with a notification.
fn make_available_while_stopped(driver: &mut Driver) -> (u64, u64, u64) {
    driver.set("io_delay_us", "1000");
    let taken = driver.submit_read(0);
    driver.serve();
    driver.stop();
    let pending = driver.submit_read(1);
    driver.serve();
    driver.advance(MS);
    let stopped = driver.submit_read(2);
    driver.advance(MS);
    driver.advance(MS);
    (taken, pending, stopped)
}

#[test]
fn d_dev_2_nothing_is_taken_while_a_stop_is_pending_or_stands() {
    let mut driver = Driver::ready();
    let (taken, pending, stopped) = make_available_while_stopped(&mut driver);
    assert_eq!(driver.status(), STOPPED);
    assert_eq!(
        [taken, pending, stopped].map(|at| driver.outcome(at)),
        [0, 0xff, 0xff]
    );
    let requests = driver.report().counters.requests;
    assert_eq!((requests.taken, requests.taken_while_stopped), (1, 0));

    driver.resume();
    driver.serve();
    driver.advance(MS);
    assert_eq!([pending, stopped].map(|at| driver.outcome(at)), [0, 0]);
    assert_eq!(driver.report().counters.notifications_while_stopped, 1);
}

#[test]
fn the_planted_bug_takes_requests_while_stopped() {
    let mut driver = Driver::ready();
    driver.set("take_while_stopped", "true");
    let (_, pending, stopped) = make_available_while_stopped(&mut driver);
    assert_eq!([pending, stopped].map(|at| driver.outcome(at)), [0, 0]);
    assert_eq!(driver.report().counters.requests.taken_while_stopped, 2);
}

#[test]
fn a_device_that_forgets_notifications_waits_for_one_after_the_resume() {
    let mut driver = Driver::ready();
    driver.set("forget_notifications", "true");
    let (_, pending, stopped) = make_available_while_stopped(&mut driver);
    driver.resume();
    driver.serve();
    driver.advance(MS);
    assert_eq!(
        [pending, stopped].map(|at| driver.outcome(at)),
        [0xff, 0xff]
    );
    driver.notify(0);
    driver.serve();
    driver.advance(MS);
    assert_eq!([pending, stopped].map(|at| driver.outcome(at)), [0, 0]);
}

#[test]
fn d_dev_3_the_configuration_stays_as_it_is() {
    let driver = Driver::ready();
    let before = driver.config();
    driver.stop();
    driver.device.act("resize:32").unwrap();
    assert_eq!((driver.config(), driver.read(0x15, 1)), (before, 0));
    driver.resume();
    assert_eq!(driver.config()[0], 32);
    assert_eq!(driver.read(0x15, 1), 1, "a new generation");
    assert_eq!(driver.report().counters.configuration_changes, 1);
}

#[test]
fn d_dev_4_a_reset_ends_a_stop() {
    let mut driver = Driver::ready();
    driver.stop();
    assert_eq!(driver.set_status(0), 0);
    assert_eq!(driver.report().stop, Stop::Running);
    driver.bring_up(!0);
    assert_eq!(driver.status(), READY);
}

#[test]
fn an_acknowledgement_can_be_late() {
    let mut driver = Driver::ready();
    driver.set("acknowledge", "after:100");
    driver.stop();
    driver.advance(99 * MS);
    assert_eq!(driver.status(), READY);
    driver.advance(MS);
    assert_eq!(driver.status(), STOPPED);
}

#[test]
fn a_stop_that_is_never_acknowledged_can_be_called_off() {
    let mut driver = Driver::ready();
    driver.set("acknowledge", "never");
    driver.stop();
    driver.advance(Duration::from_secs(3600));
    assert_eq!(driver.status(), READY);
    assert_eq!(driver.resume(), READY);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
    assert_eq!(driver.report().counters.stops.called_off, 1);
    assert_eq!(driver.report().breach_count, 0);
}

#[test]
fn a_stop_can_be_acknowledged_once_the_driver_gave_up() {
    let mut driver = Driver::ready();
    driver.set("acknowledge", "given-up:0");
    driver.stop();
    driver.advance(Duration::from_secs(1));
    assert_eq!(driver.status(), READY);
    assert_eq!(driver.resume(), STOPPED, "at once");
    assert_eq!(driver.resume(), READY);

    driver.set("acknowledge", "given-up:100");
    driver.stop();
    assert_eq!(driver.resume(), READY, "not yet");
    driver.advance(Duration::from_secs(1));
    assert_eq!(driver.status(), STOPPED);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), 0xff);
    driver.resume();
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
}

#[test]
fn a_late_acknowledgement_still_waits_for_what_was_taken() {
    let mut driver = Driver::ready();
    driver.set("acknowledge", "given-up:100");
    driver.stop();
    driver.resume();
    driver.set("io_delay_us", "400000");
    let at = driver.submit_read(0);
    driver.serve();
    driver.advance(200 * MS);
    assert_eq!((driver.status(), driver.outcome(at)), (READY, 0xff));
    driver.advance(200 * MS);
    assert_eq!((driver.status(), driver.outcome(at)), (STOPPED, 0));
}

#[test]
fn a_stop_can_be_answered_with_needs_reset() {
    let driver = Driver::ready();
    driver.set("acknowledge", "needs-reset");
    assert_eq!(driver.stop(), READY | NEEDS_RESET);
}

#[test]
fn a_stop_that_stands_needs_no_second_acknowledgement() {
    let driver = Driver::ready();
    driver.stop();
    assert_eq!(driver.stop(), STOPPED);
    assert_eq!(driver.report().counters.stops.requested, 1);
}
