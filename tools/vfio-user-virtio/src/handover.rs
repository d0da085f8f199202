// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another process goes on with the devices, while they are stopped: QEMU and the guest notice nothing.
//!
//! The successor connects to the control socket of the server that is in charge, and they say:
//!
//! ```text
//! successor  {"v":1,"id":1,"do":"hand-over"}         with "wait_ms":N: it waits that long for the devices to stop
//! server     {"v":1,"id":1,"value":{"files":N,"since":T}}     or {"v":1,"id":1,"error":"..."}, and nothing has changed
//! server     N files (SCM_RIGHTS), at most 253 with each byte of data; the first holds the [`Snapshot`]
//! successor  taken
//! ```
//!
//! From its answer on the server's devices are frozen, and its threads stand between two messages of their clients. Until it has read
//! `taken` it is in charge: at an end of file, at anything else, and after [`PATIENCE`] it goes on as if nobody had asked. The successor
//! says `taken` when all is there but for that word. From then on it is in charge, and the server ends with status 0. A server that waits
//! no longer shuts the socket down first: what was written before that it reads, and after it nothing can be written.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::{self, Frozen};
use crate::memory::Map;
use crate::portable;
use crate::spec::{self, Spec};
use crate::vfio_user::Limits;

pub mod give;
pub mod show;
pub mod take;
mod transfer;
mod wait;

/// How long the server waits for all of it. QEMU waits 5 s for an answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// What the successor says.
const TAKEN: &[u8] = b"taken\n";
/// What the server is asked.
pub const HAND_OVER: &str = "hand-over";

const FORMAT: &str = "vfio-user-virtio snapshot";
/// The version of [`Snapshot`], with all that is in it. It changes with every change of that: a build goes on with its own version only.
pub const VERSION: u64 = 5;

/// What a successor knows, files aside.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    format: String,
    version: u64,
    /// The version of the program that has written it.
    program: String,
    /// The times in it are of this boot of the machine.
    boot: String,
    #[serde(serialize_with = "absolute")]
    control: Option<PathBuf>,
    devices: Vec<DeviceSnapshot>,
}

/// What a successor knows of one device. Its files come in this order: that of the socket that listens, then those of `client`, `file`,
/// `maps`, `vectors` and `intx`, where there are any.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct DeviceSnapshot {
    spec: Spec,
    image: Value,
    client: Option<ClientSnapshot>,
    /// The file that the data is in.
    file: bool,
    maps: Vec<Map>,
    /// Whether anybody is told, by vector.
    vectors: Vec<bool>,
    intx: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ClientSnapshot {
    limits: Option<Limits>,
}

fn absolute<S: serde::Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => portable::absolute(path, serializer),
        None => serializer.serialize_none(),
    }
}

/// Why it was not handed over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device does something.
    #[error("device '{name}': {busy}")]
    Busy {
        /// Its name.
        name: String,
        /// What.
        busy: device::Busy,
    },
    /// Others have it write one, one after the other.
    #[error("other snapshots are being written")]
    Saving,
    /// Nobody takes over from a process that ends.
    #[error("the server is ending")]
    Ending,
    /// A client has begun a message, and does not end it.
    #[error("the client of device '{0}' is in the middle of a message")]
    Boundary(String),
    /// No control client can be accepted, and somebody waits for that.
    #[error("the control socket is not served at the moment")]
    Control,
    /// What is handed over can't be written or read.
    #[error("the snapshot can't be written or read")]
    Format(#[from] serde_json::Error),
    /// A system call fails.
    #[error("a system call fails")]
    System(#[from] io::Error),
    /// The other end has refused.
    #[error("refused: {0}")]
    Refused(String),
    /// The other end says something else.
    #[error("this is no server that hands over: {0}")]
    Protocol(&'static str),
    /// The file is something else.
    #[error("this is no snapshot")]
    NoSnapshot,
    /// It was written by another version.
    #[error("a snapshot of version {0}; this build goes on with version {VERSION} only")]
    Version(u64),
    /// Its times mean nothing any more.
    #[error("the snapshot was written before the machine was started: its times mean nothing now")]
    Boot,
    /// A file is missing.
    #[error("fewer files than the snapshot speaks of")]
    Files,
    /// A device can't be gone on with here.
    #[error("device '{name}'")]
    Device {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: spec::Error,
    },
    /// There is no such device.
    #[error("no device '{0}': there are {1}")]
    NoDevice(String, String),
    /// A socket can't be listened on.
    #[error("{path}: can't listen")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two devices have one name.
    #[error("two devices are called '{0}': give them names with name=")]
    SameName(String),
}

impl Snapshot {
    /// Reads one, if it is one that this build can go on with.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let value: Value = serde_json::from_slice(text)?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(Error::NoSnapshot);
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => Ok(serde_json::from_value(value)?),
            Some(version) => Err(Error::Version(version)),
            None => Err(Error::NoSnapshot),
        }
    }

    fn new(control: Option<PathBuf>, devices: Vec<DeviceSnapshot>) -> io::Result<Self> {
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            boot: boot()?,
            control,
            devices,
        })
    }
}

/// Which boot of the machine this is.
fn boot() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

impl DeviceSnapshot {
    fn new(spec: &Spec, frozen: &Frozen<'_>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            spec: spec.clone(),
            image: frozen.image()?,
            client: None,
            file: false,
            maps: Vec::new(),
            vectors: Vec::new(),
            intx: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::device::Files;

    const WHAT_TO_DO: &str = "what is handed over has another shape now: raise handover::VERSION, rename the example in tests/snapshots \
        to that number, and write into it by hand what is new, with a value";

    /// What has a value somewhere, and what has none: by path.
    fn look(value: &Value, path: &str, found: &mut [BTreeSet<String>; 2]) {
        let [there, gaps] = found;
        let is_empty = match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if is_empty {
            gaps.insert(path.to_owned());
            return;
        }
        there.insert(path.to_owned());
        match value {
            Value::Array(items) => items
                .iter()
                .for_each(|item| look(item, &format!("{path}[]"), found)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, field)| look(field, &format!("{path}.{name}"), found)),
            _ => {}
        }
    }

    /// A committed snapshot, in which nothing is missing that a device can have, is gone on with, and comes out as it was.
    #[test]
    fn the_shape_of_a_snapshot_changes_with_its_version_only() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");
        let text = std::fs::read(format!("{folder}/{VERSION}.json")).expect(WHAT_TO_DO);
        let example: Value = serde_json::from_slice(&text).unwrap();
        let mut found = Default::default();
        look(&example, "", &mut found);
        let [there, gaps] = found;
        let gaps: Vec<_> = gaps.difference(&there).collect();
        // A connection has a TCP stack behind it. The tests of the echo hand some over.
        let apart = [".devices[].image.of_type.peer.tcp.connections"];
        assert_eq!(gaps, apart, "nobody could tell what is in these");

        let snapshot =
            Snapshot::parse(&text).unwrap_or_else(|error| panic!("{error:?}: {WHAT_TO_DO}"));
        assert_eq!(json!(snapshot), example, "{WHAT_TO_DO}");
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(1 << 20).unwrap();
        for mut device in snapshot.devices {
            let name = device.spec.name.clone();
            if device.spec.file().is_some() {
                device.spec.set_file(disk.path()).unwrap();
            }
            let image = device.image.clone();
            let restored = device.spec.restore(image, Files::default(), None, false);
            let restored =
                restored.unwrap_or_else(|error| panic!("{name}: {error:?}: {WHAT_TO_DO}"));
            let image = restored.freeze().unwrap().image().unwrap();
            assert_eq!(image, device.image, "{name}: {WHAT_TO_DO}");
        }
    }
}
