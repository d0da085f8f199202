// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device as `--device` describes it on the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::{Device, Files, ImageError, Offer};
use crate::portable;
use crate::settings::{self, Settings};
use crate::types::Type;
use keys::Keys;

pub use make::TYPES;

mod keys;
mod make;

/// Settings by name.
pub type Changes = BTreeMap<String, String>;

fn types() -> String {
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Why a device was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of its description is not `KEY=VALUE`.
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
    /// The device can't go on as another did.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A device as it is described: `TYPE,KEY=VALUE,...`. What is no setting is a key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    of_type: String,
    /// By which the control socket knows it. The type's name unless given.
    pub name: String,
    /// Where it listens for QEMU.
    #[serde(serialize_with = "portable::absolute")]
    pub socket: PathBuf,
    keys: Keys,
    settings: Settings,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(',');
        let of_type = parts.next().unwrap_or_default().to_owned();
        let mut keys = Keys::default();
        let mut changes = Changes::new();
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| Error::Pair(part.to_owned()))?;
            if settings::exists(key) {
                changes.insert(key.to_owned(), value.to_owned());
            } else {
                keys.insert(key, value);
            }
        }
        let mut settings = Settings::default();
        settings.set_all(&changes)?;
        let socket = keys
            .take("socket")
            .ok_or(Error::Missing("a device", "socket"))?;
        // A successor may be started elsewhere.
        if let Some(file) = keys.get_mut("file") {
            *file = absolute(file)?;
        }
        Ok(Self {
            name: keys.take("name").unwrap_or_else(|| of_type.clone()),
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
        let offer = make::offer(&mut keys)?;
        let of_type = make::of_type(&self.name, &self.of_type, &mut keys, file)?;
        // What is left over belongs to another type.
        keys.finish()?;
        Ok((of_type, offer))
    }
}

fn absolute(path: &str) -> Result<String, Error> {
    std::path::absolute(path)
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .ok_or(Error::Value("file", "a path in UTF-8"))
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
                "net,socket=s,mac=52:54:00:00:00:09,mergeable=true,dhcp=60,protocol=both".to_owned(),
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
            ("net,socket=s,dhcp=0", "dhcp: expected seconds, 1 to 65535"),
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
}
