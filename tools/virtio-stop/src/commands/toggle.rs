// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `stop`, `resume` and `renew`: what is written to the files in sysfs.

use serde::Serialize;
use virtio_stop::device::{Device, System};
use virtio_stop::refusal::Request;
use virtio_stop::signals::Signals;
use virtio_stop::switch::Switch;
use virtio_stop::{memory, resolve, Error, Exit, Result};

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
        print(json, &lines(&devices, "would stop"));
        return Ok(Exit::Done);
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
    for at in 0..switches.len() {
        let stopped = switches.get_mut(at).map_or(Ok(()), Switch::stop);
        let stopped = stopped.and_then(|()| match signals.last() {
            Some(signal) => Err(Error::Interrupted(signal)),
            None => Ok(()),
        });
        if let Err(error) = stopped {
            // This one may have stopped, too.
            for switch in switches.iter_mut().take(at + 1).rev() {
                // A stop that has ended by itself is as good.
                let _ = switch.undo();
            }
            return Err(error);
        }
    }
    for (line, switch) in lines.iter_mut().zip(&mut switches) {
        line.generation = Some(switch.generation()?);
    }
    print(json, &lines);
    Ok(Exit::Done)
}

/// Resumes all devices, whatever fails. Ends with what the first one has failed with.
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
    let mut failed = None;
    let mut resumed = Vec::with_capacity(devices.len());
    let switches: Vec<_> = devices.iter().map(Switch::open).collect();
    for (switch, device) in switches.into_iter().zip(&devices) {
        let text = match generation {
            Some(generation) => format!("resume {generation}"),
            None if force => "resume force".to_owned(),
            None => "resume".to_owned(),
        };
        match switch.and_then(|mut switch| switch.write(Request::Resume, &text)) {
            Ok(()) => resumed.push(device.clone()),
            Err(error) => {
                // The last one is told by whoever has called this.
                if let Some(error) = failed.replace(error) {
                    crate::complain(&error);
                }
            }
        }
    }
    print(json, &lines(&resumed, "running"));
    failed.map_or(Ok(Exit::Done), Err)
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
    print(json, &lines);
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

fn print(json: bool, lines: &[Line]) {
    if json {
        let document = Document {
            version: 1,
            devices: lines,
        };
        // Numbers and plain words always have a form in JSON.
        anstream::println!("{}", serde_json::to_string(&document).unwrap_or_default());
        return;
    }
    for line in lines {
        match line.generation {
            Some(generation) => {
                anstream::println!("{}  {}  generation {generation}", line.device, line.state);
            }
            None => anstream::println!("{}  {}", line.device, line.state),
        }
    }
}
