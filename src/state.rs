// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The words that people meet: the states, the reasons, the errors, and what is counted.
//!
//! [`crate::machine`] says how a device comes from one state to another.

/// The states. The numbers are those of `enum virtio_device_stop_state` in the uapi header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The device can't be stopped; the reason says why.
    Unavailable = 0,
    /// The device works.
    Running = 1,
    /// A stop was asked for, and is waited for.
    Stopping = 2,
    /// The device has acknowledged the stop.
    Stopped = 3,
    /// The end of the stop was asked for, and is waited for.
    Resuming = 4,
    /// Nobody wants the device to be stopped any more, but it shows that it is, or may yet do so.
    Aborting = 5,
    /// The device needs a reset, or does not answer.
    Failed = 6,
}

/// Why a device is in the state that it is in. The words are stable, and so are the numbers: those
/// of `enum virtio_device_stop_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing to say.
    None = 0,
    /// No driver is bound to the device.
    NoDriver = 1,
    /// The device offers no feature by which it could be stopped.
    NotOffered = 2,
    /// The device may mean VIRTIO_F_NOTIF_CONFIG_DATA by bit 39.
    Bit39Ambiguous = 3,
    /// The administrator has switched the feature off.
    Disabled = 4,
    /// The device is a legacy device.
    NotVersion1 = 5,
    /// The device has an administration virtqueue.
    AdminVq = 6,
    /// The transport keeps the status, or can't carry the feature.
    Transport = 7,
    /// Devices of this type are not stopped.
    TypeRefused = 8,
    /// What is to be quiesced while the device is stopped can't be found.
    NoQuiesce = 9,
    /// The driver was bound before this module was loaded.
    BoundBefore = 10,
    /// The device was reset.
    Reset = 11,
    /// The device does not answer any more.
    Gone = 12,
    /// The device asks for a reset, or the driver has failed.
    NeedsReset = 13,
    /// A stop was not acknowledged in time.
    StopTimeout = 14,
    /// A stop that was given up was neither acknowledged nor dropped.
    StopUnanswered = 15,
    /// The device does not resume.
    ResumeUnanswered = 16,
    /// The device has ended the stop by itself.
    StopDropped = 17,
    /// The stop was ended because its owner did not.
    LeaseExpired = 18,
}

/// Why a request is refused or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// The device can't be stopped (EOPNOTSUPP).
    NotSupported,
    /// No driver, or a driver that is not ready (ENXIO).
    NoDriver,
    /// Another request is being carried out, or outstanding (EBUSY).
    Busy,
    /// The device did not answer in time (ETIMEDOUT).
    TimedOut,
    /// A resume has called the stop off (ECANCELED).
    CalledOff,
    /// The device asks for a reset (EIO).
    NeedsReset,
    /// The device is gone, or was reset (ENODEV).
    Gone,
    /// The stop had ended before it was to be ended (ESTALE).
    Stale,
    /// The caller was killed (EINTR).
    Killed,
}

/// Events, counted since the device was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Stops that the device has acknowledged.
    pub stops: u64,
    /// Resumes that the device has acknowledged.
    pub resumes: u64,
    /// Requests that it has not answered in time.
    pub timeouts: u64,
    /// Requests that ended with another error of the device's.
    pub failures: u64,
    /// Stops that it has acknowledged too late, and that were undone.
    pub late_acks: u64,
    /// Stops that it has ended by itself.
    pub dropped: u64,
    /// Stops that were ended because their owner did not.
    pub lease_expiries: u64,
    /// Resumes that were asked for by clearing SUSPEND, since the device was about not to resume in
    /// time.
    pub suspend_cleared: u64,
    /// Writes to the configuration space that were dropped, since the device was stopped.
    pub config_writes_dropped: u64,
    /// What the last stop took.
    pub last_stop: Cost,
    /// What the last resume took.
    pub last_resume: Cost,
}

/// What a request took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// From the first access to the status to the last, in microseconds.
    pub elapsed_us: u64,
    /// Reads of the status.
    pub reads: u32,
}

impl Stats {
    /// Nothing yet.
    pub const NONE: Self = Self {
        stops: 0,
        resumes: 0,
        timeouts: 0,
        failures: 0,
        late_acks: 0,
        dropped: 0,
        lease_expiries: 0,
        suspend_cleared: 0,
        config_writes_dropped: 0,
        last_stop: Cost::NONE,
        last_resume: Cost::NONE,
    };
}

impl Cost {
    const NONE: Self = Self {
        elapsed_us: 0,
        reads: 0,
    };
}

impl State {
    /// The word for it in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Resuming => "resuming",
            Self::Aborting => "aborting",
            Self::Failed => "failed",
        }
    }
}

impl Reason {
    /// The word for it in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoDriver => "no_driver",
            Self::NotOffered => "not_offered",
            Self::Bit39Ambiguous => "bit39_ambiguous",
            Self::Disabled => "disabled",
            Self::NotVersion1 => "not_version_1",
            Self::AdminVq => "admin_vq",
            Self::Transport => "transport",
            Self::TypeRefused => "type_refused",
            Self::NoQuiesce => "no_quiesce",
            Self::BoundBefore => "bound_before",
            Self::Reset => "reset",
            Self::Gone => "gone",
            Self::NeedsReset => "needs_reset",
            Self::StopTimeout => "stop_timeout",
            Self::StopUnanswered => "stop_unanswered",
            Self::ResumeUnanswered => "resume_unanswered",
            Self::StopDropped => "stop_dropped",
            Self::LeaseExpired => "lease_expired",
        }
    }

    /// Why a stop is refused of a device that is unavailable for this reason.
    pub const fn refusal(self) -> Error {
        match self {
            Self::NoDriver => Error::NoDriver,
            Self::Gone | Self::Reset => Error::Gone,
            _ => Error::NotSupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Unavailable,
        State::Running,
        State::Stopping,
        State::Stopped,
        State::Resuming,
        State::Aborting,
        State::Failed,
    ];

    const REASONS: [Reason; 19] = [
        Reason::None,
        Reason::NoDriver,
        Reason::NotOffered,
        Reason::Bit39Ambiguous,
        Reason::Disabled,
        Reason::NotVersion1,
        Reason::AdminVq,
        Reason::Transport,
        Reason::TypeRefused,
        Reason::NoQuiesce,
        Reason::BoundBefore,
        Reason::Reset,
        Reason::Gone,
        Reason::NeedsReset,
        Reason::StopTimeout,
        Reason::StopUnanswered,
        Reason::ResumeUnanswered,
        Reason::StopDropped,
        Reason::LeaseExpired,
    ];

    #[test]
    fn words_are_distinct_and_lower_case() {
        let states: Vec<_> = STATES.iter().map(|state| state.name()).collect();
        let reasons: Vec<_> = REASONS.iter().map(|reason| reason.name()).collect();
        for words in [states, reasons] {
            for (n, word) in words.iter().enumerate() {
                assert!(!words[..n].contains(word), "{word}");
                assert!(word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
            }
        }
    }

    #[test]
    fn every_word_is_documented() {
        let abi = include_str!("Documentation/ABI/testing/sysfs-bus-virtio-device-stop");
        let states = STATES.iter().map(|state| state.name());
        for word in states.chain(REASONS.iter().map(|reason| reason.name())) {
            let row = format!("\t\t{word} ");
            assert!(abi.lines().any(|line| line.starts_with(&row)), "{word}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        for reason in REASONS {
            let expected = match reason {
                Reason::NoDriver => Error::NoDriver,
                Reason::Gone | Reason::Reset => Error::Gone,
                _ => Error::NotSupported,
            };
            assert_eq!(reason.refusal(), expected);
        }
    }
}
