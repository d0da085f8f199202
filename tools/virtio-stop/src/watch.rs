// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waits for changes of the state of devices.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::device::{Device, System};
use crate::error::{Error, Result};
use crate::overview::{is_loaded, known, VERSION};
use crate::uevents::Uevents;

/// What has happened to a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It was there when it was looked at first.
    Found,
    /// Its state has changed, and may have changed more often than is told.
    Changed,
    /// It was removed, or virtio_device_stop was unloaded.
    Gone,
}

/// Something has happened to a device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Event {
    /// [`VERSION`].
    pub version: u32,
    /// What.
    pub event: Happened,
    /// The device, for example `virtio0`.
    pub device: String,
    /// The name of the device above it in sysfs.
    pub parent: String,
    /// The word in its file `state`; `None`: it is gone.
    pub state: Option<String>,
    /// The word in its file `reason`.
    pub reason: Option<String>,
    /// Counts every change. `None`: not known just now.
    pub generation: Option<u64>,
}

/// Some devices, or all.
#[derive(Debug)]
pub struct Watch {
    system: System,
    watched: Vec<Watched>,
    /// Those that were not there at first are watched, too.
    all: bool,
    /// Whoever removes a file wakes nobody who waits for it by poll(2): that is told here.
    uevents: Uevents,
    unloaded: bool,
}

impl Watch {
    /// These devices.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`]. [`Error::File`]: a file can't be opened, most often since this
    /// process may not.
    pub fn these(system: &System, devices: Vec<Device>) -> Result<Self> {
        let mut these = Self::new(system, false)?;
        for device in devices {
            these.watched.extend(Watched::open(device)?);
        }
        Ok(these)
    }

    /// All devices, those that come later, too.
    ///
    /// # Errors
    ///
    /// As [`these`](Self::these).
    pub fn all(system: &System) -> Result<Self> {
        let mut all = Self::new(system, true)?;
        all.find()?;
        Ok(all)
    }

    /// Listens before anything is looked at, so that nothing comes in between unseen.
    fn new(system: &System, all: bool) -> Result<Self> {
        let uevents = Uevents::listen().map_err(|errno| Error::Wait(errno.into()))?;
        if !is_loaded(system) {
            return Err(Error::NotLoaded);
        }
        Ok(Self {
            system: system.clone(),
            watched: Vec::new(),
            all,
            uevents,
            unloaded: false,
        })
    }

    /// What has happened since the last look. The first one tells of every device.
    ///
    /// # Errors
    ///
    /// A file can't be read.
    pub fn look(&mut self) -> Result<Vec<Event>> {
        // First: what is told has happened before, and is seen then.
        let news = self.uevents.take();
        self.unloaded |= news.unloaded || news.missed && !is_loaded(&self.system);
        let mut events = Vec::new();
        let mut there = Vec::new();
        for mut watched in self.watched.drain(..) {
            let event = watched.look()?;
            if event
                .as_ref()
                .is_none_or(|event| event.event != Happened::Gone)
            {
                there.push(watched);
            }
            events.extend(event);
        }
        self.watched = there;
        // Afterwards: one that comes back has the name of the one that has gone.
        if self.all && (news.added || news.missed) {
            let before = self.watched.len();
            self.find()?;
            for watched in self.watched.iter_mut().skip(before) {
                events.extend(watched.look()?);
            }
        }
        Ok(events)
    }

    /// Nothing is left that could happen.
    pub fn is_over(&self) -> bool {
        self.watched.is_empty() && (!self.all || self.unloaded)
    }

    /// Waits until there may be something to look at, or `interrupt` is readable.
    ///
    /// # Errors
    ///
    /// What poll(2) fails with.
    pub fn wait(&self, interrupt: &impl AsFd) -> Result<()> {
        let files = self.watched.iter();
        let files = files.map(|watched| PollFd::new(&watched.file, PollFlags::PRI));
        let mut all: Vec<_> = files.collect();
        all.push(PollFd::new(&self.uevents, PollFlags::IN));
        all.push(PollFd::new(interrupt, PollFlags::IN));
        match poll(&mut all, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::Wait(errno.into())),
        }
    }

    /// Those that are not watched yet.
    fn find(&mut self) -> Result<()> {
        for device in self.system.devices()? {
            if !self.watched.iter().any(|watched| watched.device == device) {
                self.watched.extend(Watched::open(device)?);
            }
        }
        Ok(())
    }
}

/// What can be seen of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    state: String,
    reason: String,
    generation: Option<u64>,
}

#[derive(Debug)]
struct Watched {
    device: Device,
    /// Its state. poll(2) tells of changes since this file was read.
    file: File,
    last: Option<Seen>,
}

impl Watched {
    /// `None`: it has just gone.
    fn open(device: Device) -> Result<Option<Self>> {
        let path = device.file("state");
        match File::open(&path) {
            Ok(file) => Ok(Some(Self {
                device,
                file,
                last: None,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(path, error)),
        }
    }

    fn look(&mut self) -> Result<Option<Event>> {
        let Some(seen) = self.see()? else {
            return Ok(Some(self.event(Happened::Gone, None)));
        };
        if self.last.as_ref() == Some(&seen) {
            return Ok(None);
        }
        let happened = match self.last.replace(seen.clone()) {
            None => Happened::Found,
            Some(_) => Happened::Changed,
        };
        Ok(Some(self.event(happened, Some(seen))))
    }

    fn event(&self, event: Happened, seen: Option<Seen>) -> Event {
        let generation = seen.as_ref().and_then(|seen| seen.generation);
        let words = seen.map(|seen| (seen.state, seen.reason)).unzip();
        Event {
            version: VERSION,
            event,
            device: self.device.name(),
            parent: self.device.parent.clone(),
            state: words.0,
            reason: words.1,
            generation,
        }
    }

    /// `None`: it is gone.
    fn see(&self) -> Result<Option<Seen>> {
        let mut state = [0; 64];
        let length = match self.file.read_at(&mut state, 0) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                return Ok(None)
            }
            Err(error) => return Err(Error::file(self.device.file("state"), error)),
        };
        let state = String::from_utf8_lossy(state.get(..length).unwrap_or_default());
        let Some(reason) = known(&self.device, "reason")? else {
            return Ok(None);
        };
        let generation = known(&self.device, "generation")?;
        Ok(Some(Seen {
            state: state.trim_end().to_owned(),
            reason,
            generation: generation.and_then(|text| text.parse().ok()),
        }))
    }
}
