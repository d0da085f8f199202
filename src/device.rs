// SPDX-License-Identifier: GPL-2.0-only

//! One virtio device: joins its state, the driver above, and the handshake.
//!
//! Two locks. `transition` is held over one stop or resume, and by whoever ends one; it is never
//! taken by what the virtio core calls. `status` is a leaf, held for one access to the status field,
//! or for the flags and the state; nobody waits for the device with it held. Lock order: the parent
//! device's lock, the device's, `transition`, what [`Held`] takes, `status`.
//!
//! The status field is in [`crate::field`], the state in [`crate::state`], each behind `status`.

use crate::{
    field::{
        self,
        Field, //
    },
    handshake::{
        self,
        Cost,
        Cut,
        Port,
        Resume,
        Stop, //
    },
    lease::{
        self,
        Lease, //
    },
    negotiate::{
        self,
        Allowed,
        Offer,
        VIRTIO_F_DEVICE_STOP,
        VIRTIO_F_NOTIFICATION_DATA,
        VIRTIO_F_SUSPEND, //
    },
    policy::Policy,
    quiesce::{
        Held,
        NotFound, //
    },
    state::{
        self,
        Error,
        Event,
        Life,
        Outcome,
        Reason,
        Request,
        State,
        Upper, //
    },
    status::{
        Fault,
        Protocol,
        Status, //
    },
    sys::{
        feature_reg::CommonConfig,
        lock::{
            sleep_killable,
            NoIo, //
        },
        module::ModuleRef,
        shadow::{
            Features,
            Hooks,
            Transport, //
        },
        sysfs::Poll,
        work, //
    },
    watch::{
        self,
        Watch, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex,
        MutexGuard,
        SetOnce, //
    },
    time::{
        Instant,
        Jiffies,
        Monotonic, //
    },
    workqueue::{
        new_delayed_work,
        DelayedWork,
        HasDelayedWork,
        WorkItem, //
    }, //
};

/// How long a request may take unless the administrator says otherwise.
const TIMEOUT_MS: u32 = 1000;
/// How long an unbind, an unplug or an unload waits for the device to resume, at most.
const LEAVE_TIMEOUT_US: u64 = 5_000_000;
/// How often a resume looks whether the stop that it calls off has ended.
const CALL_OFF_WAIT_US: u64 = 1000;
/// How often somebody tries who meets another one that looks at the device.
const LOOK_WAIT_US: u64 = 100;

/// One device.
#[pin_data]
pub(crate) struct Device {
    transport: Transport,
    common: Option<CommonConfig>,
    environment: Environment,
    timeout_ms: Atomic<u32>,
    lease_ms: Atomic<u32>,
    /// By bit 39 this device means VIRTIO_F_DEVICE_STOP.
    accept_bit39: AtomicFlag,
    /// Whoever waits for a change of the state waits here.
    poll: SetOnce<Poll>,
    #[pin]
    transition: Mutex<Transition>,
    #[pin]
    status: Mutex<Inner>,
    #[pin]
    pub(crate) lease_work: DelayedWork<Self, { lease::WORK }>,
    #[pin]
    pub(crate) watch_work: DelayedWork<Self, { watch::WORK }>,
}

/// What all devices share.
#[derive(Clone)]
pub(crate) struct Environment {
    /// For what is done later.
    pub(crate) queue: Arc<work::Queue>,
    /// This module.
    pub(crate) module: &'static ThisModule,
    /// Which features may be accepted (the parameters).
    pub(crate) allowed: Allowed,
    /// The system is going to sleep, or is asleep: no stop may begin.
    pub(crate) asleep: Arc<AtomicFlag>,
}

/// What belongs to a stop, from its beginning to its end.
pub(crate) struct Transition {
    held: Option<Held>,
    pub(crate) lease: Option<Lease>,
    pub(crate) watch: Option<Watch>,
}

struct Inner {
    life: Life,
    field: Field,
    /// What this module has accepted since the driver was bound, resets included.
    accepted: Option<Protocol>,
    /// The driver is bound, not just being bound.
    bound: bool,
    /// The administrator wants the device to be stopped although its type should not be.
    force: bool,
    leaving: Leaving,
    /// Somebody wants the stop that is being waited for to end.
    call_off: bool,
    /// Nothing is to be accepted.
    decline: bool,
    last_stop: Option<Cost>,
    last_resume: Option<Cost>,
}

/// Whether the driver, the device or this module is about to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The driver is; another one may come.
    Driver,
    /// The device or this module is, and does not come back.
    ForGood,
}

/// What can be told of a device.
pub(crate) struct Snapshot {
    /// Its state.
    pub(crate) life: Life,
    /// What is negotiated.
    pub(crate) protocol: Option<Protocol>,
    /// What the last stop took.
    pub(crate) last_stop: Option<Cost>,
    /// What the last resume took.
    pub(crate) last_resume: Option<Cost>,
}

impl Device {
    /// A device on the bus.
    pub(crate) fn new(transport: Transport, environment: Environment) -> Result<Arc<Self>> {
        let common = CommonConfig::map(transport.device());
        Arc::pin_init(
            pin_init!(Self {
                common,
                environment,
                transport,
                timeout_ms: Atomic::new(TIMEOUT_MS),
                lease_ms: Atomic::new(lease::DEFAULT_MS),
                accept_bit39: AtomicFlag::new(false),
                poll: SetOnce::new(),
                transition <- new_mutex!(Transition {
                    held: None,
                    lease: None,
                    watch: None,
                }),
                status <- new_mutex!(Inner {
                    life: Life::new(),
                    field: Field::new(),
                    accepted: None,
                    bound: false,
                    force: false,
                    leaving: Leaving::No,
                    call_off: false,
                    decline: false,
                    last_stop: None,
                    last_resume: None,
                }),
                lease_work <- new_delayed_work!("virtio_device_stop::lease"),
                watch_work <- new_delayed_work!("virtio_device_stop::watch"),
            }),
            GFP_KERNEL,
        )
    }

    /// The transport.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Tells whoever waits at `poll` of every change of the state from now on.
    pub(crate) fn tell(&self, poll: Poll) {
        self.poll.populate(poll);
    }

    /// This module.
    pub(crate) fn module(&self) -> &'static ThisModule {
        self.environment.module
    }

    /// How long a request may take.
    pub(crate) fn timeout_ms(&self) -> u32 {
        self.timeout_ms.load(Relaxed)
    }

    /// From the next request on.
    pub(crate) fn set_timeout_ms(&self, timeout_ms: u32) {
        self.timeout_ms.store(timeout_ms, Relaxed);
    }

    /// For how long a stop may stand; 0: for ever.
    pub(crate) fn lease_ms(&self) -> u32 {
        self.lease_ms.load(Relaxed)
    }

    /// From the next stop or renewal on.
    pub(crate) fn set_lease_ms(&self, lease_ms: u32) {
        self.lease_ms.store(lease_ms, Relaxed);
    }

    /// Whether this device means VIRTIO_F_DEVICE_STOP by bit 39.
    pub(crate) fn accepts_bit39(&self) -> bool {
        self.accept_bit39.load(Relaxed)
    }

    /// From the next driver on.
    pub(crate) fn set_accept_bit39(&self, accept: bool) {
        self.accept_bit39.store(accept, Relaxed);
    }

    /// Whether the device may be stopped although its type should not be.
    pub(crate) fn is_forced(&self) -> bool {
        self.status.lock().force
    }

    /// From now on. A stop that stands or is under way is not affected.
    pub(crate) fn set_force(&self, force: bool) {
        let mut inner = self.status.lock();
        inner.force = force;
        let event = self.readiness(&inner);
        let changes = match inner.life.state() {
            State::Unavailable => event == Event::Ready,
            State::Running => event != Event::Ready,
            _ => false,
        };
        if inner.bound && inner.field.negotiated().is_ok() && changes {
            self.apply(&mut inner, event);
        }
    }

    /// What becomes of a device whose driver is bound and ready.
    fn readiness(&self, inner: &Inner) -> Event {
        match inner.field.negotiated() {
            Ok(protocol) if self.policy().permits(protocol, inner.force) => Event::Ready,
            Ok(_) => Event::NotAvailable(Reason::TypeRefused),
            Err(reason) => Event::NotAvailable(reason),
        }
    }

    /// After a reset that the driver has survived, it is ready again without being bound again.
    fn ready_after_reset(&self, inner: &mut Inner, status: Status) {
        let ready = status.fault().is_none() && status.is_driver_ok();
        let was_reset = inner.life.state() == State::Unavailable && inner.bound;
        if ready && was_reset && inner.field.negotiated().is_ok() {
            let event = self.readiness(inner);
            self.apply(inner, event);
        }
    }

    /// What holds for devices of its type.
    pub(crate) fn policy(&self) -> Policy {
        Policy::of(self.transport.device().device_type())
    }

    /// How long a request may take, in microseconds.
    pub(crate) fn timeout_us(&self) -> u64 {
        u64::from(self.timeout_ms()) * 1000
    }

    /// The state.
    pub(crate) fn life(&self) -> Life {
        self.status.lock().life
    }

    /// What can be told of the device.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = self.status.lock();
        Snapshot {
            life: inner.life,
            protocol: inner.field.negotiated().ok(),
            last_stop: inner.last_stop,
            last_resume: inner.last_resume,
        }
    }

    /// What can be told of the device, after a look whether a stop still stands.
    pub(crate) fn snapshot_after_look(self: &Arc<Self>) -> Snapshot {
        if let Some(mut transition) = self.transition.try_lock() {
            self.look(&mut transition);
        }
        self.snapshot()
    }

    /// Keeps every stop or resume from beginning. Nothing if one is under way: it sees to what comes
    /// after it, and may take minutes. Waits for whoever just looks, unless the caller is killed.
    pub(crate) fn at_rest(&self) -> Option<MutexGuard<'_, Transition>> {
        loop {
            if let Some(transition) = self.transition.try_lock() {
                return Some(transition);
            }
            if matches!(self.life().state(), State::Stopping | State::Resuming) {
                return None;
            }
            if sleep_killable(LOOK_WAIT_US) {
                return None;
            }
        }
    }

    /// The status field of the device, until its next reset. Nothing if it was reset, and not brought
    /// up again with the feature.
    pub(crate) fn register(&self) -> Option<Register<'_>> {
        let inner = self.status.lock();
        let protocol = inner.field.negotiated().ok()?;
        Some(Register::new(self, &inner, protocol, Heed::Nothing))
    }

    /// What the status of a watched device calls for.
    pub(crate) fn watched_look(&self, register: &Register<'_>, status: Status) -> state::Look {
        let mut inner = self.status.lock();
        inner.life.look(status, register.protocol)
    }

    /// Begins a stop or a resume, if that is what `ask` says.
    fn begin(
        &self,
        ask: impl FnOnce(&mut Life) -> Result<Request, Error>,
        event: Event,
        heed: Heed,
    ) -> Result<Option<Begun<'_>>, Error> {
        let mut inner = self.status.lock();
        let pending = inner.life.is_pending();
        match ask(&mut inner.life)? {
            Request::Begin | Request::Adopt => {}
            Request::Already | Request::CallOff => return Ok(None),
        }
        // Nobody would look after a stop that was given up if the module were unloaded meanwhile.
        let module = ModuleRef::get(self.module()).ok_or(Error::Gone)?;
        let (Leaving::No, Ok(protocol)) = (inner.leaving, inner.field.negotiated()) else {
            return Err(Error::Gone);
        };
        // Whoever puts the system to sleep sets the flag first, and looks at the states then.
        if event == Event::StopBegins && self.environment.asleep.load(Relaxed) {
            return Err(Error::Busy);
        }
        inner.call_off = false;
        self.apply(&mut inner, event);
        Ok(Some(Begun {
            register: Register::new(self, &inner, protocol, heed),
            pending,
            _module: module,
        }))
    }

    /// Something has happened.
    fn apply(&self, inner: &mut Inner, event: Event) -> Outcome {
        let outcome = inner.life.apply(event);
        if let Some(poll) = self.poll.as_ref() {
            poll.wake();
        }
        outcome
    }

    /// Has one of the device's works done after `delay`, whenever it was to be done before.
    pub(crate) fn enqueue<const ID: u64>(self: &Arc<Self>, delay: Jiffies)
    where
        Self: WorkItem<ID, Pointer = Arc<Self>> + HasDelayedWork<Self, ID>,
    {
        self.environment.queue.enqueue::<_, ID>(self.clone(), delay);
    }

    /// Stops the device. Returns when it has acknowledged that, or has not in time.
    pub(crate) fn stop(self: &Arc<Self>) -> Result<(), Error> {
        let _no_io = NoIo::enter();
        let mut transition = self.at_rest().ok_or(Error::Busy)?;
        self.look(&mut transition);
        let device = self.transport.device();
        let policy = self.policy();
        let ask = |life: &mut Life| life.ask_stop();
        let Some(begun) = self.begin(ask, Event::StopBegins, Heed::WhileStopping)? else {
            return Ok(());
        };
        let Begun {
            mut register,
            pending,
            _module,
        } = begun;
        transition.watch = None;
        let (protocol, timeout_us) = (register.protocol, self.timeout_us());
        let (stop, cost) = if pending {
            handshake::adopt(&mut register, protocol, timeout_us)
        } else {
            // Not later: it allocates memory.
            device.tell_user_space(State::Stopping.name());
            let hold = || Held::try_hold(device, policy.quiesce).transpose();
            let failed = match handshake::prepare(&mut register, timeout_us, hold) {
                Ok(Ok(held)) => {
                    let held = transition.held.insert(held);
                    if protocol.allows_buffers() {
                        None
                    } else {
                        if held.wait_quiesce_done() {
                            // The block layer may have added a request, and have meant to notify with
                            // the next one.
                            register.notify();
                        }
                        // A suspend can't be called off any more.
                        handshake::is_wanted(&mut register)
                            .err()
                            .map(Event::StopEnds)
                    }
                }
                Ok(Err(NotFound)) => Some(Event::QuiesceFailed),
                Err(stop) => Some(Event::StopEnds(stop)),
            };
            if let Some(event) = failed {
                let told_when_let_go = transition.held.is_some();
                let result = self.settle(&mut transition, &register, event);
                if !told_when_let_go {
                    device.tell_user_space(self.life().state().name());
                }
                return result;
            }
            handshake::stop(&mut register, protocol, timeout_us)
        };
        self.status.lock().last_stop = Some(cost);
        if let (Stop::Acknowledged, Some(held)) = (stop, &transition.held) {
            held.device_has_stopped();
        }
        self.settle(&mut transition, &register, Event::StopEnds(stop))
    }

    /// Resumes the device, or calls a stop off that is being waited for.
    pub(crate) fn resume(self: &Arc<Self>) -> Result<(), Error> {
        let _no_io = NoIo::enter();
        let mut transition = loop {
            if let Some(transition) = self.transition.try_lock() {
                break transition;
            }
            {
                let mut inner = self.status.lock();
                match inner.life.state() {
                    State::Stopping => inner.call_off = true,
                    State::Resuming => return Err(Error::Busy),
                    _ => {}
                }
            }
            if sleep_killable(CALL_OFF_WAIT_US) {
                return Err(Error::Killed);
            }
        };
        match self.begin(Life::ask_resume, Event::ResumeBegins, Heed::WhileResuming)? {
            Some(begun) => self.finish_resume(&mut transition, begun, Event::ResumeEnds),
            None => Ok(()),
        }
    }

    /// Prolongs the lease of a stop, if it stands, and has since `generation`.
    pub(crate) fn renew(self: &Arc<Self>, generation: u64) -> Result<(), Error> {
        let mut transition = self.at_rest().ok_or(Error::Stale)?;
        self.look(&mut transition);
        let life = self.life();
        if life.state() != State::Stopped || life.generation() != generation {
            return Err(Error::Stale);
        }
        transition.lease = Lease::renewed(transition.lease.take(), self);
        Ok(())
    }

    /// Resumes a device whose lease is over.
    pub(crate) fn end_lease(self: &Arc<Self>, transition: &mut Transition) {
        let _no_io = NoIo::enter();
        self.look(transition);
        let ask = |life: &mut Life| match life.state() {
            State::Stopped => Ok(Request::Begin),
            _ => Ok(Request::Already),
        };
        let begun = self.begin(ask, Event::ResumeBegins, Heed::WhileResuming);
        if let Ok(Some(begun)) = begun {
            dev_warn!(
                self.transport.device().as_device(),
                "nobody has resumed the device for too long\n"
            );
            let _ = self.finish_resume(transition, begun, Event::LeaseEnds);
        }
    }

    /// The driver is about to be unbound: the device is resumed, or else its virtqueues are broken,
    /// and the driver above is let go.
    pub(crate) fn leave_driver(self: &Arc<Self>) {
        self.leave(Leaving::Driver);
    }

    /// The device or this module is about to go away: as when the driver is, but for good.
    pub(crate) fn leave_for_good(self: &Arc<Self>) {
        self.leave(Leaving::ForGood);
    }

    fn leave(self: &Arc<Self>, how: Leaving) {
        {
            let mut inner = self.status.lock();
            if inner.leaving != Leaving::ForGood {
                inner.leaving = how;
            }
        }
        let _no_io = NoIo::enter();
        let mut transition = self.transition.lock();
        self.look(&mut transition);
        let register = self.register().filter(|_| transition.held.is_some());
        if let Some(mut register) = register.filter(|_| self.life().holds_upper()) {
            let pending = {
                let mut inner = self.status.lock();
                let pending = inner.life.is_pending();
                self.apply(&mut inner, Event::ResumeBegins);
                pending
            };
            let timeout_us = self.timeout_us().min(LEAVE_TIMEOUT_US);
            let protocol = register.protocol;
            let (resume, _) = handshake::resume(&mut register, protocol, pending, timeout_us);
            if !matches!(resume, Resume::Acknowledged | Resume::Dropped) {
                self.break_if_possible(&transition);
            }
            let _ = self.settle(&mut transition, &register, Event::ResumeEnds(resume));
        }
        {
            let mut inner = self.status.lock();
            inner.bound = false;
            self.apply(&mut inner, Event::Unbound);
        }
        transition.lease = None;
        self.let_go(&mut transition);
    }

    /// Nothing is done later any more for a device that was left for good.
    pub(crate) fn cancel_works(self: &Arc<Self>) {
        work::cancel::<_, { lease::WORK }>(self);
        work::cancel::<_, { watch::WORK }>(self);
        let mut transition = self.transition.lock();
        transition.lease = None;
        transition.watch = None;
    }

    /// A driver is about to be bound.
    pub(crate) fn binding(&self) {
        let mut inner = self.status.lock();
        inner.driver_has_left();
        inner.field.negotiate(Err(Reason::NotOffered));
        inner.accepted = None;
    }

    /// A driver was bound, or was bound when this module was loaded.
    pub(crate) fn bound(&self) {
        let mut inner = self.status.lock();
        inner.bound = true;
        let event = self.readiness(&inner);
        self.apply(&mut inner, event);
    }

    /// The driver was bound before this module was loaded. If a feature is negotiated all the same,
    /// then by this module when it was loaded before: nobody else knows it.
    pub(crate) fn bound_before(&self) {
        let has = |feature| self.transport.device().has_feature(feature);
        let accepted = if has(VIRTIO_F_SUSPEND) {
            Some(Protocol::Suspend)
        } else {
            has(VIRTIO_F_DEVICE_STOP).then_some(Protocol::DeviceStop)
        };
        let negotiated = match accepted {
            Some(protocol) if self.environment.allowed.permits(protocol) => Ok(protocol),
            Some(_) => Err(Reason::Disabled),
            // To bind it again would not help.
            None if self.policy().refuses() => Err(Reason::TypeRefused),
            None => Err(Reason::BoundBefore),
        };
        {
            let mut inner = self.status.lock();
            inner.field.negotiate(negotiated);
            inner.accepted = accepted;
        }
        self.bound();
    }

    /// The driver was unbound, or could not be bound.
    pub(crate) fn unbound(&self) {
        let mut inner = self.status.lock();
        inner.driver_has_left();
        inner.life.forget();
        self.apply(&mut inner, Event::Unbound);
    }

    /// Acts on `event`: lets the driver above go if it is to be let go, and sees to what comes later.
    /// Returns what whoever asked for it is told.
    pub(crate) fn settle(
        self: &Arc<Self>,
        transition: &mut Transition,
        register: &Register<'_>,
        event: Event,
    ) -> Result<(), Error> {
        let (outcome, life) = {
            let mut inner = self.status.lock();
            let outcome = self.apply(&mut inner, event);
            // The driver may have brought the device up again before its reset was noticed.
            if event == Event::StopEnds(Stop::Fault(Fault::Reset))
                || event == Event::ResumeEnds(Resume::Fault(Fault::Reset))
                || event == Event::LeaseEnds(Resume::Fault(Fault::Reset))
            {
                let status = inner.field.read(&self.transport, inner.field.epoch());
                if let Ok(status) = status {
                    self.ready_after_reset(&mut inner, status);
                }
            }
            (outcome, inner.life)
        };
        match outcome.upper {
            Upper::Hold => {}
            Upper::Release => self.let_go(transition),
            Upper::NotifyAndRelease => {
                // Then a notification says what was added last: nobody may be adding.
                let held = transition.held.as_ref();
                let with_data = self
                    .transport
                    .device()
                    .has_feature(VIRTIO_F_NOTIFICATION_DATA);
                if let Some(held) = held.filter(|_| with_data) {
                    held.wait_quiesce_done();
                }
                register.notify();
                self.let_go(transition);
            }
            Upper::BreakAndRelease => {
                self.break_if_possible(transition);
                self.let_go(transition);
            }
        }
        transition.lease = match life.state() {
            State::Stopped => Lease::renewed(transition.lease.take(), self),
            _ => None,
        };
        if !life.is_watched() {
            transition.watch = None;
        } else if transition.watch.is_none() {
            transition.watch = Some(Watch::begin(self));
        }
        let what = match outcome.result {
            Err(error) => error.blames_device(),
            Ok(()) if event == Event::LateAnswer => Some("a late answer"),
            Ok(()) => None,
        };
        if let Some(what) = what {
            dev_warn!(
                self.transport.device().as_device(),
                "{}: {} (reason: {})\n",
                what,
                life.state().name(),
                life.reason().name()
            );
        }
        outcome.result
    }

    /// Breaks the virtqueues, so that the driver above, when it is let go, has errors instead of
    /// requests that wait for ever. Not if the device has requests still: their answers would be lost.
    fn break_if_possible(&self, transition: &Transition) {
        if transition.held.as_ref().is_some_and(Held::may_break) {
            self.transport.device().break_virtqueues();
        }
    }

    /// Lets the driver above go, if it is held, and tells user space what the device has come to.
    fn let_go(&self, transition: &mut Transition) {
        if transition.held.take().is_some() {
            let device = self.transport.device();
            device.tell_user_space(self.life().state().name());
        }
    }

    /// Lets the driver above go if the device was reset while it was stopped.
    pub(crate) fn let_go_after_reset(&self, transition: &mut Transition) {
        if !self.life().holds_upper() {
            transition.lease = None;
            self.let_go(transition);
        }
    }

    /// Looks whether a stop still stands.
    fn look(self: &Arc<Self>, transition: &mut Transition) {
        if self.life().state() != State::Stopped {
            return;
        }
        let Some(mut register) = self.register() else {
            return;
        };
        let Ok(status) = register.read() else {
            return;
        };
        let event = match status.fault() {
            Some(fault) => Event::Fault(fault),
            None if !status.shows_stopped(register.protocol) => Event::Dropped,
            None => return,
        };
        let _ = self.settle(transition, &register, event);
    }

    fn finish_resume(
        self: &Arc<Self>,
        transition: &mut Transition,
        begun: Begun<'_>,
        event: fn(Resume) -> Event,
    ) -> Result<(), Error> {
        let Begun {
            mut register,
            pending,
            _module,
        } = begun;
        transition.watch = None;
        let (protocol, timeout_us) = (register.protocol, self.timeout_us());
        let (resume, cost) = handshake::resume(&mut register, protocol, pending, timeout_us);
        self.status.lock().last_resume = Some(cost);
        self.settle(transition, &register, event(resume))
    }

    /// Whether the driver, the device or this module is about to go.
    pub(crate) fn is_leaving(&self) -> bool {
        self.status.lock().leaving != Leaving::No
    }

    /// Whether a feature would be accepted that the device offers. If not, the reason says why.
    pub(crate) fn is_worth_negotiating(&self) -> bool {
        let choice = self.choose(self.transport.offered());
        if let Err(reason) = choice {
            let mut inner = self.status.lock();
            inner.field.negotiate(Err(reason));
            self.apply(&mut inner, Event::NotAvailable(reason));
        }
        choice.is_ok()
    }

    /// Has nothing accepted from now on, or again what there is.
    pub(crate) fn decline(&self, decline: bool) {
        self.status.lock().decline = decline;
    }

    /// The driver that is bound has begun again. Nothing if the device can't be stopped still.
    pub(crate) fn restarted(&self) -> Option<()> {
        let mut inner = self.status.lock();
        if inner.life.state() == State::Unavailable {
            let event = self.readiness(&inner);
            self.apply(&mut inner, event);
        }
        inner.field.negotiated().ok().map(|_| ())
    }

    /// Which of the features to accept that the device offers.
    fn choose(&self, offered: u64) -> Result<(Protocol, &CommonConfig), Reason> {
        let policy = self.policy();
        if self.status.lock().decline {
            return Err(Reason::BoundBefore);
        }
        let common = self.common.as_ref().ok_or(Reason::Transport)?;
        let known = self.transport.device().has_feature(VIRTIO_F_SUSPEND);
        let offer = Offer {
            features: offered,
            transport: negotiate::Transport::Pci {
                common_length: common.length(),
            },
            kernel_suspends: known && self.status.lock().accepted != Some(Protocol::Suspend),
            bit_39_is_device_stop: self.accepts_bit39(),
        };
        let protocol = offer.choose(self.environment.allowed)?;
        if policy.refuses() {
            return Err(Reason::TypeRefused);
        }
        Ok((protocol, common))
    }
}

impl Inner {
    fn driver_has_left(&mut self) {
        self.bound = false;
        if self.leaving == Leaving::Driver {
            self.leaving = Leaving::No;
        }
    }
}

impl Hooks for Device {
    fn finalize_features(self: Arc<Self>, features: &Features<'_>) -> Result {
        let choice = self.choose(features.offered());
        let negotiated = match choice {
            Ok((Protocol::Suspend, _)) => features
                .finalize_with(VIRTIO_F_SUSPEND)?
                .then_some(Protocol::Suspend)
                .ok_or(Reason::Transport),
            Ok((Protocol::DeviceStop, common)) => {
                features.finalize()?;
                features.accept(common, VIRTIO_F_DEVICE_STOP);
                Ok(Protocol::DeviceStop)
            }
            Err(reason) => {
                if self.status.lock().accepted == Some(Protocol::Suspend) {
                    features.retract(VIRTIO_F_SUSPEND);
                }
                features.finalize()?;
                Err(reason)
            }
        };
        let mut inner = self.status.lock();
        inner.field.negotiate(negotiated);
        inner.accepted = negotiated.ok();
        Ok(())
    }

    fn set_status(self: Arc<Self>, status: u8) {
        let mut inner = self.status.lock();
        let written = inner.field.write_for_core(&self.transport, Status(status));
        self.ready_after_reset(&mut inner, written);
    }

    fn reset(self: Arc<Self>) {
        let at_rest = {
            let mut inner = self.status.lock();
            inner.field.reset_begins();
            inner.life.forget();
            match inner.life.state() {
                State::Unavailable => false,
                // Whoever waits for the device will see that it was reset.
                State::Stopping | State::Resuming => false,
                State::Running | State::Stopped | State::Aborting | State::Failed => {
                    self.apply(&mut inner, Event::Fault(Fault::Reset));
                    true
                }
            }
        };
        self.transport.reset();
        self.status.lock().field.reset_ends();
        if at_rest {
            // To let the driver above go, which takes a lock that can't be taken here.
            self.enqueue::<{ watch::WORK }>(0);
        }
    }
}

impl field::Register for Transport {
    fn read(&self) -> Status {
        Status(self.status())
    }

    fn write(&self, status: Status) {
        self.set_status(status.0);
    }
}

/// What ends a wait for the device, besides its reset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heed {
    /// Somebody who leaves, who calls the stop off, or who kills the caller.
    WhileStopping,
    /// Somebody who leaves, or who kills the caller.
    WhileResuming,
    /// Nobody.
    Nothing,
}

/// A stop or a resume that has begun.
struct Begun<'a> {
    register: Register<'a>,
    /// The device has yet to acknowledge a stop that was given up.
    pending: bool,
    /// Until it has ended.
    _module: ModuleRef,
}

/// The status field of a device, until its next reset.
pub(crate) struct Register<'a> {
    device: &'a Device,
    pub(crate) protocol: Protocol,
    epoch: u64,
    heed: Heed,
    start: Instant<Monotonic>,
}

impl<'a> Register<'a> {
    fn new(device: &'a Device, inner: &Inner, protocol: Protocol, heed: Heed) -> Self {
        Self {
            device,
            protocol,
            epoch: inner.field.epoch(),
            heed,
            start: Instant::now(),
        }
    }

    /// Notifies the device of every virtqueue, unless it was reset.
    pub(crate) fn notify(&self) {
        // A reset can't begin, and the virtqueues can't go, before the lock is released.
        let inner = self.device.status.lock();
        if inner.field.lasts(self.epoch).is_ok() {
            self.device.transport.notify_virtqueues();
        }
    }
}

impl Port for Register<'_> {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros_ceil()).unwrap_or(0)
    }

    fn read(&mut self) -> Result<Status, Cut> {
        let inner = self.device.status.lock();
        inner.field.read(&self.device.transport, self.epoch)
    }

    fn update(
        &mut self,
        stop_wanted: bool,
        change: impl FnOnce(Status) -> Option<Status>,
    ) -> Result<Status, Cut> {
        let mut inner = self.device.status.lock();
        let register = &self.device.transport;
        inner
            .field
            .update(register, self.epoch, stop_wanted, change)
    }

    fn wait(&mut self, us: u64) -> Result<(), Cut> {
        let killed = sleep_killable(us);
        let inner = self.device.status.lock();
        inner.field.lasts(self.epoch)?;
        match self.heed {
            Heed::Nothing => Ok(()),
            _ if inner.leaving != Leaving::No => Err(Cut::Leaving),
            Heed::WhileStopping if inner.call_off => Err(Cut::CalledOff),
            _ if killed => Err(Cut::Killed),
            _ => Ok(()),
        }
    }
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_device)]
mod tests {
    use super::*;
    use crate::sys::fake::Fake;

    const READY: u8 = 15;
    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

    fn device(fake: &Fake) -> Result<Arc<Device>> {
        let environment = Environment {
            queue: Arc::new(work::Queue::new()?, GFP_KERNEL)?,
            module: const { &<crate::DeviceStop as kernel::ModuleMetadata>::THIS_MODULE },
            allowed: Allowed {
                device_stop: true,
                suspend: true,
            },
            asleep: Arc::new(AtomicFlag::new(false), GFP_KERNEL)?,
        };
        Device::new(Transport::of(fake.device()), environment)
    }

    /// A device whose driver is bound.
    fn running(fake: &Fake, protocol: Protocol) -> Result<Arc<Device>> {
        let device = device(fake)?;
        device.status.lock().field.negotiate(Ok(protocol));
        device.bound();
        Ok(device)
    }

    /// What the device shows when it has stopped.
    fn stopped(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::DeviceStop => READY | Status::DEVICE_STOPPED,
            Protocol::Suspend => READY & !Status::DRIVER_OK | Status::SUSPEND,
        }
    }

    /// Asks the device to stop, and has it show that it has.
    fn stop<'a>(device: &'a Arc<Device>, fake: &Fake) -> Result<Register<'a>> {
        let ask = |life: &mut Life| life.ask_stop();
        let begun = device.begin(ask, Event::StopBegins, Heed::WhileStopping);
        let Ok(Some(Begun { mut register, .. })) = begun else {
            return Err(EINVAL);
        };
        let protocol = register.protocol;
        register
            .update(true, |status| Some(status.to_stop(protocol)))
            .map_err(|_| EINVAL)?;
        fake.show(stopped(protocol));
        let mut transition = device.transition.lock();
        device
            .settle(
                &mut transition,
                &register,
                Event::StopEnds(Stop::Acknowledged),
            )
            .map_err(|_| EINVAL)?;
        Ok(register)
    }

    #[test]
    fn core_can_not_undo_a_stop() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            stop(&device, &fake)?;
            // What core has read before the stop, and writes now.
            Hooks::set_status(device.clone(), READY);
            assert_eq!(fake.status(), stopped(protocol));
            assert!(device.life().state() == State::Stopped);
        }
        Ok(())
    }

    #[test]
    fn core_can_not_invent_a_stop() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            Hooks::set_status(device.clone(), stopped(protocol));
            assert_eq!(fake.status(), READY);
        }
        Ok(())
    }

    #[test]
    fn a_reset_between_two_looks_is_no_answer() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            let mut register = stop(&device, &fake)?;
            assert!(register.read() == Ok(Status(stopped(protocol))));
            Hooks::reset(device.clone());
            assert_eq!(fake.status(), 0);
            assert!(device.life().state() == State::Unavailable);
            // It is brought up again, and stopped again, before the next look.
            device.status.lock().field.negotiate(Ok(protocol));
            fake.show(stopped(protocol));
            assert!(register.read() == Err(Cut::Reset));
            assert!(register.update(false, |_| Some(Status(1))) == Err(Cut::Reset));
            assert!(register.wait(1) == Err(Cut::Reset));
            assert_eq!(fake.status(), stopped(protocol));
            device.cancel_works();
        }
        Ok(())
    }

    #[test]
    fn a_driver_that_survives_a_reset_is_ready_again() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::DeviceStop)?;
        let generation = device.life().generation();
        Hooks::reset(device.clone());
        Hooks::set_status(device.clone(), 11);
        assert!(device.life().reason() == Reason::Reset);
        // Without the feature it can't be stopped.
        Hooks::set_status(device.clone(), READY);
        assert!(device.life().state() == State::Unavailable);
        device.status.lock().field.negotiate(Ok(Protocol::Suspend));
        Hooks::set_status(device.clone(), READY);
        assert!(device.life().state() == State::Running);
        assert!(device.life().generation() > generation);
        device.cancel_works();
        Ok(())
    }

    #[test]
    fn a_driver_that_is_ready_before_the_reset_is_noticed() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            let ask = |life: &mut Life| life.ask_stop();
            let Ok(Some(Begun { mut register, .. })) =
                device.begin(ask, Event::StopBegins, Heed::WhileStopping)
            else {
                return Err(EINVAL);
            };
            Hooks::reset(device.clone());
            device.status.lock().field.negotiate(Ok(protocol));
            Hooks::set_status(device.clone(), READY);
            assert!(device.life().state() == State::Stopping);
            assert!(register.read() == Err(Cut::Reset));
            let mut transition = device.transition.lock();
            let event = Event::StopEnds(Stop::Fault(Fault::Reset));
            let result = device.settle(&mut transition, &register, event);
            assert!(result == Err(Error::Gone));
            assert!(device.life().state() == State::Running);
            drop(transition);
            device.cancel_works();
        }
        Ok(())
    }

    #[test]
    fn what_can_not_be_held_is_not_stopped() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::DeviceStop)?;
        // The fake has no disk.
        assert!(device.stop() == Err(Error::NotSupported));
        assert!(device.life().state() == State::Running);
        assert!(device.life().reason() == Reason::NoQuiesce);
        assert_eq!(fake.status(), READY);
        Ok(())
    }

    #[test]
    fn nothing_is_stopped_while_the_system_is_asleep() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::Suspend)?;
        device.environment.asleep.store(true, Relaxed);
        assert!(device.stop() == Err(Error::Busy));
        assert!(device.life().state() == State::Running);
        device.environment.asleep.store(false, Relaxed);
        assert!(device.stop() == Err(Error::NotSupported));
        Ok(())
    }

    #[test]
    fn a_wait_ends_when_the_driver_leaves_or_the_stop_is_called_off() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::DeviceStop)?;
        let ask = |life: &mut Life| life.ask_stop();
        let Ok(Some(Begun { mut register, .. })) =
            device.begin(ask, Event::StopBegins, Heed::WhileStopping)
        else {
            return Err(EINVAL);
        };
        assert!(register.wait(1) == Ok(()));
        device.status.lock().call_off = true;
        assert!(register.wait(1) == Err(Cut::CalledOff));
        device.status.lock().leaving = Leaving::Driver;
        assert!(register.wait(1) == Err(Cut::Leaving));
        Ok(())
    }

    #[test]
    fn a_lease_ends_the_stop() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::DeviceStop)?;
        stop(&device, &fake)?;
        let mut transition = device.transition.lock();
        assert!(transition.lease.is_some());
        device.end_lease(&mut transition);
        assert!(transition.lease.is_none());
        drop(transition);
        assert_eq!(fake.status(), READY);
        assert!(device.life().reason() == Reason::LeaseExpired);
        assert!(device.resume() == Err(Error::Stale));
        assert!(device.resume() == Ok(()));
        device.cancel_works();
        Ok(())
    }

    #[test]
    fn a_stop_that_the_device_has_dropped_is_seen_at_a_look() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            stop(&device, &fake)?;
            let generation = device.life().generation();
            let renewed = device.renew(generation);
            assert!(renewed == Ok(()));
            fake.show(READY);
            assert!(device.snapshot_after_look().life.reason() == Reason::StopDropped);
            assert!(device.renew(generation) == Err(Error::Stale));
            device.cancel_works();
        }
        Ok(())
    }

    #[test]
    fn a_driver_that_leaves_has_its_device_resumed() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            stop(&device, &fake)?;
            device.leave_driver();
            assert!(device.life().reason() == Reason::NoDriver);
            assert!(device.stop() == Err(Error::NoDriver));
            device.cancel_works();
        }
        Ok(())
    }
}
