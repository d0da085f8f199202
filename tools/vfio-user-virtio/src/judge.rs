// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The judge: watches what the driver does, and notes where it breaks the protocol.
//!
//! VIRTIO_F_DEVICE_STOP, by the RFC "virtio: introduce VIRTIO_F_DEVICE_STOP" (virtio-comment, December 2020):
//!
//! * D-DRV-1: the driver MUST NOT set or clear DEVICE_STOPPED while DRIVER_OK is not set, and of course not without the feature.
//! * D-DRV-2: having set it, the driver MUST re-read the status.
//! * D-DRV-3: having cleared it, the driver MUST read the status to make sure.
//! * D-DRV-4: the driver MUST NOT clear any other bit; after FAILED it MUST reset first.
//!
//! VIRTIO_F_SUSPEND, by virtio 1.4 ("Device Suspend"):
//!
//! * S-DRV-1: the driver SHOULD NOT set SUSPEND without DRIVER_OK and the feature.
//! * S-DRV-2: having set it, the driver MUST re-read the status until it shows SUSPEND without DRIVER_OK; from then on, and until it
//!   resumes the device, it MUST NOT add buffers, notify, or change the configuration space.
//! * S-DRV-3: to resume, the driver sets DRIVER_OK, and MUST wait for DRIVER_OK without SUSPEND before it does any of that again.
//! * S-DRV-4: the virtqueues stay live meanwhile, and only a reset ends that (3.3.1): the driver MUST NOT alter or detach the buffers that
//!   it has exposed, nor lay out a virtqueue or negotiate features anew. Seen of it are an available index that goes back, and writes to
//!   the registers. Selecting a virtqueue, or half of the features, alters nothing.
//!
//! And under whatever protocol, by virtio 1.4, 2.1.1:
//!
//! * STATUS-1: the driver MUST NOT clear a status bit (under VIRTIO_F_DEVICE_STOP this is D-DRV-4).
//! * STATUS-2: the driver MUST NOT notify the device before DRIVER_OK.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::registers::{CONFIG_MSIX_VECTOR, DRIVER_FEATURE, QUEUE_SIZE};
use crate::status::{Protocol, Stop, DEVICE_STOPPED, DRIVER_OK, FAILED, SUSPEND};

/// The breaches that are kept; more are only counted.
const KEPT: usize = 64;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Breach {
    /// Which rule, for example `D-DRV-2`.
    pub rule: Cow<'static, str>,
    /// What was seen.
    pub seen: String,
    /// When, in microseconds since the server started.
    pub at_us: u64,
}

/// What the driver has yet to see before it may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Owed {
    /// Nothing.
    #[default]
    Nothing,
    /// Any look at the status, after it asked for a stop.
    ReadAfterStop,
    /// Any look at the status, after it asked for a resume.
    ReadAfterResume,
}

/// From the driver's write of SUSPEND to its look at a device that runs again, it may not touch the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fence {
    #[default]
    None,
    Suspending,
    Resuming,
}

/// A write of the device status by the driver.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// What the status reads.
    pub current: u8,
    /// What the driver writes.
    pub written: u8,
    /// Where the device is.
    pub stop: Stop,
    /// What was negotiated.
    pub protocol: Protocol,
}

/// The judge of one driver.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Judge {
    /// The bits that the driver knows of: what it last read or wrote. A bit that the device set since can't be held against it.
    seen: u8,
    owed: Owed,
    fence: Fence,
    count: u64,
    breaches: Vec<Breach>,
    /// Now, in microseconds since the server started.
    at_us: u64,
}

impl Judge {
    /// The breaches so far: how many, and the first of them in full.
    pub fn breaches(&self) -> (u64, &[Breach]) {
        (self.count, &self.breaches)
    }

    /// Forgets the breaches so far.
    pub fn forget(&mut self) {
        self.count = 0;
        self.breaches.clear();
    }

    /// What happens from now on happens `at_us` microseconds after the server started.
    pub fn set_time(&mut self, at_us: u64) {
        self.at_us = at_us;
    }

    /// Whether the driver is to add no buffers, so that somebody should look.
    pub fn forbids_buffers(&self) -> bool {
        self.fence != Fence::None
    }

    /// The device was reset by other means than the status.
    pub fn reset(&mut self) {
        self.seen = 0;
        self.owed = Owed::Nothing;
        self.fence = Fence::None;
    }

    /// The driver has read `value`, with the device in `stop`. A device that runs again may have been resumed, or have dropped the
    /// suspension by itself: the driver that sees it may go on.
    pub fn read(&mut self, value: u8, stop: Stop) {
        self.seen = value;
        self.owed = Owed::Nothing;
        if stop == Stop::Running && value & (SUSPEND | DRIVER_OK) == DRIVER_OK {
            self.fence = Fence::None;
        }
    }

    /// The driver writes the status.
    pub fn write(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let seen = std::mem::replace(&mut self.seen, written);
        let owed = std::mem::take(&mut self.owed);
        if written == 0 {
            self.fence = Fence::None;
            return;
        }
        let unread = |after| format!("{written:#04x} written {after}, without reading the status");
        match (owed, write.protocol) {
            (Owed::Nothing, _) => {}
            (Owed::ReadAfterStop, Protocol::Suspend) => {
                self.note("S-DRV-2", unread("after setting SUSPEND"));
            }
            (Owed::ReadAfterStop, _) => {
                self.note("D-DRV-2", unread("after setting DEVICE_STOPPED"));
            }
            (Owed::ReadAfterResume, Protocol::Suspend) => {
                self.note("S-DRV-3", unread("after asking for a resume"));
            }
            (Owed::ReadAfterResume, _) => {
                self.note("D-DRV-3", unread("after clearing DEVICE_STOPPED"));
            }
        }
        self.device_stopped(write);
        self.suspend(write);
        // While SUSPEND stands DRIVER_OK does not: to leave it out is not to clear it.
        let own = match write.protocol {
            Protocol::DeviceStop => DEVICE_STOPPED,
            Protocol::None | Protocol::Suspend => 0,
        };
        // A stop that is pending was set by the driver, and reads clear.
        let pending = match (write.protocol, write.stop) {
            (Protocol::Suspend, Stop::Requested) => SUSPEND,
            _ => 0,
        };
        let cleared = ((seen & current) | pending) & !written & !own;
        let rule = match write.protocol {
            Protocol::DeviceStop => "D-DRV-4",
            Protocol::None | Protocol::Suspend => "STATUS-1",
        };
        if cleared != 0 {
            self.note(
                rule,
                format!("{written:#04x} written over {current:#04x} clears {cleared:#04x}"),
            );
        }
        if current & FAILED != 0 && written & !current & !own != 0 {
            self.note(
                rule,
                format!("{written:#04x} written over {current:#04x}: no reset after FAILED"),
            );
        }
    }

    fn device_stopped(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let negotiated = write.protocol == Protocol::DeviceStop;
        let wanted = written & DEVICE_STOPPED != 0;
        let stands = negotiated && matches!(write.stop, Stop::Requested | Stop::Stopped);
        if (wanted && !negotiated) || (wanted != stands && current & DRIVER_OK == 0) {
            self.note(
                "D-DRV-1",
                format!(
                    "{written:#04x} written over {current:#04x}, feature negotiated: {negotiated}"
                ),
            );
        }
        match (wanted, stands) {
            (true, false) if negotiated => self.owed = Owed::ReadAfterStop,
            (false, true) => self.owed = Owed::ReadAfterResume,
            _ => {}
        }
    }

    fn suspend(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let negotiated = write.protocol == Protocol::Suspend;
        let wanted = written & SUSPEND != 0;
        match write.stop {
            Stop::Running | Stop::Resuming if wanted && self.fence != Fence::Resuming => {
                if !negotiated || current & DRIVER_OK == 0 {
                    self.note(
                        "S-DRV-1",
                        format!(
                            "{written:#04x} written over {current:#04x}, feature negotiated: {negotiated}"
                        ),
                    );
                } else {
                    self.owed = Owed::ReadAfterStop;
                    self.fence = Fence::Suspending;
                }
            }
            Stop::Stopped if negotiated && written & DRIVER_OK != 0 => {
                self.owed = Owed::ReadAfterResume;
                self.fence = Fence::Resuming;
            }
            _ => {}
        }
    }

    /// The driver notifies virtqueue `queue`. `live`: it has set DRIVER_OK.
    pub fn notification(&mut self, queue: usize, live: bool) {
        if !live {
            self.note(
                "STATUS-2",
                format!("virtqueue {queue} notified before DRIVER_OK"),
            );
        }
        self.fenced(|| format!("virtqueue {queue} notified"));
    }

    /// The driver has moved the available index of virtqueue `queue` on by `buffers`. No virtqueue has half as many as the index can
    /// count: more were taken back.
    pub fn buffers_added(&mut self, queue: usize, buffers: u16) {
        if buffers <= u16::MAX / 2 {
            self.fenced(|| format!("{buffers} buffers added to virtqueue {queue}"));
        } else {
            let detached = buffers.wrapping_neg();
            self.live(|| format!("{detached} buffers detached from virtqueue {queue}"));
        }
    }

    /// The driver writes to the common configuration, but for the status.
    pub fn common_written(&mut self, offset: u64) {
        match offset {
            DRIVER_FEATURE..CONFIG_MSIX_VECTOR => {
                self.live(|| "driver_feature written".to_owned());
            }
            QUEUE_SIZE.. => {
                self.live(|| format!("a live virtqueue altered by register {offset:#x}"));
            }
            _ => {}
        }
    }

    /// The driver writes to the device configuration space.
    pub fn configuration_written(&mut self, offset: u64) {
        self.fenced(|| format!("configuration space written at {offset:#x}"));
    }

    fn fenced(&mut self, what: impl FnOnce() -> String) {
        match self.fence {
            Fence::None => {}
            Fence::Suspending => self.note("S-DRV-2", what() + " after setting SUSPEND"),
            Fence::Resuming => self.note("S-DRV-3", what() + " before the device runs again"),
        }
    }

    /// 3.3.1: what only a reset allows for again.
    fn live(&mut self, what: impl FnOnce() -> String) {
        match self.fence {
            Fence::None => {}
            Fence::Suspending => self.note("S-DRV-4", what() + " after setting SUSPEND"),
            Fence::Resuming => self.note("S-DRV-4", what() + " before the device runs again"),
        }
    }

    fn note(&mut self, rule: &'static str, seen: String) {
        self.count = self.count.saturating_add(1);
        tracing::warn!(rule, seen, "the driver broke a rule");
        if self.breaches.len() < KEPT {
            self.breaches.push(Breach {
                rule: rule.into(),
                seen,
                at_us: self.at_us,
            });
        }
    }
}

#[cfg(test)]
mod tests {
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
}
