// SPDX-License-Identifier: GPL-2.0-only

//! An open file of `/dev/virtio_device_stop`: what it has stopped runs when it is closed.

use crate::{
    device::Device,
    events::Devices,
    machine::{
        Asker,
        Holder,
        Ticket, //
    },
    set::{
        self,
        By,
        Failure, //
    },
    state::{
        Error,
        Reason,
        State, //
    },
    sys::{
        memory::NoIo,
        task, //
    },
};
use core::fmt;
use kernel::{
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{
        atomic::{
            Atomic,
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex,
        MutexGuard, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

/// Files that were opened so far.
static OPENED: Atomic<u64> = Atomic::new(0);

/// Who has opened a file. A hint: it may have given it to somebody else.
#[derive(Clone, Copy)]
pub(crate) struct Opener {
    id: u64,
    process: i32,
    name: [u8; 16],
}

impl Opener {
    fn current() -> Self {
        Self {
            id: OPENED.fetch_add(1, Relaxed) + 1,
            process: task::process(),
            name: task::name(),
        }
    }

    /// The number of the holder.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.process)?;
        let name = CStr::from_bytes_until_nul(&self.name).unwrap_or_default();
        // In a line of its own, whatever a task calls itself.
        name.to_bytes().iter().try_for_each(|&byte| match byte {
            b' '..=b'~' => fmt::Write::write_char(f, byte.into()),
            _ => fmt::Write::write_char(f, '?'),
        })
    }
}

/// An open file.
#[pin_data]
pub(crate) struct Owner {
    opener: Opener,
    devices: Arc<Devices>,
    /// Held for as long as a call takes, by whoever makes one.
    #[pin]
    members: Mutex<KVec<Member>>,
    /// The stop that is under way is not wanted any more.
    called_off: AtomicFlag,
    #[pin]
    work: DelayedWork<Self>,
}

/// A device that was added.
pub(crate) struct Member {
    /// The N of its virtioN.
    pub(crate) index: u32,
    /// It may be removed meanwhile: it is looked up for each call.
    serial: u64,
    /// When this file has stopped it.
    stopped: Option<u64>,
    resuming: Option<Ticket>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Owner { self.work }
}

/// It was closed.
impl WorkItem for Owner {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.call_off();
    }
}

impl Owner {
    /// By the current task.
    pub(crate) fn new(devices: &Arc<Devices>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                opener: Opener::current(),
                devices: devices.clone(),
                members <- new_mutex!(KVec::new()),
                called_off: AtomicFlag::new(false),
                work <- new_delayed_work!("virtio_device_stop::owner"),
            }),
            GFP_KERNEL,
        )
    }

    /// Nobody has the file any more. Whoever closes it does not wait, and may have no memory left.
    pub(crate) fn close(self: Arc<Self>) {
        let devices = self.devices.clone();
        devices.environment().timers.enqueue::<Self, 0>(self, 0);
    }

    /// Its devices, for one call.
    ///
    /// # Errors
    ///
    /// EBUSY during another call.
    pub(crate) fn members(&self) -> Result<MutexGuard<'_, KVec<Member>>> {
        self.members.try_lock().ok_or(EBUSY)
    }

    /// Adds the device with that index, below that parent.
    ///
    /// # Errors
    ///
    /// ENODEV if there is none; EEXIST; ENOSPC.
    pub(crate) fn add(&self, index: u32, parent: &CStr, most: usize) -> Result {
        let mut members = self.members()?;
        let serial = self.devices.serial(index, parent).ok_or(ENODEV)?;
        if members.iter().any(|member| member.serial == serial) {
            return Err(EEXIST);
        }
        if members.len() >= most {
            return Err(ENOSPC);
        }
        let _no_io = NoIo::enter();
        members.push(
            Member {
                index,
                serial,
                stopped: None,
                resuming: None,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// Stops all devices, or none.
    ///
    /// # Errors
    ///
    /// EBUSY during another call; ENOMEM.
    pub(crate) fn stop(
        &self,
        timeout_us: Option<u64>,
        lease_us: u64,
    ) -> Result<Result<(), Failure>> {
        let mut members = self.members()?;
        self.called_off.store(false, Relaxed);
        let by = By {
            holder: Holder {
                id: self.opener.id,
                timeout_us,
                lease_us: Some(lease_us),
            },
            opener: self.opener,
        };
        let _no_io = NoIo::enter();
        let mut devices = KVec::with_capacity(members.len(), GFP_KERNEL)?;
        for member in &*members {
            let Some(device) = self.devices.with_serial(member.serial) else {
                return Ok(Err(member.failed(Error::Gone, None)));
            };
            devices.push(device, GFP_KERNEL)?;
        }
        let result = set::stop(&devices, by, &self.called_off)?;
        for (member, device) in members.iter_mut().zip(&devices) {
            member.stopped = result.is_ok().then(|| device.snapshot().generation);
        }
        Ok(result)
    }

    /// Resumes what this file has stopped.
    ///
    /// # Errors
    ///
    /// EBUSY during another call, but a stop that is under way is called off.
    pub(crate) fn resume(&self, timeout_us: Option<u64>) -> Result<Result<(), Failure>> {
        let Some(mut members) = self.members.try_lock() else {
            self.called_off.store(true, Relaxed);
            self.call_off();
            return Err(EBUSY);
        };
        let asker = Asker::Holder(Holder {
            id: self.opener.id,
            timeout_us,
            lease_us: None,
        });
        let mut result = Ok(());
        // Nothing is allocated from here on: what stands still could be what gives memory.
        for member in &mut *members {
            let (error, device) = match member.stopped.take() {
                None => continue,
                Some(generation) => match self.devices.with_serial(member.serial) {
                    None => (Error::Gone, None),
                    Some(device) => match member.ask_to_resume(&device, asker, generation) {
                        Ok(()) => continue,
                        Err(error) => (error, Some(device)),
                    },
                },
            };
            let failure = member.failed(error, device.as_ref());
            result = result.and(Err(failure));
        }
        for member in &mut *members {
            let device = self.devices.with_serial(member.serial);
            let Some((ticket, device)) = member.resuming.take().zip(device) else {
                continue;
            };
            if let Err(error) = device.enter().wait_for(Some(ticket)) {
                result = result.and(Err(member.failed(error, Some(&device))));
            }
        }
        Ok(result)
    }

    /// The leases of what this file has stopped begin anew.
    ///
    /// # Errors
    ///
    /// EBUSY during another call.
    pub(crate) fn renew(&self) -> Result<Result<(), Failure>> {
        let members = self.members()?;
        let mut result = Ok(());
        for member in &*members {
            let Some(generation) = member.stopped else {
                continue;
            };
            let device = self.devices.with_serial(member.serial);
            let renewed = match &device {
                Some(device) => device.renew(generation),
                None => Err(Error::Gone),
            };
            if let Err(error) = renewed {
                result = result.and(Err(member.failed(error, device.as_ref())));
            }
        }
        Ok(result)
    }

    /// The device of a member, if it is there.
    pub(crate) fn device(&self, member: &Member) -> Option<Arc<Device>> {
        self.devices.with_serial(member.serial)
    }

    fn call_off(&self) {
        self.devices.for_each(|device| {
            let mut entered = device.enter();
            let machine = &mut entered.guarded.machine;
            machine.closed(device.now(), self.opener.id);
            drop(entered.run());
        });
    }
}

impl Member {
    /// Whether this file has stopped it, and it stands since.
    pub(crate) fn stands(&self, state: State, generation: u64) -> bool {
        state == State::Stopped && self.stopped == Some(generation)
    }

    fn ask_to_resume(
        &mut self,
        device: &Arc<Device>,
        asker: Asker,
        generation: u64,
    ) -> Result<(), Error> {
        let mut entered = device.look();
        let machine = &mut entered.guarded.machine;
        self.resuming = machine.ask_resume(device.now(), asker, Some(generation))?;
        drop(entered.run());
        Ok(())
    }

    fn failed(&self, error: Error, device: Option<&Arc<Device>>) -> Failure {
        match device {
            Some(device) => Failure::of(device, error),
            None => Failure {
                index: self.index,
                error,
                reason: Reason::Gone,
            },
        }
    }
}
