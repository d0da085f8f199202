// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The successor, which goes on with what it is given: by a server, or from a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::{boot, transfer, DeviceSnapshot, Error, Snapshot, HAND_OVER, PATIENCE, TAKEN};
use crate::device::{Device, Files};
use crate::portable;
use crate::report;
use crate::service::{Control, Endpoint, Service};
use crate::socket::Made;
use crate::spec::{self, Spec};
use crate::vfio_user::{Server, Standing};

/// The most bytes of an answer.
const MAX_LINE: u64 = 4096;

/// The server that hands over: it waits for a word.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    since: Instant,
}

impl Predecessor {
    /// Takes over. Returns how long that has taken, from when all had stopped. With an error the server goes on, and this process is not
    /// to.
    pub fn take_over(mut self) -> Result<Duration, Error> {
        self.stream.write_all(TAKEN)?;
        Ok(self.since.elapsed())
    }
}

/// Where devices have their data from now on, by name.
pub type NewFiles = BTreeMap<String, PathBuf>;

/// Asks the server on the control socket `path` to hand over, as soon as its devices have stopped, if that is within `patience`. They
/// do nothing from then until [`Predecessor::take_over`].
pub fn take(
    path: &Path,
    new_files: &NewFiles,
    patience: Duration,
) -> Result<(Service, Predecessor), Error> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience + 2 * PATIENCE))?;
    stream.set_write_timeout(Some(2 * PATIENCE))?;
    let wait_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    // An older server does not know the key, and is to say what else does not fit.
    let request = if wait_ms == 0 {
        json!({ "v": report::VERSION, "id": 1, "do": HAND_OVER })
    } else {
        json!({ "v": report::VERSION, "id": 1, "do": HAND_OVER, "wait_ms": wait_ms })
    };
    stream.write_all(format!("{request}\n").as_bytes())?;
    let (count, since) = accepted(&read_line(&mut stream)?)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    let mut files = transfer::receive(&stream, count)?.into_iter();
    let snapshot = read_snapshot(files.next().ok_or(Error::Files)?.into())?;
    let snapshot = Snapshot::parse(&snapshot)?;
    let devices = restored(snapshot.devices, new_files, |device, spec, moved| {
        receive(device, spec, moved, &mut files)
    })?;
    let endpoint = |(spec, (device, server))| Endpoint::new(spec, Arc::new(device), server);
    let endpoints = devices.into_iter().map(endpoint).collect();
    let mut next = || files.next().ok_or(Error::Files);
    let control = match snapshot.control {
        None => None,
        Some(path) => Some(Control::new(path, next()?.into())?),
    };
    let service = Service::new(endpoints, control)?;
    Ok((service, Predecessor { stream, since }))
}

/// Goes on with what was saved as `text`: the devices are as they were, and wait for clients. What was due meanwhile happens
/// at once.
pub fn restore(text: &[u8], new_files: &NewFiles) -> Result<(Service, Made), Error> {
    let snapshot = Snapshot::parse(text)?;
    if snapshot.boot != boot()? {
        return Err(Error::Boot);
    }
    let devices = restored(snapshot.devices, new_files, |device, spec, _| {
        let restored = spec.restore(device.image, Files::default(), None, false);
        restored.map_err(cant_restore(spec))
    })?;
    Service::listen(devices, snapshot.control)
}

fn cant_restore(spec: &Spec) -> impl FnOnce(spec::Error) -> Error + '_ {
    |source| Error::Device {
        name: spec.name.clone(),
        source,
    }
}

/// What `restore` makes of each of the devices, and its description, in which those of `new_files` have moved.
fn restored<T>(
    devices: Vec<DeviceSnapshot>,
    new_files: &NewFiles,
    mut restore: impl FnMut(DeviceSnapshot, &Spec, bool) -> Result<T, Error>,
) -> Result<Vec<(Spec, T)>, Error> {
    let names = |devices: &[DeviceSnapshot]| {
        let names = devices.iter().map(|device| device.spec.name.clone());
        names.collect::<Vec<_>>()
    };
    let known = names(&devices);
    if let Some(name) = new_files.keys().find(|name| !known.contains(name)) {
        return Err(Error::NoDevice(name.clone(), known.join(", ")));
    }
    let mut restored = Vec::new();
    for device in devices {
        let mut spec = device.spec.clone();
        let new_file = new_files.get(&spec.name);
        if let Some(path) = new_file {
            spec.set_file(path).map_err(cant_restore(&device.spec))?;
        }
        let made = restore(device, &spec, new_file.is_some())?;
        restored.push((spec, made));
    }
    Ok(restored)
}

/// One device, and its server, with its share of `files`. Data that have `moved` are opened where they are now.
fn receive(
    snapshot: DeviceSnapshot,
    spec: &Spec,
    moved: bool,
    files: &mut impl Iterator<Item = OwnedFd>,
) -> Result<(Device, Server), Error> {
    let mut next = || files.next().ok_or(Error::Files);
    let listener = next()?.into();
    let standing = match snapshot.client {
        None => Standing::Listening,
        Some(client) => Standing::InSession {
            client: Arc::new(next()?.into()),
            limits: client.limits,
        },
    };
    let file: Option<File> = snapshot.file.then(&mut next).transpose()?.map(File::from);
    let maps = snapshot.maps.into_iter();
    let maps = maps
        .map(|map| Ok((map, next()?)))
        .collect::<Result<_, Error>>()?;
    let vectors = snapshot.vectors.into_iter();
    let vectors = vectors
        .map(|there| there.then(&mut next).transpose())
        .collect::<Result<_, Error>>()?;
    let intx = snapshot.intx.then(&mut next).transpose()?;
    let files = Files {
        maps,
        vectors,
        intx,
    };
    let file = file.filter(|_| !moved);
    let device = spec
        .restore(snapshot.image, files, file, true)
        .map_err(cant_restore(spec))?;
    Ok((device, Server::new(listener, standing)?))
}

/// How many files will come, if any, and since when the devices have been frozen.
fn accepted(line: &[u8]) -> Result<(usize, Instant), Error> {
    let reply: Value = serde_json::from_slice(line)?;
    if let Some(error) = reply.get("error").and_then(Value::as_str) {
        return Err(Error::Refused(error.to_owned()));
    }
    let files = reply.pointer("/value/files").and_then(Value::as_u64);
    let files = files.and_then(|count| usize::try_from(count).ok());
    let files = files.ok_or(Error::Protocol("it does not say how many files there are"))?;
    let since = reply.pointer("/value/since").cloned().unwrap_or_default();
    // A build from before does not say. What is handed over says whether this one can go on with it.
    let since = portable::instant::deserialize(since).unwrap_or_else(|_| Instant::now());
    Ok((files, since))
}

/// A line, and nothing beyond it: files come with what follows.
fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    for byte in stream.take(MAX_LINE).bytes() {
        match byte? {
            b'\n' => return Ok(line),
            byte => line.push(byte),
        }
    }
    Err(Error::Protocol("its answer has no end"))
}

fn read_snapshot(file: File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
