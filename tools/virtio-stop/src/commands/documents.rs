// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `completions` and `man`: made from the command line's own description.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use virtio_stop::{Error, Exit, Result};

use super::print;
use crate::args::Args;

pub(crate) fn completions(shell: Shell) -> Result<Exit> {
    let mut command = Args::command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    print::text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// One page for the program, and one for each command: virtio-stop-list(1) and so on.
pub(crate) fn man(folder: &Path) -> Result<Exit> {
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    clap_mangen::generate_to(Args::command(), folder)
        .map_err(|error| Error::file(folder, error))?;
    Ok(Exit::Done)
}
