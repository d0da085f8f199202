// SPDX-License-Identifier: GPL-2.0-only

//! The driver core's locks.

use super::{
    bindings,
    virtio::{
        Device,
        DeviceRef,
        Exclusive,
        Parent, //
    }, //
};
use kernel::{
    sync::aref::ARef,
    types::NotThreadSafe, //
};

/// The locks of a virtio device and of its parent, in this order, as the driver core takes them:
/// whoever holds both excludes every probe, removal, reset and system sleep of the device.
#[must_use = "the locks are released when this is dropped"]
pub(crate) struct DeviceGuard {
    device: DeviceRef,
    parent: Parent,
    _not_send: NotThreadSafe,
}

impl DeviceGuard {
    /// Waits for the locks.
    pub(crate) fn lock(device: &Device, parent: &Parent) -> Self {
        // SAFETY: Both devices are valid for as long as the caller has references to them.
        unsafe {
            bindings::virtio_device_stop_lock(parent.as_raw());
            bindings::virtio_device_stop_lock(device.as_dev());
        }
        Self::locked(device, parent)
    }

    /// Nothing if somebody has one of the locks.
    pub(crate) fn try_lock(device: &Device, parent: &Parent) -> Option<Self> {
        // SAFETY: As for `lock`. What was locked is unlocked if the other one can't be.
        unsafe {
            if !bindings::virtio_device_stop_trylock(parent.as_raw()) {
                return None;
            }
            if !bindings::virtio_device_stop_trylock(device.as_dev()) {
                bindings::virtio_device_stop_unlock(parent.as_raw());
                return None;
            }
        }
        Some(Self::locked(device, parent))
    }

    /// The device, for as long as the locks are held.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        // SAFETY: Both locks are held by this task, which this can't be sent from, and a reference
        // to the parent.
        unsafe { Exclusive::new(&self.device) }
    }

    fn locked(device: &Device, parent: &Parent) -> Self {
        Self {
            device: ARef::from(device),
            parent: parent.clone(),
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for DeviceGuard {
    fn drop(&mut self) {
        // SAFETY: Both locks were taken by `lock`, on this task.
        unsafe {
            bindings::virtio_device_stop_unlock(self.device.as_dev());
            bindings::virtio_device_stop_unlock(self.parent.as_raw());
        }
    }
}
