// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each virtio device in a line: what it is, what is above it, and whether it stands.

use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;
use serde::Serialize;

use crate::block::Kind;
use crate::device::{Device, System};
use crate::error::{Error, Result};
use crate::stack::Stack;
use crate::sysfs::line;

/// Which form the JSON of this crate has. It changes only if old readers stop working.
pub const VERSION: u32 = 1;

/// All virtio devices, or some.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// [`VERSION`].
    pub version: u32,
    /// virtio_device_stop is loaded.
    pub loaded: bool,
    /// The devices, by their index.
    pub devices: Vec<Entry>,
}

/// Whether the files that virtio_device_stop gives a device can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// They can.
    Readable,
    /// They are root's only.
    NotPermitted,
    /// There are none: the module is not loaded, or the device has just gone.
    Absent,
}

/// A virtio device.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// For example `virtio0`.
    pub device: String,
    /// The name of the device above it in sysfs, for example `0000:00:04.0`.
    pub parent: String,
    /// Its type: a word, or `type-N` for one that has none here.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its driver; `None` if none is bound.
    pub driver: Option<String>,
    /// The disks and network interfaces that are its own.
    pub above: Vec<String>,
    /// Whether the rest is known.
    pub access: Access,
    /// The word in the file `protocol`.
    pub protocol: Option<String>,
    /// The word in the file `state`.
    pub state: Option<String>,
    /// The word in the file `reason`.
    pub reason: Option<String>,
}

impl Entry {
    /// What there is to tell of `device`.
    ///
    /// # Errors
    ///
    /// What reading the files of virtio_device_stop fails with, unless they are root's only.
    pub fn read(stack: &Stack, device: &Device) -> Result<Self> {
        let (access, state) = match device.read("state") {
            Ok(None) => (Access::Absent, None),
            Ok(state) => (Access::Readable, state),
            Err(error) if denied(&error) => (Access::NotPermitted, None),
            Err(error) if gone(&error) => (Access::Absent, None),
            Err(error) => return Err(error),
        };
        let word = |name| match access {
            Access::Readable => known(device, name),
            _ => Ok(None),
        };
        let driver = device.path.join("driver").canonicalize().ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        Ok(Self {
            device: device.name(),
            parent: device.parent.clone(),
            kind: kind(device),
            driver: driver.map(|name| name.to_string_lossy().into_owned()),
            above: above(stack, device),
            access,
            protocol: word("protocol")?,
            state,
            reason: word("reason")?,
        })
    }
}

/// All virtio devices.
///
/// # Errors
///
/// What listing the folders of sysfs fails with.
pub fn overview(system: &System) -> Result<Overview> {
    let stack = Stack::read(system)?;
    let devices = stack.devices.iter();
    Ok(Overview {
        version: VERSION,
        loaded: is_loaded(system),
        devices: devices
            .map(|device| Entry::read(&stack, device))
            .collect::<Result<_>>()?,
    })
}

/// virtio_device_stop is loaded, or built in, and not just coming or going.
pub fn is_loaded(system: &System) -> bool {
    let module = system.path("sys/module/virtio_device_stop");
    // What is built in has no such file.
    let state = line(&module.join("initstate"));
    module.exists() && state.is_none_or(|state| state == "live")
}

/// A file of virtio_device_stop; `None` if nothing is known: the device has just gone, or can't
/// tell now.
pub(crate) fn known(device: &Device, name: &str) -> Result<Option<String>> {
    device.read(name).or_else(|error| match gone(&error) {
        true => Ok(None),
        false => Err(error),
    })
}

fn denied(error: &Error) -> bool {
    matches!(error, Error::File { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// EAGAIN: what the device shows can't be an answer just now.
fn gone(error: &Error) -> bool {
    let Error::File { source, .. } = error else {
        return false;
    };
    [Errno::NODEV, Errno::AGAIN]
        .iter()
        .any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}

/// Virtio's device types, by the names of their headers where they have none in the specification
/// that is a word.
fn kind(device: &Device) -> String {
    let number = line(&device.path.join("device")).unwrap_or_default();
    let number = u32::from_str_radix(number.trim_start_matches("0x"), 16).unwrap_or(0);
    let word = match number {
        1 => "network",
        2 => "block",
        3 => "console",
        4 => "entropy",
        5 => "balloon",
        7 => "rpmsg",
        8 => "scsi",
        9 => "9p",
        16 => "gpu",
        18 => "input",
        19 => "socket",
        20 => "crypto",
        23 => "iommu",
        24 => "memory",
        25 => "sound",
        26 => "filesystem",
        27 => "pmem",
        28 => "rpmb",
        32 => "scmi",
        34 => "i2c",
        36 => "can",
        40 => "bluetooth",
        41 => "gpio",
        other => return format!("type-{other}"),
    };
    word.into()
}

fn above(stack: &Stack, device: &Device) -> Vec<String> {
    let inside = |path: &Path| path.starts_with(&device.path);
    let disks = stack.blocks.values();
    let disks = disks.filter(|block| block.kind == Kind::Disk && inside(&block.path));
    let cards = stack.interfaces.values();
    let cards = cards.filter(|interface| inside(&interface.path));
    disks
        .map(|block| block.name.clone())
        .chain(cards.map(|interface| interface.name.clone()))
        .collect()
}
