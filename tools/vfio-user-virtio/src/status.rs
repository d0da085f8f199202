// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device status field, as the device keeps it, under both protocols. Pure: no I/O, no time, no queues.
//!
//! ```text
//!              driver asks for a stop           device acknowledges
//!   Running ----------------------> Requested -----------------------> Stopped
//!      ^  ^                            |                                | ^  |
//!      |  +------ called off (D) ------+                                | |  | driver asks
//!      |                                     device drops the stop      | |  | for a resume
//!      +----------------------------------------------------------------+ |  v
//!      +------------------ device acknowledges ----------------------- Resuming
//! ```
//!
//! | | VIRTIO_F_DEVICE_STOP (D) | VIRTIO_F_SUSPEND (S) |
//! |---|---|---|
//! | the driver asks for a stop | sets 32 | sets 16 |
//! | a pending stop reads | without 32 | with DRIVER_OK, without 16 |
//! | it is called off | clears 32 | can't be |
//! | stopped reads | with 32 | with 16, without DRIVER_OK |
//! | the driver asks for a resume | clears 32 | sets DRIVER_OK, and leaves 16 set |
//! | a pending resume reads | with 32 | with 16, without DRIVER_OK |
//! | running again reads | without 32 | with DRIVER_OK, without 16 |
//!
//! How the device keeps each statement of virtio 1.4 on S, and what breaks it on purpose, is in README.md. The form of S's resume is disputed: [`ResumeForm`] has the others. The table has the text's.

use serde::{Deserialize, Serialize};

use crate::settings::ResumeForm;

/// Driver has noticed the device (virtio 1.4, 2.1).
pub const ACKNOWLEDGE: u8 = 1;
/// Driver knows how to drive the device.
pub const DRIVER: u8 = 2;
/// Driver is set up and ready.
pub const DRIVER_OK: u8 = 4;
/// Feature negotiation is complete.
pub const FEATURES_OK: u8 = 8;
/// VIRTIO_F_SUSPEND (virtio 1.4): the device is suspended.
pub const SUSPEND: u8 = 16;
/// VIRTIO_F_DEVICE_STOP, RFC of 2020: the driver asks for a stop, the device shows that it has stopped.
pub const DEVICE_STOPPED: u8 = 32;
/// The device has met an error that it can't recover from.
pub const NEEDS_RESET: u8 = 64;
/// Something went wrong in the guest.
pub const FAILED: u8 = 128;

/// By which protocol a device can be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// It can't.
    #[default]
    None,
    /// VIRTIO_F_DEVICE_STOP, bit 39.
    DeviceStop,
    /// VIRTIO_F_SUSPEND, bit 43.
    Suspend,
}

/// Where the device is between serving and having stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Serving its queues, once DRIVER_OK is set.
    #[default]
    Running,
    /// The driver has asked for a stop; nothing new is taken.
    Requested,
    /// The device has acknowledged, and shows that.
    Stopped,
    /// The driver has asked for a resume; the device shows still that it has stopped.
    Resuming,
}

/// What holds while the driver writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What was negotiated. Without FEATURES_OK nothing is.
    pub protocol: Protocol,
    /// FEATURES_OK may be set now.
    pub features_acceptable: bool,
    /// Which write resumes a device that was suspended.
    pub resume_form: ResumeForm,
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
    /// Serve the queues again, and acknowledge that.
    ResumeRequested,
    /// The resume was called off before the device had acknowledged it.
    ResumeCalledOff,
}

/// The device status field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
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

    /// Whether the driver has set the device up, and not reset it since: DRIVER_OK, or a suspension that hides it.
    pub fn is_live(&self) -> bool {
        self.has(DRIVER_OK) || self.stop != Stop::Running
    }

    /// Whether the device may take buffers: the driver is ready, and neither a stop nor an error stands against it.
    pub fn may_serve(&self) -> bool {
        self.has(DRIVER_OK) && !self.has(NEEDS_RESET) && self.stop == Stop::Running
    }

    /// The driver writes `written`.
    pub fn write(&mut self, written: u8, rules: Rules) -> Effect {
        if written == 0 {
            *self = Self::default();
            return Effect::Reset;
        }
        if !self.is_live() {
            return self.initialise(written, rules.features_acceptable);
        }
        // A driver must not clear bits; NEEDS_RESET is not its to set.
        self.value |= written & (ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
        match rules.protocol {
            Protocol::None => Effect::None,
            Protocol::DeviceStop => self.device_stop(written),
            Protocol::Suspend => self.suspend(written, rules.resume_form),
        }
    }

    /// D-DEV-1, S-DEV-1: a stop is ignored before DRIVER_OK, in the same write too.
    fn initialise(&mut self, written: u8, features_acceptable: bool) -> Effect {
        let mut set = written & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        if !self.has(FEATURES_OK) && !features_acceptable {
            set &= !FEATURES_OK;
        }
        if (self.value | set) & FEATURES_OK == 0 {
            set &= !DRIVER_OK;
        }
        self.value |= set;
        if self.has(DRIVER_OK) {
            Effect::Start
        } else {
            Effect::None
        }
    }

    fn device_stop(&mut self, written: u8) -> Effect {
        let wanted = written & DEVICE_STOPPED != 0;
        let (stop, effect) = match (self.stop, wanted) {
            (Stop::Running, true) => (Stop::Requested, Effect::StopRequested),
            (Stop::Requested, false) => (Stop::Running, Effect::StopCalledOff),
            (Stop::Stopped, false) => (Stop::Resuming, Effect::ResumeRequested),
            (Stop::Resuming, true) => (Stop::Stopped, Effect::ResumeCalledOff),
            (stop, _) => (stop, Effect::None),
        };
        self.stop = stop;
        effect
    }

    /// Without the device's answer nothing that is pending ends: neither SUSPEND cleared calls a suspension off, nor does it hurt a
    /// resume. Only where SUSPEND written always means to suspend ([`ResumeForm::Cleared`]) does it take a pending resume back. There a
    /// device that is suspended and told to suspend again has nothing to do: it stays as it is, and counts no other stop.
    fn suspend(&mut self, written: u8, form: ResumeForm) -> Effect {
        let suspends = written & SUSPEND != 0;
        let resumes = written & DRIVER_OK != 0
            && match form {
                ResumeForm::Strict => suspends,
                ResumeForm::Any => true,
                ResumeForm::Cleared => !suspends,
            };
        let (stop, effect) = match self.stop {
            Stop::Running if suspends => (Stop::Requested, Effect::StopRequested),
            Stop::Stopped if resumes => (Stop::Resuming, Effect::ResumeRequested),
            Stop::Resuming if suspends && form == ResumeForm::Cleared => {
                (Stop::Stopped, Effect::ResumeCalledOff)
            }
            stop => (stop, Effect::None),
        };
        self.stop = stop;
        effect
    }

    /// The device has stopped, whether or not the driver still wants it (a device can answer late).
    pub fn acknowledge_stop(&mut self, protocol: Protocol) {
        self.stop = Stop::Stopped;
        match protocol {
            Protocol::None => {}
            Protocol::DeviceStop => self.value |= DEVICE_STOPPED,
            Protocol::Suspend => self.value = (self.value | SUSPEND) & !DRIVER_OK,
        }
    }

    /// The device serves its queues again, whether or not the driver wants that (a device can drop a stop).
    pub fn acknowledge_resume(&mut self, protocol: Protocol) {
        self.stop = Stop::Running;
        match protocol {
            Protocol::None => {}
            Protocol::DeviceStop => self.value &= !DEVICE_STOPPED,
            Protocol::Suspend => self.value = (self.value & !SUSPEND) | DRIVER_OK,
        }
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
    const PROTOCOLS: [Protocol; 3] = [Protocol::None, Protocol::DeviceStop, Protocol::Suspend];

    fn rules(protocol: Protocol) -> Rules {
        Rules {
            protocol,
            features_acceptable: true,
            resume_form: ResumeForm::Strict,
        }
    }

    /// A status field that reads `value`, in every state of the stop that can read so.
    fn every_state(value: u8, protocol: Protocol) -> Vec<Status> {
        let stops: &[Stop] = match protocol {
            Protocol::DeviceStop if value & DEVICE_STOPPED != 0 => &[Stop::Stopped, Stop::Resuming],
            Protocol::Suspend if value & (SUSPEND | DRIVER_OK) == SUSPEND => {
                &[Stop::Stopped, Stop::Resuming]
            }
            Protocol::DeviceStop | Protocol::Suspend if value & DRIVER_OK != 0 => {
                &[Stop::Running, Stop::Requested]
            }
            _ => &[Stop::Running],
        };
        stops
            .iter()
            .map(|stop| Status { value, stop: *stop })
            .collect()
    }

    struct Write {
        before: Status,
        written: u8,
        rules: Rules,
        after: Status,
        effect: Effect,
    }

    /// Every (current, written) pair, under every protocol and every rule.
    fn every_write(mut check: impl FnMut(Write)) {
        let mut pairs = 0;
        for protocol in PROTOCOLS {
            for current in 0..=255u8 {
                for before in every_state(current, protocol) {
                    for written in 0..=255u8 {
                        for (features_acceptable, resume_form) in [
                            (true, ResumeForm::Strict),
                            (true, ResumeForm::Any),
                            (true, ResumeForm::Cleared),
                            (false, ResumeForm::Strict),
                        ] {
                            let rules = Rules {
                                protocol,
                                features_acceptable,
                                resume_form,
                            };
                            let mut after = before;
                            let effect = after.write(written, rules);
                            check(Write {
                                before,
                                written,
                                rules,
                                after,
                                effect,
                            });
                            pairs += 1;
                        }
                    }
                }
            }
        }
        assert!(pairs >= 4 * 3 * 65_536);
    }

    #[test]
    fn writing_zero_resets_and_ends_a_stop() {
        every_write(|write| {
            if write.written == 0 {
                assert_eq!(
                    (write.after, write.effect),
                    (Status::default(), Effect::Reset)
                );
            } else {
                assert_ne!(write.effect, Effect::Reset);
            }
        });
    }

    #[test]
    fn only_a_reset_clears_bits_by_a_write() {
        every_write(|write| {
            let cleared = write.before.value & !write.after.value;
            assert!(cleared == 0 || write.effect == Effect::Reset);
        });
    }

    #[test]
    fn what_is_the_drivers_is_set_by_a_write() {
        const DRIVERS: u8 = ACKNOWLEDGE | DRIVER | FAILED;
        every_write(|write| {
            let set = write.written & DRIVERS;
            assert!(write.effect == Effect::Reset || write.after.value & set == set);
        });
    }

    #[test]
    fn the_driver_never_sets_what_is_the_devices() {
        every_write(|write| {
            let set = write.after.value & !write.before.value;
            assert_eq!(set & (DEVICE_STOPPED | SUSPEND | NEEDS_RESET), 0);
            if write.before.stop != Stop::Running {
                assert_eq!(set & DRIVER_OK, 0);
            }
        });
    }

    #[test]
    fn a_stop_is_ignored_without_driver_ok_or_without_the_feature() {
        every_write(|write| {
            if write.effect != Effect::Reset
                && (!write.before.is_live() || write.rules.protocol == Protocol::None)
            {
                assert_eq!(write.after.stop, write.before.stop);
            }
        });
    }

    /// Exactly the writes that the table at the top names have these effects.
    #[test]
    fn stops_and_resumes_are_asked_for_by_their_bits_alone() {
        every_write(|write| {
            if write.written == 0 || !write.before.is_live() {
                return;
            }
            let bit = |mask: u8| write.written & mask != 0;
            let form = write.rules.resume_form;
            let expected = match (write.rules.protocol, write.before.stop) {
                (Protocol::DeviceStop, Stop::Running) if bit(32) => Effect::StopRequested,
                (Protocol::DeviceStop, Stop::Requested) if !bit(32) => Effect::StopCalledOff,
                (Protocol::DeviceStop, Stop::Stopped) if !bit(32) => Effect::ResumeRequested,
                (Protocol::DeviceStop, Stop::Resuming) if bit(32) => Effect::ResumeCalledOff,
                (Protocol::Suspend, Stop::Running) if bit(16) => Effect::StopRequested,
                (Protocol::Suspend, Stop::Stopped) => match (form, bit(4), bit(16)) {
                    (ResumeForm::Strict | ResumeForm::Any, true, true) => Effect::ResumeRequested,
                    (ResumeForm::Any | ResumeForm::Cleared, true, false) => Effect::ResumeRequested,
                    _ => Effect::None,
                },
                (Protocol::Suspend, Stop::Resuming) if bit(16) && form == ResumeForm::Cleared => {
                    Effect::ResumeCalledOff
                }
                _ => Effect::None,
            };
            assert_eq!(
                write.effect, expected,
                "{:?} <- {:#04x}",
                write.before, write.written
            );
        });
    }

    #[test]
    fn what_is_pending_reads_as_before() {
        every_write(|write| match write.effect {
            Effect::StopRequested => {
                assert_eq!(write.after.stop, Stop::Requested);
                assert_eq!(
                    write.after.value & (32 | 16 | 4),
                    write.before.value & (32 | 16 | 4)
                );
                assert!(!write.after.may_serve());
            }
            Effect::ResumeRequested => {
                assert_eq!(write.after.stop, Stop::Resuming);
                assert_eq!(
                    write.after.value & (32 | 16 | 4),
                    write.before.value & (32 | 16 | 4)
                );
                assert!(!write.after.may_serve());
            }
            _ => {}
        });
    }

    fn ready() -> Status {
        Status {
            value: READY,
            stop: Stop::Running,
        }
    }

    #[test]
    fn device_stop_there_and_back() {
        let (mut status, d) = (ready(), Protocol::DeviceStop);
        assert!(status.may_serve());
        assert_eq!(status.write(READY | 32, rules(d)), Effect::StopRequested);
        status.acknowledge_stop(d);
        assert_eq!(status.value(), READY | 32);
        assert_eq!(status.write(READY, rules(d)), Effect::ResumeRequested);
        assert_eq!(status.value(), READY | 32);
        status.acknowledge_resume(d);
        assert_eq!(status, ready());
    }

    #[test]
    fn suspend_there_and_back() {
        let (mut status, s) = (ready(), Protocol::Suspend);
        assert_eq!(status.write(READY | 16, rules(s)), Effect::StopRequested);
        assert_eq!(
            status.write(READY, rules(s)),
            Effect::None,
            "can't be called off"
        );
        status.acknowledge_stop(s);
        assert_eq!(status.value(), READY & !4 | 16);
        assert!(status.is_live() && !status.may_serve());
        assert_eq!(status.write(READY | 16, rules(s)), Effect::ResumeRequested);
        assert_eq!(status.value(), READY & !4 | 16);
        status.acknowledge_resume(s);
        assert_eq!(status, ready());
    }

    #[test]
    fn where_suspend_always_suspends_only_its_absence_resumes() {
        let (mut status, s) = (ready(), Protocol::Suspend);
        let cleared = Rules {
            resume_form: ResumeForm::Cleared,
            ..rules(s)
        };
        assert_eq!(status.write(READY | 16, cleared), Effect::StopRequested);
        status.acknowledge_stop(s);
        let suspended = status;
        assert_eq!(status.write(READY | 16, cleared), Effect::None);
        assert_eq!(status, suspended, "suspended again");
        assert_eq!(status.write(READY & !4, cleared), Effect::None);
        assert_eq!(status, suspended, "a resume needs DRIVER_OK");
        assert_eq!(status.write(READY, cleared), Effect::ResumeRequested);
        assert_eq!(status.value(), suspended.value());
        assert_eq!(status.write(READY | 16, cleared), Effect::ResumeCalledOff);
        assert_eq!(status, suspended, "and again");
        assert_eq!(status.write(READY, cleared), Effect::ResumeRequested);
        status.acknowledge_resume(s);
        assert_eq!(status, ready());
    }

    #[test]
    fn a_pending_resume_by_the_text_goes_on_whatever_is_written() {
        let (mut status, s) = (ready(), Protocol::Suspend);
        status.acknowledge_stop(s);
        assert_eq!(status.write(READY | 16, rules(s)), Effect::ResumeRequested);
        let resuming = status;
        for written in [READY, READY & !4, READY | 16, READY & !4 | 16] {
            assert_eq!(status.write(written, rules(s)), Effect::None);
            assert_eq!(status, resuming, "{written:#04x}");
        }
        status.acknowledge_resume(s);
        assert_eq!(status, ready());
    }

    #[test]
    fn features_ok_is_refused_when_they_are_not_acceptable() {
        every_write(|write| {
            if !write.rules.features_acceptable && !write.before.is_live() {
                assert_eq!(write.after.value & !write.before.value & FEATURES_OK, 0);
            }
            if write.effect == Effect::Start {
                assert!(write.after.has(FEATURES_OK));
            }
        });
    }

    #[test]
    fn nothing_is_served_after_needs_reset() {
        let mut status = ready();
        status.set_needs_reset();
        assert!(!status.may_serve());
    }
}
