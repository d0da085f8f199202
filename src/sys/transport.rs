// SPDX-License-Identifier: GPL-2.0-only

//! A virtio device by its transport's own operations.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{
    bindings::{
        self,
        virtio_config_ops,
        virtqueue, //
    },
    feature_reg::CommonConfig,
    virtio::{
        Device,
        DeviceRef, //
    },
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

/// A device, by the transport's own operations.
///
/// # Invariants
///
/// `ops` is the transport's table, which is valid for as long as the device is on the bus.
pub(crate) struct Transport {
    device: DeviceRef,
    ops: *const virtio_config_ops,
}

// SAFETY: The operations may be called from any task.
unsafe impl Send for Transport {}
// SAFETY: As above.
unsafe impl Sync for Transport {}

impl Transport {
    /// # Safety
    ///
    /// `ops` is the transport's table, and stays so for as long as the device is on the bus.
    pub(super) unsafe fn new(device: &Device, ops: *const virtio_config_ops) -> Self {
        // INVARIANT: By the contract of this function.
        Self {
            device: ARef::from(device),
            ops,
        }
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The features 0 to 63 that the device offers.
    pub(crate) fn offered(&self) -> u64 {
        // SAFETY: The device is valid. This operation was not replaced.
        unsafe { bindings::virtio_device_stop_offered(self.device.as_raw()) }
    }

    /// Reads the status from the device.
    pub(crate) fn status(&self) -> u8 {
        // SAFETY: By the invariant; every transport has this operation.
        unsafe {
            (*self.ops)
                .get_status
                .map_or(0, |get| get(self.device.as_raw()))
        }
    }

    /// Writes the status to the device. Never 0: that would be a reset.
    pub(crate) fn set_status(&self, status: u8) {
        // SAFETY: By the invariant.
        if let (Some(set), true) = (unsafe { (*self.ops).set_status }, status != 0) {
            // SAFETY: As above.
            unsafe { set(self.device.as_raw(), status) };
        }
    }

    /// Resets the device. May wait for it without a time limit.
    pub(crate) fn reset(&self) {
        // SAFETY: By the invariant.
        if let Some(reset) = unsafe { (*self.ops).reset } {
            // SAFETY: As above.
            unsafe { reset(self.device.as_raw()) };
        }
    }

    /// Writes to the device's configuration space.
    ///
    /// # Safety
    ///
    /// As for the operation: `value` has `length` bytes, and the space has them at `offset`.
    pub(super) unsafe fn configure(&self, offset: c_uint, value: *const c_void, length: c_uint) {
        // SAFETY: By the invariant, and the contract of this function.
        unsafe {
            if let Some(set) = (*self.ops).set {
                set(self.device.as_raw(), offset, value, length);
            }
        }
    }

    /// Resets one virtqueue.
    ///
    /// # Safety
    ///
    /// As for the operation: `queue` is one of the device's, and nobody uses it.
    pub(super) unsafe fn reset_queue(&self, queue: *mut virtqueue) -> Result {
        // SAFETY: By the invariant, and the contract of this function.
        unsafe {
            let reset = (*self.ops).disable_vq_and_reset.ok_or(ENOENT)?;
            to_result(reset(queue))
        }
    }

    /// Notifies the device of every virtqueue.
    ///
    /// The caller makes sure that no reset begins meanwhile: the virtqueues may go with it.
    pub(crate) fn notify_virtqueues(&self) {
        self.device.notify_virtqueues();
    }

    /// The same; and those that were broken work again.
    pub(crate) fn mend_virtqueues(&self) {
        self.device.mend_broken_virtqueues();
        self.device.notify_virtqueues();
    }
}

impl Transport {
    /// The transport's table.
    pub(super) fn ops(&self) -> *const virtio_config_ops {
        self.ops
    }
}

/// What can be done while the features are written.
pub(crate) struct Features<'a>(pub(super) &'a Transport);

impl Features<'_> {
    /// The features 0 to 63 that the device offers.
    pub(crate) fn offered(&self) -> u64 {
        self.0.offered()
    }

    /// Lets the transport write the features that the virtio core has chosen.
    pub(crate) fn finalize(&self) -> Result {
        let Self(transport) = self;
        // SAFETY: By the invariant of the transport.
        let finalize = unsafe { (*transport.ops).finalize_features }.ok_or(ENOTSUPP)?;
        // SAFETY: As above.
        to_result(unsafe { finalize(transport.device.as_raw()) })
    }

    /// As [`Features::finalize`], with one feature more that the virtio core does not choose.
    /// Returns whether it was written: neither core nor the transport may clear it.
    pub(crate) fn finalize_with(&self, feature: u32) -> Result<bool> {
        let device = &self.0.device;
        device.set_feature(feature);
        self.finalize().inspect_err(|_| self.retract(feature))?;
        Ok(device.has_feature(feature))
    }

    /// Does not have that feature written from now on. Core keeps what was chosen when it brings
    /// the device up again.
    pub(crate) fn retract(&self, feature: u32) {
        self.0.device.clear_feature(feature);
    }

    /// Accepts one feature, from 32 to 63, on top of those that were written before.
    pub(crate) fn accept(&self, common: &CommonConfig, feature: u32) {
        let device = &self.0.device;
        device.set_feature(feature);
        common.write_upper_features((device.features() >> 32) as u32);
    }
}
