// SPDX-License-Identifier: GPL-2.0-only

//! One virtio device: carries out what its machine says, and has it entered again in time.
//!
//! Two locks. `machine` is held for a step of the machine, and what it calls for: never while
//! anybody waits for the device, for the RTNL, for user space, or for memory. `status` is a leaf,
//! held for one access to the status field; what the virtio core calls takes only that, and has the
//! machine told later. Order: the parent device's lock, the device's, `machine`, `status`.
//!
//! Whoever asks for something carries out what there is to be done, and waits for the time between
//! two looks. The timer does it when nobody waits. There is one timer a device, and one place that
//! arms it: [`Entered`].

use crate::{
    field::{
        self,
        Field, //
    },
    machine::{
        Machine,
        Settings,
        LIMITS, //
    },
    negotiate::Allowed,
    opener::Opener,
    policy::Policy,
    quiesce::Quiesced,
    state::State,
    status::{
        Protocol,
        Status, //
    },
    sys::{
        feature_reg::CommonConfig,
        module::ModuleRef,
        sysfs::{
            Group,
            Poll, //
        },
        transport::Transport,
        virtio::Parent,
        wait::Waiters,
        work, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::AtomicFlag,
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

/// Which of the device's works is the timer's, and which come after the answer.
pub(crate) const TIMER_WORK: u64 = 0;
pub(crate) const RELEASE_WORK: u64 = 1;
pub(crate) const ANNOUNCE_WORK: u64 = 2;

/// One device.
#[pin_data]
pub(crate) struct Device {
    /// Dropped before the references to the devices.
    pub(crate) common: Option<CommonConfig>,
    transport: Transport,
    parent: Parent,
    pub(crate) environment: Environment,
    /// By bit 39 this device means VIRTIO_F_DEVICE_STOP.
    pub(crate) accept_bit39: AtomicFlag,
    /// Whoever waits for a change of the state waits here.
    poll: SetOnce<Poll>,
    /// Its files, until it leaves.
    #[pin]
    pub(crate) files: Mutex<Option<[Group<Device>; 2]>>,
    start: Instant<Monotonic>,
    /// Held by whoever tells user space. Taken before `machine`.
    #[pin]
    pub(crate) announcing: Mutex<()>,
    #[pin]
    pub(crate) waiters: Waiters,
    #[pin]
    pub(crate) machine: Mutex<Guarded>,
    #[pin]
    pub(crate) status: Mutex<StatusField>,
    #[pin]
    pub(crate) timer_work: DelayedWork<Self, TIMER_WORK>,
    #[pin]
    pub(crate) release_work: DelayedWork<Self, RELEASE_WORK>,
    #[pin]
    pub(crate) announce_work: DelayedWork<Self, ANNOUNCE_WORK>,
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
    /// Who has the stop of its own, if the machine says that somebody has.
    pub(crate) opener: Option<Opener>,
    pub(crate) quiesced: Option<Quiesced>,
    /// To be let go by the release work.
    pub(crate) to_release: Option<Quiesced>,
    /// What stays of a driver that was let go while the device had not answered: to be let go when
    /// it has.
    pub(crate) unanswered: Option<Quiesced>,
    /// The device was found stopped: its virtqueues may be broken.
    pub(crate) mends: bool,
    /// The end of a stop, of which user space was not told yet.
    pub(crate) to_announce: Option<State>,
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
                announcing <- new_mutex!(()),
                waiters <- Waiters::new(),
                machine <- new_mutex!(Guarded {
                    machine,
                    opener: None,
                    quiesced: None,
                    to_release: None,
                    unanswered: None,
                    mends: false,
                    to_announce: None,
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
                announce_work <- new_delayed_work!("virtio_device_stop::announce"),
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

    /// Whoever waits for a change looks again.
    pub(crate) fn wake(&self) {
        self.waiters.wake();
        if let Some(poll) = self.poll.as_ref() {
            poll.wake();
        }
    }

    /// Removes the files, once. Waits for accesses to them that are under way, and for whoever else
    /// removes them: they must be gone before the device is.
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
        work::cancel::<_, TIMER_WORK>(self);
        work::cancel::<_, RELEASE_WORK>(self);
        work::cancel::<_, ANNOUNCE_WORK>(self);
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
