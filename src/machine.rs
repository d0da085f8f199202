// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The life of one device: who may touch it when, and what comes of everything that happens to it.
//!
//! ```text
//!              unavailable     no driver, nothing negotiated, reset, gone
//!                 |  ^
//!  bound,         |  | unbound, reset, gone: from every state
//!  DRIVER_OK      v  |
//!               running <----------------------------------------------+
//!                 | stop                                               |
//!                 v                                                    |
//!              stopping ----- not asked yet, or called off (D) --------+
//!                 |    \                                               |
//!    acknowledged |     \ timed out, killed, called off                |
//!                 v      v                                             |
//!              stopped  aborting ---- acknowledged, and resumed -------+
//!  resume,        |      |    \                                        |
//!  lease ends,    |      |     \ abort limit                           |
//!  unbind         |      |      v                                      |
//!                 |      |    failed (stop_unanswered) -- the same ----+
//!                 |      |      |                                      |
//!                 |      |      | resume: waits for the stop first     |
//!                 v      v      v                                      |
//!                resuming ------------- acknowledged ------------------+
//!                 |     ^                                              |
//!     not in time |     | resume                                       |
//!                 v     |                                              |
//!                failed (resume_unanswered) ---- late answer ----------+
//! ```
//!
//! D is VIRTIO_F_DEVICE_STOP, S is VIRTIO_F_SUSPEND. Besides:
//!
//! * A device that needs a reset is *failed* (needs_reset), from every state, until it is reset.
//! * A stopped device that shows that it runs goes to *running*. If it shows SUSPEND with
//!   DRIVER_OK,
//!   it is on its way, and goes to *aborting*.
//! * One that is found to have stopped before it was asked goes from *stopping* to *resuming*; one
//!   that shows SUSPEND with DRIVER_OK is asked when it runs, or goes there when the stop ends.
//! * A resume that is not in time while a stop is pending leads back to where it came from.
//! * From *aborting*, another stop may wait for the one that is pending (S).
//! * Under S a device that has stopped, but does not resume, goes from *aborting* to *failed*
//!   (resume_unanswered): the driver above stays held.
//!
//! Two things are kept apart, in `phase.rs`. The *phase* is what people want of the device. The
//! *handshake* is what the device was asked for and has not answered. A phase may give up. The
//! handshake does not: a device that was asked to stop is looked at, in whatever phase, until it
//! shows that it has, it is reset, or it is gone. If nobody wants it stopped then, it is resumed.
//! So no device is left stopped by accident.
//!
//! The machine does nothing itself. Whoever has something to tell enters it, with the device's
//! `machine` lock held. It tells the machine what has happened (`ask.rs`: people; `quiescing.rs`:
//! the driver above; `handshake.rs`: the device; `world.rs` and `configure.rs`: the kernel;
//! `time.rs`: the clock), and carries out what [`Machine::next`] says until there is nothing left.
//! When it leaves, it arms the timer for [`Machine::deadline`], and the timer enters the machine
//! then. Nobody else touches the device.
//!
//! Pure: no locks, no I/O, no clock. Times are microseconds since any fixed time.

mod action;
mod ask;
mod configure;
mod handshake;
#[cfg(not(CONFIG_RUST))]
mod normal;
mod outcome;
mod phase;
mod quiescing;
mod settings;
#[cfg(test)]
mod tests;
mod ticket;
mod time;
mod world;

use super::field::Known;
use super::policy::Policy;
use super::state::{
    Error,
    Reason,
    State,
    Stats, //
};
use super::status::Protocol;
use action::Effects;
pub use action::{
    Action,
    Attempt, //
};
pub use configure::Permit;
pub use phase::Leaver;
use phase::{
    Above,
    Before,
    Driver,
    Handshake,
    Lost,
    Phase, //
};
pub use settings::{
    Limits,
    Settings,
    LIMITS, //
};
use ticket::Requests;
pub use ticket::{
    Asker,
    Holder,
    Ticket, //
};

/// A device.
#[derive(Clone, Debug)]
pub struct Machine {
    limits: &'static Limits,
    policy: Policy,
    settings: Settings,
    known: Known,
    driver: Driver,
    lost: Option<Lost>,
    phase: Phase,
    holder: Option<Holder>,
    handshake: Handshake,
    above: Above,
    /// Since when the device shows what can't be an answer.
    nonsense: Option<u64>,
    /// When the status is to be read next, if it is.
    look_at: u64,
    /// Somebody wants to know whether the stop stands.
    look_wanted: bool,
    requests: Requests,
    effects: Effects,
    /// Somebody has the device reset: no stop may begin.
    refuses_stops: bool,
    /// So many tasks write to the configuration space just now, or reset a virtqueue.
    configuring: u32,
    /// User space was told of a stop, and not of its end.
    announced: bool,
    /// Nothing is quiesced before user space was told of others that are to stop, too.
    holds_back: bool,
    /// The last stop has ended, not by a resume, and nobody was told.
    lapsed: bool,
    generation: u64,
    /// The first access to the status of the request that is being carried out, and the reads
    /// since.
    access_since: Option<u64>,
    reads: u32,
    stats: Stats,
}

impl Machine {
    /// A device without a driver. `generation`: never the same for two machines in one boot.
    pub const fn new(
        policy: Policy,
        settings: Settings,
        generation: u64,
        limits: &'static Limits,
        known: Known,
    ) -> Self {
        Self {
            limits,
            policy,
            settings,
            known,
            driver: Driver::None,
            lost: None,
            phase: Phase::Rest(Reason::None),
            holder: None,
            handshake: Handshake::Idle,
            above: Above::Working,
            nonsense: None,
            look_at: 0,
            look_wanted: false,
            requests: Requests::new(),
            effects: Effects::NONE,
            refuses_stops: false,
            configuring: 0,
            announced: false,
            holds_back: false,
            lapsed: false,
            generation,
            access_since: None,
            reads: 0,
            stats: Stats::NONE,
        }
    }

    /// The state, and why.
    pub fn state(&self) -> (State, Reason) {
        match self.phase {
            Phase::Rest(note) => self.at_rest(note),
            Phase::Quiescing { .. } | Phase::Stopping { .. } => (State::Stopping, Reason::None),
            Phase::Stopped { .. } => (State::Stopped, Reason::None),
            Phase::Resuming { before, .. } => {
                let reason = match before {
                    Before::Stopped | Before::Found => Reason::None,
                    Before::Aborting { dropped: true, .. } => Reason::StopDropped,
                    Before::Aborting { .. } => Reason::StopTimeout,
                    Before::StopUnanswered { .. } => Reason::StopUnanswered,
                    Before::ResumeUnanswered => Reason::ResumeUnanswered,
                };
                (State::Resuming, reason)
            }
            Phase::Aborting { dropped: false, .. } => (State::Aborting, Reason::StopTimeout),
            Phase::Aborting { dropped: true, .. } => (State::Aborting, Reason::StopDropped),
            Phase::StopUnanswered { .. } => (State::Failed, Reason::StopUnanswered),
            Phase::ResumeUnanswered => (State::Failed, Reason::ResumeUnanswered),
        }
    }

    fn at_rest(&self, note: Reason) -> (State, Reason) {
        let unavailable = |reason| (State::Unavailable, reason);
        if self.driver != Driver::Bound {
            return unavailable(Reason::NoDriver);
        }
        match self.lost {
            Some(Lost::NeedsReset) => return (State::Failed, Reason::NeedsReset),
            Some(Lost::Reset) => return unavailable(Reason::Reset),
            Some(Lost::Gone) => return unavailable(Reason::Gone),
            None => {}
        }
        match self.known.negotiated {
            Err(reason) => unavailable(reason),
            Ok(_) if !self.known.is_driver_ok => unavailable(Reason::Reset),
            Ok(protocol) if !self.policy.permits(protocol, self.settings.force) => {
                unavailable(Reason::TypeRefused)
            }
            Ok(_) => (State::Running, note),
        }
    }

    /// Counts every change of the state. Between two looks that have found the device stopped and
    /// read the same, it has not moved.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether what the device shows can be an answer. Else nobody can tell whether it stands
    /// still.
    pub const fn is_answering(&self) -> bool {
        self.nonsense.is_none()
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the administrator has chosen.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// From the next request on; `force` from now on, but for a stop that stands.
    pub fn set(&mut self, settings: Settings) {
        self.noticing(|machine| machine.settings = settings);
    }

    /// What is negotiated.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self.known.negotiated {
            Ok(protocol) => Some(protocol),
            Err(_) => None,
        }
    }

    /// The epoch that accesses to the status are meant for.
    pub const fn epoch(&self) -> u64 {
        self.known.epoch
    }

    /// Whether nothing can be expected of the device before its next reset.
    pub const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether the driver above is held, or not yet let go.
    pub fn is_quiesced(&self) -> bool {
        self.above != Above::Working
    }

    /// Whether the system must not sleep: what is above would wait for ever, or is about to, or the
    /// driver for what it has given a device that has stopped.
    pub fn keeps_awake(&self) -> bool {
        self.is_quiesced()
            || self.state().0 == State::Stopping
            || matches!(self.phase, Phase::Resuming { .. })
            || (self.phase == Phase::ResumeUnanswered && !self.is_only_due())
    }

    /// Whether somebody has to look at the device, so that the module has to stay. A stop that
    /// stands is no such case: an unload ends it.
    pub fn is_busy(&self) -> bool {
        match self.phase {
            Phase::Rest(_) => self.handshake != Handshake::Idle && self.lost.is_none(),
            Phase::Stopped { .. } => false,
            _ => true,
        }
    }

    /// Whether anybody wants the device to be stopped.
    const fn is_wanted(&self) -> bool {
        matches!(
            self.phase,
            Phase::Quiescing { .. } | Phase::Stopping { .. } | Phase::Stopped { .. }
        )
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.look_wanted = false;
        self.holds_back = false;
        if !self.is_wanted() {
            self.holder = None;
        }
    }

    /// Nobody wants anything of the device any more: the driver above is let go.
    fn rest(&mut self, note: Reason) {
        self.enter(Phase::Rest(note));
        self.unquiesce();
    }

    fn unquiesce(&mut self) {
        if self.above == Above::Quiesced {
            self.above = Above::Unquiescing;
            self.effects.unquiesce = true;
        }
    }

    /// A change that may show in the state.
    fn noticing(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.state();
        change(self);
        if self.state() != before {
            self.generation += 1;
        }
    }

    /// What to do now; nothing before the deadline, or before something happens.
    pub fn next(&mut self, now: u64) -> Option<Action> {
        loop {
            if let Some(action) = self.effects.next().or_else(|| self.access(now)) {
                return Some(action);
            }
            if !self.expire(now) {
                return self.announce();
            }
        }
    }

    fn announce(&mut self) -> Option<Action> {
        let over = self.above == Above::Working
            && matches!(self.phase, Phase::Rest(_) | Phase::StopUnanswered { .. });
        if over && core::mem::take(&mut self.announced) {
            return Some(Action::Announce(self.state().0));
        }
        None
    }

    /// The driver above was let go.
    pub fn unquiesced(&mut self) {
        if self.above == Above::Unquiescing {
            self.above = Above::Working;
        }
    }

    fn answer(&mut self, by: Ticket, result: Result<(), Error>) {
        self.requests.answer(by, result);
    }
}
