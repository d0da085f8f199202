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
        unsafe { bindings::try_module_get(module.as_ptr()) }.then_some(Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `get` has taken a reference.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}
