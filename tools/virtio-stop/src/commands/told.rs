// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `run` tells: before, while everything stands still, and afterwards.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use virtio_stop::device::Device;
use virtio_stop::owner::{Report, Status};
use virtio_stop::proof::{still, Unstill};
use virtio_stop::refusal::Cause;
use virtio_stop::sequence::Outcome;
use virtio_stop::session::Looks;
use virtio_stop::task::{End, Tell};
use virtio_stop::{Error, Mount};

use super::exit::exit;
use super::print;
use crate::args::Run;

/// The line for whoever waits for the stop. It has its memory before.
pub(crate) struct Stopped {
    document: Document<StoppedDevice>,
    line: Vec<u8>,
}

#[derive(Serialize)]
struct Document<D> {
    version: u32,
    event: &'static str,
    devices: Vec<D>,
}

#[derive(Serialize)]
struct StoppedDevice {
    device: String,
    parent: String,
    generation: u64,
    in_flight: Option<u64>,
    stop_us: u64,
}

impl Stopped {
    pub(crate) fn of(devices: &[Device]) -> Self {
        let devices: Vec<_> = devices
            .iter()
            .map(|device| StoppedDevice {
                device: device.name(),
                parent: device.parent.clone(),
                generation: u64::MAX,
                in_flight: Some(u64::MAX),
                stop_us: u64::MAX,
            })
            .collect();
        let document = Document {
            version: 1,
            event: "stopped",
            devices,
        };
        // With the longest numbers, so that it does not grow later.
        let mut line = serde_json::to_vec(&document).unwrap_or_default();
        line.reserve(line.len() + 32 * document.devices.len() + 1);
        Self { document, line }
    }
}

impl Tell for Stopped {
    /// The line, and its end.
    fn line(&mut self, report: &Report) -> &[u8] {
        for (device, status) in self.document.devices.iter_mut().zip(report.statuses()) {
            device.generation = status.generation;
            device.in_flight = status.in_flight;
            device.stop_us = status.stop_us;
        }
        self.line.clear();
        // It has room, and numbers and words always have a form in JSON.
        let _ = serde_json::to_writer(&mut self.line, &self.document);
        self.line.push(b'\n');
        &self.line
    }
}

#[derive(Serialize)]
struct Plan<'a> {
    version: u32,
    dry_run: bool,
    freeze: Vec<&'a Path>,
    stop: Vec<String>,
    command: Vec<String>,
}

/// What would be done.
///
/// # Errors
///
/// It can't be printed.
pub(crate) fn plan(
    devices: &[Device],
    frozen: &[Mount],
    command: &[OsString],
    json: bool,
) -> virtio_stop::Result<()> {
    let command = command
        .iter()
        .map(|word| word.to_string_lossy().into_owned());
    let plan = Plan {
        version: 1,
        dry_run: true,
        freeze: frozen.iter().map(|mount| mount.point.as_path()).collect(),
        stop: devices.iter().map(Device::name).collect(),
        command: command.collect(),
    };
    if json {
        return print::line(&plan).map(drop);
    }
    let freeze = plan.freeze.iter();
    let freeze = freeze.map(|point| format!("would freeze {}\n", point.display()));
    let stop = plan.stop.iter();
    let stop = stop.map(|device| format!("would stop {device}\n"));
    let then = match &*plan.command {
        [] => "would wait until it is told to resume\n".to_owned(),
        command => format!("would run {}\n", command.join(" ")),
    };
    let text: String = freeze.chain(stop).chain([then]).collect();
    print::text(&text).map(drop)
}

#[derive(Serialize)]
struct Ended {
    version: u32,
    event: &'static str,
    devices: Vec<EndedDevice>,
    frozen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u8>,
    errors: Vec<String>,
    exit: u8,
}

#[derive(Serialize)]
struct EndedDevice {
    device: String,
    parent: String,
    still: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    generation: u64,
    in_flight: Option<u64>,
    stop_us: u64,
    resume_us: u64,
}

/// What it has come to. Returns the status to end with.
pub(crate) fn outcome(
    devices: &[Device],
    frozen: &[Mount],
    args: &Run,
    outcome: Outcome<End>,
    looks: &Looks,
    json: bool,
) -> u8 {
    let mut errors = outcome.errors;
    let all: Vec<_> = if outcome.stopped {
        let first = looks.first.statuses().zip(looks.last.statuses());
        let looks = devices.iter().zip(first.zip(looks.after.statuses()));
        let looks = looks.map(|(device, ((first, last), after))| {
            let still = outcome.looked.then(|| match has_ended(&errors, device) {
                // After the last look.
                true if last.own => Err(Unstill::Ended {
                    reason: after.reason,
                }),
                _ => still(first, last, args.allow_in_flight),
            });
            ended(device, still, last, after)
        });
        looks.collect()
    } else {
        Vec::new()
    };
    // That the stop had ended before is told by the look, too, and better.
    let unstill = all.iter().filter_map(|(device, why)| {
        let device = device.device.clone();
        why.map(|why| Error::NotStill { device, why })
    });
    let unstill: Vec<_> = unstill.collect();
    errors.retain(|error| {
        let told = device_of_end(error);
        told.is_none() || !unstill.iter().any(|error| device_of_end(error) == told)
    });
    errors.extend(unstill);
    let status = outcome.end.as_ref().map(End::status);
    if let Some(End::NotExecuted(source)) = outcome.end {
        let path = args.command.first().cloned().unwrap_or_default().into();
        errors.push(Error::Command { path, source });
    }
    let document = Ended {
        version: 1,
        event: if outcome.resumed { "resumed" } else { "failed" },
        devices: all.into_iter().map(|(device, _)| device).collect(),
        frozen: frozen
            .iter()
            .take(outcome.frozen)
            .map(|mount| mount.point.display().to_string())
            .collect(),
        status,
        errors: errors.iter().map(Error::to_string).collect(),
        exit: exit(&errors, status),
    };
    if json {
        // Somebody relies on this line: without it, the status tells.
        errors.extend(print::heard(print::line(&document)).err());
    } else {
        document.print();
    }
    for error in &errors {
        crate::complain(error);
    }
    exit(&errors, status)
}

fn has_ended(errors: &[Error], device: &Device) -> bool {
    let name = device.name();
    errors.iter().any(|error| match error {
        Error::Refused(refusal) => refusal.cause() == Cause::Ended && refusal.device == name,
        _ => false,
    })
}

/// The device that did not stand still, if that is the error.
fn device_of_end(error: &Error) -> Option<&str> {
    match error {
        Error::NotStill { device, .. } => Some(device),
        Error::Refused(refusal) if refusal.cause() == Cause::Ended => Some(&refusal.device),
        _ => None,
    }
}

fn ended(
    device: &Device,
    still: Option<Result<(), Unstill>>,
    last: Status,
    after: Status,
) -> (EndedDevice, Option<Unstill>) {
    let why = still.and_then(Result::err);
    let told = EndedDevice {
        device: device.name(),
        parent: device.parent.clone(),
        still: still == Some(Ok(())),
        why: why.map(|why| why.to_string()),
        generation: last.generation,
        in_flight: last.in_flight,
        stop_us: last.stop_us,
        resume_us: after.resume_us,
    };
    (told, why)
}

impl Ended {
    /// Not to standard output, which is the command's. If that fails, the status tells.
    fn print(&self) {
        for device in &self.devices {
            let still = match &device.why {
                None if device.still => "stood still",
                None => "nobody can tell whether it stood still",
                Some(_) => "did not stand still",
            };
            let in_flight = match device.in_flight {
                Some(count) => format!("{count} in flight"),
                None => "in flight unknown".to_owned(),
            };
            let _ = writeln!(
                anstream::stderr(),
                "{:<10}  {still}  generation {}  {in_flight}  stop {}  resume {}",
                device.device,
                device.generation,
                milliseconds(device.stop_us),
                milliseconds(device.resume_us),
            );
        }
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000)
}
