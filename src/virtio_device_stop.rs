// SPDX-License-Identifier: GPL-2.0-only

//! Lets the guest stop and resume its virtio devices.
//!
//! Negotiates VIRTIO_F_SUSPEND or VIRTIO_F_DEVICE_STOP, sets the status bit, re-reads it until the
//! device acknowledges or a timeout passes, and gives migration agents the switch in sysfs.

use kernel::{
    prelude::*,
    sync::{
        atomic::AtomicFlag,
        Arc, //
    }, //
};
use kernel_callers::Callers;
use sys::{
    exports::Exports,
    system,
    work::Queue, //
};

// Pure: they decide. The same files are compiled and tested on the host.
pub mod field;
pub mod machine;
pub mod negotiate;
pub mod policy;
pub mod state;
pub mod status;

// They act.
mod actions;
mod announce;
mod attachment;
mod attrs;
mod configuration;
mod device;
mod entered;
mod events;
mod hooks;
mod ioctl;
mod kernel_callers;
mod opener;
mod owner;
mod quiesce;
mod release;
mod renegotiate;
mod requests;
mod set;
mod sys;
mod timer;

module! {
    type: DeviceStop,
    name: "virtio_device_stop",
    authors: ["The virtio_device_stop developers"],
    description: "Stop and resume virtio devices from the guest",
    license: "GPL v2",
    params: {
        device_stop: bool {
            default: true,
            description: "Accept VIRTIO_F_DEVICE_STOP (feature bit 39, RFC of 2020)",
        },
        suspend: bool {
            default: true,
            description: "Accept VIRTIO_F_SUSPEND (feature bit 43, virtio 1.4)",
        },
    },
}

/// All devices are told of something.
type Told<C> = system::Registration<C, events::Devices>;

/// The module, loaded. Dropped in this order.
struct DeviceStop {
    /// Other modules can't call any more: they would keep this one.
    _exports: Exports,
    /// Unregistered before anything else goes. Nobody has it open: that keeps the module.
    _node: Pin<KBox<sys::misc::Node<owner::Owner>>>,
    _reboot: Pin<KBox<Told<system::Reboot>>>,
    _sleep: Pin<KBox<Told<system::Sleep>>>,
    _registration: Pin<KBox<sys::notifier::Registration<events::Devices>>>,
    devices: Arc<events::Devices>,
}

impl kernel::Module for DeviceStop {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let bus = sys::virtio::Bus::find(module)?;
        let environment = device::Environment {
            timers: Arc::new(Queue::new(c"virtio_device_stop_timers")?, GFP_KERNEL)?,
            releases: Arc::new(Queue::new(c"virtio_device_stop_releases")?, GFP_KERNEL)?,
            module,
            asleep: Arc::new(AtomicFlag::new(false), GFP_KERNEL)?,
            allowed: negotiate::Allowed {
                device_stop: module_parameters::device_stop.value(),
                suspend: module_parameters::suspend.value(),
            },
        };
        let devices = events::Devices::new(environment, sys::shadow::Shadows::new()?)?;
        let callers = Arc::new(Callers(devices.clone()), GFP_KERNEL)?;
        let reboot = KBox::pin_init(Told::new(devices.clone()), GFP_KERNEL)?;
        let sleep = KBox::pin_init(Told::new(devices.clone()), GFP_KERNEL)?;
        let registration = KBox::pin_init(
            sys::notifier::Registration::new(bus, devices.clone()),
            GFP_KERNEL,
        )?;
        let node = sys::misc::Node::new(c"virtio_device_stop", devices.clone());
        // What has come meanwhile has files.
        let node = KBox::pin_init(node, GFP_KERNEL).inspect_err(|_| devices.exit())?;
        let exports = Exports::new(callers).inspect_err(|_| devices.exit())?;
        // Nothing fails from here on: what is attached to has files.
        devices.attach_all(bus);
        Ok(Self {
            _exports: exports,
            _node: node,
            _reboot: reboot,
            _sleep: sleep,
            _registration: registration,
            devices,
        })
    }
}

impl Drop for DeviceStop {
    fn drop(&mut self) {
        self.devices.exit();
    }
}
