// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The pure files of the module, compiled, tested and model-checked on the host: they decide, the
//! kernel files act.

pub use module::*;

#[path = "../../../src"]
mod module {
    pub mod field;
    pub mod machine;
    pub mod negotiate;
    pub mod policy;
    pub mod state;
    pub mod status;
}
