// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a device has stood still between two looks.

use std::fmt;

use crate::owner::Status;

/// Why it has not, or nobody can tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unstill {
    /// Its stop does not stand any more.
    Ended {
        /// Why: a word of a fixed list, as in the file `reason`.
        reason: &'static str,
    },
    /// Its stop has ended, and it was stopped again.
    Again,
    /// What it shows can't be an answer, so that its generation proves nothing.
    Silent,
    /// Its driver has requests with it.
    InFlight(u64),
}

impl fmt::Display for Unstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { reason } => write!(f, "its stop has ended before ({reason})"),
            Self::Again => f.write_str("its stop has ended in between"),
            Self::Silent => f.write_str("what it shows is no answer, so that nobody can tell"),
            Self::InFlight(count) => write!(
                f,
                "it has {count} requests still, which whoever replaces it takes along"
            ),
        }
    }
}

/// Whether the stop stands, as far as one look can tell.
///
/// # Errors
///
/// Why it does not.
pub fn stands(status: Status) -> Result<(), Unstill> {
    match status {
        Status { own: false, .. } => Err(Unstill::Ended {
            reason: status.reason,
        }),
        Status { answers: false, .. } => Err(Unstill::Silent),
        _ => Ok(()),
    }
}

/// Compares what was told right after the stop, and right before the resume. Requests in flight may
/// be allowed.
///
/// # Errors
///
/// Why it has not stood still. That it is unknown how many requests are in flight is none.
pub fn still(first: Status, last: Status, allow_in_flight: bool) -> Result<(), Unstill> {
    stands(last)?;
    if !first.answers {
        return Err(Unstill::Silent);
    }
    if !first.own || first.generation != last.generation {
        return Err(Unstill::Again);
    }
    let in_flight = first.in_flight.max(last.in_flight).unwrap_or(0);
    if in_flight > 0 && !allow_in_flight {
        return Err(Unstill::InFlight(in_flight));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Status = Status {
        own: true,
        answers: true,
        generation: 7,
        reason: "none",
        in_flight: Some(0),
        stop_us: 1,
        resume_us: 1,
    };

    #[test]
    fn the_same_generation_with_nothing_in_flight_proves_it() {
        assert_eq!(still(STILL, STILL, false), Ok(()));
        let unknown = Status {
            in_flight: None,
            ..STILL
        };
        assert_eq!(still(unknown, unknown, false), Ok(()));
    }

    #[test]
    fn one_look_tells_whether_the_stop_stands() {
        assert_eq!(stands(STILL), Ok(()));
        let requests = Status {
            in_flight: Some(3),
            ..STILL
        };
        assert_eq!(stands(requests), Ok(()));
        let silent = Status {
            answers: false,
            ..STILL
        };
        assert_eq!(stands(silent), Err(Unstill::Silent));
        let ended = Status {
            own: false,
            ..silent
        };
        let reason = "none";
        assert_eq!(stands(ended), Err(Unstill::Ended { reason }));
    }

    #[test]
    fn whatever_else_is_told_does_not() {
        let ended = Status {
            own: false,
            reason: "stop_dropped",
            ..STILL
        };
        let reason = "stop_dropped";
        assert_eq!(still(STILL, ended, true), Err(Unstill::Ended { reason }));
        let again = Status {
            generation: 8,
            ..STILL
        };
        assert_eq!(still(STILL, again, true), Err(Unstill::Again));
        let silent = Status {
            answers: false,
            ..STILL
        };
        assert_eq!(still(silent, STILL, true), Err(Unstill::Silent));
        assert_eq!(still(STILL, silent, true), Err(Unstill::Silent));
        let requests = Status {
            in_flight: Some(3),
            ..STILL
        };
        for (first, last) in [(STILL, requests), (requests, STILL)] {
            assert_eq!(still(first, last, false), Err(Unstill::InFlight(3)));
            assert_eq!(still(first, last, true), Ok(()));
        }
    }
}
