// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

/// Stops and resumes virtio devices from inside of a guest.
///
/// A device is named by virtioN, by what is above it (vda, sda1, eth0, a logical volume, md,
/// multipath, loop, bond or bridge: then all devices below it), by a PCI address, a path in /dev or
/// /sys, or a mount point.
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
  9  ended by a signal or --max-time; what was stopped has resumed, or does as soon as it answers
Of several things that have failed, 'run' tells 6 or 7, or why a device has not resumed, rather
than 4, that rather than anything else, and 9 last.
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
    /// All of them stop, or none: if one fails, those that have stopped just now resume. Nobody
    /// owns such a stop: it ends when its lease does. Prints the generation of each stop. What
    /// --timeout and --lease say stays written to the devices' timeout_ms and lease_ms: it holds
    /// for the resume and for renewals, too.
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
    ///
    /// Each is tried, whatever fails. Ends with what the first one has failed with; with 4 if a
    /// stop had ended before.
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
    ///
    /// The first lines say how it is now. Changes that follow each other at once may share a line:
    /// the generation in the JSON counts them all. Ends with 0 at SIGINT, SIGTERM, SIGHUP or
    /// SIGQUIT, and with 7 if all the devices have gone that were given, or virtio_device_stop has.
    Watch {
        /// The devices; all, if none is given
        devices: Vec<String>,
    },
    /// Stop devices, do something, and resume them whatever happens
    ///
    /// COMMAND is started before the stop, waits in memory, and is executed after it. If the
    /// devices did not stop, it has not run. COMMAND is refused if it lies on the devices, or what
    /// it begins with does, unless it is a static program on a disk, which is kept in memory. What
    /// it does then is its own matter: it waits if it needs what stands still.
    ///
    /// SIGHUP, SIGINT, SIGQUIT and SIGTERM are passed on to COMMAND, which is continued then,
    /// should it be paused. SIGTSTP (^Z) pauses COMMAND only. COMMAND writes no core dump, which
    /// could lie on what stands still, unless it raises its soft limit for that.
    ///
    /// If this program is killed, the devices resume, what it has frozen is thawed by a second
    /// process, and COMMAND gets SIGTERM. If it is paused, what is frozen is thawed soon after the
    /// lease is over; if that is before the devices have stopped, or while they resume, twice
    /// --timeout later, or 20 minutes if none is given. If both are killed at once, for example by
    /// SIGKILL to all of a cgroup, file systems stay frozen: 'fsfreeze --unfreeze' thaws them.
    ///
    /// The leases of the stops are renewed, until a signal comes, or --max-time is over: without it
    /// a COMMAND that waits for what stands still, and that nobody ends, waits for ever. COMMAND
    /// has until they are over to end; then everything is resumed and thawed, so that a COMMAND
    /// that waits for what stands still is set free, and only then it is waited for. At the end
    /// each device is shown to have stood still, by its generation and the requests in flight, or
    /// the status is 4. --allow-in-flight leaves the requests out: it is for COMMANDs that put
    /// something else behind the device which goes on with them. What is in flight then is told as
    /// of right after the stop, and at the end once more: requests that the driver has not got
    /// back. The device has no others, but it may have finished some of them just before.
    ///
    /// With --json, the last line on standard output says how it has ended. Without a
    /// COMMAND there are two lines of JSON, "event":"stopped" and "event":"resumed", or one,
    /// "event":"failed".
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
    /// How long each device may take to stop, or to resume, in milliseconds. Longer than its
    /// slowest request
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub(crate) timeout: Option<u32>,
    /// After how many milliseconds the stop ends by itself, if this program does not renew it any
    /// more
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(100..=86_400_000))]
    pub(crate) lease: Option<u32>,
    /// After how many milliseconds of standing still COMMAND gets SIGTERM, and the lease is not
    /// renewed any more. Without a COMMAND it ends at once then
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=86_400_000))]
    pub(crate) max_time: Option<u32>,
    /// Freeze the file systems above the devices first
    #[arg(long)]
    pub(crate) freeze: bool,
    /// A device may have requests that are not finished: what goes on in its place takes them along
    #[arg(long)]
    pub(crate) allow_in_flight: bool,
    /// Instead of a COMMAND: print "stopped" as JSON, and resume when nothing holds the other end
    /// of this file descriptor any more
    #[arg(long, value_name = "FD", conflicts_with_all = ["until_eof", "until_input"])]
    pub(crate) hold: Option<i32>,
    /// The same with standard input
    #[arg(long, conflicts_with = "until_input")]
    pub(crate) until_eof: bool,
    /// The same, but resume as soon as something comes from standard input, too: who writes a line
    /// can read how it has ended
    #[arg(long)]
    pub(crate) until_input: bool,
    /// Instead of a COMMAND: stop when process PID, QEMU's guest agent, has frozen all file systems
    /// above the devices, and resume when it begins to thaw them, or after --max-time
    #[arg(long, value_name = "PID", requires_all = ["frozen_while", "max_time"],
        conflicts_with_all = ["freeze", "hold", "until_eof", "until_input"])]
    pub(crate) frozen_by: Option<i32>,
    /// The file that this process has as long as anything is frozen: not on what it freezes
    #[arg(long, value_name = "FILE", requires = "frozen_by")]
    pub(crate) frozen_while: Option<PathBuf>,
    /// Show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What runs while the devices are stopped. It is started before
    #[arg(last = true, value_name = "COMMAND",
        required_unless_present_any = ["hold", "until_eof", "until_input", "frozen_by"],
        conflicts_with_all = ["hold", "until_eof", "until_input", "frozen_by"])]
    pub(crate) command: Vec<OsString>,
}
