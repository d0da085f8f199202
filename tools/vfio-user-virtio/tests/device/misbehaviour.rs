// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every way in which a device can be told to depart from the protocol, and ways that only look like it.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vfio_user_virtio::device::Offer;
use vfio_user_virtio::status::Stop;

use crate::driver::{
    disk, Driver, D, NEEDS_RESET, NOTIFICATION_DATA, READY, S, SUSPENDED, VIRTIO_F_39,
};

const STOPPED: u8 = READY | 32;
const MS: Duration = Duration::from_millis(1);

#[test]
fn an_acknowledgement_can_take_a_random_time() {
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut driver = Driver::ready();
        driver.set("acknowledge", "after:10-20");
        driver.stop();
        driver.advance(9 * MS);
        assert_eq!(driver.status(), READY);
        while driver.status() != STOPPED {
            driver.advance(MS);
        }
        let took = driver.report().counters.stops.last_acknowledge_us;
        assert!((10_000..=20_000).contains(&took), "{took}");
        times.insert(took);
    }
    assert!(times.len() > 1);
}

#[test]
fn a_resume_can_be_refused_or_take_for_ever() {
    let mut driver = Driver::ready();
    driver.set("resume", "never");
    driver.stop();
    assert_eq!(driver.resume(), STOPPED);
    driver.advance(Duration::from_secs(3600));
    assert_eq!(
        (driver.status(), driver.report().stop),
        (STOPPED, Stop::Resuming)
    );
    driver.set("resume", "at-once");
    assert_eq!(driver.status(), READY);

    driver.set("resume", "needs-reset");
    driver.stop();
    assert_eq!(driver.resume(), STOPPED | NEEDS_RESET);
}

#[test]
fn an_acknowledged_stop_can_end_by_itself() {
    for offer in [D, S] {
        let mut driver = Driver::of(disk(1, false).0, offer);
        driver.set("drop_stop", "after:100");
        let stopped = driver.stop();
        assert_ne!(stopped, READY);
        let at = driver.submit_read(0);
        driver.advance(99 * MS);
        assert_eq!(driver.status(), stopped);
        driver.advance(MS);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
        assert_eq!(driver.report().counters.stops.dropped, 1);
        driver.set("drop_stop", "never");
    }
}

#[test]
fn a_stop_that_stands_can_be_dropped_at_run_time() {
    let driver = Driver::ready();
    assert_eq!(driver.stop(), STOPPED);
    driver.set("drop_stop", "after:0");
    assert_eq!(driver.status(), READY);
}

#[test]
fn the_status_can_be_garbage() {
    let mut driver = Driver::ready();
    driver.set("show_status", "stopping:0x00");
    driver.set("acknowledge", "never");
    assert_eq!(driver.status(), READY);
    assert_eq!(driver.stop(), 0);
    assert_eq!(driver.resume(), READY, "the stop has ended");

    driver.set("acknowledge", "at-once");
    driver.set("show_status", "resuming:0x71");
    driver.set("resume", "never");
    assert_eq!(driver.stop(), STOPPED);
    assert_eq!(driver.resume(), 0x71);
    driver.set("resume", "at-once");
    driver.bring_up(!0);

    driver.set("show_status", "always:0xff");
    assert_eq!(driver.status(), 0xff);
    assert_eq!(
        driver.set_status(0),
        0,
        "a reset shows, so that the driver's ends"
    );
    driver.set("show_status", "as-is");
    driver.bring_up(!0);
    assert_eq!(driver.status(), READY);
}

#[test]
fn the_status_can_be_random() {
    let shown = |seed: &str| {
        let mut driver = Driver::new();
        driver.set("show_status", seed);
        driver.bring_up(!0);
        (0..10_000).map(|_| driver.status()).collect::<Vec<_>>()
    };
    let bytes = shown("random:7");
    assert_eq!(shown("random:7"), bytes, "the seed decides");
    assert_ne!(shown("random:8")[1..], bytes[..9999], "nor is it shifted");
    assert_ne!(shown("random:8"), bytes);
    let kinds: std::collections::BTreeSet<_> = bytes.iter().copied().collect();
    assert_eq!(kinds.len(), 256, "every byte comes");
    assert!(bytes.windows(2).filter(|pair| pair[0] == pair[1]).count() < 100);
}

#[test]
fn a_random_status_keeps_no_driver_from_being_bound_and_none_from_going() {
    for offer in [D, S] {
        let mut driver = Driver::of(disk(1, false).0, offer);
        driver.set("show_status", "random:7");
        for _ in 0..100 {
            assert_eq!(driver.set_status(0), 0, "a reset shows, stopped or not");
            driver.negotiate(!0);
            assert_eq!(driver.status(), 11, "and the way to DRIVER_OK");
            driver.set_status(READY);
            driver.stop();
            assert_eq!(
                driver.report().stop,
                Stop::Stopped,
                "it does what it is asked for"
            );
        }
        driver.resume();
        driver.set("show_status", "as-is");
        assert_eq!(driver.status(), READY);
    }
}

#[test]
fn features_can_be_refused() {
    let mut driver = Driver::new();
    driver.set("refuse_features", "true");
    driver.negotiate(!0);
    assert_eq!(driver.status(), 3);
    driver.set("refuse_features", "false");
    driver.negotiate(!0);
    assert_eq!(driver.status(), 11);
}

#[test]
fn the_feature_to_be_stopped_by_can_be_refused() {
    let mut driver = Driver::new();
    driver.set("refuse_to_stop", "true");
    driver.negotiate(!0);
    assert_eq!(driver.status(), 3);
    driver.negotiate(1 << 32);
    assert_eq!(driver.status(), 11);
}

#[test]
fn the_configuration_can_change_while_stopped() {
    let driver = Driver::ready();
    driver.set("change_while_stopped", "true");
    driver.stop();
    driver.device.act("resize:32").unwrap();
    assert_eq!((driver.config()[0], driver.read(0x15, 1)), (32, 1));
    assert_eq!(driver.report().counters.configuration_changes, 1);
    driver.resume();
    assert_eq!(driver.report().counters.configuration_changes, 1);
}

#[test]
fn d_opt_1_a_notification_can_come_with_the_acknowledgement() {
    let mut driver = Driver::ready();
    driver.set("notify_when_stopped", "true");
    driver.set("acknowledge", "after:1");
    driver.stop();
    assert_eq!(driver.report().counters.configuration_changes, 0);
    driver.advance(MS);
    assert_eq!(driver.report().counters.configuration_changes, 1);
    assert_eq!(driver.read(0x15, 1), 0, "nothing has changed");
}

#[test]
fn requests_can_be_carried_out_in_another_order() {
    let heads = |order: &str| -> Vec<u32> {
        let mut driver = Driver::ready();
        driver.set("io_order", order);
        for _ in 0..5 {
            let (_, buffers) = driver.request(0, 0, 512);
            driver.add(0, &buffers, true);
            // A table serves one request only: each is taken before the next.
            driver.notify(0);
            driver.set("io_delay_us", "1000");
            driver.serve();
        }
        driver.advance(MS);
        assert_eq!(driver.used(0), 5);
        (0..5).map(|nth| driver.used_element(0, nth).0).collect()
    };
    assert_eq!(heads("taken"), [0, 1, 2, 3, 4]);
    assert_eq!(heads("reversed"), [4, 3, 2, 1, 0]);
    let mut orders: Vec<_> = (0..20).map(|_| heads("shuffled")).collect();
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 1);
}

#[test]
fn every_so_many_requests_can_fail() {
    let mut driver = Driver::ready();
    driver.set("io_error_every", "3");
    let outcomes: Vec<u8> = (0..7)
        .map(|_| {
            let at = driver.submit_read(0);
            driver.serve();
            driver.outcome(at)
        })
        .collect();
    assert_eq!(outcomes, [0, 0, 1, 0, 0, 1, 0]);
    assert_eq!(driver.report().counters.requests.failed, 2);
}

#[test]
fn the_device_hangs_up_when_asked_to() {
    let connected = || {
        let (client, server) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let driver = Driver::ready();
        driver.device.connected(Arc::new(server));
        (client, driver)
    };
    let hung_up = |mut client: &UnixStream| matches!(client.read(&mut [0]), Ok(0));
    for (setting, expected) in [
        ("never", [false; 2]),
        ("on-stop", [true; 2]),
        ("on-resume", [false, true]),
    ] {
        let (client, driver) = connected();
        driver.set("hang_up", setting);
        driver.stop();
        let on_stop = hung_up(&client);
        driver.resume();
        assert_eq!([on_stop, hung_up(&client)], expected, "{setting}");
    }
    let (client, driver) = connected();
    assert!(!hung_up(&client));
    driver.device.act("hang-up").unwrap();
    assert!(hung_up(&client));
    driver.device.disconnected();
    driver.device.act("hang-up").unwrap();
    let (client, server) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    driver.device.connected(Arc::new(server));
    assert!(
        !hung_up(&client),
        "which was not there when it was asked for"
    );
}

#[test]
fn bit_39_can_be_what_it_is_since_virtio_1_2() {
    let offer = Offer {
        device_stop: false,
        notif_config_data: true,
        ..D
    };
    let mut driver = Driver::of(disk(1, false).0, offer);
    assert_ne!(driver.offered() & VIRTIO_F_39, 0);
    assert_eq!(driver.stop(), READY, "no stop in it");
    driver.bring_up(!0);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(
        driver.outcome(at),
        0,
        "the first look needs no notification"
    );
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(
        driver.outcome(at),
        0xff,
        "its index does not notify the virtqueue"
    );
    assert_eq!(driver.report().counters.notifications_lost, 2);
    let data = driver.read(0x38, 2) as u16;
    driver
        .device
        .write_bar(0x3000, &data.to_le_bytes(), driver.now);
    driver.serve();
    assert_eq!(driver.outcome(at), 0);

    driver.bring_up(!VIRTIO_F_39);
    for _ in 0..2 {
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!(
            driver.outcome(at),
            0,
            "who has not promised anything uses the index"
        );
    }
}

/// Virtio 1.4, 2.9 and 4.1.5.2: 32 bits, with the virtqueue's index in the lower half.
#[test]
fn notifications_carry_the_data_that_was_negotiated() {
    let offer = Offer {
        device_stop: false,
        notification_data: true,
        ..D
    };
    for notif_config_data in [false, true] {
        let offer = Offer {
            notif_config_data,
            ..offer
        };
        let mut driver = Driver::of(disk(2, false).0, offer);
        driver.serve();
        driver.write16(0x16, 1);
        let number = if notif_config_data {
            driver.read(0x38, 2) as u16
        } else {
            1
        };
        let (at, buffers) = driver.request(0, 0, 512);
        driver.add(1, &buffers, false);
        let doorbell = |driver: &mut Driver, data: &[u8]| {
            driver.device.write_bar(0x3004, data, driver.now);
            driver.serve();
            driver.outcome(at)
        };
        let data = (u32::from(number) | (1 << 16)).to_le_bytes();
        // Too narrow, too wide, and another virtqueue's.
        assert_eq!(doorbell(&mut driver, &data[..2]), 0xff);
        assert_eq!(doorbell(&mut driver, &[data, [0; 4]].concat()), 0xff);
        let other = (u32::from(number ^ 1) | (1 << 16)).to_le_bytes();
        assert_eq!(doorbell(&mut driver, &other), 0xff);
        assert_eq!(driver.report().counters.notifications_lost, 3);
        assert_eq!(doorbell(&mut driver, &data), 0);
        let counters = driver.report().counters;
        assert_eq!(
            (counters.notifications, counters.notifications_lost),
            (4, 3)
        );

        driver.bring_up(!(NOTIFICATION_DATA | VIRTIO_F_39));
        driver.serve();
        let (at, buffers) = driver.request(0, 0, 512);
        driver.add(1, &buffers, false);
        driver.notify(1);
        driver.serve();
        assert_eq!(driver.outcome(at), 0, "who has not promised anything");
    }
}

#[test]
fn the_common_configuration_can_leave_open_what_bit_39_is() {
    let offer = Offer {
        long_common: true,
        ..D
    };
    let driver = Driver::of(disk(1, false).0, offer);
    assert_ne!(driver.read(0x38, 2), 0);
    assert_eq!(driver.stop(), STOPPED);
    assert_eq!(Driver::ready().read(0x38, 2), 0);
}

#[test]
fn misbehaviour_can_be_combined() {
    let mut driver = Driver::of(disk(1, false).0, S);
    for (name, value) in [
        ("acknowledge", "after:5"),
        ("resume", "after:5"),
        ("io_delay_us", "1000"),
        ("take_while_stopped", "true"),
        ("notify_when_stopped", "true"),
    ] {
        driver.set(name, value);
    }
    driver.submit_read(0);
    driver.stop();
    driver.advance(5 * MS);
    assert_eq!(driver.status(), SUSPENDED);
    driver.resume();
    driver.advance(5 * MS);
    assert_eq!(driver.status(), READY);
    let counters = driver.report().counters;
    assert_eq!(
        (
            counters.requests.taken_while_stopped,
            counters.configuration_changes
        ),
        (1, 1)
    );
}

#[test]
fn a_device_can_be_told_to_behave() {
    let mut driver = Driver::ready();
    driver.set("acknowledge", "never");
    driver.set("io_delay_us", "1000");
    driver.stop();
    driver.device.act("behave").unwrap();
    assert_eq!(driver.status(), STOPPED);
    driver.resume();
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
}

#[test]
fn actions_are_the_devices_or_its_types() {
    let driver = Driver::ready();
    driver.device.act("needs-reset").unwrap();
    assert_eq!(driver.status(), READY | NEEDS_RESET);
    driver.set_status(READY & !4);
    assert_eq!(driver.breaches().len(), 1);
    driver.device.act("forget-breaches").unwrap();
    assert_eq!(driver.report().breach_count, 0);
    for action in ["dance", "resize", "resize:x", "resize:0", "link:up"] {
        assert!(driver.device.act(action).is_err(), "{action}");
    }
}
