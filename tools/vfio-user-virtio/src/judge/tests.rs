// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that keeps the rules is not blamed, and one that breaks them is, for the rule that it breaks.

use std::borrow::Cow;

use super::breaches::KEPT;
use super::*;

const READY: u8 = 15;
const STOPPED: u8 = READY | DEVICE_STOPPED;
const SUSPENDED: u8 = READY & !DRIVER_OK | SUSPEND;

/// What the judge says of a driver that knows `current` and then does this.
fn verdict(current: u8, act: impl FnOnce(&mut Judge)) -> Vec<Cow<'static, str>> {
    let mut judge = Judge::default();
    judge.read(current, Stop::Running);
    act(&mut judge);
    let (count, breaches) = judge.breaches();
    assert_eq!(count, breaches.len() as u64);
    breaches.iter().map(|breach| breach.rule.clone()).collect()
}

fn write(protocol: Protocol, stop: Stop, current: u8, written: u8) -> Write {
    Write {
        current,
        written,
        stop,
        protocol,
    }
}

fn d(stop: Stop, current: u8, written: u8) -> Write {
    write(Protocol::DeviceStop, stop, current, written)
}

fn s(stop: Stop, current: u8, written: u8) -> Write {
    write(Protocol::Suspend, stop, current, written)
}

fn initialise(judge: &mut Judge, current: u8) {
    judge.write(write(Protocol::None, Stop::Running, current, 0));
    judge.read(0, Stop::Running);
    for (current, written) in [(0, 1), (1, 3), (3, 11), (11, 15)] {
        judge.write(write(Protocol::None, Stop::Running, current, written));
        judge.read(written, Stop::Running);
    }
}

#[test]
fn a_driver_that_keeps_to_device_stop_is_not_blamed() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY, STOPPED));
        judge.read(READY, Stop::Running);
        judge.notification(0, true);
        judge.read(STOPPED, Stop::Running);
        judge.buffers_added(0, 3);
        judge.write(d(Stop::Stopped, STOPPED, READY));
        judge.read(READY, Stop::Running);
        initialise(judge, READY);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn a_driver_that_keeps_to_suspend_is_not_blamed() {
    let rules = verdict(READY, |judge| {
        judge.notification(0, true);
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        judge.read(READY, Stop::Requested);
        judge.read(SUSPENDED, Stop::Stopped);
        judge.write(s(Stop::Stopped, SUSPENDED, READY | SUSPEND));
        judge.read(SUSPENDED, Stop::Resuming);
        judge.read(READY, Stop::Running);
        judge.notification(0, true);
        judge.buffers_added(0, 3);
        judge.configuration_written(0);
        initialise(judge, READY);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn a_suspension_that_the_device_drops_is_over_when_the_driver_sees_that() {
    let rules = verdict(READY, |judge| {
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        judge.read(SUSPENDED, Stop::Stopped);
        judge.read(READY, Stop::Running);
        judge.notification(0, true);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn a_suspension_that_ends_in_a_reset_is_over() {
    let rules = verdict(READY, |judge| {
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        initialise(judge, READY);
        judge.notification(0, true);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn a_reset_by_other_means_ends_what_a_driver_owes() {
    let rules = verdict(READY, |judge| {
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        judge.reset();
        judge.write(s(Stop::Running, 0, 1));
        judge.notification(0, true);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn d_drv_1_stop_without_driver_ok() {
    let rules = verdict(11, |judge| {
        judge.write(d(Stop::Running, 11, 11 | DEVICE_STOPPED));
    });
    assert_eq!(rules, ["D-DRV-1"]);
}

#[test]
fn d_drv_1_stop_without_the_feature() {
    let rules = verdict(READY, |judge| {
        judge.write(write(Protocol::None, Stop::Running, READY, STOPPED));
    });
    assert_eq!(rules, ["D-DRV-1"]);
}

#[test]
fn d_drv_2_no_read_after_a_stop() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY, STOPPED));
        judge.write(d(Stop::Requested, READY, STOPPED));
    });
    assert_eq!(rules, ["D-DRV-2"]);
}

#[test]
fn d_drv_3_no_read_after_a_resume() {
    let rules = verdict(STOPPED, |judge| {
        judge.write(d(Stop::Stopped, STOPPED, READY));
        judge.write(d(Stop::Running, READY, STOPPED));
    });
    assert_eq!(rules, ["D-DRV-3"]);
}

#[test]
fn d_drv_3_no_read_after_calling_a_stop_off() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY, STOPPED));
        judge.read(READY, Stop::Running);
        judge.write(d(Stop::Requested, READY, READY));
        judge.write(d(Stop::Running, READY, STOPPED));
    });
    assert_eq!(rules, ["D-DRV-3"]);
}

#[test]
fn d_drv_4_other_bits_cleared() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY, READY & !4));
    });
    assert_eq!(rules, ["D-DRV-4"]);
}

#[test]
fn d_drv_4_no_reset_after_failed() {
    let failed = FAILED | 3;
    let rules = verdict(failed, |judge| {
        judge.write(d(Stop::Running, failed, failed | 8));
    });
    assert_eq!(rules, ["D-DRV-4"]);
}

#[test]
fn s_drv_1_suspend_without_driver_ok_or_without_the_feature() {
    let rules = verdict(11, |judge| {
        judge.write(s(Stop::Running, 11, 11 | SUSPEND));
    });
    assert_eq!(rules, ["S-DRV-1"]);
    let rules = verdict(READY, |judge| {
        judge.write(write(Protocol::None, Stop::Running, READY, READY | SUSPEND));
    });
    assert_eq!(rules, ["S-DRV-1"]);
}

#[test]
fn s_drv_2_no_read_after_suspend() {
    let rules = verdict(READY, |judge| {
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        judge.write(s(Stop::Requested, READY, READY | SUSPEND | FAILED));
    });
    assert_eq!(rules, ["S-DRV-2"]);
}

#[test]
fn s_drv_2_the_device_is_touched_while_suspending_or_suspended() {
    for seen in [READY, SUSPENDED] {
        let rules = verdict(READY, |judge| {
            judge.write(s(Stop::Running, READY, READY | SUSPEND));
            judge.read(seen, Stop::Requested);
            judge.notification(1, true);
            judge.buffers_added(1, 2);
            judge.configuration_written(0x20);
        });
        assert_eq!(rules, ["S-DRV-2"; 3]);
    }
}

#[test]
fn s_drv_3_the_device_is_touched_before_it_runs_again() {
    let rules = verdict(SUSPENDED, |judge| {
        judge.write(s(Stop::Stopped, SUSPENDED, READY | SUSPEND));
        judge.notification(0, true);
        judge.read(SUSPENDED, Stop::Resuming);
        judge.buffers_added(0, 1);
        judge.read(READY, Stop::Running);
        judge.notification(0, true);
    });
    assert_eq!(rules, ["S-DRV-3"; 2]);
}

#[test]
fn s_drv_3_no_read_after_a_resume() {
    let rules = verdict(SUSPENDED, |judge| {
        judge.write(s(Stop::Stopped, SUSPENDED, READY | SUSPEND));
        judge.write(s(Stop::Resuming, SUSPENDED, READY | SUSPEND));
    });
    assert_eq!(rules, ["S-DRV-3"]);
}

/// From the write of SUSPEND to the look at a device that runs again, with what the driver does at every stage.
fn all_the_while(act: impl Fn(&mut Judge)) -> Vec<Cow<'static, str>> {
    verdict(READY, |judge| {
        act(judge);
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        act(judge);
        judge.read(READY, Stop::Requested);
        act(judge);
        judge.read(SUSPENDED, Stop::Stopped);
        act(judge);
        judge.write(s(Stop::Stopped, SUSPENDED, READY | SUSPEND));
        act(judge);
        judge.read(SUSPENDED, Stop::Resuming);
        act(judge);
        judge.read(READY, Stop::Running);
        act(judge);
    })
}

#[test]
fn s_drv_2_and_3_hold_from_the_write_of_suspend_to_the_look_at_a_running_device() {
    let both = ["S-DRV-2", "S-DRV-2", "S-DRV-2", "S-DRV-3", "S-DRV-3"];
    assert_eq!(all_the_while(|judge| judge.notification(0, true)), both);
    assert_eq!(all_the_while(|judge| judge.buffers_added(0, 1)), both);
    assert_eq!(all_the_while(|judge| judge.configuration_written(0)), both);
}

#[test]
fn s_drv_3_no_other_status_is_a_device_that_runs_again() {
    for value in [READY | SUSPEND, READY & !DRIVER_OK, 0, 0xff] {
        let rules = verdict(SUSPENDED, |judge| {
            judge.write(s(Stop::Stopped, SUSPENDED, READY | SUSPEND));
            judge.read(value, Stop::Running);
            judge.notification(0, true);
        });
        assert_eq!(rules, ["S-DRV-3"], "{value:#04x}");
    }
}

#[test]
fn s_drv_4_a_live_virtqueue_is_altered() {
    // What follows queue_select: size, vector, enable, the three addresses, and, where there is one, queue_reset.
    for offset in [0x18, 0x1a, 0x1c, 0x20, 0x24, 0x28, 0x30, 0x34, 0x3a] {
        let rules = all_the_while(|judge| judge.common_written(offset));
        assert_eq!(rules, ["S-DRV-4"; 5], "{offset:#x}");
    }
    let rules = all_the_while(|judge| judge.buffers_added(0, 0u16.wrapping_sub(7)));
    assert_eq!(rules, ["S-DRV-4"; 5], "detached");
}

#[test]
fn s_drv_4_features_are_negotiated_anew() {
    let rules = all_the_while(|judge| judge.common_written(0x0c));
    assert_eq!(rules, ["S-DRV-4"; 5]);
}

#[test]
fn s_drv_4_what_alters_nothing_is_allowed_and_a_reset_allows_for_all() {
    // Both selects of features, config_msix_vector, and queue_select.
    for offset in [0x00, 0x08, 0x10, 0x16] {
        let rules = all_the_while(|judge| judge.common_written(offset));
        assert!(rules.is_empty(), "{offset:#x}");
    }
    let rules = verdict(SUSPENDED, |judge| {
        judge.write(s(Stop::Stopped, SUSPENDED, 0));
        judge.common_written(0x1c);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn s_drv_4_device_stop_has_no_such_rule() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY, STOPPED));
        judge.read(STOPPED, Stop::Stopped);
        judge.common_written(0x1a);
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn status_1_suspend_can_be_cleared_neither_while_pending_nor_to_resume() {
    let rules = verdict(READY, |judge| {
        judge.write(s(Stop::Running, READY, READY | SUSPEND));
        judge.read(READY, Stop::Requested);
        judge.write(s(Stop::Requested, READY, READY));
    });
    assert_eq!(rules, ["STATUS-1"]);
    let rules = verdict(SUSPENDED, |judge| {
        judge.write(s(Stop::Stopped, SUSPENDED, READY));
    });
    assert_eq!(rules, ["STATUS-1"]);
}

#[test]
fn status_1_bits_cleared_without_a_protocol() {
    let rules = verdict(READY, |judge| {
        judge.write(write(Protocol::None, Stop::Running, READY, 3));
    });
    assert_eq!(rules, ["STATUS-1"]);
}

#[test]
fn a_driver_may_write_what_stands_after_failed() {
    for current in [FAILED, FAILED | 3, FAILED | READY] {
        let rules = verdict(current, |judge| {
            judge.write(write(Protocol::None, Stop::Running, current, current));
        });
        assert!(rules.is_empty(), "{current:#x}: {rules:?}");
    }
}

#[test]
fn status_2_notification_before_driver_ok() {
    assert_eq!(
        verdict(11, |judge| judge.notification(0, false)),
        ["STATUS-2"]
    );
}

#[test]
fn a_bit_that_the_driver_could_not_know_of_is_not_held_against_it() {
    let rules = verdict(READY, |judge| {
        judge.write(d(Stop::Running, READY | 64, STOPPED));
    });
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn breaches_are_bounded_but_counted_and_can_be_forgotten() {
    let mut judge = Judge::default();
    for _ in 0..1000 {
        judge.read(READY, Stop::Running);
        judge.write(d(Stop::Running, READY, 1));
    }
    let (count, kept) = judge.breaches();
    assert_eq!((count, kept.len()), (1000, KEPT));
    judge.forget();
    assert_eq!(judge.breaches(), (0, &[][..]));
}
