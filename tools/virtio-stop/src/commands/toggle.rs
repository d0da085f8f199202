// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `stop`, `resume` and `renew`: what is written to the files in sysfs.

use std::path::Path;

use serde::Serialize;
use virtio_stop::device::{Device, System};
use virtio_stop::executable::Mounts;
use virtio_stop::freezing::standing;
use virtio_stop::mounts::mounts;
use virtio_stop::refusal::Request;
use virtio_stop::signals::Signals;
use virtio_stop::switch::{self, Switch};
use virtio_stop::{memory, resolve, Error, Exit, Result};

use super::print;
use crate::args::Limits;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    devices: &'a [Line],
}

#[derive(Serialize)]
struct Line {
    device: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

/// Stops all devices, or none.
pub(crate) fn stop(
    system: &System,
    names: &[String],
    limits: Limits,
    dry_run: bool,
    json: bool,
) -> Result<Exit> {
    let devices = resolve(system, names)?;
    if dry_run {
        tell(json, &lines(&devices, "would stop"))?;
        return Ok(Exit::Done);
    }
    // What it is told by must not wait for the devices.
    let (all, still) = (mounts(system)?, standing(system, &devices)?);
    let mounts = Mounts {
        all: &all,
        still: &still,
    };
    if let Some(mount) = mounts.still_at(Path::new("/proc/self/fd/1")) {
        return Err(Error::OutputStands(mount.point.clone()));
    }
    let signals = Signals::catch().map_err(Error::Signals)?;
    memory::lock()?;
    // All that is needed later is opened, and allocated, before the first one stops.
    let mut switches = devices
        .iter()
        .map(Switch::open)
        .collect::<Result<Vec<_>>>()?;
    let mut lines = lines(&devices, "stopped");
    for switch in &mut switches {
        switch.set_limits(limits.timeout, limits.lease)?;
    }
    let stopped = switch::stop(&mut switches, || signals.last());
    // Who does not hear of a stop does not end it either.
    let told = stopped.and_then(|generations| {
        for (line, generation) in lines.iter_mut().zip(generations) {
            line.generation = Some(generation);
        }
        tell(json, &lines)
    });
    if let Err(error) = told {
        for failed in switch::undo(&mut switches) {
            crate::complain(&failed);
        }
        return Err(error);
    }
    Ok(Exit::Done)
}

/// Resumes all devices, whatever fails. Ends as what the first one has failed with says.
pub(crate) fn resume(
    system: &System,
    names: &[String],
    generation: Option<u64>,
    force: bool,
    json: bool,
) -> Result<Exit> {
    let devices = resolve(system, names)?;
    if generation.is_some() && devices.len() != 1 {
        return Err(Error::OneGeneration(devices.len()));
    }
    memory::lock()?;
    let text = match generation {
        Some(generation) => format!("resume {generation}"),
        None if force => "resume force".to_owned(),
        None => "resume".to_owned(),
    };
    let mut resumed = Vec::with_capacity(devices.len());
    let mut failed = Vec::with_capacity(devices.len());
    // One after the other: there may be more than files that may be open.
    for device in &devices {
        let switch = Switch::open(device);
        match switch.and_then(|mut switch| switch.write(Request::Resume, &text)) {
            Ok(()) => resumed.push(device.clone()),
            Err(error) => failed.push(error),
        }
    }
    // Afterwards: what this goes to may lie on the last one.
    for error in &failed {
        crate::complain(error);
    }
    let told = tell(json, &lines(&resumed, "running"));
    match failed.first() {
        Some(error) => Ok(error.exit()),
        None => told.map(|()| Exit::Done),
    }
}

/// The lease of a stop begins anew.
pub(crate) fn renew(system: &System, name: String, generation: u64, json: bool) -> Result<Exit> {
    let devices = resolve(system, &[name])?;
    let [device] = devices.as_slice() else {
        return Err(Error::OneGeneration(devices.len()));
    };
    Switch::open(device)?.renew(generation)?;
    let mut lines = lines(&devices, "stopped");
    for line in &mut lines {
        line.generation = Some(generation);
    }
    tell(json, &lines)?;
    Ok(Exit::Done)
}

fn lines(devices: &[Device], state: &'static str) -> Vec<Line> {
    let line = |device: &Device| Line {
        device: device.name(),
        state,
        generation: None,
    };
    devices.iter().map(line).collect()
}

fn tell(json: bool, lines: &[Line]) -> Result<()> {
    print::heard(if json {
        print::line(&Document {
            version: 1,
            devices: lines,
        })
    } else {
        let line = |line: &Line| match line.generation {
            Some(generation) => {
                format!("{}  {}  generation {generation}\n", line.device, line.state)
            }
            None => format!("{}  {}\n", line.device, line.state),
        };
        print::text(&lines.iter().map(line).collect::<String>())
    })
}
