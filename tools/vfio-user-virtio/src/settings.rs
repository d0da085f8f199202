// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a device behaves: the same settings, in the same words, on the command line, in scenario files and over the control socket.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The settings' names, their values, and what they are for.
pub const TABLE: &[(&str, &str, &str)] = &[
    ("acknowledge", Answer::STOP_VALUES, "when a stop is acknowledged whose requests are all finished; given-up: only once the driver has called it off, and that long after (VIRTIO_F_DEVICE_STOP); needs-reset: NEEDS_RESET instead"),
    ("resume", Answer::RESUME_VALUES, "when a resume is acknowledged"),
    ("resume_form", ResumeForm::VALUES, "VIRTIO_F_SUSPEND: which write resumes: DRIVER_OK with SUSPEND still set; also with SUSPEND cleared; or only with SUSPEND cleared, as in an RFC for QEMU of 2025, where SUSPEND still set suspends again (the device stays suspended, and counts no other stop)"),
    ("drop_stop", DropStop::VALUES, "an acknowledged stop ends by itself"),
    ("show_status", ShowStatus::VALUES, "what the driver reads instead of the device status: always, from its write for a stop until the stop has ended, or from its write for a resume until the device has resumed; BYTE such as 0x00 or 0xff"),
    ("refuse_features", FLAG, "FEATURES_OK does not stay set"),
    ("refuse_to_stop", FLAG, "FEATURES_OK does not stay set with a feature to be stopped by"),
    ("take_while_stopped", FLAG, "requests are taken although the device has stopped"),
    ("change_while_stopped", FLAG, "a change of the configuration is shown and signalled at once, although the device has stopped"),
    ("notify_when_stopped", FLAG, "a configuration change notification comes with the acknowledgement of a stop (allowed under VIRTIO_F_DEVICE_STOP; under VIRTIO_F_SUSPEND a breach of S-DEV-2, on purpose)"),
    ("leave_requests", FLAG, "VIRTIO_F_SUSPEND: a stop is acknowledged although requests that were taken are not finished; they are given back after the resume (allowed: that they are finished first is a SHOULD)"),
    ("forget_notifications", FLAG, "after a resume a virtqueue is looked at only when notified, and not for notifications that came before"),
    ("io_delay_us", "0 to 600000000", "how long a request takes at least, in microseconds"),
    ("io_hold", IoHold::VALUES, "requests that were taken are kept: until this is set to no, or until the driver asks for a stop. What the device says of itself, such as a received frame, is no request"),
    ("io_depth", "1 to 32768", "how many requests the device works on at a time; further ones wait in the virtqueue"),
    ("io_order", IoOrder::VALUES, "in which order requests that are due at the same time are carried out"),
    ("io_error_every", "0 to 4294967295", "each request of that number fails (0: none)"),
    ("hang_up", HangUp::VALUES, "the connection to QEMU is ended when the driver asks for that"),
];

const FLAG: &str = "true or false";
const MAX_MS: u64 = 600_000;
const US_PER_MS: u64 = 1000;
const MAX_DELAY_US: u64 = 600_000_000;
const MAX_IO_DEPTH: u64 = 32_768;

/// How long the device takes: a fixed time, or one chosen anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    least_us: u64,
    most_us: u64,
}

impl Delay {
    /// The time to take this once.
    pub fn choose(self, random: &mut fastrand::Rng) -> Duration {
        Duration::from_micros(random.u64(self.least_us..=self.most_us))
    }
}

/// When the device answers a stop or a resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// `at-once`.
    #[default]
    AtOnce,
    /// `after:MS`, `after:MIN-MAX`: that long after the driver's write.
    After(Delay),
    /// `never`.
    Never,
    /// `given-up:MS`: only when the driver has called the stop off, and that long after.
    GivenUp(Delay),
    /// `needs-reset`: the device sets NEEDS_RESET instead.
    NeedsReset,
}

impl Answer {
    const STOP_VALUES: &str =
        "at-once, after:MS, after:MIN-MAX, never, given-up:MS or needs-reset, with MS up to 600000, three decimals at most";
    const RESUME_VALUES: &str =
        "at-once, after:MS, after:MIN-MAX, never or needs-reset, with MS up to 600000, three decimals at most";
}

/// Which write resumes a device that was stopped by VIRTIO_F_SUSPEND.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumeForm {
    /// `strict`: DRIVER_OK set, SUSPEND still set: a driver must not clear a status bit.
    #[default]
    Strict,
    /// `any`: DRIVER_OK set, whatever SUSPEND is.
    Any,
    /// `cleared`: DRIVER_OK set, SUSPEND cleared, as in an RFC for QEMU (September 2025). SUSPEND still set suspends again: a device that
    /// is suspended stays so, without counting another stop, and a pending resume is taken back.
    Cleared,
}

/// Whether an acknowledged stop ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropStop {
    /// `never`.
    #[default]
    Never,
    /// `after:MS`: that long after the acknowledgement.
    After(Delay),
}

/// What the driver reads instead of the device status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShowStatus {
    /// `as-is`.
    #[default]
    AsIs,
    /// `always:BYTE`.
    Always(u8),
    /// `stopping:BYTE`: from the driver's write for a stop until the stop has ended.
    Stopping(u8),
    /// `resuming:BYTE`: from the driver's write for a resume until the device has resumed.
    Resuming(u8),
}

/// Whether requests that were taken are kept, and not carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoHold {
    /// `no`.
    #[default]
    No,
    /// `always`.
    Always,
    /// `until-stop`: until the driver asks for a stop. Those that are taken after the resume are kept again.
    UntilStop,
}

/// The order in which requests are carried out that are due at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoOrder {
    /// `taken`: as they were taken.
    #[default]
    Taken,
    /// `reversed`.
    Reversed,
    /// `shuffled`.
    Shuffled,
}

/// When the device ends its connection to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HangUp {
    /// `never`.
    #[default]
    Never,
    /// `on-stop`: when the driver asks for a stop.
    OnStop,
    /// `on-resume`: when the driver asks for a resume.
    OnResume,
}

/// Names a fieldless enum's variants, both ways.
macro_rules! words {
    ($type:ident: $values:literal, $($text:literal => $variant:ident),+) => {
        impl $type {
            const VALUES: &str = $values;
        }
        impl FromStr for $type {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(()),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)+
                })
            }
        }
    };
}

words!(ResumeForm: "strict, any or cleared", "strict" => Strict, "any" => Any, "cleared" => Cleared);
words!(IoHold: "no, always or until-stop", "no" => No, "always" => Always, "until-stop" => UntilStop);
words!(IoOrder: "taken, reversed or shuffled", "taken" => Taken, "reversed" => Reversed, "shuffled" => Shuffled);
words!(HangUp: "never, on-stop or on-resume", "never" => Never, "on-stop" => OnStop, "on-resume" => OnResume);

/// All settings of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a stop is acknowledged.
    pub acknowledge: Answer,
    /// When a resume is acknowledged.
    pub resume: Answer,
    /// Which write resumes (VIRTIO_F_SUSPEND).
    pub resume_form: ResumeForm,
    /// Whether an acknowledged stop ends by itself.
    pub drop_stop: DropStop,
    /// What the driver reads as the device status.
    pub show_status: ShowStatus,
    /// FEATURES_OK does not stay set.
    pub refuse_features: bool,
    /// FEATURES_OK does not stay set with a feature to be stopped by.
    pub refuse_to_stop: bool,
    /// Requests are taken although the device has stopped.
    pub take_while_stopped: bool,
    /// The configuration changes although the device has stopped.
    pub change_while_stopped: bool,
    /// A configuration change notification comes with the acknowledgement of a stop.
    pub notify_when_stopped: bool,
    /// A suspension is acknowledged with requests unfinished, which are given back after the resume (VIRTIO_F_SUSPEND).
    pub leave_requests: bool,
    /// Notifications that came before a resume are forgotten.
    pub forget_notifications: bool,
    /// How long a request takes at least, in microseconds.
    pub io_delay_us: u64,
    /// Whether requests that were taken are kept.
    pub io_hold: IoHold,
    /// How many requests the device works on at a time.
    pub io_depth: u64,
    /// The order of requests that are due at the same time.
    pub io_order: IoOrder,
    /// Each request of that number fails; 0: none.
    pub io_error_every: u64,
    /// When the connection is ended.
    pub hang_up: HangUp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            acknowledge: Answer::default(),
            resume: Answer::default(),
            resume_form: ResumeForm::default(),
            drop_stop: DropStop::default(),
            show_status: ShowStatus::default(),
            refuse_features: false,
            refuse_to_stop: false,
            take_while_stopped: false,
            change_while_stopped: false,
            notify_when_stopped: false,
            leave_requests: false,
            forget_notifications: false,
            io_delay_us: 0,
            io_hold: IoHold::default(),
            io_depth: 128,
            io_order: IoOrder::default(),
            io_error_every: 0,
            hang_up: HangUp::default(),
        }
    }
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

    /// Changes the setting `name`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let (name, expected, _) = TABLE
            .iter()
            .find(|(known, ..)| *known == name)
            .ok_or_else(|| Error::Unknown(name.to_owned()))?;
        self.parse(name, value).ok_or(Error::Value(name, expected))
    }

    fn parse(&mut self, name: &str, value: &str) -> Option<()> {
        let number = |range: std::ops::RangeInclusive<u64>| {
            value.parse().ok().filter(|number| range.contains(number))
        };
        match name {
            "acknowledge" => self.acknowledge = value.parse().ok()?,
            "resume" => {
                self.resume = value
                    .parse()
                    .ok()
                    .filter(|answer| !matches!(answer, Answer::GivenUp(_)))?;
            }
            "resume_form" => self.resume_form = value.parse().ok()?,
            "drop_stop" => self.drop_stop = value.parse().ok()?,
            "show_status" => self.show_status = value.parse().ok()?,
            "refuse_features" => self.refuse_features = value.parse().ok()?,
            "refuse_to_stop" => self.refuse_to_stop = value.parse().ok()?,
            "take_while_stopped" => self.take_while_stopped = value.parse().ok()?,
            "change_while_stopped" => self.change_while_stopped = value.parse().ok()?,
            "notify_when_stopped" => self.notify_when_stopped = value.parse().ok()?,
            "leave_requests" => self.leave_requests = value.parse().ok()?,
            "forget_notifications" => self.forget_notifications = value.parse().ok()?,
            "io_delay_us" => self.io_delay_us = number(0..=MAX_DELAY_US)?,
            "io_hold" => self.io_hold = value.parse().ok()?,
            "io_depth" => self.io_depth = number(1..=MAX_IO_DEPTH)?,
            "io_order" => self.io_order = value.parse().ok()?,
            "io_error_every" => self.io_error_every = number(0..=u32::MAX.into())?,
            "hang_up" => self.hang_up = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// The settings as they are set: by name, in the words that set them.
    pub fn to_map(&self) -> BTreeMap<&'static str, String> {
        let value = |name| match name {
            "acknowledge" => self.acknowledge.to_string(),
            "resume" => self.resume.to_string(),
            "resume_form" => self.resume_form.to_string(),
            "drop_stop" => self.drop_stop.to_string(),
            "show_status" => self.show_status.to_string(),
            "refuse_features" => self.refuse_features.to_string(),
            "refuse_to_stop" => self.refuse_to_stop.to_string(),
            "take_while_stopped" => self.take_while_stopped.to_string(),
            "change_while_stopped" => self.change_while_stopped.to_string(),
            "notify_when_stopped" => self.notify_when_stopped.to_string(),
            "leave_requests" => self.leave_requests.to_string(),
            "forget_notifications" => self.forget_notifications.to_string(),
            "io_delay_us" => self.io_delay_us.to_string(),
            "io_hold" => self.io_hold.to_string(),
            "io_depth" => self.io_depth.to_string(),
            "io_order" => self.io_order.to_string(),
            "io_error_every" => self.io_error_every.to_string(),
            "hang_up" => self.hang_up.to_string(),
            _ => String::new(),
        };
        TABLE
            .iter()
            .map(|(name, ..)| (*name, value(*name)))
            .collect()
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

impl FromStr for Delay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        match (micros(least), micros(most)) {
            (Some(least_us), Some(most_us))
                if least_us <= most_us && most_us <= MAX_MS * US_PER_MS =>
            {
                Ok(Self { least_us, most_us })
            }
            _ => Err(()),
        }
    }
}

/// Milliseconds with up to three decimals, in microseconds.
fn micros(text: &str) -> Option<u64> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) if matches!(decimals.len(), 1..=3) && digits(decimals) => {
            (whole, format!("{decimals:0<3}"))
        }
        Some(_) => return None,
        None => (text, "0".to_owned()),
    };
    let whole: u64 = digits(whole).then(|| whole.parse().ok())??;
    let decimals: u64 = decimals.parse().ok()?;
    whole.checked_mul(US_PER_MS)?.checked_add(decimals)
}

/// As [`micros`] reads it.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / US_PER_MS, self.0 % US_PER_MS);
        write!(f, "{whole}")?;
        match decimals {
            0 => Ok(()),
            decimals => write!(f, ".{}", format!("{decimals:03}").trim_end_matches('0')),
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { least_us, most_us } if least_us == most_us => Millis(*least_us).fmt(f),
            Self { least_us, most_us } => write!(f, "{}-{}", Millis(*least_us), Millis(*most_us)),
        }
    }
}

impl FromStr for Answer {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None => match text {
                "at-once" => Ok(Self::AtOnce),
                "never" => Ok(Self::Never),
                "needs-reset" => Ok(Self::NeedsReset),
                _ => Err(()),
            },
            Some(("after", delay)) => delay.parse().map(Self::After),
            Some(("given-up", delay)) => delay.parse().map(Self::GivenUp),
            Some(_) => Err(()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtOnce => f.write_str("at-once"),
            Self::After(delay) => write!(f, "after:{delay}"),
            Self::Never => f.write_str("never"),
            Self::GivenUp(delay) => write!(f, "given-up:{delay}"),
            Self::NeedsReset => f.write_str("needs-reset"),
        }
    }
}

impl DropStop {
    const VALUES: &str =
        "never, after:MS or after:MIN-MAX, with MS up to 600000, three decimals at most";
}

impl FromStr for DropStop {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "never" => Ok(Self::Never),
            Some(("after", delay)) => delay.parse().map(Self::After),
            _ => Err(()),
        }
    }
}

impl fmt::Display for DropStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(delay) => write!(f, "after:{delay}"),
        }
    }
}

impl ShowStatus {
    const VALUES: &str =
        "as-is, always:BYTE, stopping:BYTE or resuming:BYTE, with BYTE from 0x00 to 0xff";
}

impl FromStr for ShowStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let byte = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).map_err(drop),
            None => text.parse().map_err(drop),
        };
        match text.split_once(':') {
            None if text == "as-is" => Ok(Self::AsIs),
            Some(("always", value)) => byte(value).map(Self::Always),
            Some(("stopping", value)) => byte(value).map(Self::Stopping),
            Some(("resuming", value)) => byte(value).map(Self::Resuming),
            _ => Err(()),
        }
    }
}

impl fmt::Display for ShowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsIs => f.write_str("as-is"),
            Self::Always(byte) => write!(f, "always:{byte:#04x}"),
            Self::Stopping(byte) => write!(f, "stopping:{byte:#04x}"),
            Self::Resuming(byte) => write!(f, "resuming:{byte:#04x}"),
        }
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
            &["as-is", "always:0xff", "stopping:0x00", "resuming:0x1f"],
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

    #[test]
    fn a_delay_lies_within_its_range() {
        let mut random = fastrand::Rng::with_seed(1);
        let delay: Delay = "0.003-0.005".parse().unwrap();
        let chosen: std::collections::BTreeSet<_> = (0..100)
            .map(|_| delay.choose(&mut random).as_micros())
            .collect();
        assert_eq!(chosen, [3, 4, 5].into());
    }
}
