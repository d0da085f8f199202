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
use crate::report;
use crate::service::{Control, Endpoint, Service};
use crate::socket;
use crate::spec::{self, Spec};
use crate::vfio_user::{Server, Standing};

/// The most bytes of an answer.
const MAX_LINE: u64 = 4096;

/// The server that hands over: it waits for a word.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    asked: Instant,
}

impl Predecessor {
    /// Takes over. Returns how long that has taken, from the request for it. With an error the server goes on, and this process is not
    /// to.
    pub fn take_over(mut self) -> Result<Duration, Error> {
        self.stream.write_all(TAKEN)?;
        Ok(self.asked.elapsed())
    }
}

/// Where devices have their data from now on, by name.
pub type NewFiles = BTreeMap<String, PathBuf>;

/// Asks the server on the control socket `path` to hand over. Its devices do nothing until [`Predecessor::take_over`].
pub fn take(path: &Path, new_files: &NewFiles) -> Result<(Service, Predecessor), Error> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.set_write_timeout(Some(2 * PATIENCE))?;
    let asked = Instant::now();
    let request = json!({ "v": report::VERSION, "id": 1, "do": HAND_OVER });
    stream.write_all(format!("{request}\n").as_bytes())?;
    let count = count(&read_line(&mut stream)?)?;
    let mut files = transfer::receive(&stream, count)?.into_iter();
    let snapshot = read_snapshot(files.next().ok_or(Error::Files)?.into())?;
    let snapshot = Snapshot::parse(&snapshot)?;
    let endpoints = endpoints(snapshot.devices, new_files, |device, spec, moved| {
        receive(device, spec, moved, &mut files)
    })?;
    let mut next = || files.next().ok_or(Error::Files);
    let control = match snapshot.control {
        None => None,
        Some(path) => Some(Control::new(path, next()?.into())?),
    };
    let service = Service::new(endpoints, control)?;
    Ok((service, Predecessor { stream, asked }))
}

/// Goes on with what was saved in the file `path`: the devices are as they were, and wait for clients.
pub fn restore(path: &Path, new_files: &NewFiles) -> Result<Service, Error> {
    let snapshot = Snapshot::parse(&std::fs::read(path)?)?;
    if snapshot.boot != boot()? {
        return Err(Error::Boot);
    }
    let control = snapshot.control.map(Control::listen).transpose()?;
    let endpoints = endpoints(snapshot.devices, new_files, |device, spec, _| {
        let restored = spec.restore(device.image, Files::default(), None, false);
        Ok((restored.map_err(cant_restore(spec))?, listen(&spec.socket)?))
    })?;
    Service::new(endpoints, control)
}

/// Listens where the devices do.
pub(crate) fn listen(path: &Path) -> Result<Server, Error> {
    Server::listen(path).map_err(|source| Error::Listen {
        path: path.to_owned(),
        source,
    })
}

fn cant_restore(spec: &Spec) -> impl FnOnce(spec::Error) -> Error + '_ {
    |source| Error::Device {
        name: spec.name.clone(),
        source,
    }
}

fn endpoints(
    devices: Vec<DeviceSnapshot>,
    new_files: &NewFiles,
    mut restore: impl FnMut(DeviceSnapshot, &Spec, bool) -> Result<(Device, Server), Error>,
) -> Result<Vec<Endpoint>, Error> {
    let names = |devices: &[DeviceSnapshot]| {
        let names = devices.iter().map(|device| device.spec.name.clone());
        names.collect::<Vec<_>>()
    };
    let known = names(&devices);
    if let Some(name) = new_files.keys().find(|name| !known.contains(name)) {
        return Err(Error::NoDevice(name.clone(), known.join(", ")));
    }
    let mut endpoints = Vec::new();
    for device in devices {
        let mut spec = device.spec.clone();
        let new_file = new_files.get(&spec.name);
        if let Some(path) = new_file {
            spec.set_file(path).map_err(cant_restore(&device.spec))?;
        }
        let (restored, server) = restore(device, &spec, new_file.is_some())?;
        endpoints.push(Endpoint::new(spec, Arc::new(restored), server));
    }
    Ok(endpoints)
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
        .map(|map| Ok((map, next()?.into())))
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

/// How many files will come, if any.
fn count(line: &[u8]) -> Result<usize, Error> {
    let reply: Value = serde_json::from_slice(line)?;
    if let Some(error) = reply.get("error").and_then(Value::as_str) {
        return Err(Error::Refused(error.to_owned()));
    }
    reply
        .pointer("/value/files")
        .and_then(Value::as_u64)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(Error::Protocol("it does not say how many files there are"))
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

impl Control {
    /// Listens on `path`.
    pub fn listen(path: PathBuf) -> Result<Self, Error> {
        match socket::listen(&path) {
            Ok(listener) => Ok(Self::new(path, listener)?),
            Err(source) => Err(Error::Listen { path, source }),
        }
    }
}
