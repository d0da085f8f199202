// SPDX-License-Identifier: GPL-2.0-only

//! Network interfaces.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    bindings,
    virtio::{
        Device,
        DeviceRef,
        Virtqueue,
        Virtqueues, //
    },
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::barrier::{
        smp_mb,
        Full, //
    },
    types::NotThreadSafe, //
};

/// What the driver calls its control virtqueue.
const CONTROL: &CStr = c"control";

impl Virtqueue<'_> {
    fn is_control(&self) -> bool {
        self.name() == Some(CONTROL)
    }
}

/// The lock under which network interfaces are configured.
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct Rtnl(NotThreadSafe);

impl Rtnl {
    /// Waits for the lock.
    pub(crate) fn lock() -> Self {
        // SAFETY: The caller may sleep, and does not have the lock.
        unsafe { bindings::rtnl_lock() };
        Self(NotThreadSafe)
    }

    /// Nothing if somebody has the lock.
    pub(crate) fn try_lock() -> Option<Self> {
        // SAFETY: The caller may sleep.
        (unsafe { bindings::rtnl_trylock() } != 0).then(|| Self(NotThreadSafe))
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: This task has taken the lock.
        unsafe { bindings::rtnl_unlock() };
    }
}

/// The network interface of a virtio network device.
///
/// # Invariants
///
/// `netdev` points to a valid network interface, to which a reference is held.
pub(crate) struct Netdev {
    netdev: NonNull<kernel::bindings::net_device>,
    device: DeviceRef,
}

// SAFETY: A network interface may be used from any task.
unsafe impl Send for Netdev {}

/// A network interface that passes nothing on to its driver, until this is dropped. It keeps its
/// addresses, its routes and its carrier. Neither the driver nor the device may go meanwhile.
pub(crate) struct Detached(Option<(Netdev, KBox<Vlans>)>);

/// A bit for each VLAN.
type Vlans = [c_ulong; 4096 / c_ulong::BITS as usize];

impl Netdev {
    /// The network interface that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid.
        let netdev = unsafe { bindings::virtio_device_stop_find_netdev(device.as_raw()) };
        // INVARIANT: What is found is a network interface, with a reference to it.
        NonNull::new(netdev).map(|netdev| Self {
            netdev,
            device: device.into(),
        })
    }

    /// Keeps the driver from being asked for anything, and has its commands to the device fail: it
    /// would wait for their end with the lock held, and without sleeping. Nothing if the device has
    /// a command still.
    pub(crate) fn detach(self, _lock: &Rtnl) -> Option<Detached> {
        let mut vlans = KBox::new([0; 4096 / c_ulong::BITS as usize], GFP_NOWAIT).ok()?;
        if !self.breaks_control_queue() {
            return None;
        }
        // SAFETY: By the invariant the network interface is valid; the lock is held. There is a bit for each
        // VLAN.
        unsafe {
            bindings::virtio_device_stop_note_vlans(self.netdev.as_ptr(), vlans.as_mut_ptr());
            bindings::netif_device_detach(self.netdev.as_ptr());
        }
        Some(Detached(Some((self, vlans))))
    }

    /// Not if the device has a command that the driver waits for: its end would be taken for that
    /// of a later one. Most commands are given with the lock held, but not all.
    fn breaks_control_queue(&self) -> bool {
        let queues = Virtqueues::lock(&self.device);
        let Some(control) = queues.iter().find(Virtqueue::is_control) else {
            return true;
        };
        if !control.is_empty() {
            return false;
        }
        control.set_broken(true);
        smp_mb(Full);
        let idle = control.is_empty();
        if !idle {
            control.set_broken(false);
        }
        idle
    }

    /// Unless all virtqueues were broken meanwhile, because the device is gone, or the device has a
    /// command that nobody waits for.
    fn repair_control_queue(&self) {
        let queues = Virtqueues::lock(&self.device);
        let (mut control, mut all_broken) = (None, true);
        for queue in queues.iter() {
            if queue.is_control() {
                control = Some(queue);
            } else {
                all_broken &= queue.is_broken();
            }
        }
        let Some(control) = control.filter(|_| !all_broken) else {
            return;
        };
        if control.is_empty() {
            control.set_broken(false);
        } else {
            // Somebody has put it there without the lock just when the virtqueue was broken, and
            // has given up. Its end would be taken for that of the next one.
            dev_warn!(
                self.device.as_device(),
                "a command is left in the control virtqueue: bind the driver anew\n"
            );
        }
    }
}

impl Detached {
    /// The device has stopped. A driver that was told meanwhile that the device had sent something
    /// goes on sending, and may be told so even after this: what it sends then waits in the
    /// virtqueue.
    pub(crate) fn stop_queues(&self) {
        if let Some((netdev, _)) = &self.0 {
            // SAFETY: By the invariant the network interface is valid.
            unsafe { bindings::netif_tx_stop_all_queues(netdev.netdev.as_ptr()) };
        }
    }
}

impl Netdev {
    fn attach(&self, before: &Vlans, _lock: &Rtnl) {
        self.repair_control_queue();
        // SAFETY: By the invariant the network interface is valid; the lock is held.
        unsafe {
            bindings::virtio_device_stop_attach_netdev(self.netdev.as_ptr());
            // What was asked for meanwhile, the driver does not know.
            bindings::virtio_device_stop_set_rx_mode(self.netdev.as_ptr());
            bindings::virtio_device_stop_remove_vlans(self.netdev.as_ptr(), before.as_ptr());
        }
    }
}

impl Detached {
    /// As when it is dropped, for whoever has the lock already.
    pub(crate) fn attach(mut self, lock: &Rtnl) {
        if let Some((netdev, vlans)) = self.0.take() {
            netdev.attach(&vlans, lock);
        }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some((netdev, vlans)) = self.0.take() {
            netdev.attach(&vlans, &Rtnl::lock());
        }
    }
}

impl Drop for Netdev {
    fn drop(&mut self) {
        // SAFETY: By the invariant a reference is held, which nobody else drops.
        unsafe { bindings::virtio_device_stop_put_netdev(self.netdev.as_ptr()) };
    }
}
