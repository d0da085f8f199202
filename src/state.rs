// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The life of one device: its states, and what every event makes of them.
//!
//! ```text
//!                       bound, negotiated, DRIVER_OK
//!     Unavailable ------------------------------------> Running <---------------+
//!        ^                                              |    ^                  |
//!        | unbound, reset, gone                    stop |    | timed out,       |
//!        | (from every state)                           v    | called off       | acknowledged,
//!        +------------------------------------------ Stopping                   | lease ended,
//!                                                   |   |   |                   | dropped by the
//!                       acknowledged                |   |   | timed out, but    | device
//!                 +---------------------------------+   |   | can't be undone   |
//!                 v                                     |   v                   |
//!              Stopped                      NEEDS_RESET |  Aborting             |
//!                 | resume                              |   |  |                |
//!                 v          not acknowledged           v   |  +--- resumed ----+
//!              Resuming -----------------------------> Failed <-- unanswered    |
//!                 |                                        |                    |
//!                 +--------------- acknowledged -----------+--- late answer ----+
//! ```
//!
//! A device is *watched* while it may still answer what it was asked before. A stop that nobody
//! wants any more is undone when it comes: a device is never left stopped by accident.
//!
//! Pure: no locks, no I/O. [`Life`] decides, the caller acts on the [`Outcome`].

use super::handshake::{
    GaveUp,
    Left,
    Resume,
    Stop, //
};
use super::status::{
    Fault,
    Protocol,
    Status, //
};

/// The states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The device can't be stopped; the reason says why.
    Unavailable,
    /// The device works.
    Running,
    /// A stop was asked for, and is waited for.
    Stopping,
    /// The device has acknowledged the stop.
    Stopped,
    /// The end of the stop was asked for, and is waited for.
    Resuming,
    /// A stop that was given up, but that the device shows nevertheless, or may yet come to.
    Aborting,
    /// The device needs a reset, or does not answer.
    Failed,
}

/// Why a device is in the state that it is in. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing to say.
    None,
    /// No driver is bound to the device.
    NoDriver,
    /// The device offers no feature by which it could be stopped.
    NotOffered,
    /// The device may mean VIRTIO_F_NOTIF_CONFIG_DATA by bit 39.
    Bit39Ambiguous,
    /// The administrator has switched the feature off.
    Disabled,
    /// The device is a legacy device.
    NotVersion1,
    /// The device has an administration virtqueue.
    AdminVq,
    /// The transport keeps the status, or can't carry the feature.
    Transport,
    /// Devices of this type are not stopped.
    TypeRefused,
    /// What is to be held while the device is stopped can't be found.
    NoQuiesce,
    /// The driver was bound before this module was loaded.
    BoundBefore,
    /// The device was reset.
    Reset,
    /// The device does not answer any more.
    Gone,
    /// The device asks for a reset, or the driver has failed.
    NeedsReset,
    /// A stop was not acknowledged in time.
    StopTimeout,
    /// A stop that was given up was neither acknowledged nor dropped.
    StopUnanswered,
    /// The device does not resume.
    ResumeUnanswered,
    /// The device has ended the stop by itself.
    StopDropped,
    /// The stop was ended because its owner did not.
    LeaseExpired,
}

/// Why a request is refused or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What becomes of the driver above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// It is held, as before.
    Hold,
    /// It is let go.
    Release,
    /// The virtqueues are notified, since the device may have missed that; then it is let go.
    NotifyAndRelease,
    /// The virtqueues are broken, since the device will not use what it is given, unless it has
    /// requests still; then the driver is let go.
    BreakAndRelease,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver is bound and ready, and the feature negotiated.
    Ready,
    /// The driver is bound, but the device can't be stopped.
    NotAvailable(Reason),
    /// A stop begins.
    StopBegins,
    /// What is to be held can't be: the stop ends before it has reached the device.
    QuiesceFailed,
    /// A stop ends.
    StopEnds(Stop),
    /// A resume begins.
    ResumeBegins,
    /// A resume ends.
    ResumeEnds(Resume),
    /// A resume ends that nobody asked for: the lease was over.
    LeaseEnds(Resume),
    /// A look at a device that is at rest finds this.
    Fault(Fault),
    /// A look at a stopped device finds that it is not.
    Dropped,
    /// A device that was watched has answered: it runs.
    LateAnswer,
    /// A stop that was given up stays unanswered for too long.
    AbortUnanswered,
    /// The driver is being unbound.
    Unbound,
}

/// What an event has made of the device, and what is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the driver above.
    pub upper: Upper,
    /// What whoever asked for it is told.
    pub result: Result<(), Error>,
}

/// What a request comes to before anything is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It is to be carried out.
    Begin,
    /// What it asks for is so already.
    Already,
    /// The stop that is being waited for is to be called off.
    CallOff,
    /// The stop that was given up, and is pending still, is to be waited for again.
    Adopt,
}

/// What a look at a watched device calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: the device is to be looked at again.
    Again,
    /// A stop that nobody wants shows: it is to be ended.
    End,
    /// This has happened.
    Event(Event),
}

/// Events, counted since the device was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// The state of one device, and what has led there.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    state: State,
    reason: Reason,
    generation: u64,
    watched: bool,
    /// The device has shown that it stopped since it was last asked to.
    shown: bool,
    lapsed: bool,
    stats: Stats,
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
}

impl Error {
    /// What the device has done, where this is an error of the device's.
    pub const fn blames_device(self) -> Option<&'static str> {
        match self {
            Self::TimedOut => Some("no answer in time"),
            Self::NeedsReset => Some("the device asks for a reset"),
            Self::Gone => Some("the device is gone, or was reset"),
            Self::NotSupported
            | Self::NoDriver
            | Self::Busy
            | Self::CalledOff
            | Self::Stale
            | Self::Killed => None,
        }
    }
}

impl From<GaveUp> for Error {
    fn from(why: GaveUp) -> Self {
        match why {
            GaveUp::TimedOut => Self::TimedOut,
            GaveUp::CalledOff => Self::CalledOff,
            GaveUp::Killed => Self::Killed,
            GaveUp::Leaving => Self::Gone,
        }
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

impl Life {
    /// A device without a driver.
    pub const fn new() -> Self {
        Self {
            state: State::Unavailable,
            reason: Reason::NoDriver,
            generation: 0,
            watched: false,
            shown: false,
            lapsed: false,
            stats: Stats {
                stops: 0,
                resumes: 0,
                timeouts: 0,
                failures: 0,
                late_acks: 0,
                dropped: 0,
                lease_expiries: 0,
            },
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it is in that state.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Counts every change of the state.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the device may still answer what it was asked before.
    pub const fn is_watched(&self) -> bool {
        self.watched
    }

    /// Whether a stop that was given up may yet be acknowledged, and can't be ended before it is.
    pub const fn is_pending(&self) -> bool {
        matches!(self.state, State::Aborting) && !self.shown
    }

    /// Whether the driver above is to be held. It is not any more when the device was reset meanwhile.
    pub fn holds_upper(&self) -> bool {
        match self.state {
            State::Stopping | State::Stopped | State::Resuming | State::Aborting => true,
            State::Failed => self.reason == Reason::ResumeUnanswered,
            State::Unavailable | State::Running => false,
        }
    }

    /// The events so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What a request to stop comes to.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub const fn ask_stop(&self) -> Result<Request, Error> {
        match self.state {
            State::Running => Ok(Request::Begin),
            State::Stopped => Ok(Request::Already),
            State::Aborting if self.is_pending() => Ok(Request::Adopt),
            State::Stopping | State::Resuming | State::Aborting => Err(Error::Busy),
            State::Failed => match self.reason {
                Reason::NeedsReset => Err(Error::NeedsReset),
                _ => Err(Error::Busy),
            },
            State::Unavailable => Err(self.unavailable()),
        }
    }

    /// What a request to resume comes to. The first one after a stop has ended without it is told so.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn ask_resume(&mut self) -> Result<Request, Error> {
        match self.state {
            State::Running if core::mem::take(&mut self.lapsed) => Err(Error::Stale),
            State::Running => Ok(Request::Already),
            State::Stopping => Ok(Request::CallOff),
            State::Stopped | State::Aborting | State::Failed => Ok(Request::Begin),
            State::Resuming => Err(Error::Busy),
            State::Unavailable => Err(self.unavailable()),
        }
    }

    const fn unavailable(&self) -> Error {
        match self.reason {
            Reason::NoDriver => Error::NoDriver,
            Reason::Gone | Reason::Reset => Error::Gone,
            _ => Error::NotSupported,
        }
    }

    /// What the status of a watched device calls for.
    pub fn look(&mut self, status: Status, protocol: Protocol) -> Look {
        match (self.state, status.fault()) {
            // Without a driver nothing is wrong with a device that was reset.
            (State::Unavailable, Some(_)) => Look::Again,
            (_, Some(fault)) => Look::Event(Event::Fault(fault)),
            (State::Failed, None)
                if self.reason == Reason::ResumeUnanswered && status.shows_stopped(protocol) =>
            {
                Look::Again
            }
            (_, None) if status.shows_stopped(protocol) => {
                self.shown = true;
                Look::End
            }
            // A pending stop looks as if there were none: it may still come.
            (State::Running | State::Unavailable, None) => Look::Again,
            (_, None) if self.shown && status.shows_running(protocol) => {
                Look::Event(Event::LateAnswer)
            }
            (_, None) => Look::Again,
        }
    }

    /// What has happened to a watched device whose stop was ended by a look. `runs`: it shows so.
    pub fn look_after_end(&self, runs: bool) -> Look {
        match (self.state, runs) {
            (State::Unavailable, _) | (_, false) => Look::Again,
            (_, true) => Look::Event(Event::LateAnswer),
        }
    }

    /// Whether a stop that was given up has been waited for long enough. `late_us`: for how long it
    /// has been watched.
    pub fn is_overdue(&self, late_us: u64, timeout_us: u64) -> bool {
        self.state == State::Aborting && late_us >= abort_limit_us(timeout_us)
    }

    /// The device was reset: it will not answer any more what it was asked before.
    pub fn forget(&mut self) {
        self.watched = false;
    }

    /// Something has happened.
    pub fn apply(&mut self, event: Event) -> Outcome {
        match event {
            Event::Ready => self.enter(State::Running, Reason::None, Upper::Release),
            Event::NotAvailable(reason) => self.enter(State::Unavailable, reason, Upper::Release),
            // The device may still answer, until the driver resets it.
            Event::Unbound => {
                self.enter_watched(State::Unavailable, Reason::NoDriver, Upper::Release)
            }
            Event::StopBegins => {
                self.shown = false;
                self.enter_watched(State::Stopping, Reason::None, Upper::Hold)
            }
            Event::QuiesceFailed => self.never_began(Reason::NoQuiesce, Error::NotSupported),
            Event::ResumeBegins => self.enter(State::Resuming, self.reason, Upper::Hold),
            Event::StopEnds(stop) => self.stop_ends(stop),
            Event::ResumeEnds(resume) => self.resume_ends(resume, Reason::None),
            Event::LeaseEnds(resume) => {
                self.stats.lease_expiries += 1;
                let outcome = self.resume_ends(resume, Reason::LeaseExpired);
                self.lapsed = true;
                outcome
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Dropped => {
                self.stats.dropped += 1;
                let outcome = self.runs(Reason::StopDropped);
                self.lapsed = true;
                outcome
            }
            Event::LateAnswer => {
                // A resume that was not answered in time is no late acknowledgement of a stop.
                self.stats.late_acks += u64::from(self.reason != Reason::ResumeUnanswered);
                self.runs(Reason::None)
            }
            Event::AbortUnanswered => {
                let outcome = self.enter(State::Failed, Reason::StopUnanswered, Upper::Release);
                self.watched = true;
                outcome
            }
        }
    }

    fn stop_ends(&mut self, stop: Stop) -> Outcome {
        match stop {
            Stop::Acknowledged => {
                self.stats.stops += 1;
                self.lapsed = false;
                self.shown = true;
                self.enter(State::Stopped, Reason::None, Upper::Hold)
            }
            Stop::NotReady => self.never_began(Reason::None, Error::NoDriver),
            Stop::GivenUp { why, left } => {
                let outcome = match left {
                    Left::Untouched => {
                        let error = match why {
                            // The device is not to blame: it was not asked.
                            GaveUp::TimedOut => Error::Busy,
                            _ => Error::from(why),
                        };
                        return self.never_began(Reason::None, error);
                    }
                    Left::Running => {
                        self.enter(State::Running, Reason::None, Upper::NotifyAndRelease)
                    }
                    Left::Stopped | Left::Pending => self.abort(left == Left::Stopped),
                };
                self.stats.timeouts += u64::from(why == GaveUp::TimedOut);
                self.watched = true;
                outcome.with(Error::from(why))
            }
            Stop::Fault(fault) => self.fault(fault),
        }
    }

    fn resume_ends(&mut self, resume: Resume, reason: Reason) -> Outcome {
        match resume {
            Resume::Acknowledged => {
                self.stats.resumes += 1;
                let late = matches!(self.reason, Reason::StopTimeout | Reason::StopUnanswered);
                self.stats.late_acks += u64::from(late);
                self.runs(reason)
            }
            Resume::Dropped if self.reason == Reason::None => {
                self.apply(Event::Dropped).with(Error::Stale)
            }
            // It had been asked to before, and had not answered.
            Resume::Dropped => self.apply(Event::LateAnswer),
            Resume::GivenUp(why) => {
                self.stats.timeouts += u64::from(why == GaveUp::TimedOut);
                let outcome = self.enter(State::Failed, Reason::ResumeUnanswered, Upper::Hold);
                self.watched = true;
                outcome.with(Error::from(why))
            }
            Resume::Pending(why) => {
                self.stats.timeouts += u64::from(why == GaveUp::TimedOut);
                let outcome = self.abort(false);
                self.watched = true;
                outcome.with(Error::from(why))
            }
            Resume::Fault(fault) => self.fault(fault),
        }
    }

    fn abort(&mut self, shown: bool) -> Outcome {
        self.shown = shown;
        self.enter(State::Aborting, Reason::StopTimeout, Upper::Hold)
    }

    fn fault(&mut self, fault: Fault) -> Outcome {
        self.stats.failures += u64::from(matches!(self.state, State::Stopping | State::Resuming));
        let held = self.holds_upper();
        let (state, reason, error) = match fault {
            Fault::NeedsReset => (State::Failed, Reason::NeedsReset, Error::NeedsReset),
            Fault::Reset => (State::Unavailable, Reason::Reset, Error::Gone),
            Fault::Gone => (State::Unavailable, Reason::Gone, Error::Gone),
        };
        let upper = match fault {
            Fault::NeedsReset | Fault::Gone if held => Upper::BreakAndRelease,
            _ => Upper::Release,
        };
        self.enter(state, reason, upper).with(error)
    }

    fn runs(&mut self, reason: Reason) -> Outcome {
        self.enter(State::Running, reason, Upper::NotifyAndRelease)
    }

    /// A stop ends before it has reached the device, which may yet acknowledge an earlier one.
    fn never_began(&mut self, reason: Reason, error: Error) -> Outcome {
        self.enter_watched(State::Running, reason, Upper::Release)
            .with(error)
    }

    /// Enters a state in which the device is watched if it was before.
    fn enter_watched(&mut self, state: State, reason: Reason, upper: Upper) -> Outcome {
        let watched = self.watched;
        let outcome = self.enter(state, reason, upper);
        self.watched = watched;
        outcome
    }

    fn enter(&mut self, state: State, reason: Reason, upper: Upper) -> Outcome {
        self.state = state;
        self.reason = reason;
        self.watched = false;
        self.generation = self.generation.wrapping_add(1);
        Outcome {
            upper,
            result: Ok(()),
        }
    }
}

/// For how long a stop that was given up, but shows, is waited for until the driver above is let go.
fn abort_limit_us(timeout_us: u64) -> u64 {
    timeout_us.saturating_mul(10).clamp(10_000_000, 120_000_000)
}

impl Outcome {
    const fn with(self, error: Error) -> Self {
        Self {
            result: Err(error),
            ..self
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

    fn life(state: State, reason: Reason) -> Life {
        Life {
            state,
            reason,
            ..Life::new()
        }
    }

    fn running() -> Life {
        let mut life = Life::new();
        life.apply(Event::Ready);
        life
    }

    fn stopping() -> Life {
        let mut life = running();
        assert_eq!(life.ask_stop(), Ok(Request::Begin));
        life.apply(Event::StopBegins);
        life
    }

    fn stopped() -> Life {
        let mut life = stopping();
        life.apply(Event::StopEnds(Stop::Acknowledged));
        life
    }

    fn resuming() -> Life {
        let mut life = stopped();
        assert_eq!(life.ask_resume(), Ok(Request::Begin));
        life.apply(Event::ResumeBegins);
        life
    }

    /// Under VIRTIO_F_SUSPEND: a stop that was given up, and that the device has not acknowledged.
    fn pending() -> Life {
        let mut life = stopping();
        life.apply(Event::StopEnds(Stop::GivenUp {
            why: GaveUp::TimedOut,
            left: Left::Pending,
        }));
        life
    }

    fn aborting() -> Life {
        let mut life = stopping();
        life.apply(Event::StopEnds(Stop::GivenUp {
            why: GaveUp::TimedOut,
            left: Left::Stopped,
        }));
        life
    }

    /// Applies `event`, and checks the row of the table: the state after it, the reason, what the
    /// caller is told, what becomes of the driver above, and whether the device is watched.
    fn row(
        mut life: Life,
        event: Event,
        state: State,
        reason: Reason,
        result: Result<(), Error>,
        upper: Upper,
        watched: bool,
    ) -> Life {
        let before = life.generation();
        let outcome = life.apply(event);
        assert_eq!(
            (life.state(), life.reason()),
            (state, reason),
            "after {event:?}"
        );
        assert_eq!(outcome, Outcome { upper, result }, "after {event:?}");
        assert_eq!(life.is_watched(), watched, "after {event:?}");
        if upper != Upper::Hold {
            assert!(!life.holds_upper(), "after {event:?}");
        }
        assert_eq!(life.generation(), before + 1, "after {event:?}");
        life
    }

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
    fn every_request_in_every_state() {
        for shown in [false, true] {
            every_request(shown);
        }
    }

    fn every_request(shown: bool) {
        for state in STATES {
            for reason in REASONS {
                let unavailable = match reason {
                    Reason::NoDriver => Error::NoDriver,
                    Reason::Gone | Reason::Reset => Error::Gone,
                    _ => Error::NotSupported,
                };
                let stop = match state {
                    State::Unavailable => Err(unavailable),
                    State::Running => Ok(Request::Begin),
                    State::Stopped => Ok(Request::Already),
                    State::Aborting if !shown => Ok(Request::Adopt),
                    State::Stopping | State::Resuming | State::Aborting => Err(Error::Busy),
                    State::Failed if reason == Reason::NeedsReset => Err(Error::NeedsReset),
                    State::Failed => Err(Error::Busy),
                };
                let resume = match state {
                    State::Unavailable => Err(unavailable),
                    State::Running => Ok(Request::Already),
                    State::Stopping => Ok(Request::CallOff),
                    State::Stopped | State::Aborting | State::Failed => Ok(Request::Begin),
                    State::Resuming => Err(Error::Busy),
                };
                let mut life = Life {
                    shown,
                    ..life(state, reason)
                };
                assert_eq!(life.ask_stop(), stop, "stop in {life:?}");
                assert_eq!(life.ask_resume(), resume, "resume in {life:?}");
                assert_eq!(life.generation(), 0, "asking changes nothing");
            }
        }
    }

    #[test]
    fn the_driver_above_is_held_from_the_beginning_of_a_stop_to_its_end() {
        let mut not_resumed = resuming();
        not_resumed.apply(Event::ResumeEnds(Resume::GivenUp(GaveUp::TimedOut)));
        for life in [stopping(), stopped(), resuming(), aborting(), not_resumed] {
            assert!(life.holds_upper(), "{life:?}");
        }
        // A device that was reset, and brought up again by its driver.
        let mut life = stopped();
        life.apply(Event::Fault(Fault::Reset));
        assert!(!life.holds_upper());
        life.apply(Event::Ready);
        assert!(!life.holds_upper());
    }

    #[test]
    fn a_stop_that_is_acknowledged() {
        let life = row(
            stopping(),
            Event::StopEnds(Stop::Acknowledged),
            State::Stopped,
            Reason::None,
            Ok(()),
            Upper::Hold,
            false,
        );
        assert_eq!(life.stats().stops, 1);
    }

    #[test]
    fn a_resume_that_is_acknowledged() {
        let life = row(
            resuming(),
            Event::ResumeEnds(Resume::Acknowledged),
            State::Running,
            Reason::None,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!((life.stats().resumes, life.stats().late_acks), (1, 0));
    }

    #[test]
    fn a_stop_that_is_given_up() {
        for (why, error) in [
            (GaveUp::TimedOut, Error::TimedOut),
            (GaveUp::Killed, Error::Killed),
            (GaveUp::CalledOff, Error::CalledOff),
            (GaveUp::Leaving, Error::Gone),
        ] {
            let life = row(
                stopping(),
                Event::StopEnds(Stop::GivenUp {
                    why,
                    left: Left::Running,
                }),
                State::Running,
                Reason::None,
                Err(error),
                Upper::NotifyAndRelease,
                true,
            );
            assert_eq!(life.stats().timeouts, u64::from(why == GaveUp::TimedOut));
            for left in [Left::Stopped, Left::Pending] {
                let life = row(
                    stopping(),
                    Event::StopEnds(Stop::GivenUp { why, left }),
                    State::Aborting,
                    Reason::StopTimeout,
                    Err(error),
                    Upper::Hold,
                    true,
                );
                assert_eq!(life.stats().stops, 0);
                assert_eq!(life.is_pending(), left == Left::Pending);
            }
        }
    }

    #[test]
    fn a_late_acknowledgement_of_a_stop() {
        let mut rolled_back = stopping();
        rolled_back.apply(Event::StopEnds(Stop::GivenUp {
            why: GaveUp::TimedOut,
            left: Left::Running,
        }));
        let mut unanswered = aborting();
        unanswered.apply(Event::AbortUnanswered);
        for life in [rolled_back, aborting(), unanswered] {
            let life = row(
                life,
                Event::LateAnswer,
                State::Running,
                Reason::None,
                Ok(()),
                Upper::NotifyAndRelease,
                false,
            );
            assert_eq!(life.stats().late_acks, 1);
        }
    }

    #[test]
    fn a_stop_that_stays_unanswered() {
        row(
            aborting(),
            Event::AbortUnanswered,
            State::Failed,
            Reason::StopUnanswered,
            Ok(()),
            Upper::Release,
            true,
        );
    }

    #[test]
    fn an_aborting_device_that_is_resumed_by_its_agent() {
        let mut life = aborting();
        assert_eq!(life.ask_resume(), Ok(Request::Begin));
        life.apply(Event::ResumeBegins);
        let life = row(
            life,
            Event::ResumeEnds(Resume::Acknowledged),
            State::Running,
            Reason::None,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!(life.stats().late_acks, 1);
    }

    #[test]
    fn a_resume_that_is_not_answered() {
        let life = row(
            resuming(),
            Event::ResumeEnds(Resume::GivenUp(GaveUp::TimedOut)),
            State::Failed,
            Reason::ResumeUnanswered,
            Err(Error::TimedOut),
            Upper::Hold,
            true,
        );
        assert_eq!(life.stats().timeouts, 1);
        let life = row(
            life,
            Event::LateAnswer,
            State::Running,
            Reason::None,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!(life.stats().late_acks, 0);
    }

    #[test]
    fn a_failed_resume_can_be_asked_for_again() {
        for resume in [Resume::Acknowledged, Resume::Dropped] {
            let mut life = resuming();
            life.apply(Event::ResumeEnds(Resume::GivenUp(GaveUp::TimedOut)));
            assert_eq!(life.ask_resume(), Ok(Request::Begin));
            life.apply(Event::ResumeBegins);
            row(
                life,
                Event::ResumeEnds(resume),
                State::Running,
                Reason::None,
                Ok(()),
                Upper::NotifyAndRelease,
                false,
            );
        }
    }

    #[test]
    fn a_device_with_a_fault() {
        let rows = [
            (
                Fault::NeedsReset,
                State::Failed,
                Reason::NeedsReset,
                Error::NeedsReset,
            ),
            (Fault::Reset, State::Unavailable, Reason::Reset, Error::Gone),
            (Fault::Gone, State::Unavailable, Reason::Gone, Error::Gone),
        ];
        for (fault, state, reason, error) in rows {
            let cases = [
                (stopping(), Event::StopEnds(Stop::Fault(fault))),
                (resuming(), Event::ResumeEnds(Resume::Fault(fault))),
                (stopped(), Event::Fault(fault)),
                (aborting(), Event::Fault(fault)),
            ];
            for (life, event) in cases {
                let requested = matches!(life.state(), State::Stopping | State::Resuming);
                let upper = match fault {
                    Fault::Reset => Upper::Release,
                    Fault::NeedsReset | Fault::Gone => Upper::BreakAndRelease,
                };
                let life = row(life, event, state, reason, Err(error), upper, false);
                assert_eq!(life.stats().failures, u64::from(requested));
            }
        }
    }

    #[test]
    fn a_stop_that_the_device_drops_is_told_to_the_next_resume() {
        let mut life = row(
            stopped(),
            Event::Dropped,
            State::Running,
            Reason::StopDropped,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!(life.stats().dropped, 1);
        assert_eq!(life.ask_resume(), Err(Error::Stale));
        assert_eq!(life.ask_resume(), Ok(Request::Already));
    }

    #[test]
    fn a_resume_that_finds_the_stop_dropped_says_so() {
        row(
            resuming(),
            Event::ResumeEnds(Resume::Dropped),
            State::Running,
            Reason::StopDropped,
            Err(Error::Stale),
            Upper::NotifyAndRelease,
            false,
        );
    }

    #[test]
    fn a_lease_that_ends_is_told_to_the_next_resume() {
        let mut life = row(
            resuming(),
            Event::LeaseEnds(Resume::Acknowledged),
            State::Running,
            Reason::LeaseExpired,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!(life.stats().lease_expiries, 1);
        assert_eq!(life.ask_resume(), Err(Error::Stale));
        assert_eq!(life.ask_resume(), Ok(Request::Already));
    }

    #[test]
    fn a_new_stop_is_not_blamed_for_the_one_that_lapsed() {
        let mut life = resuming();
        life.apply(Event::LeaseEnds(Resume::Acknowledged));
        life.apply(Event::StopBegins);
        life.apply(Event::StopEnds(Stop::Acknowledged));
        assert_eq!(life.ask_resume(), Ok(Request::Begin));
        life.apply(Event::ResumeBegins);
        life.apply(Event::ResumeEnds(Resume::Acknowledged));
        assert_eq!(life.ask_resume(), Ok(Request::Already));
    }

    #[test]
    fn a_stop_of_a_driver_that_is_not_ready() {
        row(
            stopping(),
            Event::StopEnds(Stop::NotReady),
            State::Running,
            Reason::None,
            Err(Error::NoDriver),
            Upper::Release,
            false,
        );
    }

    #[test]
    fn a_stop_that_never_reached_the_device() {
        for (why, error) in [
            (GaveUp::TimedOut, Error::Busy),
            (GaveUp::Killed, Error::Killed),
            (GaveUp::CalledOff, Error::CalledOff),
            (GaveUp::Leaving, Error::Gone),
        ] {
            let life = row(
                stopping(),
                Event::StopEnds(Stop::GivenUp {
                    why,
                    left: Left::Untouched,
                }),
                State::Running,
                Reason::None,
                Err(error),
                Upper::Release,
                false,
            );
            assert_eq!(life.stats().timeouts, 0);
        }
    }

    #[test]
    fn a_stop_that_never_began_leaves_an_earlier_one_watched() {
        for event in [
            Event::QuiesceFailed,
            Event::StopEnds(Stop::NotReady),
            Event::StopEnds(Stop::GivenUp {
                why: GaveUp::Killed,
                left: Left::Untouched,
            }),
        ] {
            let mut life = stopping();
            life.apply(Event::StopEnds(Stop::GivenUp {
                why: GaveUp::TimedOut,
                left: Left::Running,
            }));
            life.apply(Event::StopBegins);
            life.apply(event);
            assert_eq!((life.state(), life.is_watched()), (State::Running, true));
            life.apply(Event::StopBegins);
            life.apply(Event::StopEnds(Stop::Acknowledged));
            assert!(!life.is_watched());
        }
    }

    #[test]
    fn a_stop_of_what_can_not_be_held() {
        row(
            stopping(),
            Event::QuiesceFailed,
            State::Running,
            Reason::NoQuiesce,
            Err(Error::NotSupported),
            Upper::Release,
            false,
        );
    }

    #[test]
    fn every_look_at_a_watched_device() {
        let mut rolled_back = stopping();
        rolled_back.apply(Event::StopEnds(Stop::GivenUp {
            why: GaveUp::TimedOut,
            left: Left::Running,
        }));
        let mut unanswered = aborting();
        unanswered.apply(Event::AbortUnanswered);
        let mut not_resumed = resuming();
        not_resumed.apply(Event::ResumeEnds(Resume::GivenUp(GaveUp::TimedOut)));
        let mut unbound = rolled_back;
        unbound.apply(Event::Unbound);
        let mut pending_unanswered = pending();
        pending_unanswered.apply(Event::AbortUnanswered);
        let late = Look::Event(Event::LateAnswer);
        let (d, s) = (Protocol::DeviceStop, Protocol::Suspend);
        let cases = [
            (d, rolled_back, Look::End, Look::Again),
            (d, aborting(), Look::End, late),
            (d, unanswered, Look::End, late),
            (d, not_resumed, Look::Again, late),
            (d, unbound, Look::End, Look::Again),
            // It looks as if it ran until it has stopped: that proves nothing.
            (s, pending(), Look::End, Look::Again),
            (s, pending_unanswered, Look::End, Look::Again),
            (s, aborting(), Look::End, late),
            (s, not_resumed, Look::Again, late),
        ];
        for (protocol, life, stopped, running) in cases {
            assert!(life.is_watched(), "{life:?}");
            for value in 0..=255u8 {
                let status = Status(value);
                let expected = match status.fault() {
                    Some(_) if life.state() == State::Unavailable => Look::Again,
                    Some(fault) => Look::Event(Event::Fault(fault)),
                    None if status.shows_stopped(protocol) => stopped,
                    None if status.shows_running(protocol) => running,
                    None => Look::Again,
                };
                let look = { life }.look(status, protocol);
                assert_eq!(look, expected, "{life:?}, {value:#x}");
            }
        }
    }

    #[test]
    fn a_pending_stop_that_was_seen_is_over_when_the_device_runs() {
        let mut life = pending();
        let (stopped, running) = (Status(27), Status(15));
        assert_eq!(life.look(running, Protocol::Suspend), Look::Again);
        assert_eq!(life.look(stopped, Protocol::Suspend), Look::End);
        assert!(!life.is_pending());
        let late = Look::Event(Event::LateAnswer);
        assert_eq!(life.look(running, Protocol::Suspend), late);
        assert_eq!(life.look_after_end(true), late);
        assert_eq!(life.look_after_end(false), Look::Again);
    }

    #[test]
    fn a_pending_stop_is_adopted_or_waited_for() {
        let mut life = pending();
        assert_eq!(life.ask_stop(), Ok(Request::Adopt));
        life.apply(Event::StopBegins);
        life.apply(Event::StopEnds(Stop::Acknowledged));
        assert_eq!((life.state(), life.is_watched()), (State::Stopped, false));

        let mut life = pending();
        assert_eq!(life.ask_resume(), Ok(Request::Begin));
        life.apply(Event::ResumeBegins);
        let mut life = row(
            life,
            Event::ResumeEnds(Resume::Pending(GaveUp::TimedOut)),
            State::Aborting,
            Reason::StopTimeout,
            Err(Error::TimedOut),
            Upper::Hold,
            true,
        );
        assert!(life.is_pending());
        life.apply(Event::ResumeBegins);
        let life = row(
            life,
            Event::ResumeEnds(Resume::Acknowledged),
            State::Running,
            Reason::None,
            Ok(()),
            Upper::NotifyAndRelease,
            false,
        );
        assert_eq!(life.stats().late_acks, 1);
    }

    #[test]
    fn an_abort_is_given_up_after_ten_timeouts_but_no_less_than_10_s_and_no_more_than_2_min() {
        let s = 1_000_000;
        for (timeout, limit) in [(s / 1000, 10 * s), (3 * s, 30 * s), (600 * s, 120 * s)] {
            for life in [aborting(), pending()] {
                assert!(!life.is_overdue(limit - 1, timeout));
                assert!(life.is_overdue(limit, timeout));
            }
        }
        assert!(!running().is_overdue(u64::MAX, 1));
    }

    #[test]
    fn a_stop_that_comes_after_the_driver_has_gone_is_undone_without_a_change_of_state() {
        let mut life = aborting();
        life.apply(Event::Unbound);
        assert!(life.is_watched());
        assert_eq!(life.look_after_end(true), Look::Again);
        life.forget();
        assert!(!life.is_watched());
    }

    #[test]
    fn a_driver_comes_and_goes() {
        let life = row(
            Life::new(),
            Event::NotAvailable(Reason::NotOffered),
            State::Unavailable,
            Reason::NotOffered,
            Ok(()),
            Upper::Release,
            false,
        );
        let life = row(
            life,
            Event::Ready,
            State::Running,
            Reason::None,
            Ok(()),
            Upper::Release,
            false,
        );
        row(
            life,
            Event::Unbound,
            State::Unavailable,
            Reason::NoDriver,
            Ok(()),
            Upper::Release,
            false,
        );
    }
}
