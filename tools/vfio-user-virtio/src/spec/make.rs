// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the keys of a device's description mean.

use std::fs::File;
use std::path::PathBuf;

use super::keys::Keys;
use super::Error;
use crate::device::Offer;
use crate::pci::DEVICE_SIZE;
use crate::portable;
use crate::types::blk::Disk;
use crate::types::net::Net;
use crate::types::null::Null;
use crate::types::rng::Rng;
use crate::types::scsi::Scsi;
use crate::types::store::Store;
use crate::types::{Type, MAX_QUEUES};

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

/// The feature bits that are a type's own (virtio 1.4, section 6).
const TYPE_FEATURES: u64 = 0xff_ffff;
const DEFAULT_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// What the device is. Its data are in `file`, or, without, where the keys have them.
pub(super) fn of_type(
    name: &str,
    of_type: &str,
    keys: &mut Keys,
    file: Option<File>,
) -> Result<Box<dyn Type>, Error> {
    Ok(match of_type {
        "blk" => {
            let read_only = keys.flag("read_only")?;
            let store = store(keys, "blk", read_only, file)?;
            let disk = Disk::new(store, name, queues(keys)?, read_only);
            Box::new(if keys.flag("zoned")? {
                disk.zoned()
            } else {
                disk
            })
        }
        "scsi" => {
            let units = keys.number("units", 1..=64, "1 to 64")?.unwrap_or(1);
            let stores = store(keys, "scsi", false, file)?.split(units);
            Box::new(Scsi::new(stores, name, queues(keys)?))
        }
        "net" => {
            let expected = "six bytes, such as 52:54:00:00:00:01";
            let mac = keys.parse("mac", expected, mac)?.unwrap_or(DEFAULT_MAC);
            let mut card = Net::new(mac, queues(keys)?);
            if keys.flag("mergeable")? {
                card = card.mergeable();
            }
            if let Some(lease) = keys.number("dhcp", 1..=u16::MAX, "seconds, 1 to 65535")? {
                card = card.with_dhcp(lease.into());
            }
            Box::new(card)
        }
        "rng" => Box::new(Rng::open().map_err(|source| Error::Open {
            path: "/dev/urandom".into(),
            source,
        })?),
        "null" => {
            let id = keys.number("id", 1..=0x3f, "a virtio device type, 1 to 63")?;
            let id = id.ok_or(Error::Missing("null", "id"))?;
            let queues = keys.number("queues", 1..=MAX_QUEUES, "1 to 64")?;
            let expected = "two hexadecimal digits for each byte, at most 256 bytes";
            let null = Null::new(id, queues.unwrap_or(1))
                .with_features(keys.bits("features", TYPE_FEATURES)?)
                .with_config(keys.parse("config", expected, config)?.unwrap_or_default())
                .with_answers(keys.bits("answers", u64::MAX)?);
            Box::new(null)
        }
        other => return Err(Error::Type(other.to_owned())),
    })
}

/// What the device offers whatever it is.
pub(super) fn offer(keys: &mut Keys) -> Result<Offer, Error> {
    let expected = "device-stop, suspend, both or none";
    let protocol = keys.parse("protocol", expected, |value| match value {
        "device-stop" => Some((true, false)),
        "suspend" => Some((false, true)),
        "both" => Some((true, true)),
        "none" => Some((false, false)),
        _ => None,
    })?;
    let (device_stop, suspend) = protocol.unwrap_or((true, false));
    let notif_config_data = keys.flag("notif_config_data")?;
    if notif_config_data && device_stop {
        return Err(Error::Value(
            "notif_config_data",
            "protocol=suspend or protocol=none with it: both mean bit 39",
        ));
    }
    let intx = keys.parse("interrupts", "msix or intx", |value| match value {
        "msix" => Some(false),
        "intx" => Some(true),
        _ => None,
    })?;
    Ok(Offer {
        device_stop,
        suspend,
        notif_config_data,
        long_common: keys.flag("long_common")?,
        ring_reset: keys.flag("ring_reset")?,
        packed: keys.flag("packed")?,
        notification_data: keys.flag("notification_data")?,
        intx: intx.unwrap_or_default(),
    })
}

fn queues(keys: &mut Keys) -> Result<u16, Error> {
    Ok(keys.number("queues", 1..=16, "1 to 16")?.unwrap_or(1))
}

/// What a disk keeps its data in: `file`, or, without, what the description names.
fn store(
    keys: &mut Keys,
    of_type: &'static str,
    read_only: bool,
    file: Option<File>,
) -> Result<Store, Error> {
    let path: PathBuf = keys
        .take("file")
        .ok_or(Error::Missing(of_type, "file"))?
        .into();
    match file {
        Some(file) => Store::new(file),
        None => Store::open(&path, read_only),
    }
    .map_err(|source| Error::Open { path, source })
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
