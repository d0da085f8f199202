// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The commands, a file each. Each returns with which status the program ends.

use virtio_stop::device::System;
use virtio_stop::{Exit, Result};

use crate::args::{Args, Command};

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<Exit> {
    let system = System::default();
    match args.command {
        _ => {
            let _ = (system, args.json);
            Ok(Exit::Failed)
        }
    }
}
