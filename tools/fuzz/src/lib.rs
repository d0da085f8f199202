// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the fuzz targets do with an input. Each panics when it has found something.
//!
//! | | |
//! |---|---|
//! | [`registers`] | a guest: register accesses, virtqueues, memory that comes and goes |
//! | [`messages`] | a client: vfio-user messages, with file descriptors |
//! | [`control`] | somebody at the control socket: lines |
//! | [`requests`] | a guest: requests to disks, of which only the buffers make sense |
//! | [`guest`] | the devices, and the guest's memory |

#![forbid(unsafe_code)]

pub mod control;
pub mod guest;
pub mod messages;
pub mod registers;
pub mod requests;
