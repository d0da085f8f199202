// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long the device takes, in milliseconds with up to three decimals.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MAX_MS: u64 = 600_000;
const US_PER_MS: u64 = 1000;

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

#[cfg(test)]
mod tests {
    use super::*;

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
