// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which devices there are, and how they behave: `--device` on the command line, and scenario files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::{Device, Files, ImageError, Offer};
use crate::pci::DEVICE_SIZE;
use crate::portable;
use crate::settings::{self, Settings};
use crate::types::blk::Disk;
use crate::types::net::Net;
use crate::types::null::Null;
use crate::types::rng::Rng;
use crate::types::scsi::Scsi;
use crate::types::store::Store;
use crate::types::{Type, MAX_QUEUES};

/// Settings by name.
pub type Changes = BTreeMap<String, String>;

/// The device types, and what each is.
pub const TYPES: &[(&str, &str)] = &[
    ("blk", "a file as a disk"),
    ("scsi", "a SCSI host, with a file as one or several disks"),
    (
        "net",
        "a network card, with a host at the other end of its wire",
    ),
    ("rng", "a source of entropy"),
    (
        "null",
        "any virtio device type: takes buffers, and keeps or answers them",
    ),
];

fn types() -> String {
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Why a device or a scenario was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of a device's description is not `KEY=VALUE`.
    #[error("'{0}' is not KEY=VALUE")]
    Pair(String),
    /// There is no such type.
    #[error("no device type '{0}': there are {types}", types = types())]
    Type(String),
    /// The type needs this.
    #[error("{0} needs {1}=")]
    Missing(&'static str, &'static str),
    /// The value does not fit the key.
    #[error("{0}: expected {1}")]
    Value(&'static str, &'static str),
    /// A setting makes no sense.
    #[error(transparent)]
    Setting(#[from] settings::Error),
    /// Something that the device is made from can't be opened.
    #[error("{path}: can't open it")]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A scenario is not a table of tables.
    #[error("{path}: not a scenario")]
    Scenario {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The device can't go on as another did.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A scenario speaks of a device that is not there.
    #[error("no device '{0}': there are {1}")]
    NoDevice(String, String),
}

/// A device as `--device` describes it: `TYPE,KEY=VALUE,...`. What is no key of its type is a setting.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    of_type: String,
    /// By which the control socket knows it. The type's name unless given.
    pub name: String,
    /// Where it listens for QEMU.
    #[serde(serialize_with = "portable::absolute")]
    pub socket: PathBuf,
    keys: Changes,
    settings: Settings,
}

/// The feature bits that are a type's own (virtio 1.4, section 6).
const TYPE_FEATURES: u64 = 0xff_ffff;

/// Keys that are not settings.
const KEYS: &[&str] = &[
    "name",
    "socket",
    "protocol",
    "notif_config_data",
    "long_common",
    "ring_reset",
    "packed",
    "notification_data",
    "interrupts",
    "file",
    "queues",
    "mergeable",
    "units",
    "read_only",
    "zoned",
    "mac",
    "id",
    "features",
    "config",
    "answers",
];

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(',');
        let of_type = parts.next().unwrap_or_default().to_owned();
        let mut keys = Changes::new();
        let mut changes = Changes::new();
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| Error::Pair(part.to_owned()))?;
            let map = if KEYS.contains(&key) {
                &mut keys
            } else {
                &mut changes
            };
            map.insert(key.to_owned(), value.to_owned());
        }
        let mut settings = Settings::default();
        settings.set_all(&changes)?;
        let socket = keys
            .remove("socket")
            .ok_or(Error::Missing("a device", "socket"))?;
        // A successor may be started elsewhere.
        if let Some(file) = keys.get_mut("file") {
            *file = absolute(file)?;
        }
        Ok(Self {
            name: keys.remove("name").unwrap_or_else(|| of_type.clone()),
            socket: socket.into(),
            of_type,
            keys,
            settings,
        })
    }
}

impl Spec {
    /// The device.
    pub fn open(&self) -> Result<Device, Error> {
        let (of_type, offer) = self.make(None)?;
        Ok(Device::new(Arc::from(of_type), offer, self.settings))
    }

    /// The device, which goes on as that of `image` did, with `files`. Its data are in `file`, or, without, where the description has
    /// them.
    pub fn restore(
        &self,
        image: Value,
        files: Files,
        file: Option<File>,
        taken_over: bool,
    ) -> Result<Device, Error> {
        let (of_type, offer) = self.make(file)?;
        Ok(Device::restore(of_type, offer, image, files, taken_over)?)
    }

    /// Where its data are, if it has any.
    pub fn file(&self) -> Option<&Path> {
        self.keys.get("file").map(Path::new)
    }

    /// Its data are there from now on.
    pub fn set_file(&mut self, file: &Path) -> Result<(), Error> {
        let known = self.keys.get_mut("file");
        *known.ok_or(settings::Error::Unknown("file".to_owned()))? = absolute(
            file.to_str()
                .ok_or(Error::Value("file", "a path in UTF-8"))?,
        )?;
        Ok(())
    }

    fn make(&self, file: Option<File>) -> Result<(Box<dyn Type>, Offer), Error> {
        let mut keys = self.keys.clone();
        let offer = offer(&mut keys)?;
        let of_type = self.open_type(&mut keys, file)?;
        // What is left over belongs to another type.
        match keys.into_keys().next() {
            Some(key) => Err(settings::Error::Unknown(key).into()),
            None => Ok((of_type, offer)),
        }
    }

    fn open_type(&self, keys: &mut Changes, file: Option<File>) -> Result<Box<dyn Type>, Error> {
        Ok(match self.of_type.as_str() {
            "blk" => {
                let read_only = flag(keys, "read_only")?;
                let store = store(keys, "blk", read_only, file)?;
                let queues = number(keys, "queues", 1, 1..=16, "1 to 16")?;
                let disk = Disk::new(store, &self.name, queues, read_only);
                Box::new(if flag(keys, "zoned")? {
                    disk.zoned()
                } else {
                    disk
                })
            }
            "scsi" => {
                let units = number(keys, "units", 1, 1..=64, "1 to 64")?;
                let stores = store(keys, "scsi", false, file)?.split(units);
                let queues = number(keys, "queues", 1, 1..=16, "1 to 16")?;
                Box::new(Scsi::new(stores, &self.name, queues))
            }
            "net" => {
                let mac = match keys.remove("mac") {
                    None => [0x52, 0x54, 0, 0, 0, 1],
                    Some(text) => mac(&text)
                        .ok_or(Error::Value("mac", "six bytes, such as 52:54:00:00:00:01"))?,
                };
                let pairs = number(keys, "queues", 1, 1..=16, "1 to 16")?;
                let card = Net::new(mac, pairs);
                Box::new(if flag(keys, "mergeable")? {
                    card.mergeable()
                } else {
                    card
                })
            }
            "rng" => Box::new(Rng::open().map_err(|source| Error::Open {
                path: "/dev/urandom".into(),
                source,
            })?),
            "null" => {
                if !keys.contains_key("id") {
                    return Err(Error::Missing("null", "id"));
                }
                let id = number(keys, "id", 0, 1..=0x3f, "a virtio device type, 1 to 63")?;
                let queues = number(keys, "queues", 1, 1..=MAX_QUEUES, "1 to 64")?;
                let null = Null::new(id, queues)
                    .with_features(bits(keys, "features", TYPE_FEATURES)?)
                    .with_config(match keys.remove("config") {
                        None => Vec::new(),
                        Some(text) => config(&text).ok_or(Error::Value(
                            "config",
                            "two hexadecimal digits for each byte, at most 256 bytes",
                        ))?,
                    })
                    .with_answers(bits(keys, "answers", u64::MAX)?);
                Box::new(null)
            }
            other => return Err(Error::Type(other.to_owned())),
        })
    }
}

fn offer(keys: &mut Changes) -> Result<Offer, Error> {
    let (device_stop, suspend) = match keys.remove("protocol").as_deref() {
        None | Some("device-stop") => (true, false),
        Some("suspend") => (false, true),
        Some("both") => (true, true),
        Some("none") => (false, false),
        Some(_) => {
            return Err(Error::Value(
                "protocol",
                "device-stop, suspend, both or none",
            ))
        }
    };
    let notif_config_data = flag(keys, "notif_config_data")?;
    if notif_config_data && device_stop {
        return Err(Error::Value(
            "notif_config_data",
            "protocol=suspend or protocol=none with it: both mean bit 39",
        ));
    }
    Ok(Offer {
        device_stop,
        suspend,
        notif_config_data,
        long_common: flag(keys, "long_common")?,
        ring_reset: flag(keys, "ring_reset")?,
        packed: flag(keys, "packed")?,
        notification_data: flag(keys, "notification_data")?,
        intx: match keys.remove("interrupts").as_deref() {
            None | Some("msix") => false,
            Some("intx") => true,
            Some(_) => return Err(Error::Value("interrupts", "msix or intx")),
        },
    })
}

/// What a disk keeps its data in: `file`, or, without, what the description names.
fn store(
    keys: &mut Changes,
    of_type: &'static str,
    read_only: bool,
    file: Option<File>,
) -> Result<Store, Error> {
    let path: PathBuf = keys
        .remove("file")
        .ok_or(Error::Missing(of_type, "file"))?
        .into();
    match file {
        Some(file) => Store::new(file),
        None => Store::open(&path, read_only),
    }
    .map_err(|source| Error::Open { path, source })
}

fn absolute(path: &str) -> Result<String, Error> {
    std::path::absolute(path)
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .ok_or(Error::Value("file", "a path in UTF-8"))
}

fn flag(keys: &mut Changes, key: &'static str) -> Result<bool, Error> {
    keys.remove(key).map_or(Ok(false), |value| {
        value
            .parse()
            .map_err(|_| Error::Value(key, "true or false"))
    })
}

fn number(
    keys: &mut Changes,
    key: &'static str,
    default: u16,
    range: std::ops::RangeInclusive<u16>,
    expected: &'static str,
) -> Result<u16, Error> {
    keys.remove(key).map_or(Ok(default), |value| {
        value
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or(Error::Value(key, expected))
    })
}

/// A mask of bits, of which only those in `allowed` make sense.
fn bits(keys: &mut Changes, key: &'static str, allowed: u64) -> Result<u64, Error> {
    keys.remove(key).map_or(Ok(0), |value| {
        value
            .strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|bits| bits & !allowed == 0)
            .ok_or(Error::Value(key, "a mask of bits, such as 0x5"))
    })
}

/// What a configuration space begins with.
fn config(text: &str) -> Option<Vec<u8>> {
    portable::hex::parse(text).filter(|bytes| bytes.len() <= DEVICE_SIZE)
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// Reads a scenario: a TOML file with a table of settings for each device that it speaks of.
///
/// ```toml
/// [disk]
/// acknowledge = "after:100-300"
/// io_order = "shuffled"
/// ```
pub fn read(path: &Path) -> Result<BTreeMap<String, Changes>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    let tables: BTreeMap<String, BTreeMap<String, Word>> =
        toml::from_str(&text).map_err(|source| Error::Scenario {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    let words = |table: BTreeMap<String, Word>| {
        table
            .into_iter()
            .map(|(name, word)| (name, word.to_string()))
            .collect()
    };
    Ok(tables
        .into_iter()
        .map(|(name, table)| (name, words(table)))
        .collect())
}

/// A setting's value. A number or a flag needs no quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Flag(bool),
    Number(u64),
    Text(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(spec: &str) -> String {
        match spec.parse::<Spec>().and_then(|spec| spec.open()) {
            Ok(device) => panic!("{spec}: {device:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_type_that_is_named_exists() {
        for (name, _) in TYPES {
            let spec = format!("{name},socket=s,id=4,speed=1");
            // Whatever else it may need.
            assert!(!error(&spec).contains("no device type"), "{spec}");
        }
        assert_eq!(
            error("gpu,socket=s"),
            "no device type 'gpu': there are blk, scsi, net, rng, null"
        );
    }

    #[test]
    fn devices_are_described_on_the_command_line() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        let file = disk.path().display();
        for (spec, name, device_id, queues) in [
            (
                format!("blk,socket=s,file={file},queues=4,name=disk,io_depth=2"),
                "disk",
                2,
                4,
            ),
            (
                format!("scsi,socket=s,file={file},queues=2,units=3"),
                "scsi",
                8,
                4,
            ),
            (
                "net,socket=s,mac=52:54:00:00:00:09,mergeable=true,protocol=both".to_owned(),
                "net",
                1,
                3,
            ),
            (
                "rng,socket=s,protocol=suspend,acknowledge=after:1-2,packed=true,ring_reset=true,notification_data=true".to_owned(),
                "rng",
                4,
                1,
            ),
            (
                "null,socket=s,id=16,queues=2,protocol=none,notif_config_data=true,features=0x5,config=00fF,answers=0x2".to_owned(),
                "null",
                16,
                2,
            ),
        ] {
            let spec: Spec = spec.parse().unwrap();
            assert_eq!(spec.name, name);
            let device = spec.open().unwrap();
            assert_eq!(device.report().device_id, device_id);
            assert_eq!(device.vectors(), queues + 1);
        }
    }

    #[test]
    fn descriptions_that_make_no_sense_are_refused() {
        for (spec, expected) in [
            ("", "a device needs socket="),
            ("blk,socket", "'socket' is not KEY=VALUE"),
            (
                "gpu,socket=s",
                "no device type 'gpu': there are blk, scsi, net, rng, null",
            ),
            ("blk,socket=s", "blk needs file="),
            ("scsi,socket=s", "scsi needs file="),
            ("scsi,socket=s,units=0", "units: expected 1 to 64"),
            ("null,socket=s", "null needs id="),
            (
                "null,socket=s,id=0",
                "id: expected a virtio device type, 1 to 63",
            ),
            ("null,socket=s,id=2,queues=65", "queues: expected 1 to 64"),
            (
                "null,socket=s,id=2,features=0x1000000",
                "features: expected a mask of bits, such as 0x5",
            ),
            (
                "null,socket=s,id=2,answers=1",
                "answers: expected a mask of bits, such as 0x5",
            ),
            (
                "null,socket=s,id=2,config=123",
                "config: expected two hexadecimal digits for each byte, at most 256 bytes",
            ),
            (
                "null,socket=s,id=2,config=+1",
                "config: expected two hexadecimal digits for each byte, at most 256 bytes",
            ),
            (
                "net,socket=s,mac=1:2",
                "mac: expected six bytes, such as 52:54:00:00:00:01",
            ),
            (
                "rng,socket=s,protocol=stop",
                "protocol: expected device-stop, suspend, both or none",
            ),
            ("rng,socket=s,packed=yes", "packed: expected true or false"),
            ("rng,socket=s,io_depth=0", "io_depth: expected 1 to 32768"),
            ("blk,socket=s,file=/no/such", "/no/such: can't open it"),
        ] {
            assert_eq!(error(spec), expected, "{spec}");
        }
        assert!(error("rng,socket=s,file=x").starts_with("no setting 'file'"));
        assert!(error("rng,socket=s,speed=1").starts_with("no setting 'speed'"));
        assert!(error("rng,socket=s,notif_config_data=true").contains("both mean bit 39"));
    }

    #[test]
    fn a_scenario_is_a_table_for_each_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "[disk]\nacknowledge = \"never\"\nio_depth = 4\n[net]\nhang_up = \"on-stop\"\n",
        )
        .unwrap();
        let scenario = read(file.path()).unwrap();
        let setting = |device: &str, name: &str| scenario[device][name].as_str();
        assert_eq!(setting("disk", "acknowledge"), "never");
        assert_eq!(setting("disk", "io_depth"), "4");
        assert_eq!(setting("net", "hang_up"), "on-stop");
        fs::write(file.path(), "acknowledge = 1").unwrap();
        assert!(matches!(read(file.path()), Err(Error::Scenario { .. })));
    }
}
