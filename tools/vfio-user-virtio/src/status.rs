// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device status field, as the device keeps it. Pure: no I/O, no time, no queues.
//!
//! ```text
//!              driver sets 32                   device acknowledges
//!   Running ------------------> Requested ------------------------> Stopped
//!      ^  ^                         |                                  |
//!      |  +---- driver clears 32 ---+                                  |
//!      +-------------------------- driver clears 32 -------------------+
//! ```
//!
//! A pending stop reads clear: bit 32 is the device's, and shows that everything it had taken is finished.

use serde::Serialize;

/// Driver has noticed the device (virtio 1.4, 2.1).
pub const ACKNOWLEDGE: u8 = 1;
/// Driver knows how to drive the device.
pub const DRIVER: u8 = 2;
/// Driver is set up and ready.
pub const DRIVER_OK: u8 = 4;
/// Feature negotiation is complete.
pub const FEATURES_OK: u8 = 8;
/// VIRTIO_F_DEVICE_STOP, RFC of 2020: the driver asks for a stop, the device shows that it has stopped.
pub const DEVICE_STOPPED: u8 = 32;
/// The device has met an error that it can't recover from.
pub const NEEDS_RESET: u8 = 64;
/// Something went wrong in the guest.
pub const FAILED: u8 = 128;

/// Where the device is between serving and having stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Serving its queues, once DRIVER_OK is set.
    #[default]
    Running,
    /// The driver has asked for a stop; nothing new is taken.
    Requested,
    /// The device has acknowledged, and shows DEVICE_STOPPED.
    Stopped,
}

/// What a write by the driver asks of the rest of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Return to the state after power-on.
    Reset,
    /// Begin to serve the queues.
    Start,
    /// Take nothing more, and acknowledge when everything taken is finished.
    StopRequested,
    /// The stop was called off before the device had acknowledged it.
    StopCalledOff,
    /// Serve the queues again.
    Resumed,
}

/// The device status field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    value: u8,
    stop: Stop,
}

impl Status {
    /// What a read by the driver returns.
    pub fn value(&self) -> u8 {
        self.value
    }

    /// Where the device is between serving and having stopped.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// Whether all bits of `mask` are set.
    pub fn has(&self, mask: u8) -> bool {
        self.value & mask == mask
    }

    /// Whether the device may take buffers: the driver is ready, and neither a stop nor an error stands against it.
    pub fn may_serve(&self) -> bool {
        self.has(DRIVER_OK) && !self.has(NEEDS_RESET) && self.stop == Stop::Running
    }

    /// The driver writes `written`.
    ///
    /// `stop_negotiated`: VIRTIO_F_DEVICE_STOP was. `features_acceptable`: FEATURES_OK may be set now.
    pub fn write(
        &mut self,
        written: u8,
        stop_negotiated: bool,
        features_acceptable: bool,
    ) -> Effect {
        if written == 0 {
            *self = Self::default();
            return Effect::Reset;
        }
        let was = *self;
        // A driver must not clear bits; NEEDS_RESET is not its to set.
        let mut set = written & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        if !was.has(FEATURES_OK) && !features_acceptable {
            set &= !FEATURES_OK;
        }
        if (was.value | set) & FEATURES_OK == 0 {
            set &= !DRIVER_OK;
        }
        self.value |= set;
        if !was.has(DRIVER_OK) {
            // D-DEV-1: DEVICE_STOPPED is ignored while DRIVER_OK is not set.
            return if self.has(DRIVER_OK) {
                Effect::Start
            } else {
                Effect::None
            };
        }
        if !stop_negotiated {
            return Effect::None;
        }
        match (self.stop, written & DEVICE_STOPPED != 0) {
            (Stop::Running, true) => {
                self.stop = Stop::Requested;
                Effect::StopRequested
            }
            (Stop::Requested, false) => {
                self.stop = Stop::Running;
                Effect::StopCalledOff
            }
            (Stop::Stopped, false) => {
                self.stop = Stop::Running;
                self.value &= !DEVICE_STOPPED;
                Effect::Resumed
            }
            _ => Effect::None,
        }
    }

    /// The device has stopped, whether or not the driver still wants it (a device can answer late).
    pub fn acknowledge_stop(&mut self) {
        self.stop = Stop::Stopped;
        self.value |= DEVICE_STOPPED;
    }

    /// The device gives up until it is reset.
    pub fn set_needs_reset(&mut self) {
        self.value |= NEEDS_RESET;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

    /// A status field that reads `value`, in every state of the stop that can read so.
    fn every_state(value: u8) -> Vec<Status> {
        let stops: &[Stop] = if value & DEVICE_STOPPED != 0 {
            &[Stop::Stopped]
        } else {
            &[Stop::Running, Stop::Requested]
        };
        stops
            .iter()
            .filter(|stop| **stop == Stop::Running || value & DRIVER_OK != 0)
            .map(|stop| Status { value, stop: *stop })
            .collect()
    }

    /// Every (current, written) pair, with and without the feature.
    fn every_write(mut check: impl FnMut(Status, u8, bool, Status, Effect)) {
        for current in 0..=255u8 {
            for before in every_state(current) {
                for written in 0..=255u8 {
                    for negotiated in [false, true] {
                        let mut after = before;
                        let effect = after.write(written, negotiated, true);
                        check(before, written, negotiated, after, effect);
                    }
                }
            }
        }
    }

    #[test]
    fn writing_zero_resets_and_ends_a_stop() {
        every_write(|_, written, _, after, effect| {
            if written == 0 {
                assert_eq!((after, effect), (Status::default(), Effect::Reset));
            } else {
                assert_ne!(effect, Effect::Reset);
            }
        });
    }

    #[test]
    fn only_a_reset_and_a_resume_clear_bits() {
        every_write(|before, written, _, after, effect| {
            let cleared = before.value & !after.value;
            match effect {
                Effect::Reset => {}
                Effect::Resumed => assert_eq!(cleared, DEVICE_STOPPED),
                _ => assert_eq!(cleared, 0, "{before:?} <- {written:#x}"),
            }
        });
    }

    #[test]
    fn the_driver_never_sets_what_is_the_devices() {
        every_write(|before, _, _, after, _| {
            let set = after.value & !before.value;
            assert_eq!(set & (DEVICE_STOPPED | NEEDS_RESET | 16), 0);
        });
    }

    #[test]
    fn device_stopped_is_ignored_without_driver_ok_or_without_the_feature() {
        every_write(|before, _, negotiated, after, effect| {
            if effect != Effect::Reset && (!before.has(DRIVER_OK) || !negotiated) {
                assert_eq!(after.stop, before.stop);
            }
        });
    }

    #[test]
    fn a_pending_stop_reads_clear() {
        every_write(|_, _, _, after, effect| {
            if effect == Effect::StopRequested {
                assert_eq!(after.stop, Stop::Requested);
                assert!(!after.has(DEVICE_STOPPED));
                assert!(!after.may_serve());
            }
        });
    }

    #[test]
    fn stop_acknowledge_resume() {
        let mut status = Status {
            value: READY,
            stop: Stop::Running,
        };
        assert!(status.may_serve());
        assert_eq!(
            status.write(READY | DEVICE_STOPPED, true, true),
            Effect::StopRequested
        );
        assert_eq!(status.value(), READY);
        status.acknowledge_stop();
        assert_eq!(status.value(), READY | DEVICE_STOPPED);
        assert_eq!(status.write(READY, true, true), Effect::Resumed);
        assert_eq!(
            status,
            Status {
                value: READY,
                stop: Stop::Running
            }
        );
    }

    #[test]
    fn features_ok_is_refused_when_they_are_not_acceptable() {
        let mut status = Status {
            value: ACKNOWLEDGE | DRIVER,
            stop: Stop::Running,
        };
        status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, true, false);
        assert_eq!(status.value(), ACKNOWLEDGE | DRIVER);
    }

    #[test]
    fn nothing_is_served_after_needs_reset() {
        let mut status = Status {
            value: READY,
            stop: Stop::Running,
        };
        status.set_needs_reset();
        assert!(!status.may_serve());
    }
}
