// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a stop would work, and what would wait for its end.

mod above;
mod network;
mod own;
mod readiness;
mod route;
mod time;

use serde::Serialize;

use crate::device::{Device, System};
use crate::error::Result;
use crate::overview::VERSION;
use crate::stack::{Node, Stack};

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// A stop would work, but something may break.
    Warning,
    /// A stop would not work.
    Error,
}

/// Something to know before a stop.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What it is: a word that stays the same. For a device that can't be stopped that of its file
    /// `reason`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which of the devices it is about, for example `virtio0`; none: all of them.
    pub devices: Vec<String>,
    /// Sentences: what is so, what will happen, what to do.
    pub message: String,
}

/// Whether a stop would work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would.
    Yes,
    /// It would, but there are warnings.
    WithWarnings,
    /// It would not.
    No,
}

/// What there is to know before a stop.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// [`VERSION`].
    pub version: u32,
    /// Whether it would work.
    pub verdict: Verdict,
    /// What was looked at, for example `virtio0`.
    pub devices: Vec<String>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// Tells whether `devices` could be stopped together, and what would wait for that to end. About
/// the calling process, too: what it has open, and whence it was logged in.
///
/// Nothing is changed. What happens afterwards can make it wrong.
///
/// # Errors
///
/// What listing the folders of sysfs fails with.
pub fn check(system: &System, devices: &[Device]) -> Result<Check> {
    let mut subject = Subject {
        system,
        stack: Stack::read(system)?,
        devices,
        findings: Vec::new(),
    };
    readiness::look(&mut subject)?;
    above::look(&mut subject)?;
    network::look(&mut subject);
    time::look(&mut subject)?;
    own::look(&mut subject);
    let mut findings = subject.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let verdict = match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Verdict::No,
        Some(Severity::Warning) => Verdict::WithWarnings,
        _ => Verdict::Yes,
    };
    Ok(Check {
        version: VERSION,
        verdict,
        devices: devices.iter().map(Device::name).collect(),
        findings,
    })
}

/// What is looked at, and what was found.
struct Subject<'a> {
    system: &'a System,
    stack: Stack,
    devices: &'a [Device],
    findings: Vec<Finding>,
}

impl Subject<'_> {
    /// The names of those of the devices that are below `node`.
    fn below(&self, node: &Node) -> Vec<String> {
        let below = self.stack.below(node).devices;
        let below = below.iter().filter(|device| self.devices.contains(device));
        below.map(Device::name).collect()
    }

    fn error(&mut self, code: &str, devices: Vec<String>, message: String) {
        self.add(Severity::Error, code, devices, message);
    }

    fn warn(&mut self, code: &str, devices: Vec<String>, message: String) {
        self.add(Severity::Warning, code, devices, message);
    }

    fn note(&mut self, code: &str, devices: Vec<String>, message: String) {
        self.add(Severity::Note, code, devices, message);
    }

    fn add(&mut self, severity: Severity, code: &str, devices: Vec<String>, message: String) {
        self.findings.push(Finding {
            code: code.into(),
            severity,
            devices,
            message,
        });
    }
}
