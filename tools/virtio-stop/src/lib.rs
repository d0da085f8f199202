// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops and resumes virtio devices from inside of a guest that has virtio_device_stop: what the
//! tool `virtio-stop` is made of, for agents in Rust.

pub mod agent;
pub mod block;
pub mod check;
pub mod command;
pub mod device;
pub mod error;
pub mod executable;
pub mod exit;
pub mod freeze;
pub mod freezing;
mod guard;
mod held;
mod instance;
mod ioctl;
pub mod memory;
pub mod mounts;
pub mod network;
pub mod overview;
pub mod owner;
pub mod proof;
pub mod reason;
pub mod refusal;
pub mod resolve;
pub mod second;
pub mod sequence;
pub mod session;
pub mod signals;
pub mod stack;
pub mod status;
pub mod switch;
mod sysfs;
pub mod task;
mod thaws;
mod uevents;
mod waiting;
pub mod watch;

pub use device::Device;
pub use error::{Error, Result};
pub use exit::Exit;
pub use freezing::mounted_above;
pub use ioctl::inherited;
pub use mounts::Mount;
pub use owner::Owner;
pub use resolve::resolve;
pub use waiting::is_closed;
