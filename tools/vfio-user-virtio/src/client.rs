// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other end of the control socket, for people: `report`, `get`, `set` and `do`.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value};

use crate::report::VERSION;
use crate::spec::Changes;

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("{path}: can't reach a server")]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server went away, or does not speak this protocol.
    #[error("the server does not answer as it should")]
    Answer(#[source] io::Error),
    /// The server refuses.
    #[error("{0}")]
    Refused(String),
    /// Not `SETTING=VALUE`.
    #[error("'{0}' is not SETTING=VALUE")]
    Pair(String),
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects to the control socket `path`.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        UnixStream::connect(path)
            .map(|stream| Self(BufReader::new(stream)))
            .map_err(|source| Error::Connect {
                path: path.to_owned(),
                source,
            })
    }

    fn ask(&mut self, mut request: Map<String, Value>) -> Result<Value, Error> {
        request.insert("v".to_owned(), VERSION.into());
        request.insert("id".to_owned(), 0.into());
        let mut line = Value::Object(request).to_string();
        line.push('\n');
        self.0
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(Error::Answer)?;
        let mut reply = String::new();
        self.0.read_line(&mut reply).map_err(Error::Answer)?;
        let mut reply: Map<String, Value> =
            serde_json::from_str(&reply).map_err(|error| Error::Answer(error.into()))?;
        match (reply.remove("value"), reply.remove("error")) {
            (Some(value), _) => Ok(value),
            (None, error) => Err(Error::Refused(
                error
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given")
                    .to_owned(),
            )),
        }
    }

    /// The reports of all devices, or of one, by name.
    pub fn reports(&mut self, device: Option<&str>) -> Result<Map<String, Value>, Error> {
        let mut request = Map::from_iter([("get".to_owned(), "".into())]);
        if let Some(device) = device {
            request.insert("device".to_owned(), device.into());
        }
        let value = self.ask(request)?;
        Ok(match (device, value) {
            (Some(device), report) => Map::from_iter([(device.to_owned(), report)]),
            (None, Value::Object(reports)) => reports,
            (None, _) => Map::new(),
        })
    }

    /// One value of a device's report, by its path.
    pub fn get(&mut self, device: &str, path: &str) -> Result<Value, Error> {
        let request = [
            ("device".to_owned(), device.into()),
            ("get".to_owned(), path.into()),
        ];
        self.ask(Map::from_iter(request))
    }

    /// Changes a device's settings.
    pub fn set(&mut self, device: &str, changes: &Changes) -> Result<(), Error> {
        let request = [
            ("device".to_owned(), device.into()),
            ("set".to_owned(), json!(changes)),
        ];
        self.ask(Map::from_iter(request)).map(drop)
    }

    /// A snapshot of all devices, which have to stand still for it.
    pub fn save(&mut self) -> Result<Value, Error> {
        self.ask(Map::from_iter([("do".to_owned(), "save".into())]))
    }

    /// Has a device do something.
    pub fn act(&mut self, device: &str, action: &str) -> Result<(), Error> {
        let request = [
            ("device".to_owned(), device.into()),
            ("do".to_owned(), action.into()),
        ];
        self.ask(Map::from_iter(request)).map(drop)
    }
}

/// `SETTING=VALUE` ...
pub fn changes(pairs: &[String]) -> Result<Changes, Error> {
    pairs
        .iter()
        .map(|pair| {
            pair.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .ok_or_else(|| Error::Pair(pair.clone()))
        })
        .collect()
}

/// How many rules were broken by all drivers together. `None`: a report does not tell.
pub fn breaches(reports: &Map<String, Value>) -> Option<u64> {
    reports
        .values()
        .map(|report| report.get("breach_count")?.as_u64())
        .sum()
}

/// A value as people read it: a text without its quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A report as people read it.
pub fn show(name: &str, report: &Value) -> String {
    let field = |path: &str| {
        let found = path
            .split('.')
            .try_fold(report, |value, name| value.get(name));
        match found {
            Some(value) => plain(value),
            None => "?".to_owned(),
        }
    };
    let n = |path: &str| field(&format!("counters.{path}"));
    let mut text = String::new();
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<10}{value}");
    };
    row(
        "device",
        format!(
            "{}, virtio type {}, {}",
            field("type"),
            field("device_id"),
            if field("connected") == "true" {
                "connected"
            } else {
                "not connected"
            }
        ),
    );
    row(
        "state",
        format!(
            "{}, status {:#04x}, protocol {}",
            field("stop"),
            report.get("status").and_then(Value::as_u64).unwrap_or(0),
            field("protocol")
        ),
    );
    row(
        "requests",
        format!(
            "{} taken, {} completed, {} failed, {} in flight, {} dropped, {} kept, {} taken while stopped",
            n("requests.taken"),
            n("requests.completed"),
            n("requests.failed"),
            n("requests.in_flight"),
            n("requests.dropped"),
            n("requests.kept"),
            n("requests.taken_while_stopped")
        ),
    );
    row(
        "stops",
        format!(
            "{} asked for, {} acknowledged, {} called off, {} resumed, {} dropped",
            n("stops.requested"),
            n("stops.acknowledged"),
            n("stops.called_off"),
            n("stops.resumed"),
            n("stops.dropped")
        ),
    );
    if n("stops.requested") != "0" {
        row(
            "last stop",
            format!(
                "{} requests in flight when asked for; acknowledged after {} us, seen {} us later, {} status reads",
                n("stops.last_requests_when_requested"),
                n("stops.last_acknowledge_us"),
                n("stops.last_seen_us"),
                n("stops.last_status_reads")
            ),
        );
        row(
            "resume",
            format!(
                "acknowledged after {} us, seen {} us later",
                n("stops.last_resume_us"),
                n("stops.last_resume_seen_us")
            ),
        );
    }
    row(
        "driver",
        format!(
            "{} status reads, {} status writes, {} notifications ({} while stopped), {} resets",
            n("status_reads"),
            n("status_writes"),
            n("notifications"),
            n("notifications_while_stopped"),
            n("resets")
        ),
    );
    let breaches = report.get("breaches").and_then(Value::as_array);
    row(
        "breaches",
        match field("breach_count").as_str() {
            "0" => "none".to_owned(),
            count => count.to_owned(),
        },
    );
    for breach in breaches.into_iter().flatten() {
        let at = breach.get("at_us").and_then(Value::as_u64).unwrap_or(0);
        let word = |key: &str| breach.get(key).and_then(Value::as_str).unwrap_or("?");
        let _ = writeln!(
            text,
            "    {:>5}.{:06} s  {:<9} {}",
            at / 1_000_000,
            at % 1_000_000,
            word("rule"),
            word("seen")
        );
    }
    format!("{name}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Offer};
    use crate::settings::Settings;
    use crate::types::null::Null;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn a_report_shows_everything_and_every_breach() {
        let device = Device::new(
            Arc::new(Null::new(9, 1)),
            Offer::default(),
            Settings::default(),
        );
        let shown = |device: &Device| show("disk", &json!(device.report()));
        assert!(!shown(&device).contains('?'), "{}", shown(&device));
        assert!(shown(&device).contains("breaches  none"));
        device.write_bar(0x3000, &[0, 0], Instant::now());
        let reports = Map::from_iter([("disk".to_owned(), json!(device.report()))]);
        assert_eq!(breaches(&reports), Some(1));
        assert!(shown(&device).contains("STATUS-2"), "{}", shown(&device));
        assert!(!shown(&device).contains('?'), "{}", shown(&device));
    }

    #[test]
    fn a_report_without_a_judgement_is_no_acquittal() {
        let reports = Map::from_iter([("disk".to_owned(), json!({}))]);
        assert_eq!(breaches(&reports), None);
    }

    #[test]
    fn settings_are_pairs() {
        assert_eq!(changes(&["a=b=c".to_owned()]).unwrap()["a"], "b=c");
        assert!(changes(&["a".to_owned()]).is_err());
    }
}
