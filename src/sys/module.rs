// SPDX-License-Identifier: GPL-2.0-only

//! References to modules.

use kernel::{
    bindings,
    prelude::*, //
};

/// As long as this lives, the module can't be unloaded.
pub(crate) struct ModuleRef(*mut bindings::module);

// SAFETY: A reference is not tied to a task.
unsafe impl Send for ModuleRef {}
// SAFETY: As above; nothing can be done with a shared one.
unsafe impl Sync for ModuleRef {}

impl ModuleRef {
    /// Nothing if the module, which is this one, is being unloaded already.
    pub(crate) fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: The module is valid: this is its code.
        unsafe { Self::from_raw(module.as_ptr()) }
    }

    /// The same for any module, or none, which is what the kernel itself is.
    ///
    /// # Safety
    ///
    /// It is valid, or null.
    pub(super) unsafe fn from_raw(module: *mut bindings::module) -> Option<Self> {
        // SAFETY: By the contract of this function.
        let got = unsafe { bindings::try_module_get(module) };
        // Not `then_some`: it would make, and drop, a reference that nobody has taken.
        got.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `from_raw` has taken a reference.
        unsafe { bindings::module_put(self.0) };
    }
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_module)]
mod tests {
    use super::*;
    use kernel::types::Opaque;

    struct Module(Opaque<bindings::module>);

    // SAFETY: One test alone uses it, and through atomic operations only.
    unsafe impl Sync for Module {}

    static GOING: Module = Module({
        // SAFETY: All fields may be zero.
        let mut module: bindings::module = unsafe { core::mem::zeroed() };
        module.state = bindings::module_state_MODULE_STATE_GOING;
        module.refcnt.counter = 1;
        Opaque::new(module)
    });

    // SAFETY: `GOING` lives for ever.
    static THIS: ThisModule = unsafe { ThisModule::from_ptr(GOING.0.get()) };

    #[test]
    fn a_module_that_goes_is_neither_taken_nor_given_back() {
        assert!(ModuleRef::get(&THIS).is_none());
        // SAFETY: As for `Sync`.
        assert_eq!(unsafe { (*GOING.0.get()).refcnt.counter }, 1);
    }
}
