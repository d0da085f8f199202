// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The server that is in charge, and hands over.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};
use serde_json::{json, Value};

use super::{transfer, ClientSnapshot, DeviceSnapshot, Error, Snapshot, PATIENCE, TAKEN};
use crate::boundary::Closed;
use crate::device::{Files, Frozen};
use crate::report;
use crate::service::{Endpoint, Service};
use crate::vfio_user::Standing;

/// The snapshot alone, for who wants to look at it. The devices have to stand still for that, too.
pub fn snapshot(service: &Service) -> Result<Value, Error> {
    let endpoints = service.endpoints();
    let frozen = endpoints
        .iter()
        .map(freeze)
        .collect::<Result<Vec<_>, Error>>()?;
    let devices = endpoints
        .iter()
        .zip(&frozen)
        .map(|(endpoint, device)| DeviceSnapshot::new(endpoint.spec(), device))
        .collect::<Result<_, _>>()?;
    let control = service.control().map(|control| control.path().to_owned());
    Ok(serde_json::to_value(Snapshot::new(control, devices)?)?)
}

fn freeze(endpoint: &Endpoint) -> Result<Frozen<'_>, Error> {
    endpoint.device().freeze().map_err(|busy| Error::Busy {
        name: endpoint.spec().name.clone(),
        busy,
    })
}

/// All that stands still, for as long as this lives, and what is handed over.
#[derive(Debug)]
struct Ready<'a> {
    files: Vec<OwnedFd>,
    _frozen: Vec<Frozen<'a>>,
    _servers: Vec<Closed<'a, Standing>>,
    _control: Option<Closed<'a, ()>>,
}

fn prepare(service: &Service, deadline: Instant) -> Result<Ready<'_>, Error> {
    if !service.is_in_charge() {
        return Err(Error::Ending);
    }
    let mut files = Vec::new();
    let (mut frozen, mut servers, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    // Nobody asks any more while this is being prepared.
    let control = service
        .control()
        .map(|control| control.boundary().close(deadline))
        .transpose()
        .map_err(io::Error::from)?;
    for endpoint in service.endpoints() {
        let closed = endpoint
            .server()
            .boundary()
            .close(deadline)
            .map_err(|_| Error::Boundary(endpoint.spec().name.clone()))?;
        let device = freeze(endpoint)?;
        let mut snapshot = DeviceSnapshot::new(endpoint.spec(), &device)?;
        files.push(endpoint.server().listener().try_clone()?.into());
        if let Some(Standing::InSession { client, limits }) = closed.standing() {
            snapshot.client = Some(ClientSnapshot { limits });
            files.push(client.try_clone()?.into());
        }
        if let Some(file) = endpoint.device().file() {
            snapshot.file = true;
            files.push(file.try_clone()?.into());
        }
        let Files {
            maps,
            vectors,
            intx,
        } = device.files()?;
        for (map, file) in maps {
            snapshot.maps.push(map);
            files.push(file.into());
        }
        snapshot.vectors = vectors.iter().map(Option::is_some).collect();
        snapshot.intx = intx.is_some();
        files.extend(vectors.into_iter().flatten().chain(intx));
        devices.push(snapshot);
        servers.push(closed);
        frozen.push(device);
    }
    let path = match service.control() {
        None => None,
        Some(control) => {
            files.push(control.listener().try_clone()?.into());
            Some(control.path().to_owned())
        }
    };
    let memfd = memfd_create("snapshot", MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut first = File::from(memfd);
    first.write_all(&serde_json::to_vec(&Snapshot::new(path, devices)?)?)?;
    files.insert(0, first.into());
    if Instant::now() >= deadline {
        return Err(io::Error::from(ErrorKind::TimedOut).into());
    }
    Ok(Ready {
        files,
        _frozen: frozen,
        _servers: servers,
        _control: control,
    })
}

/// Hands over to whoever is on `stream`, and has asked with the request `id`. Returns only if that comes to nothing: whoever takes over
/// has this process end.
pub fn give(service: &Service, stream: &UnixStream, id: &Value) -> io::Result<()> {
    let _turn = service.stand_still();
    let deadline = Instant::now() + PATIENCE;
    let answer = |result: Value| {
        let mut line = json!({ "v": report::VERSION, "id": id });
        if let (Some(line), Value::Object(result)) = (line.as_object_mut(), result) {
            line.extend(result);
        }
        limit(stream, deadline)?;
        let mut stream = stream;
        stream.write_all(format!("{line}\n").as_bytes())
    };
    let ready = match prepare(service, deadline) {
        Ok(ready) => ready,
        Err(error) => return answer(json!({ "error": reasons(&error) })),
    };
    answer(json!({ "value": { "files": ready.files.len() } }))?;
    limit(stream, deadline)?;
    transfer::send(stream, &ready.files)?;
    if !is_taken(stream, deadline) {
        tracing::warn!("a successor has not taken over: this process goes on");
        return Err(io::Error::other("a successor that did not take over"));
    }
    service.end();
    // What stands still does so until the process ends.
    loop {
        std::thread::park();
    }
}

/// An error, and why.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Whether the successor says so. If it does not by `deadline`, it can't any more.
fn is_taken(stream: &UnixStream, deadline: Instant) -> bool {
    let mut word = Vec::new();
    let read = limit(stream, deadline).and_then(|()| read_word(stream, &mut word, deadline));
    if read.is_err() {
        let _ = stream.shutdown(Shutdown::Read);
        // What was written before.
        let _ = read_word(stream, &mut word, deadline);
    }
    word == TAKEN
}

fn read_word(mut stream: &UnixStream, word: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    while word.len() < TAKEN.len() {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => word.extend(byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        limit(stream, deadline)?;
    }
    Ok(())
}

/// Neither reads nor writes wait much beyond `deadline`.
fn limit(stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    let rest = deadline.saturating_duration_since(Instant::now());
    let rest = rest.max(Duration::from_millis(1));
    stream.set_read_timeout(Some(rest))?;
    stream.set_write_timeout(Some(rest))
}
