// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tool: parses the command line, and prints.

mod args;
mod commands;

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Parser;
use virtio_stop::{second, Error};

use args::Args;

fn main() -> ExitCode {
    if let Some(end) = second::instance() {
        return end;
    }
    commands::run(Args::parse()).unwrap_or_else(|error| {
        complain(&error);
        error.exit().into()
    })
}

/// Says what has failed.
fn complain(error: &Error) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    // If that fails, the status still tells.
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {error}");
}
