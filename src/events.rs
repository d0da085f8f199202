// SPDX-License-Identifier: GPL-2.0-only

//! What happens to devices when the world around them changes: they come and go, drivers are bound
//! and unbound, and this module is unloaded.

use crate::{
    attachment::{
        Attachment,
        Kept, //
    },
    attrs,
    device::{
        Device,
        Environment, //
    },
    machine::Leaver,
    sys::{
        lock::DeviceGuard,
        memory::NoIo,
        notifier::{
            Event,
            Listener, //
        },
        shadow::Shadows,
        sysfs::Group,
        system,
        transport::Transport,
        virtio::{
            self,
            Bus,
            Exclusive,
            Parent, //
        }, //
    },
};
use kernel::{
    alloc::kvec::PushError,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// All devices on the bus.
#[pin_data(PinnedDrop)]
pub(crate) struct Devices {
    environment: Environment,
    exiting: AtomicFlag,
    /// Devices that were attached to so far.
    attached: Atomic<u64>,
    #[pin]
    attachments: Mutex<KVec<Attachment>>,
    shadows: Shadows,
}

impl Devices {
    /// None yet.
    pub(crate) fn new(environment: Environment, shadows: Shadows) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                environment,
                exiting: AtomicFlag::new(false),
                attached: Atomic::new(0),
                attachments <- new_mutex!(KVec::new()),
                shadows,
            }),
            GFP_KERNEL,
        )
    }

    /// Attaches to the devices that are on the bus already.
    pub(crate) fn attach_all(&self, bus: Bus) {
        bus.for_each_locked(|device| self.attach_or_complain(device));
    }

    /// The module is about to be unloaded: leaves all devices, and removes their files.
    pub(crate) fn exit(&self) {
        self.exiting.store(true, Relaxed);
        // Of files that were closed.
        self.environment.timers.finish();
        self.for_all(|device| device.begin_to_leave(Leaver::Device));
        self.for_all(|device| {
            device.leave(Leaver::Device);
            device.remove_files();
        });
    }

    fn attach_or_complain(&self, device: Exclusive<'_>) {
        if let Err(error) = self.attach(device) {
            dev_err!(
                device.device().as_device(),
                "can't be attached to: {:?}\n",
                error
            );
        }
    }

    /// Attaches to a device, if that has not happened yet.
    fn attach(&self, exclusive: Exclusive<'_>) -> Result {
        let device = exclusive.device();
        // Whoever unbinds a stopped disk takes the lock: memory must not be got by I/O.
        let _no_io = NoIo::enter();
        // Nobody else attaches to it meanwhile. The lock is not held: to make files may have to
        // wait for memory, and whoever resumes a disk takes it.
        if self.exiting.load(Relaxed) || self.find(device).is_some() {
            return Ok(());
        }
        let (transport, parent) = (Transport::of(exclusive), Parent::of(exclusive));
        let ours = Device::new(transport, parent, self.environment.clone())?;
        let attached = self
            .shadows
            .attach(exclusive, ours.transport(), ours.clone())?;
        let attachment = Attachment {
            serial: 0,
            attached,
            device: ours.clone(),
        };
        let kept = match Self::add_files(device, &ours) {
            Ok(()) => {
                if device.has_driver() {
                    ours.bound_before();
                }
                self.keep(attachment)
            }
            Err(error) => Err((attachment, Err(error))),
        };
        let Err((attachment, result)) = kept else {
            return Ok(());
        };
        // Somebody may have used the files.
        ours.leave(Leaver::Device);
        ours.remove_files();
        attachment.end(exclusive);
        result
    }

    /// Not if this module is about to be unloaded, which is no error.
    fn keep(&self, mut attachment: Attachment) -> Result<(), (Attachment, Result)> {
        let mut attachments = self.attachments.lock();
        if self.exiting.load(Relaxed) {
            return Err((attachment, Ok(())));
        }
        attachment.serial = self.attached.fetch_add(1, Relaxed) + 1;
        if let Err(error) = attachments.reserve(1, GFP_KERNEL) {
            return Err((attachment, Err(error.into())));
        }
        let full = |PushError(attachment)| (attachment, Err(ENOMEM));
        attachments.push_within_capacity(attachment).map_err(full)
    }

    fn add_files(device: &virtio::Device, ours: &Arc<Device>) -> Result {
        let files = Group::new(device, ours, &attrs::FILES)?;
        let stats = Group::new(device, ours, &attrs::STATS)?;
        if let Some(poll) = files.poll(attrs::STATE) {
            ours.tell(poll);
        }
        *ours.files.lock() = Some([files, stats]);
        Ok(())
    }

    /// What all devices share.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The device that `is_it`, and by what it is found again as long as it is there.
    pub(crate) fn find_serial(&self, is_it: impl Fn(&Device) -> bool) -> Option<(u64, Kept)> {
        let attachments = self.attachments.lock();
        let mut all = attachments.iter();
        let found = all.find(|attachment| is_it(&attachment.device))?;
        Some((found.serial, found.keep()?))
    }

    /// The device that was found before, if it is there still.
    pub(crate) fn with_serial(&self, serial: u64) -> Option<Kept> {
        let attachments = self.attachments.lock();
        let mut all = attachments.iter();
        all.find(|attachment| attachment.serial == serial)?.keep()
    }

    /// Calls `body` for every device that is attached, without the lock: it may come back to us.
    /// Devices that come or go meanwhile don't hide others: they are in the order in which they
    /// came. Not for those whose transport's module is being unloaded, and which are about to go:
    /// returns whether there are none.
    pub(crate) fn for_each(&self, mut body: impl FnMut(&Arc<Device>)) -> bool {
        let mut done = 0;
        let mut for_all = true;
        loop {
            let next = {
                let attachments = self.attachments.lock();
                let next = attachments.iter().find(|next| next.serial > done);
                next.map(|next| (next.serial, next.keep()))
            };
            let Some((serial, kept)) = next else {
                return for_all;
            };
            done = serial;
            match kept {
                Some(device) => body(&device),
                None => for_all = false,
            }
        }
    }

    /// Calls `body` at least once for every device that does not go by itself.
    fn for_all(&self, mut body: impl FnMut(&Arc<Device>)) {
        while !self.for_each(&mut body) {
            // Whoever unloads the other module does not wait for us.
            fsleep(Delta::from_millis(10));
        }
    }

    /// To freeze a device whose driver is quiesced would wait for ever.
    fn refuse_sleep(&self) -> Result {
        let mut result = Ok(());
        self.for_each(|device| {
            if device.enter().guarded.machine.keeps_awake() {
                dev_warn!(
                    device.transport().device().as_device(),
                    "is {}: the system must not sleep\n",
                    device.snapshot().state.name()
                );
                result = Err(EBUSY);
            }
        });
        result
    }

    fn find(&self, device: &virtio::Device) -> Option<Arc<Device>> {
        let attachments = self.attachments.lock();
        let found = attachments
            .iter()
            .find(|attachment| attachment.is_of(device));
        found.map(|attachment| attachment.device.clone())
    }
}

#[pinned_drop]
impl PinnedDrop for Devices {
    fn drop(self: Pin<&mut Self>) {
        // Nobody tells us of the bus any more: what is left are devices that are still there.
        loop {
            let Some(attachment) = self.attachments.lock().pop() else {
                break;
            };
            let device = attachment.device.clone();
            let guard = DeviceGuard::lock(device.transport().device(), device.parent());
            attachment.end(guard.exclusive());
        }
    }
}

impl system::Listener for Devices {
    fn event(&self, event: system::Event) -> Result {
        match event {
            system::Event::SleepBegins => {
                self.environment.asleep.store(true, Relaxed);
                let refused = self.refuse_sleep();
                if refused.is_err() {
                    self.environment.asleep.store(false, Relaxed);
                }
                refused
            }
            system::Event::SleepEnds => {
                self.environment.asleep.store(false, Relaxed);
                Ok(())
            }
            system::Event::Reboots => {
                self.for_all(|device| device.begin_to_leave(Leaver::Device));
                self.for_all(|device| device.leave(Leaver::Device));
                Ok(())
            }
        }
    }
}

impl Listener for Devices {
    fn added(&self, device: Exclusive<'_>) {
        self.attach_or_complain(device);
    }

    fn removed(&self, device: Exclusive<'_>) {
        let attachment = {
            let mut attachments = self.attachments.lock();
            let mut all = attachments.iter();
            let at = all.position(|attachment| attachment.is_of(device.device()));
            at.and_then(|at| attachments.remove(at).ok())
        };
        if let Some(attachment) = attachment {
            attachment.end(device);
        }
    }

    fn event(&self, event: Event, device: &virtio::Device) {
        let Some(ours) = self.find(device) else {
            return;
        };
        match event {
            Event::Binding => ours.binding(),
            Event::Bound => ours.bound(),
            Event::Unbinding => ours.leave(Leaver::Driver),
            Event::NotBound | Event::Unbound => ours.unbound(),
            Event::Deleting => {
                ours.leave(Leaver::Device);
                ours.remove_files();
            }
        }
    }
}
