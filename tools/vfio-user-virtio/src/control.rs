// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: one JSON request a line, one JSON reply a line, nothing unasked. Several clients at a time.
//!
//! ```text
//! {"v":1,"id":1,"device":"disk","get":"counters.requests.in_flight"}  {"v":1,"id":1,"value":0}
//! {"v":1,"id":2,"device":"disk","get":""}                             {"v":1,"id":2,"value":{...the whole report...}}
//! {"v":1,"id":3,"get":""}                                             {"v":1,"id":3,"value":{"disk":{...},"net":{...}}}
//! {"v":1,"id":4,"device":"disk","set":{"acknowledge":"after:100"}}    {"v":1,"id":4,"value":null}
//! {"v":1,"id":5,"device":"disk","do":"resize:4096"}                   {"v":1,"id":5,"value":null}
//! {"v":1,"id":6,"device":"disk","set":{"acknowledge":"soon"}}         {"v":1,"id":6,"error":"acknowledge: expected ..."}
//! ```

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::handover::{self, give, HAND_OVER};
use crate::report::VERSION;
use crate::service::{Control, Devices, Service};
use crate::socket;
use crate::spec::Changes;
use crate::threads::Threads;
use clients::{Client, Clients};

mod clients;

const MAX_LINE: u64 = 64 * 1024;
/// The longest that the devices are waited for.
const MOST_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    v: u32,
    /// Read by [`answer`], which needs it even where the rest makes no sense.
    #[serde(rename = "id")]
    _id: Value,
    device: Option<String>,
    get: Option<String>,
    set: Option<Changes>,
    #[serde(rename = "do")]
    action: Option<String>,
    /// How long 'hand-over' waits for the devices to stop.
    wait_ms: Option<u64>,
}

impl Request {
    /// What is asked of the process, and not of a device.
    fn of_process(&self) -> Option<&str> {
        match self {
            Self {
                device: None,
                get: None,
                set: None,
                action: Some(action),
                ..
            } => Some(action),
            _ => None,
        }
    }

    /// How long the devices are waited for, if they are to be handed over.
    fn hand_over(&self) -> Option<Duration> {
        let wait = Duration::from_millis(self.wait_ms.unwrap_or(0)).min(MOST_PATIENCE);
        (self.of_process() == Some(HAND_OVER)).then_some(wait)
    }
}

#[derive(Serialize)]
struct Reply {
    v: u32,
    id: Value,
    #[serde(flatten)]
    result: Answer,
}

impl Reply {
    fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
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
    #[error("one of 'get', 'set' and 'do' is wanted")]
    Verb,
    #[error("'wait_ms' is for 'hand-over'")]
    Wait,
    #[error("'set' and 'do' need a device: there are {0}")]
    WhichDevice(String),
    #[error("no device '{0}': there are {1}")]
    NoDevice(String, String),
    #[error("nothing is called '{0}' in the report")]
    Path(String),
    #[error(transparent)]
    Setting(#[from] crate::settings::Error),
    #[error(transparent)]
    Snapshot(#[from] handover::Error),
    #[error(transparent)]
    Action(#[from] crate::types::ActionError),
}

/// Serves clients, until a system call fails that can't.
pub fn run(control: &Control, service: &Arc<Service>, threads: &Threads) -> io::Result<()> {
    let clients = Arc::new(Clients::default());
    loop {
        control.boundary().wait(control.listener(), || ())?;
        let Some(client) = socket::accept(control.listener()) else {
            continue;
        };
        let started = clients
            .admit(client)
            .and_then(|client| client.map_or(Ok(()), |client| start(client, service, threads)));
        if let Err(error) = started {
            tracing::info!(%error, "a control client was turned away");
        }
    }
}

fn start(client: Client, service: &Arc<Service>, threads: &Threads) -> io::Result<()> {
    let service = Arc::clone(service);
    threads.spawn("control", move || {
        if let Err(error) = serve(client.stream(), &service, || client.has_asked()) {
            tracing::info!(%error, "control client");
        }
        Ok(())
    })
}

fn serve(stream: &UnixStream, service: &Service, asked: impl Fn()) -> io::Result<()> {
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
        asked();
        let (id, request) = parse(&line);
        if let Some(patience) = request.as_ref().ok().and_then(Request::hand_over) {
            // What comes next is no request.
            return give::give(service, stream, &id, patience);
        }
        output.write_all(&answer(id, request, service).line()?)?;
    }
}

/// The reply to a request, which is a line, with or without its end: another line. Hands nothing over.
pub fn reply(line: &[u8], service: &Service) -> io::Result<Vec<u8>> {
    let (id, request) = parse(line);
    answer(id, request, service).line()
}

/// A request, and its id: even one that makes no sense is answered under its own id, if it has one.
fn parse(line: &[u8]) -> (Value, Result<Request, Error>) {
    let id = serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|value| value.get("id").cloned())
        .unwrap_or_default();
    let request = serde_json::from_slice::<Request>(line).map_err(Error::from);
    let known = |request: Request| match request.v {
        VERSION => Ok(request),
        version => Err(Error::Version(version)),
    };
    (id, request.and_then(known))
}

fn answer(id: Value, request: Result<Request, Error>, service: &Service) -> Reply {
    let result = match request.and_then(|request| perform(request, service)) {
        Ok(value) => Answer::Value(value),
        Err(error) => Answer::Error(error.to_string()),
    };
    Reply {
        v: VERSION,
        id,
        result,
    }
}

fn names(devices: &Devices) -> String {
    let names: Vec<&str> = devices.keys().map(String::as_str).collect();
    names.join(", ")
}

fn perform(request: Request, service: &Service) -> Result<Value, Error> {
    if request.wait_ms.is_some() {
        return Err(Error::Wait);
    }
    if request.of_process() == Some("save") {
        return Ok(give::snapshot(service)?);
    }
    let _turn = service.turn();
    let devices = service.devices();
    let device = match request.device {
        None => None,
        Some(name) => Some(
            devices
                .get(&name)
                .ok_or_else(|| Error::NoDevice(name, names(devices)))?,
        ),
    };
    match (request.get, request.set, request.action, device) {
        (Some(path), None, None, Some(device)) => {
            find(&serde_json::to_value(device.report())?, path)
        }
        (Some(path), None, None, None) => {
            let reports: BTreeMap<&String, _> = devices
                .iter()
                .map(|(name, device)| (name, device.report()))
                .collect();
            find(&serde_json::to_value(reports)?, path)
        }
        (None, Some(settings), None, Some(device)) => {
            device.set(&settings, Instant::now())?;
            Ok(Value::Null)
        }
        (None, None, Some(action), Some(device)) => {
            device.act(&action)?;
            Ok(Value::Null)
        }
        (None, Some(_), None, None) | (None, None, Some(_), None) => {
            Err(Error::WhichDevice(names(devices)))
        }
        _ => Err(Error::Verb),
    }
}

fn find(report: &Value, path: String) -> Result<Value, Error> {
    let found = path
        .split('.')
        .filter(|name| !name.is_empty())
        .try_fold(report, |value, name| match value {
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            value => value.get(name),
        });
    found.cloned().ok_or(Error::Path(path))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::device::{Device, Offer};
    use crate::service::Endpoint;
    use crate::settings::Settings;
    use crate::threads::Failure;
    use crate::types::null::Null;
    use crate::types::{ActionError, Description, Malformed, Outcome, Request, Type};
    use crate::vfio_user::Server;

    /// A type with a mistake in it.
    #[derive(Debug)]
    struct Wrong;

    impl Type for Wrong {
        fn describe(&self) -> Description {
            Null::new(9, 1).describe()
        }

        fn configuration(&self, config: &mut [u8]) {
            config.fill(0);
        }

        fn execute(&self, _: Request<'_>) -> Result<Outcome, Malformed> {
            Err(Malformed("any"))
        }

        fn act(&self, action: &str) -> Result<bool, ActionError> {
            panic!("asked to {action}");
        }
    }

    #[test]
    fn a_client_whose_thread_panics_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = socket::listen(&path).unwrap();
        let control = Control::new(path.clone(), listener).unwrap();
        let device = Device::new(Arc::new(Wrong), Offer::default(), Settings::default());
        let socket = folder.path().join("a");
        let spec = format!("null,name=a,id=9,socket={}", socket.display());
        let server = Server::listen(&socket).unwrap();
        let endpoint = Endpoint::new(spec.parse().unwrap(), Arc::new(device), server);
        let service = Arc::new(Service::new(vec![endpoint], None).unwrap());
        let (threads, ended) = Threads::new();
        thread::spawn(move || run(&control, &service, &threads));
        let mut client = UnixStream::connect(&path).unwrap();
        let request = br#"{"v":1,"id":1,"device":"a","do":"err"}"#;
        client.write_all(&[request, &b"\n"[..]].concat()).unwrap();
        let Err(Failure::Panicked(name)) = ended.recv_timeout(Duration::from_secs(60)).unwrap()
        else {
            panic!("it has not panicked");
        };
        assert_eq!(name, "control");
    }

    fn service() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let specs = ["a", "b"].map(|name| {
            let socket = folder.path().join(name);
            let id = if name == "a" { 1 } else { 2 };
            let spec = format!("null,name={name},id={id},socket={}", socket.display());
            spec.parse().unwrap()
        });
        Service::open(&specs, None).unwrap().0
    }

    fn ask(request: &str) -> (Value, Option<Value>, Option<String>) {
        let (id, request) = parse(request.as_bytes());
        let reply = answer(id, request, &service());
        match reply.result {
            Answer::Value(value) => (reply.id, Some(value), None),
            Answer::Error(error) => (reply.id, None, Some(error)),
        }
    }

    #[test]
    fn values_are_found_by_device_and_path() {
        let (id, value, _) = ask(r#"{"v":1,"id":"x","device":"b","get":"device_id"}"#);
        assert_eq!((id, value), ("x".into(), Some(2.into())));
        let (_, value, _) = ask(r#"{"v":1,"id":1,"get":"a.counters.requests.taken"}"#);
        assert_eq!(value, Some(0.into()));
        let (_, value, _) = ask(r#"{"v":1,"id":1,"get":""}"#);
        assert_eq!(value.unwrap().as_object().unwrap().len(), 2);
    }

    #[test]
    fn requests_that_make_no_sense_are_answered_with_an_error_under_their_id() {
        for (request, expected) in [
            (r#"{"v":2,"id":7,"get":""}"#, "version 2"),
            (
                r#"{"v":1,"id":7,"do":"save","wait_ms":1}"#,
                "'wait_ms' is for 'hand-over'",
            ),
            (r#"{"v":1,"id":7}"#, "one of 'get', 'set' and 'do'"),
            (
                r#"{"v":1,"id":7,"get":"","do":"x"}"#,
                "one of 'get', 'set' and 'do'",
            ),
            (
                r#"{"v":1,"id":7,"set":{}}"#,
                "need a device: there are a, b",
            ),
            (
                r#"{"v":1,"id":7,"device":"c","get":""}"#,
                "no device 'c': there are a, b",
            ),
            (
                r#"{"v":1,"id":7,"device":"a","get":"x.y"}"#,
                "nothing is called 'x.y'",
            ),
            (
                r#"{"v":1,"id":7,"device":"a","set":{"speed":"1"}}"#,
                "no setting 'speed'",
            ),
            (
                r#"{"v":1,"id":7,"device":"a","do":"dance"}"#,
                "can't do 'dance'",
            ),
            (r#"{"v":1,"id":7,"get":"","what":1}"#, "not a request"),
        ] {
            let (id, value, error) = ask(request);
            assert_eq!((id, value), (7.into(), None), "{request}");
            let error = error.unwrap();
            assert!(error.contains(expected), "{request}: {error}");
        }
        assert!(ask("nonsense").2.unwrap().starts_with("not a request"));
    }

    #[test]
    fn an_id_is_the_same_number_in_the_reply() {
        // By the parser's quicker way the first of them is the second.
        for id in ["9.999999999999999e+47", "1e+48"] {
            let reply = reply(format!("{{\"v\":1,\"id\":{id}}}").as_bytes(), &service()).unwrap();
            let reply = String::from_utf8(reply).unwrap();
            assert!(reply.contains(&format!("\"id\":{id},")), "{reply}");
        }
    }

    #[test]
    fn silent_clients_lock_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = socket::listen(&path).unwrap();
        let control = Control::new(path.clone(), listener).unwrap();
        thread::spawn(move || run(&control, &Arc::new(service()), &Threads::new().0));
        let silent: Vec<UnixStream> = (0..100)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        let mut client = crate::client::Client::connect(&path).unwrap();
        assert_eq!(client.get("b", "device_id").unwrap(), 2);
        drop(silent);
    }

    #[test]
    fn a_client_that_does_not_read_is_left() {
        let (client, server) = UnixStream::pair().unwrap();
        server
            .set_write_timeout(Some(std::time::Duration::from_millis(1)))
            .unwrap();
        let serving = thread::spawn(move || serve(&server, &service(), || ()));
        let request = b"{\"v\":1,\"id\":1,\"get\":\"\"}\n";
        // Until the server is gone. A client that waits for it to read waits no longer than this.
        let minute = std::time::Duration::from_secs(60);
        client.set_write_timeout(Some(minute)).unwrap();
        let error = loop {
            if let Err(error) = (&client).write_all(request) {
                break error;
            }
        };
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
        let error = serving.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
