// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What other instances of a program do that are started by this crate.

use std::env;
use std::process::ExitCode;

use crate::{guard, held};

/// For the beginning of `main` of a program that uses [`Command`](crate::command::Command) or
/// [`FileSystems`](crate::freeze::FileSystems): if this process is such an instance, this does what
/// it was started for, and returns how the process has to end.
pub fn instance() -> Option<ExitCode> {
    let mut words = env::args_os();
    let name = words.next()?;
    let name = name.to_str()?;
    let result = match name {
        held::NAME => held::become_program(words),
        guard::NAME => guard::watch(words),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    })
}
