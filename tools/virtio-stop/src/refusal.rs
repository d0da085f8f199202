// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device answers that does not do what it is asked for, in words, and what to do about it.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::reason::explain;

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// To be added to an owner.
    Add,
    /// To stop.
    Stop,
    /// To resume.
    Resume,
    /// To let the lease of its stop begin anew.
    Renew,
}

impl Request {
    fn undone(self) -> &'static str {
        match self {
            Self::Add => "can't be held",
            Self::Stop => "not stopped",
            Self::Resume => "not resumed",
            Self::Renew => "lease not renewed",
        }
    }
}

/// Why a device has not done what it was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// It can't be stopped.
    Unsupported,
    /// It has no driver, or one that is not ready.
    NoDriver,
    /// Somebody else has stopped it, or something else is being done to it.
    Busy,
    /// It has not answered in time.
    TimedOut,
    /// The stop was called off.
    CalledOff,
    /// The stop had ended before.
    Ended,
    /// It needs a reset.
    NeedsReset,
    /// It was removed, or reset.
    Gone,
    /// This process may not do that.
    Denied,
    /// Anything else.
    Other,
}

impl Cause {
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::OPNOTSUPP => Self::Unsupported,
            Errno::NXIO => Self::NoDriver,
            Errno::BUSY => Self::Busy,
            Errno::TIMEDOUT => Self::TimedOut,
            Errno::CANCELED | Errno::INTR => Self::CalledOff,
            Errno::STALE => Self::Ended,
            Errno::IO => Self::NeedsReset,
            Errno::NODEV => Self::Gone,
            Errno::PERM | Errno::ACCESS => Self::Denied,
            _ => Self::Other,
        }
    }
}

/// A device has not done what it was asked for.
#[derive(Debug)]
pub struct Refusal {
    /// The device, for example `virtio0`.
    pub device: String,
    /// What was asked for.
    pub request: Request,
    /// The error number.
    pub errno: i32,
    /// What the device's file `reason` says: a word of a fixed list; `none`: nothing.
    pub reason: String,
}

impl Refusal {
    /// Why, in short.
    pub fn cause(&self) -> Cause {
        Cause::of(Errno::from_raw_os_error(self.errno))
    }

    fn why(&self) -> String {
        match (self.cause(), self.request) {
            (Cause::Unsupported, _) => format!("it can't be stopped: {}", explain(&self.reason)),
            (Cause::NoDriver, _) => "no driver is bound to it that is ready: bind one".into(),
            (Cause::Busy, Request::Resume) => {
                "the stop has an owner, or something else is being done to the device. \
                 'virtio-stop resume --force' ends the stop of somebody else"
                    .into()
            }
            (Cause::Busy, _) => {
                "somebody else has stopped it ('virtio-stop status' says who), what is above it is \
                 being configured, the system is going to sleep, or it was found suspended and is \
                 resumed first: try again later"
                    .into()
            }
            (Cause::TimedOut, Request::Stop) => {
                let rest = match self.reason.as_str() {
                    "stop_timeout" => {
                        "It can't be called off: its I/O waits, and the device is resumed as soon \
                         as it answers"
                    }
                    _ => "The stop was called off, and its I/O goes on",
                };
                format!("it has not answered in time. {rest}. Give it longer with --timeout")
            }
            (Cause::TimedOut, _) => {
                "it has not answered in time. Its I/O waits until it does; 'virtio-stop resume' \
                 asks once more"
                    .into()
            }
            (Cause::CalledOff, _) => "the stop was called off".into(),
            (Cause::Ended, _) => format!("the stop had ended before: {}", end(&self.reason)),
            (Cause::NeedsReset, _) => "it needs a reset: unbind and bind its driver".into(),
            (Cause::Gone, _) => "it was removed, or reset".into(),
            (Cause::Denied, _) => "not permitted: this needs CAP_SYS_ADMIN".into(),
            (Cause::Other, _) => io::Error::from_raw_os_error(self.errno).to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.device,
            self.request.undone(),
            self.why()
        )
    }
}

/// Why a stop has ended.
fn end(reason: &str) -> &str {
    match reason {
        "none" => "somebody has resumed it, or it was reset",
        other => explain(other),
    }
}

/// The word of a number of `enum virtio_device_stop_reason`, as the file `reason` has it.
pub(crate) fn reason(number: u32) -> &'static str {
    const WORDS: [&str; 19] = [
        "none",
        "no_driver",
        "not_offered",
        "bit39_ambiguous",
        "disabled",
        "not_version_1",
        "admin_vq",
        "transport",
        "type_refused",
        "no_quiesce",
        "bound_before",
        "reset",
        "gone",
        "needs_reset",
        "stop_timeout",
        "stop_unanswered",
        "resume_unanswered",
        "stop_dropped",
        "lease_expired",
    ];
    WORDS.get(number as usize).copied().unwrap_or("unknown")
}
