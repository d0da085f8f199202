// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tool: parses the command line, and prints.

mod args;
mod commands;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let exit = commands::run(Args::parse()).unwrap_or_else(|error| {
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        anstream::eprintln!("{red}error:{red:#} {error}");
        error.exit()
    });
    ExitCode::from(exit as u8)
}
