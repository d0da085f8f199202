// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the figures come from: they mean little without it.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

use crate::guest::{Error, Place};

/// The host and its guests.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    accelerator: &'static str,
    guest_kernel: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            processors,
            accelerator,
            guest_kernel,
        } = self;
        write!(
            f,
            "{processors} processors, {processor}; guests: {accelerator}, Linux {guest_kernel}"
        )
    }
}

/// This machine.
///
/// # Errors
///
/// The guests' kernel can't be found out.
pub(crate) fn describe(place: &Place) -> Result<Machine, Error> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(": ")
            .map(|(_, value)| value.trim().to_owned())
    };
    // As tools/vm/boot chooses.
    let virtualises = field("flags")
        .is_some_and(|flags| flags.split(' ').any(|flag| flag == "vmx" || flag == "svm"));
    let kvm = virtualises && fs::OpenOptions::new().write(true).open("/dev/kvm").is_ok();
    Ok(Machine {
        processor: field("model name").unwrap_or_else(|| "of an unknown kind".to_owned()),
        processors: available_parallelism().map_or(1, usize::from),
        accelerator: if kvm { "KVM" } else { "emulation (TCG)" },
        guest_kernel: place.release()?,
    })
}
