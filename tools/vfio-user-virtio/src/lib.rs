// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Virtio devices outside of QEMU that can be stopped, and judge the drivers that drive them.
//!
//! | | |
//! |---|---|
//! | [`args`], [`spec`], [`scenario`], [`settings`] | what the user chose |
//! | [`vfio_user`], [`memory`], [`buffers`], [`eventfd`] | the client: QEMU, by vfio-user, and the guest's memory |
//! | [`pci`], [`registers`], [`status`] | what the guest's driver sees |
//! | [`device`], [`types`] | what a device does |
//! | [`judge`], [`report`], [`control`], [`log`] | what it tells of the driver and of itself |
//! | [`client`] | the other end of the control socket |
//! | [`threads`] | who does it, and what when one of them fails |
//!
//! It shares no code with the driver: a judge that shares the driver's predicates can't catch its mistakes.

pub mod args;
pub mod boundary;
pub mod buffers;
pub mod client;
pub mod control;
pub mod device;
pub mod eventfd;
pub mod handover;
pub mod judge;
pub mod log;
pub mod memory;
pub mod pci;
pub mod portable;
pub mod registers;
pub mod replace;
pub mod report;
pub mod scenario;
pub mod service;
pub mod settings;
pub mod socket;
pub mod spec;
pub mod status;
pub mod threads;
pub mod types;
pub mod vfio_user;
