// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files in sysfs by which anybody who may can stop and resume devices. Such a stop has no
//! owner.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::refusal::{Cause, Refusal, Request};

/// The files of a device, open.
#[derive(Debug)]
pub struct Switch {
    device: Device,
    state: File,
    generation: File,
    reason: File,
    renew: File,
    made: Option<Stop>,
}

/// A stop that this process has made.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// `None`: it can't be told.
    generation: Option<u64>,
}

impl Switch {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`]; [`Error::File`].
    pub fn open(device: &Device) -> Result<Self> {
        Ok(Self {
            state: open(device, "state", true)?,
            generation: open(device, "generation", false)?,
            reason: open(device, "reason", false)?,
            renew: open(device, "renew", true)?,
            device: device.clone(),
            made: None,
        })
    }

    /// From now on, for whoever stops or resumes it: how long the device may take, 1 to 600000
    /// milliseconds, and for how long a stop may stand, 1 to 86400000.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn set_limits(&mut self, timeout_ms: Option<u32>, lease_ms: Option<u32>) -> Result<()> {
        for (name, value) in [("timeout_ms", timeout_ms), ("lease_ms", lease_ms)] {
            if let Some(value) = value {
                let mut file = open(&self.device, name, true)?;
                file.write_all(value.to_string().as_bytes())
                    .map_err(|error| Error::file(self.device.file(name), error))?;
            }
        }
        Ok(())
    }

    /// Stops the device. Returns the generation of the stop, which may have stood before.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; [`Error::File`]: it has stopped, but does not tell the generation.
    pub fn stop(&mut self) -> Result<u64> {
        let mut state = [0; 32];
        let length = self.read(|switch| &mut switch.state, &mut state)?;
        let stood = state.get(..length) == Some(b"stopped\n");
        // One that stood can end, and this one begin, after that look: then this is another one.
        let before = self.generation().ok().filter(|_| stood);
        self.write(Request::Stop, "stop")?;
        let generation = self.generation();
        let after = generation.as_ref().ok().copied();
        if !stood || (before.is_some() && after.is_some() && before != after) {
            self.made = Some(Stop { generation: after });
        }
        generation
    }

    /// Resumes it, if [`stop`](Self::stop) has stopped it, and that very stop stands still.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn undo(&mut self) -> Result<()> {
        let Some(stop) = self.made.take() else {
            return Ok(());
        };
        let text = match stop.generation {
            Some(generation) => format!("resume {generation}"),
            None => "resume".to_owned(),
        };
        match self.write(Request::Resume, &text) {
            // It has ended by itself, or somebody has ended it.
            Err(Error::Refused(refusal)) if refusal.cause() == Cause::Ended => Ok(()),
            resumed => resumed,
        }
    }

    fn generation(&mut self) -> Result<u64> {
        let mut text = [0; 32];
        let length = self.read(|switch| &mut switch.generation, &mut text)?;
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default());
        let generation = text.ok().and_then(|text| text.trim_end().parse().ok());
        generation.ok_or_else(|| {
            let error = io::ErrorKind::InvalidData.into();
            Error::file(self.device.file("generation"), error)
        })
    }

    /// The lease of the stop that has this generation begins anew.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn renew(&mut self, generation: u64) -> Result<()> {
        let renewed = self.renew.write(generation.to_string().as_bytes());
        renewed.map_err(|error| self.refusal(Request::Renew, &error))?;
        Ok(())
    }

    /// Writes to `state`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn write(&mut self, request: Request, text: &str) -> Result<()> {
        let written = self.state.write(text.as_bytes());
        written.map_err(|error| self.refusal(request, &error))?;
        Ok(())
    }

    fn refusal(&mut self, request: Request, error: &io::Error) -> Error {
        let mut reason = [0; 32];
        // A device that has gone has no reason.
        let length = self
            .read(|switch| &mut switch.reason, &mut reason)
            .unwrap_or(0);
        let reason = String::from_utf8_lossy(reason.get(..length).unwrap_or_default());
        Error::Refused(Refusal {
            device: self.device.name(),
            request,
            errno: error.raw_os_error().unwrap_or_default(),
            reason: reason.trim_end().to_owned(),
        })
    }

    fn read(&mut self, file: fn(&mut Self) -> &mut File, text: &mut [u8]) -> Result<usize> {
        let file = file(self);
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read(text));
        read.map_err(|error| Error::file(self.device.file(""), error))
    }
}

/// Stops all devices, or none, and returns the generation of each stop. All of them stand when this
/// returns, with the whole of their leases. `interrupted`: the signal that asks to end, if one has
/// come.
///
/// # Errors
///
/// What the first one has failed with; [`Error::Interrupted`]. Call [`undo`] then.
pub fn stop(switches: &mut [Switch], interrupted: impl Fn() -> Option<i32>) -> Result<Vec<u64>> {
    let go_on = || interrupted().map_or(Ok(()), |signal| Err(Error::Interrupted(signal)));
    let mut generations = Vec::with_capacity(switches.len());
    for switch in &mut *switches {
        go_on()?;
        generations.push(switch.stop()?);
    }
    // The first ones may have ended while the last ones were waited for.
    for (switch, &generation) in switches.iter_mut().zip(&generations) {
        switch.renew(generation)?;
    }
    go_on()?;
    Ok(generations)
}

/// Resumes those that [`stop`] has stopped, the last one first, whatever fails. Returns what has.
pub fn undo(switches: &mut [Switch]) -> Vec<Error> {
    let switches = switches.iter_mut().rev();
    switches.filter_map(|switch| switch.undo().err()).collect()
}

fn open(device: &Device, name: &str, write: bool) -> Result<File> {
    // `renew` can't be read.
    let mut options = OpenOptions::new();
    options.read(name != "renew").write(write);
    match options.open(device.file(name)) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotLoaded),
        Err(error) => Err(Error::file(device.file(name), error)),
    }
}
