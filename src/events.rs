// SPDX-License-Identifier: GPL-2.0-only

//! What happens to devices when the world around them changes: they come and go, drivers are bound
//! and unbound, and this module is unloaded.

use crate::{
    attrs,
    device::{
        Device,
        Environment, //
    },
    sys::{
        lock::DeviceGuard,
        notifier::{
            Event,
            Listener, //
        },
        shadow::{
            Attached,
            Shadows,
            Transport, //
        },
        sysfs::Directory,
        system,
        virtio::{
            self,
            Bus, //
        }, //
    },
};
use core::ptr;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

/// All devices on the bus.
#[pin_data(PinnedDrop)]
pub(crate) struct Devices {
    environment: Environment,
    exiting: AtomicFlag,
    #[pin]
    attachments: Mutex<KVec<Attachment>>,
    shadows: Shadows,
}

/// What ties a device to this module. Dropped in this order.
struct Attachment {
    /// Its files, until it leaves.
    directory: Option<Pin<KBox<Directory<Device>>>>,
    _attached: Attached,
    device: Arc<Device>,
}

impl Devices {
    /// None yet.
    pub(crate) fn new(environment: Environment, shadows: Shadows) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                environment,
                exiting: AtomicFlag::new(false),
                attachments <- new_mutex!(KVec::new()),
                shadows,
            }),
            GFP_KERNEL,
        )
    }

    /// Attaches to the devices that are on the bus already.
    pub(crate) fn attach_all(&self, bus: Bus) {
        bus.for_each(|device| {
            let _guard = DeviceGuard::lock(device);
            if device.is_registered() {
                self.attach_or_complain(device);
            }
        });
    }

    /// The module is about to be unloaded: leaves all devices, and removes their files.
    pub(crate) fn exit(&self) {
        self.exiting.store(true, Relaxed);
        while let Some(device) = self.any_with_files() {
            device.leave_for_good();
            self.remove_files(&device);
        }
    }

    fn any_with_files(&self) -> Option<Arc<Device>> {
        let attachments = self.attachments.lock();
        let found = attachments
            .iter()
            .find(|attachment| attachment.directory.is_some());
        found.map(|attachment| attachment.device.clone())
    }

    fn attach_or_complain(&self, device: &virtio::Device) {
        if let Err(error) = self.attach(device) {
            dev_err!(device.as_device(), "can't be attached to: {:?}\n", error);
        }
    }

    /// Attaches to `device`, if that has not happened yet. The caller holds its lock and its
    /// parent's, or is told of its addition to the bus just now.
    fn attach(&self, device: &virtio::Device) -> Result {
        let mut attachments = self.attachments.lock();
        let known = attachments
            .iter()
            .any(|attachment| attachment.is_of(device));
        if known || self.exiting.load(Relaxed) {
            return Ok(());
        }
        attachments.reserve(1, GFP_KERNEL)?;
        let ours = Device::new(Transport::of(device), self.environment.clone())?;
        if device.has_driver() {
            ours.bound_before();
        }
        let attached = self.shadows.attach(ours.transport(), ours.clone())?;
        let directory = Directory::new(device, ours.clone(), &attrs::FILES)?;
        if let Some(poll) = directory.poll(attrs::STATE) {
            ours.tell(poll);
        }
        attachments.push(
            Attachment {
                directory: Some(directory),
                _attached: attached,
                device: ours,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// Calls `body` for every device that is attached, without the lock: it may come back to us.
    fn for_each(&self, mut body: impl FnMut(Arc<Device>)) {
        for at in 0.. {
            let device = match self.attachments.lock().get(at) {
                Some(attachment) => attachment.device.clone(),
                None => return,
            };
            body(device);
        }
    }

    /// To freeze a device whose driver is held would wait for ever.
    fn refuse_sleep(&self) -> Result {
        let mut result = Ok(());
        self.for_each(|device| {
            let life = device.life();
            if life.holds_upper() {
                dev_warn!(
                    device.transport().device().as_device(),
                    "is {}: the system must not sleep\n",
                    life.state().name()
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

    /// Removes the files, once. Waits for accesses to them that are under way.
    fn remove_files(&self, device: &Arc<Device>) {
        let mut attachments = self.attachments.lock();
        let mut found = attachments
            .iter_mut()
            .find(|attachment| Arc::ptr_eq(&attachment.device, device));
        let directory = found
            .as_mut()
            .and_then(|attachment| attachment.directory.take());
        drop(attachments);
        drop(directory);
    }

    /// The device was removed from the bus.
    fn detach(&self, device: &virtio::Device) {
        let mut attachments = self.attachments.lock();
        let at = attachments
            .iter()
            .position(|attachment| attachment.is_of(device));
        let attachment = at.and_then(|at| attachments.remove(at).ok());
        drop(attachments);
        if let Some(attachment) = attachment {
            attachment.forget();
        }
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
            let _guard = DeviceGuard::lock(device.transport().device());
            attachment.forget();
        }
    }
}

impl Attachment {
    /// Ends the attachment. The caller holds the locks of the device and its parent, or is told of
    /// the device's removal from the bus just now.
    fn forget(self) {
        let device = self.device.clone();
        drop(self);
        // The virtio core does not call us any more: nothing is queued from now on.
        device.cancel_works();
    }

    fn is_of(&self, device: &virtio::Device) -> bool {
        ptr::eq(self.device.transport().device(), device)
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
                self.for_each(|device| device.leave_for_good());
                Ok(())
            }
        }
    }
}

impl Listener for Devices {
    fn event(&self, event: Event, device: &virtio::Device) {
        if event == Event::Added {
            return self.attach_or_complain(device);
        }
        let Some(ours) = self.find(device) else {
            return;
        };
        match event {
            Event::Added => {}
            Event::Binding => ours.binding(),
            Event::Bound => ours.bound(),
            Event::Unbinding => ours.leave_driver(),
            Event::NotBound | Event::Unbound => ours.unbound(),
            Event::Deleting => {
                ours.leave_for_good();
                self.remove_files(&ours);
            }
            Event::Removed => self.detach(device),
        }
    }
}
