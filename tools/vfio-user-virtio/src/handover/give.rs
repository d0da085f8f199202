// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The server that is in charge, and hands over.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};
use serde_json::{json, Value};

use super::{transfer, wait, ClientSnapshot, DeviceSnapshot, Error, Snapshot, PATIENCE, TAKEN};
use crate::boundary::Closed;
use crate::device::{Files, Frozen};
use crate::portable;
use crate::report;
use crate::service::{Control, Endpoint, Service};
use crate::vfio_user::{Limits, Standing};

/// How long all stand still for one that does not come to a boundary.
const BRIEFLY: Duration = Duration::from_millis(300);

/// How long one that wants a snapshot waits for others that do.
const QUEUE: Duration = Duration::from_secs(10);

/// The snapshot alone, for who wants to look at it. The devices have to stand still for that, too.
pub fn snapshot(service: &Service) -> Result<Value, Error> {
    // A device is frozen once at a time, and who freezes it is not waited for long.
    let _saving = service.save(QUEUE).ok_or(Error::Saving)?;
    // Not before: whoever hands over, or ends the process, does not wait for the queue.
    let _turn = service.turn();
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

/// All that stands still, for as long as this lives.
#[derive(Debug)]
struct Still<'a> {
    devices: Vec<StillDevice<'a>>,
    control: Option<(&'a Control, Closed<'a, ()>)>,
}

#[derive(Debug)]
struct StillDevice<'a> {
    endpoint: &'a Endpoint,
    device: Frozen<'a>,
    client: Option<(Arc<UnixStream>, Option<Limits>)>,
    /// That the data is in.
    file: Option<Arc<File>>,
    _server: Closed<'a, Standing>,
}

impl<'a> Still<'a> {
    /// Each thread that serves has until `deadline` to come to the end of what it is doing.
    fn new(service: &'a Service, deadline: Instant) -> Result<Self, Error> {
        if !service.is_in_charge() {
            return Err(Error::Ending);
        }
        // Nobody asks any more while this is being prepared.
        let close = |control: &'a Control| {
            let closed = control.boundary().close(deadline);
            closed.map(|closed| (control, closed))
        };
        let control = service.control().map(close).transpose();
        let mut still = Self {
            devices: Vec::new(),
            control: control.map_err(|_| Error::Control)?,
        };
        for endpoint in service.endpoints() {
            let server = endpoint.server().boundary().close(deadline);
            let server = server.map_err(|_| Error::Boundary(endpoint.spec().name.clone()))?;
            let client = match server.standing() {
                Some(Standing::InSession { client, limits }) => Some((client, limits)),
                _ => None,
            };
            still.devices.push(StillDevice {
                device: freeze(endpoint)?,
                client,
                file: endpoint.device().file(),
                endpoint,
                _server: server,
            });
        }
        Ok(still)
    }

    /// What it is, and the files. They are this process's still, and not duplicated: it may have no room for any more.
    fn hand_over(&self) -> Result<(Snapshot, Vec<BorrowedFd<'_>>), Error> {
        let (mut devices, mut files) = (Vec::new(), Vec::new());
        for still in &self.devices {
            let mut snapshot = DeviceSnapshot::new(still.endpoint.spec(), &still.device)?;
            files.push(still.endpoint.server().listener().as_fd());
            if let Some((client, limits)) = &still.client {
                snapshot.client = Some(ClientSnapshot { limits: *limits });
                files.push(client.as_fd());
            }
            snapshot.file = still.file.is_some();
            files.extend(still.file.as_ref().map(AsFd::as_fd));
            let Files {
                maps,
                vectors,
                intx,
            } = still.device.files();
            for (map, file) in maps {
                snapshot.maps.push(map);
                files.push(file);
            }
            snapshot.vectors = vectors.iter().map(Option::is_some).collect();
            snapshot.intx = intx.is_some();
            files.extend(vectors.into_iter().flatten().chain(intx));
            devices.push(snapshot);
        }
        let control = self.control.as_ref().map(|(control, _)| control);
        files.extend(control.map(|control| control.listener().as_fd()));
        let path = control.map(|control| control.path().to_owned());
        Ok((Snapshot::new(path, devices)?, files))
    }
}

fn in_memory(snapshot: &Snapshot) -> Result<File, Error> {
    let memfd = memfd_create("snapshot", MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut file = File::from(memfd);
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    Ok(file)
}

fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Hands over to whoever is on `stream`, and has asked with the request `id`, as soon as the devices have stopped, if that is within
/// `patience`. Returns only if that comes to nothing: whoever takes over has this process end.
pub fn give(
    service: &Service,
    stream: &UnixStream,
    id: &Value,
    patience: Duration,
) -> io::Result<()> {
    let end = Instant::now() + patience;
    loop {
        wait::wait(service, stream, end)?;
        match try_to_give(service, stream, id, end)? {
            Outcome::Answered => return Ok(()),
            Outcome::TooLate => {}
            Outcome::NotAtABoundary => wait::pause(stream, end)?,
        }
    }
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was refused.
    Answered,
    /// A device has gone on just now. The successor still waits.
    TooLate,
    /// A client has not come to the end of a message. The successor still waits.
    NotAtABoundary,
}

fn try_to_give(
    service: &Service,
    stream: &UnixStream,
    id: &Value,
    end: Instant,
) -> io::Result<Outcome> {
    let _turn = service.stand_still();
    let since = Instant::now();
    let deadline = since + PATIENCE;
    let answer = |result: Value| {
        let mut line = json!({ "v": report::VERSION, "id": id });
        if let (Some(line), Value::Object(result)) = (line.as_object_mut(), result) {
            line.extend(result);
        }
        limit(stream, deadline)?;
        let mut stream = stream;
        stream.write_all(format!("{line}\n").as_bytes())
    };
    let refuse = |error: &Error| {
        answer(json!({ "error": reasons(error) }))?;
        Ok(Outcome::Answered)
    };
    // Who waits can try again, and has nobody wait for a client that hangs.
    let waits = since < end;
    let boundaries = if waits { since + BRIEFLY } else { deadline };
    let still = match Still::new(service, boundaries) {
        Ok(still) => still,
        Err(Error::Busy { .. }) if waits => return Ok(Outcome::TooLate),
        Err(Error::Boundary(_) | Error::Control) if waits => return Ok(Outcome::NotAtABoundary),
        Err(error) => return refuse(&error),
    };
    let prepared = still.hand_over().and_then(|(snapshot, files)| {
        let first = in_memory(&snapshot)?;
        in_time(deadline)?;
        Ok((first, files))
    });
    let (first, mut files) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&error),
    };
    files.insert(0, first.as_fd());
    let since = portable::instant::serialize(&since, serde_json::value::Serializer)?;
    answer(json!({ "value": { "files": files.len(), "since": since } }))?;
    limit(stream, deadline)?;
    transfer::send(stream, &files)?;
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

#[cfg(test)]
mod tests;
