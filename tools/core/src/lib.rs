// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The pure files of the module, compiled and tested on the host: they decide, the kernel files act.

#[path = "../../../src/field.rs"]
pub mod field;
#[path = "../../../src/handshake.rs"]
pub mod handshake;
#[path = "../../../src/negotiate.rs"]
pub mod negotiate;
#[path = "../../../src/policy.rs"]
pub mod policy;
#[path = "../../../src/state.rs"]
pub mod state;
#[path = "../../../src/status.rs"]
pub mod status;
