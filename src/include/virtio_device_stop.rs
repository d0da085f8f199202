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
    fn virtio_device_stop_add(stop: *mut c_void, dev: *mut c_void) -> c_int;
    fn virtio_device_stop_add_by_index(stop: *mut c_void, index: c_uint) -> c_int;
    fn virtio_device_stop_stop(stop: *mut c_void, timeout_ms: c_uint) -> c_int;
    fn virtio_device_stop_look(stop: *mut c_void) -> c_int;
    fn virtio_device_stop_resume(stop: *mut c_void, timeout_ms: c_uint) -> c_int;
    fn virtio_device_stop_put(stop: *mut c_void);
}

/// Virtio devices that this module has stopped. When this is dropped, they resume; that is not
/// waited for. Whoever has one must not stop others, see `virtio_device_stop.h`.
pub(crate) struct Stopped(NonNull<c_void>);

// SAFETY: The functions do their own locking.
unsafe impl Send for Stopped {}
// SAFETY: As above.
unsafe impl Sync for Stopped {}

impl Stopped {
    /// Stops the devices virtioN, at least one, within `timeout_ms`, or, for 0, as long as the file
    /// `timeout_ms` of each grants. All of them, or none.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_get_by_index`, `virtio_device_stop_add_by_index` and
    /// `virtio_device_stop_stop`.
    pub(crate) fn by_index(indexes: &[u32], timeout_ms: u32) -> Result<Self> {
        let (&first, others) = indexes.split_first().ok_or(EINVAL)?;
        // SAFETY: May be called with any number.
        let this = Self::new(unsafe { virtio_device_stop_get_by_index(first) })?;
        for &index in others {
            // SAFETY: It was got, and is given back when `this` is dropped.
            to_result(unsafe { virtio_device_stop_add_by_index(this.0.as_ptr(), index) })?;
        }
        this.stop(timeout_ms)
    }

    /// The same for the virtio devices that the given ones are, or lie below.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_get`, `virtio_device_stop_add` and `virtio_device_stop_stop`.
    pub(crate) fn above(devices: &[&device::Device], timeout_ms: u32) -> Result<Self> {
        let (&first, others) = devices.split_first().ok_or(EINVAL)?;
        // SAFETY: May be called with any pointer.
        let this = Self::new(unsafe { virtio_device_stop_get(Self::pointer(first)) })?;
        for &device in others {
            // SAFETY: As in `by_index`, and as above.
            to_result(unsafe { virtio_device_stop_add(this.0.as_ptr(), Self::pointer(device)) })?;
        }
        this.stop(timeout_ms)
    }

    fn pointer(device: &device::Device) -> *mut c_void {
        ptr::from_ref(device).cast_mut().cast()
    }

    fn new(stop: *mut c_void) -> Result<Self> {
        NonNull::new(from_err_ptr(stop)?).map(Self).ok_or(ENODEV)
    }

    fn stop(self, timeout_ms: u32) -> Result<Self> {
        // SAFETY: As in `by_index`.
        to_result(unsafe { virtio_device_stop_stop(self.0.as_ptr(), timeout_ms) })?;
        Ok(self)
    }

    /// Whether they have stood still since.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_look`.
    pub(crate) fn look(&self) -> Result {
        // SAFETY: As in `by_index`.
        to_result(unsafe { virtio_device_stop_look(self.0.as_ptr()) })
    }

    /// Resumes them, and waits for that. If it fails, it may be tried again.
    ///
    /// # Errors
    ///
    /// Those of `virtio_device_stop_resume`.
    pub(crate) fn resume(&self, timeout_ms: u32) -> Result {
        // SAFETY: As in `by_index`.
        to_result(unsafe { virtio_device_stop_resume(self.0.as_ptr(), timeout_ms) })
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: It was got, and nobody has it any more.
        unsafe { virtio_device_stop_put(self.0.as_ptr()) };
    }
}
