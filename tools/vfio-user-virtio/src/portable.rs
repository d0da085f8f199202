// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How values are written that mean something in one process only, or that serde does not know: for `#[serde(with = "...")]`.

use std::path::Path;

use serde::{Serialize, Serializer};

/// An [`Instant`](std::time::Instant) as nanoseconds of CLOCK_MONOTONIC, which all processes have in common until the next boot.
pub mod instant {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use rustix::time::{clock_gettime, ClockId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Both clocks, read together: once, so that what is equal, or in order, stays so.
    fn now() -> (Instant, i64) {
        static NOW: OnceLock<(Instant, i64)> = OnceLock::new();
        *NOW.get_or_init(|| {
            let clock = clock_gettime(ClockId::Monotonic);
            let nanoseconds = clock.tv_sec.saturating_mul(1_000_000_000);
            (Instant::now(), nanoseconds.saturating_add(clock.tv_nsec))
        })
    }

    fn to_nanoseconds(instant: Instant) -> i64 {
        let (now, clock) = now();
        let signed = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        match instant.checked_duration_since(now) {
            Some(later) => clock.saturating_add(signed(later)),
            None => clock.saturating_sub(signed(now.saturating_duration_since(instant))),
        }
    }

    fn from_nanoseconds(nanoseconds: i64) -> Option<Instant> {
        let (now, clock) = now();
        let distance = Duration::from_nanos(nanoseconds.abs_diff(clock));
        if nanoseconds >= clock {
            now.checked_add(distance)
        } else {
            now.checked_sub(distance)
        }
    }

    /// Writes it.
    pub fn serialize<S: Serializer>(instant: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        to_nanoseconds(*instant).serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let nanoseconds = i64::deserialize(deserializer)?;
        from_nanoseconds(nanoseconds)
            .ok_or_else(|| serde::de::Error::custom("no time of this boot"))
    }

    /// One that may be missing.
    pub mod option {
        use super::{
            from_nanoseconds, to_nanoseconds, Deserialize, Deserializer, Instant, Serialize,
            Serializer,
        };

        /// Writes it.
        pub fn serialize<S: Serializer>(
            instant: &Option<Instant>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            instant.map(to_nanoseconds).serialize(serializer)
        }

        /// Reads it.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Instant>, D::Error> {
            match Option::<i64>::deserialize(deserializer)? {
                None => Ok(None),
                Some(nanoseconds) => from_nanoseconds(nanoseconds)
                    .map(Some)
                    .ok_or_else(|| serde::de::Error::custom("no time of this boot")),
            }
        }
    }
}

/// Writes a path as it is from everywhere. What makes no path is written as it is.
pub fn absolute<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).serialize(serializer)
}

/// Bytes of a fixed number, as hexadecimal digits.
pub mod hex {
    use std::fmt::Write;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes them.
    pub fn serialize<const N: usize, S: Serializer>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        digits(bytes).serialize(serializer)
    }

    /// Two digits for each byte.
    pub fn digits(bytes: &[u8]) -> String {
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }

    /// The bytes that `text` has two digits for, each.
    pub fn parse(text: &str) -> Option<Vec<u8>> {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let pairs = text.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => u8::try_from((digit(high)? << 4) | digit(low)?).ok(),
            _ => None,
        });
        pairs.collect()
    }

    fn exact<const N: usize, E: Error>(text: &str) -> Result<[u8; N], E> {
        let bytes = parse(text).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| E::custom(format!("not {N} bytes, two digits each")))
    }

    /// Reads them.
    pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        exact(&String::deserialize(deserializer)?)
    }

    /// Ones that may be missing.
    pub mod option {
        use super::{exact, Deserialize, Deserializer, Serializer};

        /// Writes them.
        pub fn serialize<const N: usize, S: Serializer>(
            bytes: &Option<[u8; N]>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match bytes {
                None => serializer.serialize_none(),
                Some(bytes) => super::serialize(bytes, serializer),
            }
        }

        /// Reads them.
        pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<[u8; N]>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| exact(&text)).transpose()
        }
    }
}

/// Rows of frames, as hexadecimal digits: a number for each byte would take ten times as much memory.
pub mod frames {
    use std::collections::VecDeque;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::hex::{digits, parse};

    /// Writes them.
    pub fn serialize<S: Serializer>(
        rows: &[VecDeque<Vec<u8>>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let row = |row: &VecDeque<Vec<u8>>| row.iter().map(|frame| digits(frame)).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
        rows.serialize(serializer)
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<VecDeque<Vec<u8>>>, D::Error> {
        let rows = Vec::<Vec<String>>::deserialize(deserializer)?;
        let row = |row: Vec<String>| row.iter().map(|frame| parse(frame)).collect();
        let rows: Option<_> = rows.into_iter().map(row).collect();
        rows.ok_or_else(|| Error::custom("a frame that is not in hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::{Duration, Instant};

    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct All {
        #[serde(with = "super::instant")]
        past: Instant,
        #[serde(with = "super::instant::option")]
        future: Option<Instant>,
        #[serde(with = "super::hex")]
        bytes: [u8; 3],
        #[serde(with = "super::hex::option")]
        none: Option<[u8; 1]>,
        #[serde(with = "super::frames")]
        frames: Vec<VecDeque<Vec<u8>>>,
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let now = Instant::now();
        let all = All {
            past: now - Duration::from_secs(1),
            future: Some(now + Duration::from_secs(100)),
            bytes: [0, 0xab, 0xff],
            none: None,
            frames: vec![VecDeque::new(), VecDeque::from([vec![1, 0xfe], vec![]])],
        };
        let text = serde_json::to_string(&all).unwrap();
        let read: All = serde_json::from_str(&text).unwrap();
        assert_eq!((read.past, read.future), (all.past, all.future));
        assert_eq!((read.bytes, read.none), (all.bytes, all.none));
        assert_eq!(read.frames, all.frames);
        for wrong in ["\"00ab\"", "\"00abfg\"", "\"00abff0\"", "7"] {
            let text = text.replace("\"00abff\"", wrong);
            assert!(serde_json::from_str::<All>(&text).is_err(), "{wrong}");
        }
    }
}
