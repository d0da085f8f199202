// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

/// Stops and resumes virtio devices from inside of a guest.
///
/// A device is named by virtioN, by what is above it (vda, sda1, eth0, a logical volume, md, multipath,
/// loop, bond or bridge: then all devices below it), by a PCI address, a path in /dev, or a mount point.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true, after_help = EXIT_HELP)]
pub(crate) struct Args {
    /// Print JSON, with "version": 1
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_HELP: &str = "\
Exit status:
  0  done (check: a stop would work)
  1  something else failed (check: a stop would work, with warnings)
  2  usage, or no such device (check: a stop would not work)
  3  a device can't be stopped: not supported by it, its driver or this kernel
  4  a device did not stand still
  5  busy: stopped by somebody else, or the driver above it could not be held
  6  a device has not answered in time
  7  a device was removed or reset, or needs a reset
  8  not permitted
  9  ended by a signal; what was stopped has resumed
'run' ends with COMMAND's status if all else went well: 126 and 127 if it could not be started,
128 + N if signal N has ended it.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show all virtio devices
    List,
    /// Show what virtio_device_stop tells of devices
    Status {
        /// The devices; all, if none is given
        devices: Vec<String>,
    },
    /// Tell whether a stop would work, and what would wait for it
    Check {
        /// The devices
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Stop devices, for scripts that come back later to resume them
    ///
    /// Nobody owns such a stop: it ends when its lease does. Prints the generation of each stop.
    Stop {
        /// The devices
        #[arg(required = true)]
        devices: Vec<String>,
        /// How the stop is made
        #[command(flatten)]
        limits: Limits,
        /// Show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Resume devices
    Resume {
        /// The devices
        #[arg(required = true)]
        devices: Vec<String>,
        /// Only if the stop with this generation still stands
        #[arg(long)]
        generation: Option<u64>,
        /// End the stop of somebody else, too
        #[arg(long, conflicts_with = "generation")]
        force: bool,
    },
    /// Let the lease of a stop begin anew
    Renew {
        /// The device
        device: String,
        /// The generation that the stop has
        generation: u64,
    },
    /// Print a line for each change of state
    Watch {
        /// The devices; all, if none is given
        devices: Vec<String>,
    },
    /// Stop devices, do something, and resume them whatever happens
    Run(Run),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// The folder they are written to
        folder: PathBuf,
    },
}

/// How long a stop may take, and may last.
#[derive(ClapArgs, Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long each device may take to stop, or to resume, in milliseconds. Longer than its
    /// slowest request
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub(crate) timeout: Option<u32>,
    /// After how many milliseconds a stop ends by itself, if nobody renews it
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=86_400_000))]
    pub(crate) lease: Option<u32>,
}

/// Stop, do something, resume.
#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    /// The devices. All of them stop, or none
    #[arg(required = true)]
    pub(crate) devices: Vec<String>,
    /// How the stop is made
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// Freeze the file systems above the devices first
    #[arg(long)]
    pub(crate) freeze: bool,
    /// Instead of a COMMAND: print "stopped" as JSON, and resume when nothing holds the other end of
    /// this file descriptor any more
    #[arg(long, value_name = "FD", conflicts_with = "until_eof")]
    pub(crate) hold: Option<i32>,
    /// The same with standard input
    #[arg(long)]
    pub(crate) until_eof: bool,
    /// Show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What runs while the devices are stopped. It is started before
    #[arg(last = true, value_name = "COMMAND", required_unless_present_any = ["hold", "until_eof"],
        conflicts_with_all = ["hold", "until_eof"])]
    pub(crate) command: Vec<OsString>,
}
