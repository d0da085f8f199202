// SPDX-License-Identifier: GPL-2.0-only

//! References to this module.

use kernel::{
    bindings,
    prelude::*, //
};

/// As long as this lives, the module can't be unloaded.
pub(crate) struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// Nothing if the module is being unloaded already.
    pub(crate) fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: The module is valid: this is its code.
        let got = unsafe { bindings::try_module_get(module.as_ptr()) };
        // Not `then_some`: it would make, and drop, a reference that nobody has taken.
        got.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `get` has taken a reference.
        unsafe { bindings::module_put(self.0.as_ptr()) };
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
