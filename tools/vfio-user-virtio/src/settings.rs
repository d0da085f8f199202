// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the device behaves: the same settings, in the same words, on the command line and over the control socket.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// When the device acknowledges a stop whose requests are all finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// `at-once`.
    #[default]
    AtOnce,
    /// `after:MS`: that long after the driver's write.
    After(Duration),
    /// `never`.
    Never,
    /// `given-up:MS`: only when the driver has called the stop off, and that long after.
    GivenUp(Duration),
    /// `needs-reset`: the device sets NEEDS_RESET instead.
    NeedsReset,
}

/// All settings of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::Args)]
pub struct Settings {
    /// When to acknowledge a stop: at-once, after:MS, never, given-up:MS (only once the driver has called the stop off), or
    /// needs-reset (instead of an acknowledgement)
    #[arg(long, value_name = "WHEN", default_value = "at-once")]
    pub acknowledge: Acknowledge,
    /// How long a request takes at least, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_DELAY_US))]
    pub io_delay_us: u64,
    /// How many requests the device works on at a time; further ones wait in the virtqueue
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=MAX_IO_DEPTH))]
    pub io_depth: u64,
    /// A planted bug: go on taking requests while stopped
    #[arg(long)]
    pub take_while_stopped: bool,
    /// Look at a virtqueue after a resume only when notified, and forget notifications that came before
    #[arg(long)]
    pub forget_notifications: bool,
}

const MAX_DELAY_US: u64 = 600_000_000;
const MAX_IO_DEPTH: u64 = 32_768;

/// Why a setting was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no such setting.
    #[error(
        "no setting '{0}': there are acknowledge, io_delay_us, io_depth, take_while_stopped, forget_notifications"
    )]
    Unknown(String),
    /// The value does not fit the setting.
    #[error("{0}: expected {1}")]
    Value(&'static str, &'static str),
}

impl Settings {
    /// Changes the setting `name`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let flag = |name, value: &str| {
            value
                .parse()
                .map_err(|_| Error::Value(name, "true or false"))
        };
        let number = |name, most, expected| match value.parse() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(Error::Value(name, expected)),
        };
        match name {
            "acknowledge" => {
                self.acknowledge = value
                    .parse()
                    .map_err(|expected| Error::Value("acknowledge", expected))?;
            }
            "io_delay_us" => {
                self.io_delay_us = number("io_delay_us", MAX_DELAY_US, "0 to 600000000")?
            }
            "io_depth" => {
                self.io_depth = match number("io_depth", MAX_IO_DEPTH, "1 to 32768")? {
                    0 => return Err(Error::Value("io_depth", "1 to 32768")),
                    depth => depth,
                }
            }
            "take_while_stopped" => self.take_while_stopped = flag("take_while_stopped", value)?,
            "forget_notifications" => {
                self.forget_notifications = flag("forget_notifications", value)?
            }
            _ => return Err(Error::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

impl FromStr for Acknowledge {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "at-once, after:MS, never, given-up:MS or needs-reset, with MS up to 600000";
        let duration = |ms: &str| match ms.parse() {
            Ok(ms) if ms <= 600_000 => Ok(Duration::from_millis(ms)),
            _ => Err(expected),
        };
        match text.split_once(':') {
            None => match text {
                "at-once" => Ok(Self::AtOnce),
                "never" => Ok(Self::Never),
                "needs-reset" => Ok(Self::NeedsReset),
                _ => Err(expected),
            },
            Some(("after", ms)) => Ok(Self::After(duration(ms)?)),
            Some(("given-up", ms)) => Ok(Self::GivenUp(duration(ms)?)),
            Some(_) => Err(expected),
        }
    }
}

impl fmt::Display for Acknowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtOnce => f.write_str("at-once"),
            Self::After(delay) => write!(f, "after:{}", delay.as_millis()),
            Self::Never => f.write_str("never"),
            Self::GivenUp(delay) => write!(f, "given-up:{}", delay.as_millis()),
            Self::NeedsReset => f.write_str("needs-reset"),
        }
    }
}

impl Serialize for Acknowledge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        acknowledge: Acknowledge::AtOnce,
        io_delay_us: 0,
        io_depth: 128,
        take_while_stopped: false,
        forget_notifications: false,
    };

    #[test]
    fn what_is_shown_can_be_set() {
        for text in [
            "at-once",
            "after:0",
            "after:600000",
            "never",
            "given-up:250",
            "needs-reset",
        ] {
            assert_eq!(
                text.parse::<Acknowledge>().map(|value| value.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn bad_values_change_nothing() {
        for (name, value) in [
            ("acknowledge", "soon"),
            ("acknowledge", "after:"),
            ("acknowledge", "after:600001"),
            ("acknowledge", "never:1"),
            ("io_delay_us", "-1"),
            ("io_delay_us", "600000001"),
            ("io_depth", "0"),
            ("io_depth", "32769"),
            ("take_while_stopped", "1"),
            ("speed", "1"),
        ] {
            let mut settings = SETTINGS;
            assert!(settings.set(name, value).is_err(), "{name}={value}");
            assert_eq!(settings, SETTINGS, "{name}={value}");
        }
    }

    #[test]
    fn every_setting_can_be_set() -> Result<(), Error> {
        let mut settings = SETTINGS;
        settings.set("acknowledge", "after:100")?;
        settings.set("io_delay_us", "2000")?;
        settings.set("io_depth", "4")?;
        settings.set("take_while_stopped", "true")?;
        settings.set("forget_notifications", "true")?;
        assert_eq!(
            settings,
            Settings {
                acknowledge: Acknowledge::After(Duration::from_millis(100)),
                io_delay_us: 2000,
                io_depth: 4,
                take_while_stopped: true,
                forget_notifications: true,
            }
        );
        Ok(())
    }
}
