// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::settings::Settings;

/// A virtio device outside of QEMU, for tests of drivers that stop and resume it: real data, scriptable behaviour, and a judge of
/// the driver.
///
/// Attach it to QEMU (10.1 or later; the guest's memory must be shared):
///
///   qemu-system-x86_64 -M q35,memory-backend=mem
///     -object memory-backend-memfd,id=mem,size=512M,share=on
///     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"SOCKET"}}' ...
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
pub struct Args {
    /// Where to listen for QEMU (vfio-user)
    #[arg(long, value_name = "SOCKET")]
    pub socket: PathBuf,
    /// Where to listen for control clients: one JSON request a line, one reply a line, for example
    /// {"v":1,"id":1,"get":"counters.requests"} or {"v":1,"id":2,"set":{"acknowledge":"never"}}
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// The disk's contents: a file, or a block device
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The protocol to offer
    #[arg(long, default_value = "device-stop")]
    pub protocol: Protocol,
    /// How the device behaves; each can be changed at run time over the control socket
    #[command(flatten, next_help_heading = "Behaviour")]
    pub settings: Settings,
}

/// The protocol by which the device can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// VIRTIO_F_DEVICE_STOP, feature bit 39 (RFC of 2020)
    DeviceStop,
    /// None: the device can't be stopped
    None,
}
