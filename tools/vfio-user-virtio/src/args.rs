// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::settings::TABLE;
use crate::spec::{Spec, TYPES};

/// Virtio devices outside of QEMU, for tests of drivers that stop and resume them: real data, scriptable behaviour, and a judge of
/// the driver.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true, after_help = types_help())]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the devices, until a signal ends it
    #[command(after_long_help = format!("{}\n{}", types_help(), settings_help()))]
    Serve(Serve),
    /// Show what devices have counted, and what their drivers did wrong
    ///
    /// Ends with status 0 if no driver has broken a rule, with 1 if one has, and with 2 if that can't be told.
    Report {
        /// The control socket
        control: PathBuf,
        /// Only this device
        device: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one value of a device's report
    Get {
        /// The control socket
        control: PathBuf,
        /// The device's name
        device: String,
        /// Where it is in what `report --json` shows, for example counters.stops.resumed
        path: String,
    },
    /// Change how a device behaves
    #[command(after_long_help = settings_help())]
    Set {
        /// The control socket
        control: PathBuf,
        /// The device's name
        #[arg(required_unless_present = "scenario")]
        device: Option<String>,
        /// Settings
        #[arg(value_name = "SETTING=VALUE", required_unless_present = "scenario")]
        settings: Vec<String>,
        /// A file with settings: a TOML table for each device
        #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "settings"])]
        scenario: Option<PathBuf>,
    },
    /// Write all that the devices are into a file, for `serve --restore` and `show`
    ///
    /// The devices have to be stopped, or without a driver.
    Save {
        /// The control socket
        control: PathBuf,
        /// The file, which is made or replaced
        file: PathBuf,
    },
    /// Show what `save` has written
    Show {
        /// The file
        file: PathBuf,
    },
    /// Have a device do something once
    #[command(after_long_help = "\
Actions:
  behave            all settings as if none had been given
  needs-reset       set NEEDS_RESET
  hang-up           end the connection to QEMU
  forget-breaches   begin to judge anew
  resize:SECTORS    (blk) change the disk's size, and its file's
  resize:UNIT:SECTORS  (scsi) change a unit's size; but for the last one, to no more than its part of the file
  link:up, link:down  (net)")]
    Do {
        /// The control socket
        control: PathBuf,
        /// The device's name
        device: String,
        /// What to do
        action: String,
    },
}

/// The devices.
#[derive(Debug, ClapArgs)]
pub struct Serve {
    /// A device. TYPE is one of the device types below. Keys of all types: socket=SOCKET (where to listen for QEMU), name=NAME (for the
    /// control socket), protocol=device-stop|suspend|both|none, long_common=true (the common configuration reaches beyond
    /// queue_notify_data), notif_config_data=true (bit 39 in its later sense), ring_reset=true (VIRTIO_F_RING_RESET), packed=true (VIRTIO_F_RING_PACKED), notification_data=true (VIRTIO_F_NOTIFICATION_DATA), interrupts=msix|intx, and all settings. blk: file=FILE, queues=N,
    /// read_only=true, zoned=true. scsi: file=FILE, units=N (logical units, equal parts of FILE), queues=N. net: mac=MAC, queues=N (pairs of virtqueues), mergeable=true (VIRTIO_NET_F_MRG_RXBUF),
    /// dhcp=SECONDS (the other host is a DHCP server, whose leases are that long). null: id=N (virtio device type), queues=N,
    /// features=MASK (of its type), config=HEX (what its configuration space begins with), answers=MASK (a bit for each virtqueue in which it
    /// answers, with zeroes)
    #[arg(long = "device", value_name = "TYPE,KEY=VALUE,...", required_unless_present_any = ["take_over", "restore"])]
    pub devices: Vec<Spec>,
    /// Where to listen for control clients: one JSON request a line, one reply a line
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// A file with settings: a TOML table for each device
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Go on with the devices of the server with this control socket, which ends then: its sockets, its connections to QEMU, its
    /// guests' memory, all that the devices are. They have to be stopped. If this fails, that server goes on as if nothing had been
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["devices", "control", "scenario", "restore"])]
    pub take_over: Option<PathBuf>,
    /// Wait that long for the devices to stop, and take over then, at once
    #[arg(long, value_name = "SECONDS", requires = "take_over", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub wait: Option<u32>,
    /// Go on with devices as `save` has written them, which wait for clients
    #[arg(long, value_name = "FILE", conflicts_with_all = ["devices", "control", "scenario"])]
    pub restore: Option<PathBuf>,
    /// The device NAME has its data in FILE from now on: a copy, made while it was stopped
    #[arg(long = "file", value_name = "NAME=FILE", value_parser = new_file)]
    pub new_files: Vec<(String, PathBuf)>,
}

fn new_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

fn types_help() -> String {
    let mut help = String::from("Device types:\n");
    for (name, what) in TYPES {
        let _ = writeln!(help, "  {name:<5} {what}");
    }
    help
}

fn settings_help() -> String {
    let mut help = String::from("Settings:\n");
    for (name, values, what) in TABLE {
        let _ = writeln!(help, "  {name}: {what}\n      {values}");
    }
    help.push_str(
        "
QEMU (10.1 or later; the guest's memory must be shared):
  qemu-system-x86_64 -M q35,memory-backend=mem -object memory-backend-memfd,id=mem,size=512M,share=on
    -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"SOCKET\"}}' ...",
    );
    help
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_names_every_type() {
        let mut command = Args::command();
        let mut serve = command.find_subcommand("serve").unwrap().clone();
        for help in [command.render_help(), serve.render_long_help()] {
            let help = help.to_string();
            for (name, what) in TYPES {
                assert!(help.contains(&format!("  {name:<5} {what}")), "{help}");
            }
        }
    }
}
