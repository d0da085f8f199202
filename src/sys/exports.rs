// SPDX-License-Identifier: GPL-2.0-only

//! What other modules call: `src/include/virtio_device_stop.h`. Exported by `shims.c`.

use super::{
    bindings,
    memory::NoIo,
    virtio::Device, //
};
use kernel::{
    error::from_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            AtomicFlag,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};

/// Devices that another module may stop.
pub(crate) trait Hold: Send + Sync {
    /// Adds the device that `is_it`.
    fn add(&self, is_it: &dyn Fn(&Device) -> bool) -> Result;
    /// Stops all within `timeout_ms`, or, for 0, as long as their administrator grants; or none.
    fn stop(&self, timeout_ms: u32) -> Result;
    /// Whether all stand since.
    fn look(&self) -> Result;
    /// Resumes all.
    fn resume(&self, timeout_ms: u32) -> Result;
    /// The other module does not want it any more.
    fn put(self: Arc<Self>);
}

/// Who finds them.
pub(crate) trait Finder: Send + Sync {
    /// The right to stop the device that `is_it`.
    fn get(&self, is_it: &dyn Fn(&Device) -> bool) -> Result<Arc<dyn Hold>>;
}

kernel::sync::global_lock! {
    // SAFETY: Used only while `READY`, which is so after it was initialised.
    unsafe(uninit) static FINDER: Mutex<Option<Arc<dyn Finder>>> = None;
}

/// Built in, others may call before this module is initialised.
static READY: AtomicFlag = AtomicFlag::new(false);

/// As long as this lives, other modules find devices.
pub(crate) struct Exports(());

impl Exports {
    /// For the module's initialisation.
    ///
    /// # Errors
    ///
    /// EBUSY if it was called before.
    pub(crate) fn new(finder: Arc<dyn Finder>) -> Result<Self> {
        static USED: AtomicFlag = AtomicFlag::new(false);

        if USED.xchg(true, Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: This is the first time, and the only one.
        unsafe { FINDER.init() };
        *FINDER.lock() = Some(finder);
        READY.store(true, Release);
        Ok(Self(()))
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        let finder = FINDER.lock().take();
        drop(finder);
    }
}

impl Device {
    /// Whether `dev` is this one, or is below it. Any pointer will do.
    fn is_or_has(&self, dev: *mut kernel::bindings::device) -> bool {
        // SAFETY: `self` is valid; `dev` is only compared.
        unsafe { bindings::virtio_device_stop_is_or_has(self.as_raw(), dev) }
    }
}

fn get(is_it: &dyn Fn(&Device) -> bool) -> *mut c_void {
    let found = || {
        if !READY.load(Acquire) {
            return Err(ENODEV);
        }
        // The caller may have stopped a disk by another one.
        let _no_io = NoIo::enter();
        let finder = FINDER.lock().clone().ok_or(ENODEV)?;
        let hold = finder.get(is_it)?;
        KBox::new(hold, GFP_KERNEL).map_err(|error| error.into())
    };
    match found() {
        Ok(hold) => KBox::into_raw(hold).cast(),
        Err(error) => error.to_ptr(),
    }
}

#[no_mangle]
extern "C" fn virtio_device_stop_get(dev: *mut kernel::bindings::device) -> *mut c_void {
    get(&|device| device.is_or_has(dev))
}

#[no_mangle]
extern "C" fn virtio_device_stop_get_by_index(index: c_uint) -> *mut c_void {
    get(&|device| device.index() == index)
}

/// # Safety
///
/// `hold` comes from [`get`], and is not given back meanwhile.
unsafe fn call(hold: *mut c_void, body: impl FnOnce(&dyn Hold) -> Result) -> c_int {
    // SAFETY: By the contract of this function.
    let hold: &Arc<dyn Hold> = unsafe { &*hold.cast() };
    from_result(|| body(&**hold).map(|()| 0))
}

/// # Safety
///
/// As for [`call`].
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_add(
    hold: *mut c_void,
    dev: *mut kernel::bindings::device,
) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { call(hold, |hold| hold.add(&|device| device.is_or_has(dev))) }
}

/// # Safety
///
/// As for [`call`].
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_add_by_index(hold: *mut c_void, index: c_uint) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { call(hold, |hold| hold.add(&|device| device.index() == index)) }
}

/// # Safety
///
/// As for [`call`].
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_stop(hold: *mut c_void, timeout_ms: c_uint) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { call(hold, |hold| hold.stop(timeout_ms)) }
}

/// # Safety
///
/// As for [`call`].
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_look(hold: *mut c_void) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { call(hold, |hold| hold.look()) }
}

/// # Safety
///
/// As for [`call`].
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_resume(hold: *mut c_void, timeout_ms: c_uint) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { call(hold, |hold| hold.resume(timeout_ms)) }
}

/// # Safety
///
/// `hold` comes from [`get`], and nobody uses it any more.
#[no_mangle]
unsafe extern "C" fn virtio_device_stop_put(hold: *mut c_void) {
    // SAFETY: By the contract of this function.
    let hold: KBox<Arc<dyn Hold>> = unsafe { KBox::from_raw(hold.cast()) };
    KBox::into_inner(hold).put();
}
