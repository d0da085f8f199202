// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a setting can be set to, and the words for it.

use std::fmt;
use std::str::FromStr;

use super::delay::Delay;

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
    pub(super) const STOP_VALUES: &str =
        "at-once, after:MS, after:MIN-MAX, never, given-up:MS or needs-reset, with MS up to 600000, three decimals at most";
    pub(super) const RESUME_VALUES: &str =
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
    /// `random:SEED`: another byte at each read.
    Random(u64),
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
            pub(super) const VALUES: &str = $values;
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
    pub(super) const VALUES: &str =
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
    pub(super) const VALUES: &str =
        "as-is, always:BYTE, stopping:BYTE, resuming:BYTE or random:SEED, with BYTE from 0x00 to 0xff and SEED up to 18446744073709551615";

    /// The byte of a device that shows random ones, at that read of its status.
    pub fn random_byte(seed: u64, read: u64) -> u8 {
        // Neighbouring seeds have nothing in common.
        let start = fastrand::Rng::with_seed(seed).u64(..);
        fastrand::Rng::with_seed(start.wrapping_add(read)).u8(..)
    }
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
            Some(("random", seed)) => seed.parse().map(Self::Random).map_err(drop),
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
            Self::Random(seed) => write!(f, "random:{seed}"),
        }
    }
}
