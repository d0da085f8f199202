// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Block devices, and what each lies on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use serde::Serialize;

use crate::device::System;
use crate::error::Result;
use crate::mounts::Number;
use crate::sysfs::{self, line, names};

/// As in linux/major.h.
const LOOP_MAJOR: u32 = 7;

/// What a block device is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None of the others.
    Disk,
    /// A partition.
    Partition,
    /// A logical volume of LVM.
    Lvm,
    /// Several paths to a disk.
    Multipath,
    /// An encrypted one.
    Crypt,
    /// Another one of the device mapper.
    Dm,
    /// A RAID.
    Md,
    /// What shows a file as a disk.
    Loop,
}

impl Kind {
    /// In words, with the article.
    pub fn words(self) -> &'static str {
        match self {
            Self::Disk => "a disk",
            Self::Partition => "a partition",
            Self::Lvm => "an LVM volume",
            Self::Multipath => "a multipath device",
            Self::Crypt => "an encrypted volume",
            Self::Dm => "a dm device",
            Self::Md => "an md array",
            Self::Loop => "a loop device",
        }
    }
}

/// A block device.
#[derive(Clone, Debug)]
pub struct Block {
    /// As the kernel names it, for example `vda1` or `dm-0`.
    pub name: String,
    /// Its folder in sysfs, with no symbolic link in its path.
    pub path: PathBuf,
    /// Its number; `None` if sysfs does not tell.
    pub number: Option<Number>,
    /// What it is.
    pub kind: Kind,
    /// As device mapper names it, for example `vg-root`.
    pub dm_name: Option<String>,
    /// The names of the block devices that it lies on.
    pub lower: Vec<String>,
    /// The file that it shows as a disk.
    pub file: Option<PathBuf>,
}

impl Block {
    fn read(name: String, path: PathBuf) -> Self {
        let dm_uuid = line(&path.join("dm/uuid"));
        let number: Option<Number> = sysfs::number(&path.join("dev"));
        let partition = path.join("partition").exists();
        let kind = match &dm_uuid {
            _ if partition => Kind::Partition,
            Some(uuid) if uuid.starts_with("LVM-") => Kind::Lvm,
            Some(uuid) if uuid.starts_with("mpath-") => Kind::Multipath,
            Some(uuid) if uuid.starts_with("CRYPT-") => Kind::Crypt,
            // kpartx names partitions `part1-` and what they are on.
            Some(uuid) if uuid.starts_with("part") => Kind::Partition,
            Some(_) => Kind::Dm,
            None if path.join("md").exists() => Kind::Md,
            None if number.is_some_and(|number| number.major == LOOP_MAJOR) => Kind::Loop,
            None => Kind::Disk,
        };
        let whole = path.parent().and_then(Path::file_name);
        let whole = whole.filter(|_| partition);
        let lower = match whole {
            Some(whole) => vec![whole.to_string_lossy().into_owned()],
            None => names(&path.join("slaves")),
        };
        let mut file = fs::read(path.join("loop/backing_file")).unwrap_or_default();
        if file.ends_with(b"\n") {
            file.pop();
        }
        Self {
            number,
            dm_name: line(&path.join("dm/name")),
            file: (!file.is_empty()).then(|| OsString::from_vec(file).into()),
            name,
            path,
            kind,
            lower,
        }
    }
}

/// All block devices, by their names.
pub fn blocks(system: &System) -> Result<BTreeMap<String, Block>> {
    let entries = system.links("sys/class/block")?.into_iter();
    Ok(entries
        .map(|(name, path)| (name.clone(), Block::read(name, path)))
        .collect())
}

/// The number of the block device at `path`; `None` if none is there.
pub fn number_at(path: &Path) -> Option<Number> {
    let metadata = fs::metadata(path).ok()?;
    let device = metadata.rdev();
    metadata.file_type().is_block_device().then(|| Number {
        major: major(device),
        minor: minor(device),
    })
}
