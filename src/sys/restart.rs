// SPDX-License-Identifier: GPL-2.0-only

//! Devices that are reset with their driver bound.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    bindings,
    lock::DeviceGuard,
    virtio::Device, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// A device whose driver can live through its reset, for as long as the locks are held.
pub(crate) struct Restartable<'a>(&'a Device);

impl<'a> Restartable<'a> {
    /// The driver that is bound, if it can live through a reset of the device.
    pub(crate) fn of(device: &'a Device, _lock: &'a DeviceGuard) -> Option<Self> {
        // SAFETY: `device` is a valid device. The lock keeps the driver bound, and all drivers on
        // this bus are virtio drivers.
        let restarts = unsafe {
            let driver = (*device.as_dev()).driver;
            !driver.is_null() && {
                let driver = kernel::container_of!(driver, bindings::virtio_driver, driver);
                (*driver).reset_prepare.is_some() && (*driver).reset_done.is_some()
            }
        };
        restarts.then_some(Self(device))
    }

    /// Has the driver finish its requests, and give up its virtqueues. The device is reset.
    pub(crate) fn prepare(&self) -> Result {
        // SAFETY: The device is valid, and the locks are held under which this is called otherwise.
        to_result(unsafe { bindings::virtio_device_reset_prepare(self.0.as_raw()) })
    }

    /// Negotiates anew, and has the driver begin again; after [`Self::prepare`], or when it has
    /// failed.
    pub(crate) fn begin_again(&self) -> Result {
        // SAFETY: As for `prepare`.
        to_result(unsafe { bindings::virtio_device_reset_done(self.0.as_raw()) })
    }
}
