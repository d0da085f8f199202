// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio device outside of QEMU that speaks VIRTIO_F_DEVICE_STOP, and judges the driver that drives it.
//!
//! | | |
//! |---|---|
//! | [`args`], [`settings`] | what the user chose |
//! | [`server`], [`memory`] | the client: QEMU, by vfio-user |
//! | [`pci`], [`registers`], [`status`] | what the guest's driver sees |
//! | [`device`], [`blk`] | what the device does |
//! | [`judge`], [`control`] | what it tells of the driver and of itself |
//!
//! It shares no code with the driver: a judge that shares the driver's predicates can't catch its mistakes.

pub mod args;
pub mod blk;
pub mod control;
pub mod device;
pub mod judge;
pub mod memory;
pub mod pci;
pub mod registers;
pub mod server;
pub mod settings;
pub mod status;
