// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Everything that can happen to one device, in every order: the machine and the status field as
//! they are shipped, a device of either protocol that may do whatever a device can do, the virtio
//! core, two askers, of whom one is a holder and may go, whoever unbinds, binds, unplugs, or has
//! the system sleep; and time.
//!
//! What the kernel part does is here in a few lines: it takes a step of the machine at a time, and
//! is entered by whoever has something to tell it, or by its timer.

use super::module::field::Field;
use super::module::machine::{
    Action,
    Asker,
    Attempt,
    Holder,
    Leaver,
    Limits,
    Machine,
    Permit,
    Settings,
    Ticket, //
};
use super::module::policy::Policy;
use super::module::state::{
    Reason,
    State, //
};
use super::module::status::{
    Access,
    Protocol,
    Seen,
    Status, //
};
use device::{
    Device,
    Pending,
    Shows,
    Speed,
    Window,
    READY, //
};
use stateright::{
    Checker,
    HasDiscoveries,
    Model,
    Property, //
};

mod device;

/// The time at which everything happens: what is known of times is moved instead.
const NOW: u64 = 1000;
const TIMEOUT: u64 = 2;
const LEASE: u64 = 5;
const HOLDER: Holder = Holder {
    id: 1,
    timeout_us: None,
    lease_us: Some(LEASE),
};

/// So short that every order of what they limit comes about.
static LIMITS: Limits = Limits {
    wait: (1, 1),
    watch: (2, 2),
    abort: (4, 4),
    leave: 2,
};

/// What is in the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub busy: bool,
    pub sleep_and_force: bool,
    pub core: bool,
    pub drivers: bool,
    pub nonsense: bool,
    pub holder: bool,
    /// It is another module, whose stops have no lease.
    pub holder_has_no_lease: bool,
    pub writer: bool,
    /// A device that does not resume by the text.
    pub wants_cleared: bool,
}

impl Bounds {
    pub const ALL: Self = Self {
        busy: true,
        sleep_and_force: true,
        core: true,
        drivers: true,
        nonsense: true,
        holder: true,
        holder_has_no_lease: false,
        writer: true,
        wants_cleared: false,
    };
}

/// A model of one device.
pub struct Lifecycle {
    pub protocol: Protocol,
    pub bounds: Bounds,
}

/// What the virtio core is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Core {
    Idle,
    /// It has read this, and is about to write it back (`virtio_add_status`).
    Adding(u8),
    Resetting,
    /// The reset is over, and nothing negotiated.
    Reset,
}

/// Where the driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Driver {
    Bound,
    /// It is being unbound; the device may go with it.
    Leaving(bool),
    None,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    machine: Machine,
    field: Field,
    device: Device,
    core: Core,
    driver: Driver,
    /// The holder's stops have no lease.
    no_lease: bool,
    /// The requests of the two askers.
    tickets: [Option<Ticket>; 2],
    /// Somebody waits, without the lock: for user space to be told, or for those who were about to
    /// give the device requests.
    settling: Option<(u64, bool)>,
    /// Whether the driver above is held, by what was done to it; and whether somebody is letting it
    /// go.
    held: bool,
    /// What comes of the next attempt to hold it.
    attempt: Attempt,
    letting_go: bool,
    /// Somebody writes to the configuration space.
    configuring: bool,
    asleep: bool,
    /// The last answer was that the device has stopped, or is about to run.
    seen_stopped: bool,
    /// A reset comes and goes after the next access, with the device not brought up again.
    reset_soon: bool,
    /// Somebody has seen the device stopped, and the generation is still the same.
    same: bool,
    breach: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    TimePasses,
    Stop(usize),
    Resume(usize),
    RootResumes,
    Killed(usize),
    Closed,
    Look,
    OthersAnnounced,
    Settled,
    Disturbed,
    Unquiesced,
    Quiesces(Attempt),
    Configures,
    Configured,
    Force(bool),
    Sleep(bool),
    Acts,
    Forgets,
    Drops,
    NeedsReset,
    ResetsItself,
    Shows(Shows),
    CoreReads,
    CoreWrites,
    ResetBegins,
    ResetEnds,
    ResetSoon,
    DriverOk,
    Unbind,
    Unplug,
    Gone,
    Bind,
}

impl World {
    fn new(protocol: Protocol, speed: Speed) -> Self {
        let mut device = Device::new(protocol, speed);
        let mut field = Field::new();
        field.negotiate(Ok(protocol));
        field.write_for_core(&Window::of(&mut device), Status(READY));
        let settings = Settings {
            timeout_us: TIMEOUT,
            lease_us: LEASE,
            force: true,
        };
        // A type that needs force.
        let mut machine = Machine::new(Policy::of(5), settings, 0, &LIMITS, field.known());
        machine.bound();
        Self {
            machine: machine.moved(NOW, NOW),
            field,
            device,
            core: Core::Idle,
            driver: Driver::Bound,
            no_lease: false,
            tickets: [None; 2],
            settling: None,
            held: false,
            attempt: Attempt::Done,
            letting_go: false,
            configuring: false,
            asleep: false,
            seen_stopped: false,
            reset_soon: false,
            same: false,
            breach: None,
        }
    }

    fn breaches(&mut self, what: &'static str) {
        self.breach.get_or_insert(what);
    }

    fn state(&self) -> State {
        self.machine.state().0
    }

    /// Whoever enters the machine.
    fn run(&mut self) {
        for _ in 0..100 {
            self.machine.sync(self.field.known());
            let Some(action) = self.machine.next(NOW) else {
                return self.collect();
            };
            self.carry_out(action);
            if matches!(action, Action::Access(_)) && core::mem::take(&mut self.reset_soon) {
                self.reset();
                self.field.reset_ends();
                self.core = Core::Reset;
            }
        }
        self.breaches("the machine does not come to rest");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Quiesce => {
                // What is about to be let go is taken back.
                let attempt = if self.held {
                    Attempt::Done
                } else {
                    self.attempt
                };
                if attempt == Attempt::Done {
                    self.held = true;
                    self.letting_go = false;
                }
                self.machine.quiesced(NOW, attempt);
            }
            Action::AnnounceStop(generation) => {
                if self.held && !self.letting_go {
                    self.breaches("told of a stop with the driver above held");
                }
                self.settling = Some((generation, true));
            }
            Action::Settle(generation) => self.settling = Some((generation, false)),
            Action::Access(access) => {
                let pending = self.device.pending;
                let window = Window::of(&mut self.device);
                let answer = self.field.access(&window, self.machine.epoch(), access);
                let asked = pending != self.device.pending && self.device.may_stop();
                if self.configuring && asked && self.suspends() {
                    self.breaches("asked to suspend during a write to the configuration space");
                }
                if access != Access::Stop {
                    self.asks_for_nothing(pending, access != Access::Read);
                }
                let before = self.machine.state();
                let present = self.device.shows != Shows::Nothing;
                self.machine.answered(NOW, answer, present);
                match answer.map(|answer| answer.seen) {
                    Ok(Seen::Stopped | Seen::Between) => self.seen_stopped = true,
                    Ok(Seen::Running) => self.seen_stopped = false,
                    _ => {}
                }
                let nonsense =
                    answer.is_ok_and(|answer| matches!(answer.seen, Seen::Ones | Seen::Garbage));
                if nonsense && present && self.machine.state() != before {
                    self.breaches("a value that can't be an answer has changed something");
                }
            }
            Action::TellStopped => {
                if !self.held {
                    self.breaches("stopped, with the driver above working");
                }
            }
            Action::BreakVirtqueues => {}
            Action::NotifyVirtqueues => {
                if self.field.lasts(self.machine.epoch()) {
                    if self.device.status == 0 && self.core == Core::Reset {
                        self.breaches("notified of virtqueues that are gone");
                    }
                    self.device.is_notified();
                }
            }
            Action::Unquiesce => {
                if !self.held || self.letting_go {
                    self.breaches("let go twice");
                }
                let stopped = self.seen_stopped;
                let pending = self.device.protocol == Protocol::Suspend && self.device.may_stop();
                let given_up = matches!(self.state(), State::Failed | State::Unavailable);
                if (stopped || pending) && !given_up && self.field.lasts(self.machine.epoch()) {
                    self.breaches("let go before it runs");
                }
                self.letting_go = true;
            }
            Action::Announce(state) => {
                let over = matches!(state, State::Running | State::Failed | State::Unavailable);
                if !over || self.held {
                    self.breaches("told of an end that is none");
                }
            }
        }
    }

    /// Whether the device suspends, is suspended, or resumes, as far as the driver can know.
    fn suspends(&self) -> bool {
        self.device.protocol == Protocol::Suspend
            && !self.is_lost()
            && (self.device.has_stopped() || self.device.pending != Pending::Nothing)
    }

    /// What was written asks for no stop, and for no resume if that is not meant.
    fn asks_for_nothing(&mut self, before: Pending, resume: bool) {
        let now = self.device.pending;
        // Only a reset helps then, whatever it is asked for.
        let lost = self.device.status & Status::NEEDS_RESET != 0;
        let stop = now == Pending::Stop && self.state() != State::Stopping;
        if now != before && !lost && (stop || now == Pending::Resume && !resume) {
            self.breaches("asked for what nobody wants");
        }
    }

    fn collect(&mut self) {
        for ticket in &mut self.tickets {
            if ticket.is_some_and(|ticket| self.machine.take_answer(ticket).is_some()) {
                *ticket = None;
            }
        }
    }

    fn asker(&self, at: usize) -> Asker {
        if at == 0 {
            Asker::Anybody
        } else {
            Asker::Holder(Holder {
                lease_us: HOLDER.lease_us.filter(|_| !self.no_lease),
                ..HOLDER
            })
        }
    }

    fn reset(&mut self) {
        self.field.reset_begins();
        self.device.reset();
        self.shows_what_it_does();
        self.seen_stopped = false;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::TimePasses => {
                if let Some(deadline) = self.machine.deadline() {
                    let generation = self.machine.generation();
                    let known = self.field.known().epoch;
                    self.machine = self.machine.moved(deadline.max(NOW), NOW);
                    debug_assert!(generation == 0 && known <= 1);
                }
            }
            Step::Stop(at) => {
                let asker = self.asker(at);
                self.machine.look(NOW);
                self.run();
                let ask = self.machine.ask_stop(NOW, asker, self.asleep);
                self.slot(at, ask.ok().flatten());
            }
            Step::Resume(at) => {
                let asker = self.asker(at);
                let ask = self.machine.ask_resume(NOW, asker, None);
                self.slot(at, ask.ok().flatten());
            }
            Step::RootResumes => {
                let ask = self.machine.ask_resume(NOW, Asker::Root, None);
                self.slot(0, ask.ok().flatten());
            }
            Step::Killed(at) => {
                if let Some(ticket) = self.tickets[at] {
                    self.machine.killed(NOW, ticket);
                }
            }
            Step::Closed => self.machine.closed(NOW, HOLDER.id),
            Step::Look => {
                self.machine.look(NOW);
                self.run();
                if self.state() == State::Stopped && self.machine.is_answering() {
                    if self.same && self.device.moved {
                        self.breaches("the same generation, but it has moved");
                    }
                    self.same = true;
                    self.device.moved = false;
                }
            }
            Step::Settled => match self.settling.take() {
                Some((generation, true)) => self.machine.announced(NOW, generation),
                Some((generation, false)) => self.machine.settled(NOW, generation, true),
                None => {}
            },
            Step::OthersAnnounced => {
                if let Some(ticket) = self.tickets[1] {
                    self.machine.others_announced(NOW, ticket);
                }
            }
            Step::Disturbed => {
                if let Some((generation, false)) = self.settling.take() {
                    self.machine.disturbed(NOW, generation);
                }
            }
            Step::Unquiesced => {
                self.letting_go = false;
                self.held = false;
                self.machine.unquiesced();
            }
            Step::Quiesces(attempt) => self.attempt = attempt,
            Step::Configures => {
                if self.machine.configure() == Permit::Granted {
                    self.configuring = true;
                    let given_up = self.machine.state() == (State::Failed, Reason::StopUnanswered);
                    if self.suspends() && !given_up {
                        self.breaches("the configuration space is written while it is suspended");
                    }
                }
            }
            Step::Configured => {
                self.configuring = false;
                self.machine.configured();
            }
            Step::Force(force) => {
                let settings = self.machine.settings();
                self.machine.set(Settings { force, ..settings });
            }
            Step::Sleep(asleep) => self.asleep = asleep,
            Step::Acts => {
                self.device.acts();
                self.shows_what_it_does();
            }
            Step::Forgets => self.device.pending = Pending::Nothing,
            Step::Drops => {
                self.device.runs();
                self.shows_what_it_does();
            }
            Step::NeedsReset => self.device.status |= Status::NEEDS_RESET,
            Step::ResetsItself => {
                self.device.reset();
                self.shows_what_it_does();
            }
            Step::Shows(shows) => self.device.shows = shows,
            Step::CoreReads => self.core = Core::Adding(self.device.status | 1),
            Step::CoreWrites => {
                if let Core::Adding(status) = self.core {
                    let pending = self.device.pending;
                    let window = Window::of(&mut self.device);
                    self.field.write_for_core(&window, Status(status));
                    self.asks_for_nothing(pending, false);
                }
                self.core = Core::Idle;
            }
            Step::ResetBegins => {
                self.reset();
                self.device.resetting = true;
                self.core = Core::Resetting;
            }
            Step::ResetEnds => {
                self.device.resetting = false;
                self.field.reset_ends();
                self.core = Core::Reset;
            }
            Step::ResetSoon => self.reset_soon = true,
            Step::DriverOk => self.negotiate(),
            Step::Unbind => {
                self.driver = Driver::Leaving(false);
                self.machine.leaves(NOW, Leaver::Driver);
            }
            Step::Unplug => {
                self.driver = Driver::Leaving(true);
                self.machine.leaves(NOW, Leaver::Device);
            }
            Step::Gone => {
                let for_good = self.driver == Driver::Leaving(true);
                self.driver = if for_good {
                    Driver::Removed
                } else {
                    Driver::None
                };
                self.reset();
                self.field.reset_ends();
                self.core = Core::Idle;
                self.machine.sync(self.field.known());
                self.machine.unbound();
            }
            Step::Bind => {
                self.driver = Driver::Bound;
                self.machine.binding();
                self.negotiate();
                self.machine.sync(self.field.known());
                self.machine.bound();
            }
        }
        // Neither the device nor the virtio core enters the machine: its timer will.
        let outside = matches!(
            step,
            Step::Acts
                | Step::Forgets
                | Step::Drops
                | Step::NeedsReset
                | Step::ResetsItself
                | Step::Shows(_)
                | Step::Quiesces(_)
                | Step::CoreReads
                | Step::CoreWrites
                | Step::ResetBegins
                | Step::ResetEnds
                | Step::ResetSoon
                | Step::DriverOk
        );
        if !outside {
            self.run();
        }
        if let Some(breach) = self.device.breach {
            self.breaches(breach);
        }
        let generation = self.machine.generation();
        self.same &= generation == 0;
        // Another one's end is of no use to anybody.
        let still = self.settling.filter(|&(at, _)| at == generation);
        self.settling = still.map(|(_, announces)| (0, announces));
        self.field = self.field.in_epoch(u64::from(!self.knows()));
        self.machine = self.machine.moved(NOW, NOW);
    }

    fn shows_what_it_does(&mut self) {
        if self.device.shows == Shows::Both {
            self.device.shows = Shows::Status;
        }
    }

    fn slot(&mut self, at: usize, ticket: Option<Ticket>) {
        if ticket.is_some() {
            self.tickets[at] = ticket;
        }
    }

    fn negotiate(&mut self) {
        self.core = Core::Idle;
        self.device.shows = Shows::Status;
        self.device.status = READY & !Status::DRIVER_OK;
        self.field.negotiate(Ok(self.device.protocol));
        let window = Window::of(&mut self.device);
        self.field.write_for_core(&window, Status(READY));
    }

    /// Whether the driver's own machine knows of the last reset.
    fn knows(&self) -> bool {
        self.machine.epoch() == self.field.known().epoch
    }

    /// Whether nothing can be expected of the device.
    fn is_lost(&self) -> bool {
        matches!(self.driver, Driver::None | Driver::Removed)
            || matches!(
                self.machine.state(),
                (State::Failed, Reason::NeedsReset)
                    | (State::Unavailable, Reason::Reset | Reason::Gone)
            )
            || self.machine.is_lost()
            || !self.knows()
    }

    /// Nobody wants anything, and the device is left running.
    fn is_well(&self) -> bool {
        let above = !self.held && !self.machine.is_waiting();
        above && (self.is_lost() || !self.device.has_stopped() && !self.device.missed)
    }

    /// The device does what it was asked for, time passes, and nobody asks for anything.
    fn ends_well(&self) -> bool {
        let mut world = self.clone();
        world.attempt = Attempt::Done;
        for _ in 0..40 {
            if world.is_well() && !world.device.may_stop() {
                return world.breach.is_none();
            }
            if world.state() == State::Stopped && world.machine.deadline().is_none() {
                return true;
            }
            match world.core {
                Core::Adding(_) => world.take(Step::CoreWrites),
                Core::Resetting => world.take(Step::ResetEnds),
                Core::Reset => world.take(Step::DriverOk),
                Core::Idle => {}
            }
            if matches!(
                world.device.shows,
                Shows::Ones | Shows::Garbage | Shows::Both
            ) {
                world.take(Step::Shows(Shows::Status));
            }
            world.take(Step::Acts);
            if world.settling.is_some() {
                world.take(Step::Settled);
            }
            if world.letting_go {
                world.take(Step::Unquiesced);
            }
            world.take(Step::TimePasses);
        }
        false
    }

    /// Whether somebody will look at a device that has stopped, or may.
    fn is_looked_at(&self) -> bool {
        let stands = self.device.has_stopped() || self.device.may_stop();
        let for_ever = self.no_lease
            && self.state() == State::Stopped
            && self.machine.holder() == Some(HOLDER.id);
        !stands || for_ever || self.is_lost() || self.machine.deadline().is_some()
    }

    /// Whether whoever waits is answered when its time is over, if not before.
    fn answers_in_time(&self) -> bool {
        let longest = NOW + TIMEOUT + 1;
        !self.machine.is_waiting()
            || !self.knows()
            || self.machine.deadline().is_some_and(|at| at <= longest)
    }
}

impl Model for Lifecycle {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        [Speed::Any, Speed::AtOnce, Speed::InBetween]
            .map(|speed| {
                let mut world = World::new(self.protocol, speed);
                world.device.wants_cleared = self.bounds.wants_cleared;
                world.no_lease = self.bounds.holder_has_no_lease;
                world
            })
            .to_vec()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.breach.is_some() || world.driver == Driver::Removed {
            return;
        }
        let bounds = self.bounds;
        let mut may = |condition: bool, step: Step| {
            if condition {
                steps.push(step);
            }
        };
        let device = &world.device;
        let bound = world.driver == Driver::Bound;
        let quiet = world.core == Core::Idle;
        let normal = device.shows == Shows::Status;
        let has_driver = world.driver != Driver::None;
        may(
            world.machine.deadline().is_some() || !world.knows(),
            Step::TimePasses,
        );
        for at in 0..if bounds.holder { 2 } else { 1 } {
            let idle = world.tickets[at].is_none();
            may(idle, Step::Stop(at));
            may(idle, Step::Resume(at));
            may(!idle, Step::Killed(at));
        }
        may(
            bounds.holder && world.tickets[0].is_none(),
            Step::RootResumes,
        );
        may(bounds.holder, Step::Closed);
        may(
            bounds.holder && world.tickets[1].is_some(),
            Step::OthersAnnounced,
        );
        may(true, Step::Look);
        may(world.settling.is_some(), Step::Settled);
        let settles = matches!(world.settling, Some((_, false)));
        may(bounds.busy && settles, Step::Disturbed);
        may(world.letting_go, Step::Unquiesced);
        if bounds.writer {
            may(!world.configuring, Step::Configures);
            may(world.configuring, Step::Configured);
        }
        if bounds.busy {
            for attempt in [Attempt::Done, Attempt::NotNow, Attempt::NotFound] {
                may(
                    !world.held && world.attempt != attempt,
                    Step::Quiesces(attempt),
                );
            }
        }
        if bounds.sleep_and_force {
            let force = world.machine.settings().force;
            may(true, Step::Force(!force));
            may(
                world.asleep || !world.machine.keeps_awake(),
                Step::Sleep(!world.asleep),
            );
        }
        let acts = !matches!(device.pending, Pending::Nothing | Pending::SuspendAgain);
        may(acts, Step::Acts);
        may(device.pending == Pending::CalledOff, Step::Forgets);
        // Under VIRTIO_F_SUSPEND, a stop that the device ends before it has shown it looks as if it
        // were pending for ever: nothing can be done about that.
        let shown = device.protocol == Protocol::DeviceStop || world.seen_stopped;
        may(normal && device.has_stopped() && shown, Step::Drops);
        let works = normal && quiet && has_driver && device.status & Status::NEEDS_RESET == 0;
        may(works && device.status != 0, Step::NeedsReset);
        may(works && device.status != 0, Step::ResetsItself);
        let both = device.protocol == Protocol::Suspend && device.pending == Pending::Resume;
        may(normal && both, Step::Shows(Shows::Both));
        if bounds.nonsense && has_driver && device.shows != Shows::Nothing {
            for shows in [Shows::Status, Shows::Ones, Shows::Garbage, Shows::Nothing] {
                may(device.shows != shows && quiet, Step::Shows(shows));
            }
        }
        if bounds.core && bound {
            may(quiet && normal, Step::CoreReads);
            may(matches!(world.core, Core::Adding(_)), Step::CoreWrites);
            may(quiet, Step::ResetBegins);
            may(quiet && !world.reset_soon, Step::ResetSoon);
            may(world.core == Core::Resetting, Step::ResetEnds);
            may(world.core == Core::Reset, Step::DriverOk);
        }
        if bounds.drivers {
            may(bound && quiet, Step::Unbind);
            may(bound && quiet, Step::Unplug);
            let left = matches!(world.driver, Driver::Leaving(_)) && world.machine.has_left();
            may(left, Step::Gone);
            may(world.driver == Driver::None, Step::Bind);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("somebody looks", |_, world: &World| world.is_looked_at()),
            Property::always("ends well", |_, world: &World| world.ends_well()),
            Property::always("no breach", |_, world: &World| world.breach.is_none()),
            Property::always(
                "nothing is held while the system sleeps",
                |_, world: &World| !world.asleep || !world.held,
            ),
            Property::always("answered in time", |_, world: &World| {
                world.answers_in_time()
            }),
            Property::sometimes("comes to stopped", |_, world: &World| {
                world.state() == State::Stopped
            }),
            Property::sometimes("comes to failed", |_, world: &World| {
                world.machine.state() == (State::Failed, Reason::StopUnanswered)
            }),
        ]
    }
}

/// What a check has come to.
pub struct Result {
    pub states: usize,
    pub depth: usize,
    /// The properties that do not hold, or what exactly was done wrong, and the steps that lead
    /// there.
    pub violated: Vec<(String, String)>,
}

/// Checks everything within `bounds`, or until something does not hold.
pub fn check(protocol: Protocol, bounds: Bounds) -> Result {
    let model = Lifecycle { protocol, bounds };
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut violated = Vec::new();
    for property in checker.model().properties() {
        let Some(path) = checker.discovery(property.name) else {
            continue;
        };
        if property.name.starts_with("comes to") {
            continue;
        }
        let breach = path.last_state().breach.unwrap_or(property.name);
        violated.push((breach.to_owned(), path.to_string()));
    }
    for property in checker.model().properties() {
        if property.name.starts_with("comes to")
            && checker.discovery(property.name).is_none()
            && violated.is_empty()
        {
            violated.push((property.name.to_owned(), String::new()));
        }
    }
    Result {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violated,
    }
}
