// SPDX-License-Identifier: GPL-2.0-only

//! virtio_device_stop for other modules in Rust, to be included:
//!
//! ```ignore
//! #[path = "<virtio_device_stop>/src/include/virtio_device_stop.rs"]
//! mod virtio_device_stop;
//! ```
//!
//! Where these functions may be called, and what the errors mean: `virtio_device_stop.h`.

#![allow(dead_code)] // A module uses what it needs.

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    device,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

extern "C" {
    fn virtio_device_stop_get(dev: *mut c_void) -> *mut c_void;
    fn virtio_device_stop_get_by_index(index: c_uint) -> *mut c_void;
    fn virtio_device_stop_stop(stop: *mut c_void, timeout_ms: c_uint) -> c_int;
    fn virtio_device_stop_look(stop: *mut c_void) -> c_int;
    fn virtio_device_stop_resume(stop: *mut c_void, timeout_ms: c_uint) -> c_int;
    fn virtio_device_stop_put(stop: *mut c_void);
}

/// A virtio device that this module has stopped. When this is dropped, it resumes; that is not
/// waited for.
pub(crate) struct Stopped(NonNull<c_void>);

// SAFETY: The functions do their own locking.
unsafe impl Send for Stopped {}
// SAFETY: As above.
unsafe impl Sync for Stopped {}

impl Stopped {
    /// Stops the device virtioN within `timeout_ms`, or, for 0, as long as its file `timeout_ms`
    /// grants.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_get_by_index` and `virtio_device_stop_stop`.
    pub(crate) fn by_index(index: u32, timeout_ms: u32) -> Result<Self> {
        // SAFETY: May be called with any number.
        Self::stop(
            unsafe { virtio_device_stop_get_by_index(index) },
            timeout_ms,
        )
    }

    /// Stops the virtio device that `device` is, or that is above it in sysfs.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_get` and `virtio_device_stop_stop`.
    pub(crate) fn above(device: &device::Device<device::Bound>, timeout_ms: u32) -> Result<Self> {
        let device = ptr::from_ref(device).cast_mut().cast();
        // SAFETY: A device with a driver is registered.
        Self::stop(unsafe { virtio_device_stop_get(device) }, timeout_ms)
    }

    fn stop(stop: *mut c_void, timeout_ms: u32) -> Result<Self> {
        let this = Self(NonNull::new(from_err_ptr(stop)?).ok_or(ENODEV)?);
        // SAFETY: It was got, and is given back when `this` is dropped.
        to_result(unsafe { virtio_device_stop_stop(this.0.as_ptr(), timeout_ms) })?;
        Ok(this)
    }

    /// Whether it has stood still since.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_look`.
    pub(crate) fn look(&self) -> Result {
        // SAFETY: As in `stop`.
        to_result(unsafe { virtio_device_stop_look(self.0.as_ptr()) })
    }

    /// Resumes it, and waits for that. If it fails, it may be tried again.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_resume`.
    pub(crate) fn resume(&self, timeout_ms: u32) -> Result {
        // SAFETY: As in `stop`.
        to_result(unsafe { virtio_device_stop_resume(self.0.as_ptr(), timeout_ms) })
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: It was got, and nobody has it any more.
        unsafe { virtio_device_stop_put(self.0.as_ptr()) };
    }
}
