// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a device behaves: the same settings, in the same words, on the command line, in scenario files and over the control socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use delay::Delay;
pub use values::{Answer, DropStop, HangUp, IoHold, IoOrder, ResumeForm, ShowStatus};

mod delay;
mod values;

const FLAG: &str = "true or false";
const MAX_DELAY_US: u64 = 600_000_000;
const MAX_IO_DEPTH: u64 = 32_768;

/// Declares the settings: `NAME: TYPE = DEFAULT, VALUES[, ALLOWED] => PURPOSE;`. VALUES says which values make sense. ALLOWED tells whether one of
/// the type does, if not all of them do.
macro_rules! settings {
    ($(
        $name:ident: $type:ty = $default:expr, $values:expr $(, $allowed:expr)? => $purpose:literal;
    )+) => {
        /// The settings' names, their values, and what they are for.
        pub const TABLE: &[(&str, &str, &str)] = &[
            $((stringify!($name), $values, $purpose),)+
        ];

        /// All settings of one device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $purpose] pub $name: $type,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self {
                    $($name: $default,)+
                }
            }
        }

        impl Settings {
            /// Changes the setting `name`.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
                match name {
                    $(stringify!($name) => {
                        let parsed = value.parse().ok();
                        $(let parsed = parsed.filter($allowed);)?
                        self.$name = parsed.ok_or(Error::Value(stringify!($name), $values))?;
                    })+
                    _ => return Err(Error::Unknown(name.to_owned())),
                }
                Ok(())
            }

            /// The settings as they are set: by name, in the words that set them.
            pub fn to_map(&self) -> BTreeMap<&'static str, String> {
                BTreeMap::from([$((stringify!($name), self.$name.to_string()),)+])
            }
        }
    };
}

settings! {
    acknowledge: Answer = Answer::default(), Answer::STOP_VALUES =>
        "when a stop is acknowledged whose requests are all finished; given-up: only once the driver has called it off, and that long after (VIRTIO_F_DEVICE_STOP); needs-reset: NEEDS_RESET instead";
    resume: Answer = Answer::default(), Answer::RESUME_VALUES, |answer| !matches!(answer, Answer::GivenUp(_)) =>
        "when a resume is acknowledged";
    resume_form: ResumeForm = ResumeForm::default(), ResumeForm::VALUES =>
        "VIRTIO_F_SUSPEND: which write resumes: DRIVER_OK with SUSPEND still set; also with SUSPEND cleared; or only with SUSPEND cleared, as in an RFC for QEMU of 2025, where SUSPEND still set suspends again (the device stays suspended, and counts no other stop)";
    drop_stop: DropStop = DropStop::default(), DropStop::VALUES =>
        "an acknowledged stop ends by itself";
    show_status: ShowStatus = ShowStatus::default(), ShowStatus::VALUES =>
        "what the driver reads instead of the device status: always, from its write for a stop until the stop has ended, or from its write for a resume until the device has resumed; BYTE such as 0x00 or 0xff; random: any byte, another one at each read, the same for the same SEED and number of reads, as counters.status_reads has it. always and random begin with DRIVER_OK and end with a reset, so that a driver can be bound";
    refuse_features: bool = false, FLAG =>
        "FEATURES_OK does not stay set";
    refuse_to_stop: bool = false, FLAG =>
        "FEATURES_OK does not stay set with a feature to be stopped by";
    take_while_stopped: bool = false, FLAG =>
        "requests are taken although the device has stopped";
    change_while_stopped: bool = false, FLAG =>
        "a change of the configuration is shown and signalled at once, although the device has stopped";
    notify_when_stopped: bool = false, FLAG =>
        "a configuration change notification comes with the acknowledgement of a stop (allowed under VIRTIO_F_DEVICE_STOP; under VIRTIO_F_SUSPEND a breach of S-DEV-2, on purpose)";
    leave_requests: bool = false, FLAG =>
        "VIRTIO_F_SUSPEND: a stop is acknowledged although requests that were taken are not finished; they are given back after the resume (allowed: that they are finished first is a SHOULD)";
    forget_notifications: bool = false, FLAG =>
        "after a resume a virtqueue is looked at only when notified, and not for notifications that came before";
    io_delay_us: u64 = 0, "0 to 600000000", |us| *us <= MAX_DELAY_US =>
        "how long a request takes at least, in microseconds";
    io_hold: IoHold = IoHold::default(), IoHold::VALUES =>
        "requests that were taken are kept: until this is set to no, or until the driver asks for a stop. What the device says of itself, such as a received frame, is no request";
    io_depth: u64 = 128, "1 to 32768", |depth| (1..=MAX_IO_DEPTH).contains(depth) =>
        "how many requests the device works on at a time; further ones wait in the virtqueue";
    io_order: IoOrder = IoOrder::default(), IoOrder::VALUES =>
        "in which order requests that are due at the same time are carried out";
    io_error_every: u64 = 0, "0 to 4294967295", |every| u32::try_from(*every).is_ok() =>
        "each request of that number fails (0: none)";
    hang_up: HangUp = HangUp::default(), HangUp::VALUES =>
        "the connection to QEMU is ended when the driver asks for that";
}

/// Why a setting was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no such setting.
    #[error("no setting '{0}'; there are: {names}", names = names())]
    Unknown(String),
    /// The value does not fit the setting.
    #[error("{0}: expected {1}")]
    Value(&'static str, &'static str),
}

fn names() -> String {
    let names: Vec<&str> = TABLE.iter().map(|(name, ..)| *name).collect();
    names.join(", ")
}

/// Whether there is a setting that is called `name`.
pub fn exists(name: &str) -> bool {
    TABLE.iter().any(|(known, ..)| *known == name)
}

impl Settings {
    /// Changes settings: all of them, or, if one makes no sense, none.
    pub fn set_all(&mut self, settings: &BTreeMap<String, String>) -> Result<(), Error> {
        let mut changed = *self;
        for (name, value) in settings {
            changed.set(name, value)?;
        }
        *self = changed;
        Ok(())
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = Self::default();
        settings
            .set_all(&BTreeMap::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two values of each setting.
    const VALUES: &[(&str, &[&str])] = &[
        (
            "acknowledge",
            &[
                "at-once",
                "after:0",
                "after:0.1",
                "after:0.025-7.5",
                "after:100-600000",
                "never",
                "given-up:250",
                "needs-reset",
            ],
        ),
        ("resume", &["at-once", "after:7", "never", "needs-reset"]),
        ("resume_form", &["strict", "any", "cleared"]),
        ("drop_stop", &["never", "after:5", "after:5-6"]),
        (
            "show_status",
            &[
                "as-is",
                "always:0xff",
                "stopping:0x00",
                "resuming:0x1f",
                "random:0",
                "random:18446744073709551615",
            ],
        ),
        ("refuse_features", &["false", "true"]),
        ("refuse_to_stop", &["false", "true"]),
        ("take_while_stopped", &["false", "true"]),
        ("change_while_stopped", &["false", "true"]),
        ("notify_when_stopped", &["false", "true"]),
        ("leave_requests", &["false", "true"]),
        ("forget_notifications", &["false", "true"]),
        ("io_delay_us", &["0", "600000000"]),
        ("io_hold", &["no", "always", "until-stop"]),
        ("io_depth", &["1", "32768"]),
        ("io_order", &["taken", "reversed", "shuffled"]),
        ("io_error_every", &["0", "4294967295"]),
        ("hang_up", &["never", "on-stop", "on-resume"]),
    ];

    #[test]
    fn every_setting_can_be_set_and_is_shown_as_it_was_set() {
        let known: Vec<&str> = TABLE.iter().map(|(name, ..)| *name).collect();
        let tested: Vec<&str> = VALUES.iter().map(|(name, _)| *name).collect();
        assert_eq!(tested, known);
        for (name, values) in VALUES {
            for value in *values {
                let mut settings = Settings::default();
                assert_eq!(settings.set(name, value), Ok(()), "{name}={value}");
                assert_eq!(
                    settings.to_map().get(name).map(String::as_str),
                    Some(*value)
                );
                let others = settings
                    .to_map()
                    .into_iter()
                    .filter(|(other, _)| other != name);
                for (other, shown) in others {
                    assert_eq!(Settings::default().to_map().get(other), Some(&shown));
                }
            }
        }
    }

    #[test]
    fn bad_values_change_nothing() {
        for (name, value) in [
            ("acknowledge", "soon"),
            ("acknowledge", "after:"),
            ("acknowledge", "after:600001"),
            ("acknowledge", "after:600000.001"),
            ("acknowledge", "after:0.0001"),
            ("acknowledge", "after:1."),
            ("acknowledge", "after:.5"),
            ("acknowledge", "after:+1"),
            ("acknowledge", "after:1.+5"),
            ("acknowledge", "after:5-4"),
            ("acknowledge", "never:1"),
            ("resume", "given-up:1"),
            ("drop_stop", "at-once"),
            ("show_status", "always:0x100"),
            ("show_status", "always:"),
            ("show_status", "random"),
            ("show_status", "random:"),
            ("show_status", "random:0x1"),
            ("show_status", "random:18446744073709551616"),
            ("io_delay_us", "-1"),
            ("io_delay_us", "600000001"),
            ("io_depth", "0"),
            ("io_depth", "32769"),
            ("take_while_stopped", "1"),
            ("speed", "1"),
        ] {
            let mut settings = Settings::default();
            let both = BTreeMap::from([
                ("hang_up".to_owned(), "on-stop".to_owned()),
                (name.to_owned(), value.to_owned()),
            ]);
            assert!(settings.set_all(&both).is_err(), "{name}={value}");
            assert_eq!(settings, Settings::default(), "{name}={value}");
        }
    }
}
