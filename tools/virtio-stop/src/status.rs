// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All that virtio_device_stop tells of devices.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::device::{Device, System};
use crate::error::Result;
use crate::overview::{is_loaded, known, Access, Entry, VERSION};
use crate::stack::Stack;
use crate::sysfs;

/// What is to be told of several devices.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// virtio_device_stop is loaded.
    pub loaded: bool,
    /// The devices, in the order in which they were given.
    pub devices: Vec<Status>,
}

/// What is to be told of a device.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// What `list` shows.
    #[serde(flatten)]
    pub entry: Entry,
    /// The rest; `None` unless it can be read.
    pub details: Option<Details>,
}

/// The files of a device, as they are described in its ABI. `None`: not known just now.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// How long it may take to answer, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// For how long a stop may stand, in milliseconds; 0: for ever.
    pub lease_ms: Option<u64>,
    /// Counts every change of its state.
    pub generation: Option<u64>,
    /// Requests that its driver has with the stopped device; `None`: `unknown`.
    #[serde(serialize_with = "or_unknown")]
    pub in_flight: Option<u64>,
    /// Who owns the stop: a process and its name; `None`: nobody.
    pub holder: Option<String>,
    /// It may be stopped although those of its type should not be.
    pub force: bool,
    /// Bit 39 is VIRTIO_F_DEVICE_STOP.
    pub accept_bit39: bool,
    /// What was counted, by the names of the files.
    pub statistics: BTreeMap<String, u64>,
}

fn or_unknown<S: Serializer>(value: &Option<u64>, to: S) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(number) => to.serialize_u64(*number),
        None => to.serialize_str("unknown"),
    }
}

impl Details {
    fn read(device: &Device) -> Result<Self> {
        let word = |name| known(device, name);
        // `unknown` is no number.
        let number = |name| Ok(word(name)?.and_then(|text| text.parse().ok()));
        let folder = device.path.join("device_stop_stats");
        let names = sysfs::names(&folder).into_iter();
        let statistics = names.filter_map(|name| {
            let number = sysfs::number(&folder.join(&name))?;
            Some((name, number))
        });
        Ok(Self {
            timeout_ms: number("timeout_ms")?,
            lease_ms: number("lease_ms")?,
            generation: number("generation")?,
            in_flight: number("in_flight")?,
            holder: word("holder")?.filter(|holder| holder != "none"),
            force: word("force")?.as_deref() == Some("1"),
            accept_bit39: word("accept_bit39")?.as_deref() == Some("1"),
            statistics: statistics.collect(),
        })
    }
}

/// What is to be told of `devices`.
///
/// # Errors
///
/// What reading sysfs fails with, unless the files are root's only.
pub fn status(system: &System, devices: &[Device]) -> Result<Report> {
    let stack = Stack::read(system)?;
    let statuses = devices.iter().map(|device| {
        let entry = Entry::read(&stack, device)?;
        let details = match entry.access {
            Access::Readable => Some(Details::read(device)?),
            _ => None,
        };
        Ok(Status { entry, details })
    });
    Ok(Report {
        version: VERSION,
        loaded: is_loaded(system),
        devices: statuses.collect::<Result<_>>()?,
    })
}
