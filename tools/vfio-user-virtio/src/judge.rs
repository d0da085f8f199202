// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Watches the driver's accesses to the device status field, and notes where they break the protocol.
//!
//! The rules are those of the RFC "virtio: introduce VIRTIO_F_DEVICE_STOP" (virtio-comment, December 2020), numbered:
//!
//! * D-DRV-1: the driver MUST NOT set or clear DEVICE_STOPPED while DRIVER_OK is not set, and of course not without the feature.
//! * D-DRV-2: having set it, the driver MUST re-read the status.
//! * D-DRV-3: having cleared it, the driver MUST read the status to make sure.
//! * D-DRV-4: the driver MUST NOT clear any other bit; after FAILED it MUST reset first.

use serde::Serialize;

use crate::status::{DEVICE_STOPPED, DRIVER_OK, FAILED};

/// The breaches that are kept; more are only counted.
const KEPT: usize = 64;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Which rule, for example `D-DRV-2`.
    pub rule: &'static str,
    /// What was seen.
    pub seen: String,
    /// When, in microseconds since the server started.
    pub at_us: u64,
}

/// What the driver has yet to do before it may write the status again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    ReadAfterStop,
    ReadAfterResume,
}

/// The judge of one driver.
#[derive(Debug, Default)]
pub struct Judge {
    /// The bits that the driver knows of: what it last read or wrote. A bit that the device set since can't be held against it.
    seen: u8,
    owed: Option<Owed>,
    count: u64,
    breaches: Vec<Breach>,
}

impl Judge {
    /// The breaches so far: how many, and the first of them in full.
    pub fn breaches(&self) -> (u64, &[Breach]) {
        (self.count, &self.breaches)
    }

    /// The driver has read `value`.
    pub fn read(&mut self, value: u8) {
        self.seen = value;
        self.owed = None;
    }

    /// The driver writes `written` while the status reads `current`. `stopping`: a stop is pending. `negotiated`: the feature was.
    pub fn write(
        &mut self,
        current: u8,
        written: u8,
        stopping: bool,
        negotiated: bool,
        at_us: u64,
    ) {
        let seen = self.seen;
        let owed = self.owed.take();
        self.seen = written;
        if written == 0 {
            return;
        }
        match owed {
            Some(Owed::ReadAfterStop) => self.note(
                "D-DRV-2",
                format!("{written:#04x} written after setting DEVICE_STOPPED, without reading the status"),
                at_us,
            ),
            Some(Owed::ReadAfterResume) => self.note(
                "D-DRV-3",
                format!("{written:#04x} written after clearing DEVICE_STOPPED, without reading the status"),
                at_us,
            ),
            None => {}
        }
        let wants_stop = written & DEVICE_STOPPED != 0;
        let stands = stopping || current & DEVICE_STOPPED != 0;
        let ready = current & DRIVER_OK != 0;
        if (wants_stop && !negotiated) || (wants_stop != stands && !ready) {
            self.note(
                "D-DRV-1",
                format!(
                    "{written:#04x} written over {current:#04x}, feature negotiated: {negotiated}"
                ),
                at_us,
            );
        }
        let cleared = seen & current & !written & !DEVICE_STOPPED;
        if cleared != 0 {
            self.note(
                "D-DRV-4",
                format!("{written:#04x} written over {current:#04x} clears {cleared:#04x}"),
                at_us,
            );
        }
        if current & FAILED != 0 && written & !current & !DEVICE_STOPPED != 0 {
            self.note(
                "D-DRV-4",
                format!("{written:#04x} written over {current:#04x}: no reset after FAILED"),
                at_us,
            );
        }
        self.owed = match (wants_stop, stands) {
            (true, false) if negotiated => Some(Owed::ReadAfterStop),
            (false, true) => Some(Owed::ReadAfterResume),
            _ => None,
        };
    }

    fn note(&mut self, rule: &'static str, seen: String, at_us: u64) {
        self.count = self.count.saturating_add(1);
        tracing::warn!(rule, seen, "the driver broke a rule");
        if self.breaches.len() < KEPT {
            self.breaches.push(Breach { rule, seen, at_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = 15;
    const STOPPED: u8 = READY | DEVICE_STOPPED;

    /// What the judge says of a driver that knows `current` and then does this.
    fn verdict(current: u8, act: impl FnOnce(&mut Judge)) -> Vec<&'static str> {
        let mut judge = Judge::default();
        judge.read(current);
        act(&mut judge);
        let (count, breaches) = judge.breaches();
        assert_eq!(count, breaches.len() as u64);
        breaches.iter().map(|breach| breach.rule).collect()
    }

    #[test]
    fn a_driver_that_keeps_to_the_rules_is_not_blamed() {
        let rules = verdict(READY, |judge| {
            judge.write(READY, STOPPED, false, true, 0);
            judge.read(READY);
            judge.read(STOPPED);
            judge.write(STOPPED, READY, false, true, 0);
            judge.read(READY);
            judge.write(READY, 0, false, true, 0);
            judge.read(0);
            for (current, written) in [(0, 1), (1, 3), (3, 11), (11, 15)] {
                judge.write(current, written, false, false, 0);
                judge.read(written);
            }
        });
        assert!(rules.is_empty(), "{rules:?}");
    }

    #[test]
    fn d_drv_1_stop_without_driver_ok() {
        assert_eq!(
            verdict(11, |judge| judge.write(
                11,
                11 | DEVICE_STOPPED,
                false,
                true,
                0
            )),
            ["D-DRV-1"]
        );
    }

    #[test]
    fn d_drv_1_stop_without_the_feature() {
        assert_eq!(
            verdict(READY, |judge| judge.write(READY, STOPPED, false, false, 0)),
            ["D-DRV-1"]
        );
    }

    #[test]
    fn d_drv_2_no_read_after_a_stop() {
        let rules = verdict(READY, |judge| {
            judge.write(READY, STOPPED, false, true, 0);
            judge.write(READY, STOPPED, true, true, 0);
        });
        assert_eq!(rules, ["D-DRV-2"]);
    }

    #[test]
    fn d_drv_3_no_read_after_a_resume() {
        let rules = verdict(STOPPED, |judge| {
            judge.write(STOPPED, READY, false, true, 0);
            judge.write(READY, STOPPED, false, true, 0);
        });
        assert_eq!(rules, ["D-DRV-3"]);
    }

    #[test]
    fn d_drv_3_no_read_after_calling_a_stop_off() {
        let rules = verdict(READY, |judge| {
            judge.write(READY, STOPPED, false, true, 0);
            judge.read(READY);
            judge.write(READY, READY, true, true, 0);
            judge.write(READY, STOPPED, false, true, 0);
        });
        assert_eq!(rules, ["D-DRV-3"]);
    }

    #[test]
    fn d_drv_4_other_bits_cleared() {
        assert_eq!(
            verdict(READY, |judge| judge.write(
                READY,
                READY & !4,
                false,
                true,
                0
            )),
            ["D-DRV-4"]
        );
    }

    #[test]
    fn d_drv_4_no_reset_after_failed() {
        let failed = FAILED | 3;
        assert_eq!(
            verdict(failed, |judge| judge.write(
                failed,
                failed | 8,
                false,
                true,
                0
            )),
            ["D-DRV-4"]
        );
    }

    #[test]
    fn a_bit_that_the_driver_could_not_know_of_is_not_held_against_it() {
        let rules = verdict(READY, |judge| {
            judge.write(READY | 64, STOPPED, false, true, 0)
        });
        assert!(rules.is_empty(), "{rules:?}");
    }

    #[test]
    fn breaches_are_bounded_but_counted() {
        let mut judge = Judge::default();
        for _ in 0..1000 {
            judge.read(READY);
            judge.write(READY, 1, false, true, 0);
        }
        let (count, kept) = judge.breaches();
        assert_eq!((count, kept.len()), (1000, KEPT));
    }
}
