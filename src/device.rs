// SPDX-License-Identifier: GPL-2.0-only

//! One virtio device: carries out what its machine says, and has it entered again in time.
//!
//! Two locks. `machine` is held for a step of the machine, and what it calls for: never while anybody waits for
//! the device, for the RTNL, for user space, or for memory. `status` is a leaf, held for one access to the status
//! field; what the virtio core calls takes only that, and has the machine told later. Order: the
//! parent device's lock, the device's, `machine`, `status`.
//!
//! Whoever asks for something carries out what there is to be done, and waits for the time between two
//! looks. The timer does it when nobody waits. There is one timer a device, and one place that arms it: [`Entered`].

use crate::{
    entered::Entered,
    field::{
        self,
        Field, //
    },
    machine::{
        Asker,
        Leaver,
        Machine,
        Settings,
        LIMITS, //
    },
    negotiate::Allowed,
    policy::Policy,
    quiesce::Quiesced,
    release::{
        self,
        Announcements, //
    },
    state::{
        Error,
        Reason,
        State,
        Stats, //
    },
    status::{
        Protocol,
        Status, //
    },
    sys::{
        feature_reg::CommonConfig,
        module::ModuleRef,
        shadow::Transport,
        sysfs::{
            Group,
            Poll, //
        },
        virtio::Parent,
        wait::Waiters,
        work, //
    },
    timer,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    time::{
        hrtimer::HrTimerExpires,
        BootTime,
        Instant,
        Monotonic, //
    },
    workqueue::{
        new_delayed_work,
        DelayedWork, //
    }, //
};

/// What holds unless the administrator says otherwise.
const SETTINGS: Settings = Settings {
    timeout_us: 1_000_000,
    lease_us: 60_000_000,
    force: false,
};

/// One device.
#[pin_data]
pub(crate) struct Device {
    transport: Transport,
    parent: Parent,
    pub(crate) common: Option<CommonConfig>,
    pub(crate) environment: Environment,
    /// By bit 39 this device means VIRTIO_F_DEVICE_STOP.
    pub(crate) accept_bit39: AtomicFlag,
    /// Whoever waits for a change of the state waits here.
    poll: SetOnce<Poll>,
    /// Its files, until it leaves.
    #[pin]
    pub(crate) files: Mutex<Option<[Group<Device>; 2]>>,
    start: Instant<Monotonic>,
    #[pin]
    pub(crate) waiters: Waiters,
    #[pin]
    machine: Mutex<Guarded>,
    #[pin]
    pub(crate) status: Mutex<StatusField>,
    #[pin]
    pub(crate) timer_work: DelayedWork<Self, { timer::WORK }>,
    #[pin]
    pub(crate) release_work: DelayedWork<Self, { release::WORK }>,
}

/// What all devices share.
#[derive(Clone)]
pub(crate) struct Environment {
    /// For timers and leases: nothing on it waits for anything but a device's status.
    pub(crate) timers: Arc<work::Queue>,
    /// For what may wait for the RTNL, user space, or memory.
    pub(crate) releases: Arc<work::Queue>,
    /// This module.
    pub(crate) module: &'static ThisModule,
    /// Which features may be accepted (the parameters).
    pub(crate) allowed: Allowed,
    /// The system is going to sleep, or is asleep: no stop may begin.
    pub(crate) asleep: Arc<AtomicFlag>,
}

/// What is behind the lock `machine`.
pub(crate) struct Guarded {
    pub(crate) machine: Machine,
    pub(crate) quiesced: Option<Quiesced>,
    /// To be let go by the release work.
    pub(crate) to_release: Option<Quiesced>,
    pub(crate) to_announce: Announcements,
    /// When the timer goes off, if it was armed.
    pub(crate) armed: Option<u64>,
    /// Nothing is done later any more: the device is not attached to.
    pub(crate) detached: bool,
    /// Somebody has to look at the device.
    pub(crate) module: Option<ModuleRef>,
}

/// What is behind the lock `status`.
pub(crate) struct StatusField {
    pub(crate) field: Field,
    /// What this module has accepted since the driver was bound, resets included.
    pub(crate) accepted: Option<Protocol>,
    /// Nothing is to be accepted.
    pub(crate) decline: bool,
}

/// What can be told of a device.
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) reason: Reason,
    pub(crate) generation: u64,
    /// What the device shows can be an answer.
    pub(crate) is_answering: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) stats: Stats,
}

impl Device {
    /// A device on the bus.
    pub(crate) fn new(
        transport: Transport,
        parent: Parent,
        environment: Environment,
    ) -> Result<Arc<Self>> {
        let common = CommonConfig::map(transport.device());
        let field = Field::new();
        let machine = Machine::new(
            Policy::of(transport.device().device_type()),
            SETTINGS,
            // Never the same twice in one boot, nor 0.
            HrTimerExpires::as_nanos(&Instant::<BootTime>::now()).unsigned_abs(),
            &LIMITS,
            field.known(),
        );
        Arc::pin_init(
            pin_init!(Self {
                common,
                environment,
                transport,
                parent,
                accept_bit39: AtomicFlag::new(false),
                poll: SetOnce::new(),
                files <- new_mutex!(None),
                start: Instant::now(),
                waiters <- Waiters::new(),
                machine <- new_mutex!(Guarded {
                    machine,
                    quiesced: None,
                    to_release: None,
                    to_announce: Announcements::NONE,
                    armed: None,
                    detached: false,
                    module: None,
                }),
                status <- new_mutex!(StatusField {
                    field,
                    accepted: None,
                    decline: false,
                }),
                timer_work <- new_delayed_work!("virtio_device_stop::timer"),
                release_work <- new_delayed_work!("virtio_device_stop::release"),
            }),
            GFP_KERNEL,
        )
    }

    /// The transport.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The device that provides this one.
    pub(crate) fn parent(&self) -> &Parent {
        &self.parent
    }

    /// Tells whoever waits at `poll` of every change of the state from now on.
    pub(crate) fn tell(&self, poll: Poll) {
        self.poll.populate(poll);
    }

    /// Microseconds since the device was attached to.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros_ceil()).unwrap_or(0)
    }

    /// Enters the machine.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered<'_> {
        Entered::new(self, self.machine.lock())
    }

    /// Whoever waits for a change looks again.
    pub(crate) fn wake(&self) {
        self.waiters.wake();
        if let Some(poll) = self.poll.as_ref() {
            poll.wake();
        }
    }

    /// Something has happened that the machine is to be told of, by whoever can't enter it.
    pub(crate) fn kick(self: &Arc<Self>) {
        self.waiters.wake();
        let timers = &self.environment.timers;
        timers.enqueue::<_, { timer::WORK }>(self.clone(), 0);
    }

    /// Stops the device. Returns when it has acknowledged that, or has not in time.
    pub(crate) fn stop(self: &Arc<Self>, asker: Asker) -> Result<(), Error> {
        // Nobody would look after a stop that was given up if the module were unloaded meanwhile.
        let _module = ModuleRef::get(self.environment.module).ok_or(Error::Gone)?;
        let mut entered = self.look();
        let asleep = self.environment.asleep.load(Relaxed);
        let ask = entered
            .guarded
            .machine
            .ask_stop(self.now(), asker, asleep)?;
        entered.wait_for(ask)
    }

    /// Resumes the device, or calls a stop off that is being waited for. `generation`: only the stop that
    /// stood then.
    pub(crate) fn resume(
        self: &Arc<Self>,
        asker: Asker,
        generation: Option<u64>,
    ) -> Result<(), Error> {
        let _module = ModuleRef::get(self.environment.module).ok_or(Error::Gone)?;
        let mut entered = match generation {
            Some(_) => self.look(),
            None => self.enter(),
        };
        let machine = &mut entered.guarded.machine;
        let ask = machine.ask_resume(self.now(), asker, generation)?;
        entered.wait_for(ask)
    }

    /// Prolongs the lease of a stop, if it stands, and has since `generation`.
    pub(crate) fn renew(self: &Arc<Self>, generation: u64) -> Result<(), Error> {
        let mut entered = self.look();
        entered.guarded.machine.renew(self.now(), generation)
    }

    /// Enters the machine, and looks whether a stop still stands.
    fn look(self: &Arc<Self>) -> Entered<'_> {
        let mut entered = self.enter();
        entered.guarded.machine.look(self.now());
        entered.run()
    }

    /// The driver, the device or this module is about to go: the device is resumed, or else its virtqueues
    /// are broken, and the driver above is let go.
    pub(crate) fn leave(self: &Arc<Self>, who: Leaver) {
        let mut entered = self.enter();
        entered.guarded.machine.leaves(self.now(), who);
        loop {
            entered = entered.run();
            if let Some(quiesced) = entered.guarded.to_release.take() {
                // Not waiting for the work that would do it.
                drop(entered);
                drop(quiesced);
                entered = self.enter();
                entered.guarded.machine.unquiesced();
                continue;
            }
            if entered.guarded.machine.has_left() {
                return;
            }
            (entered, _) = entered.wait(false);
        }
    }

    /// Removes the files, once. Waits for accesses to them that are under way, and for whoever else removes
    /// them: they must be gone before the device is.
    pub(crate) fn remove_files(&self) {
        *self.files.lock() = None;
    }

    /// Nothing is done later any more for a device that was left, and is not attached to.
    pub(crate) fn detach(self: &Arc<Self>) {
        {
            let mut guarded = self.machine.lock();
            guarded.detached = true;
            guarded.module = None;
        }
        work::cancel::<_, { timer::WORK }>(self);
        work::cancel::<_, { release::WORK }>(self);
    }

    /// What can be told of the device.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Snapshot {
        self.enter().snapshot()
    }

    /// What can be told of the device, after a look whether a stop still stands.
    pub(crate) fn snapshot_after_look(self: &Arc<Self>) -> Snapshot {
        self.look().snapshot()
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
