// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The commands, a file each. Each returns with which status the program ends.

mod check;
mod documents;
mod end;
mod exit;
mod list;
mod print;
mod run;
mod status;
mod toggle;
mod told;
mod watch;

use std::process::ExitCode;

use virtio_stop::device::System;
use virtio_stop::Result;

use crate::args::{Args, Command};

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let system = System::default();
    let json = args.json;
    let exit = match args.command {
        Command::Stop {
            devices,
            limits,
            dry_run,
        } => toggle::stop(&system, &devices, limits, dry_run, json)?,
        Command::Resume {
            devices,
            generation,
            force,
        } => toggle::resume(&system, &devices, generation, force, json)?,
        Command::Renew { device, generation } => toggle::renew(&system, device, generation, json)?,
        // Ends as its command does.
        Command::Run(args) => return run::run(&system, &args, json).map(ExitCode::from),
        Command::List => list::list(&system, json)?,
        Command::Status { devices } => status::status(&system, &devices, json)?,
        Command::Check { devices } => check::check(&system, &devices, json)?,
        Command::Completions { shell } => documents::completions(shell)?,
        Command::Man { folder } => documents::man(&folder)?,
        Command::Watch { devices } => watch::watch(&system, &devices, json)?,
    };
    Ok(exit.into())
}
