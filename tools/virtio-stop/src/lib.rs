// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops and resumes virtio devices from inside of a guest that has virtio_device_stop: what the
//! tool `virtio-stop` is made of, for agents in Rust.

pub mod block;
pub mod device;
pub mod error;
pub mod freezing;
pub mod mounts;
pub mod network;
pub mod resolve;
pub mod stack;
mod sysfs;

pub use device::Device;
pub use error::{Error, Exit, Result};
pub use freezing::mounted_above;
pub use mounts::Mount;
pub use resolve::resolve;
