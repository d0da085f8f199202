// SPDX-License-Identifier: GPL-2.0-only

//! The driver core's locks, and allocation without I/O.

use super::{
    bindings,
    virtio::{
        Device,
        DeviceRef, //
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
    parent: ARef<kernel::device::Device>,
    _not_send: NotThreadSafe,
}

impl DeviceGuard {
    /// Waits for the locks.
    pub(crate) fn lock(device: &Device) -> Self {
        // SAFETY: Both devices are valid for as long as the caller has `device`.
        unsafe {
            bindings::virtio_device_stop_lock(device.parent());
            bindings::virtio_device_stop_lock(device.as_dev());
        }
        Self::locked(device)
    }

    /// Nothing if somebody has one of the locks.
    pub(crate) fn try_lock(device: &Device) -> Option<Self> {
        // SAFETY: As for `lock`. What was locked is unlocked if the other one can't be.
        unsafe {
            if !bindings::virtio_device_stop_trylock(device.parent()) {
                return None;
            }
            if !bindings::virtio_device_stop_trylock(device.as_dev()) {
                bindings::virtio_device_stop_unlock(device.parent());
                return None;
            }
        }
        Some(Self::locked(device))
    }

    fn locked(device: &Device) -> Self {
        Self {
            device: ARef::from(device),
            // SAFETY: A virtio device on the bus has a parent, and holds a reference to it.
            parent: unsafe { kernel::device::Device::get_device(device.parent()) },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for DeviceGuard {
    fn drop(&mut self) {
        // The parent's reference is held on its own: the device may lose its parent meanwhile.
        let _parent = &self.parent;
        // SAFETY: Both locks were taken by `lock`, on this task.
        unsafe {
            bindings::virtio_device_stop_unlock(self.device.as_dev());
            bindings::virtio_device_stop_unlock(self.device.parent());
        }
    }
}

/// While this lives, memory that this task allocates is not got by writing pages out: that would
/// wait for the very disk that is stopped.
#[must_use = "allocations may do I/O again when this is dropped"]
pub(crate) struct NoIo {
    flags: u32,
    _not_send: NotThreadSafe,
}

impl NoIo {
    /// From now on.
    pub(crate) fn enter() -> Self {
        Self {
            // SAFETY: Changes this task's own flags.
            flags: unsafe { bindings::virtio_device_stop_noio_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: The flags are those that `enter` has got on this task.
        unsafe { bindings::virtio_device_stop_noio_restore(self.flags) };
    }
}

/// Sleeps for about `us` microseconds. Returns early, and true, if the task is being killed.
pub(crate) fn sleep_killable(us: u64) -> bool {
    // SAFETY: The caller may sleep, as every caller of a function that is not told otherwise.
    unsafe { bindings::virtio_device_stop_sleep(us.saturating_mul(1000)) }
}
