// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: one JSON request a line, one JSON reply a line, nothing unasked. Several clients at a time.
//!
//! ```text
//! {"v":1,"id":1,"get":"counters.requests.in_flight"}       {"v":1,"id":1,"value":0}
//! {"v":1,"id":2,"get":""}                                  {"v":1,"id":2,"value":{...the whole report...}}
//! {"v":1,"id":3,"set":{"acknowledge":"after:100"}}         {"v":1,"id":3,"value":null}
//! {"v":1,"id":4,"set":{"acknowledge":"soon"}}              {"v":1,"id":4,"error":"acknowledge: expected ..."}
//! ```

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::Device;

const VERSION: u32 = 1;
const MAX_LINE: u64 = 64 * 1024;
const MAX_CLIENTS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    v: u32,
    /// Read by [`answer`], which needs it even where the rest makes no sense.
    #[serde(rename = "id")]
    _id: Value,
    get: Option<String>,
    set: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct Reply {
    v: u32,
    id: Value,
    #[serde(flatten)]
    result: Answer,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Value(Value),
    Error(String),
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not a request: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("version {0}: this server speaks version {VERSION}")]
    Version(u32),
    #[error("one of 'get' and 'set' is wanted")]
    Verb,
    #[error("nothing is called '{0}' in the report")]
    Path(String),
    #[error(transparent)]
    Setting(#[from] crate::settings::Error),
}

/// Listens on `path`. A socket that a dead process has left there is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process is listening there",
        ));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Serves clients, for ever.
pub fn run(listener: &UnixListener, device: &Arc<Device>) -> io::Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept()?;
        if clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!("too many control clients: one was turned away");
            continue;
        }
        let (device, clients) = (Arc::clone(device), Arc::clone(&clients));
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                if let Err(error) = client(&stream, &device) {
                    tracing::info!(%error, "control client");
                }
                clients.fetch_sub(1, Ordering::Relaxed);
            })?;
    }
}

fn client(stream: &UnixStream, device: &Device) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line that is too long, or not ended",
            ));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut reply = serde_json::to_vec(&answer(&line, device))?;
        reply.push(b'\n');
        output.write_all(&reply)?;
    }
}

fn answer(line: &[u8], device: &Device) -> Reply {
    // Even a request that makes no sense is answered under its own id, if it has one.
    let id = serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|value| value.get("id").cloned())
        .unwrap_or_default();
    let result = match perform(line, device) {
        Ok(value) => Answer::Value(value),
        Err(error) => Answer::Error(error.to_string()),
    };
    Reply {
        v: VERSION,
        id,
        result,
    }
}

fn perform(line: &[u8], device: &Device) -> Result<Value, Error> {
    let request: Request = serde_json::from_slice(line)?;
    if request.v != VERSION {
        return Err(Error::Version(request.v));
    }
    match (request.get, request.set) {
        (Some(path), None) => {
            let report = serde_json::to_value(device.report())?;
            let found =
                path.split('.')
                    .filter(|name| !name.is_empty())
                    .try_fold(&report, |value, name| match value {
                        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
                        value => value.get(name),
                    });
            found.cloned().ok_or(Error::Path(path))
        }
        (None, Some(settings)) => {
            for (name, value) in &settings {
                device.set(name, value)?;
            }
            Ok(Value::Null)
        }
        _ => Err(Error::Verb),
    }
}
