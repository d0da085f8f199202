// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mounted, and what is swapped to: `/proc/self/mountinfo` and `/proc/swaps`.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::num::ParseIntError;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{statx, AtFlags, StatxFlags};
use serde::{Serialize, Serializer};

use crate::device::System;
use crate::error::{Error, Result};

/// The number of a block device, or the anonymous one of a file system that is on none.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Number {
    /// The major number; 0: anonymous.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Number {
    /// It is not that of a block device. Some file systems that are on block devices have such a
    /// one, for example btrfs.
    pub fn is_anonymous(self) -> bool {
        self.major == 0
    }
}

/// As sysfs and mountinfo have it: `254:1`.
impl FromStr for Number {
    type Err = ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseIntError> {
        let (major, minor) = text.split_once(':').unwrap_or_default();
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A mount, as this process sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Its number, as statx(2) has it. Used again after it was unmounted.
    pub id: u64,
    /// The number of the file system, as stat(2) has it, too, but for btrfs.
    pub number: Number,
    /// What of the file system is mounted: `/`, unless it is a bind mount or a subvolume.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of the file system, for example `ext4`.
    pub kind: String,
    /// What it was mounted from. Whatever the one who mounted it has said, for some types.
    pub source: PathBuf,
    /// The options of the file system, separated by commas.
    pub options: OsString,
}

/// File systems whose servers are reached by way of the network.
const REMOTE: [&str; 11] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "afs",
    "lustre",
    "beegfs",
    // OrangeFS.
    "pvfs2",
    "fuse.glusterfs",
    "fuse.sshfs",
];

impl Mount {
    /// Its server is reached by way of the network.
    pub(crate) fn is_remote(&self) -> bool {
        let mut options = self.options.as_bytes().split(|&byte| byte == b',');
        REMOTE.contains(&self.kind.as_str())
            || (self.kind == "9p" && options.any(|option| option == b"trans=tcp"))
    }

    /// To open a file, its server is asked, whatever of it is in memory.
    pub(crate) fn has_server(&self) -> bool {
        let kind = self.kind.as_str();
        self.is_remote() || ["virtiofs", "9p"].contains(&kind) || kind.starts_with("fuse")
    }

    /// One line of mountinfo, without the end of the line; `None` if it is not such a line.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        // After the mount that it is mounted on.
        let number = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        // The options of the mount, and any number of optional fields.
        fields.find(|&field| field == b"-")?;
        let kind = unescape(fields.next()?).into_string().ok()?;
        Some(Self {
            id,
            number,
            root: root.into(),
            point: point.into(),
            kind,
            source: unescape(fields.next()?).into(),
            options: unescape(fields.next().unwrap_or_default()),
        })
    }
}

/// Where a file lies, whatever its name leads to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The mount; `None`: the kernel does not tell (before Linux 5.8).
    id: Option<u64>,
    number: Number,
}

impl Place {
    /// The place of `path` in `folder`, or of `folder` itself if that is empty.
    pub(crate) fn of(folder: impl AsFd, path: &Path) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let found = statx(folder, path, flags, StatxFlags::MNT_ID)?;
        let is_told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok(Self {
            id: is_told.then_some(found.stx_mnt_id),
            number: Number {
                major: found.stx_dev_major,
                minor: found.stx_dev_minor,
            },
        })
    }

    /// It lies in `mount`. If the kernel does not tell, in that file system.
    pub(crate) fn is_in(self, mount: &Mount) -> bool {
        match self.id {
            Some(id) => id == mount.id,
            None => self.number == mount.number || mount.kind == "btrfs",
        }
    }

    /// The number of its file system, as `mounts` have it.
    pub(crate) fn number(self, mounts: &[Mount]) -> Number {
        // A file of a btrfs has another one. What is not mounted any more has only this one.
        let mount = mounts.iter().find(|mount| Some(mount.id) == self.id);
        mount.map_or(self.number, |mount| mount.number)
    }
}

/// All mounts of this process, in the order in which they were made.
pub fn mounts(system: &System) -> Result<Vec<Mount>> {
    let path = system.path("proc/self/mountinfo");
    match fs::read(&path) {
        Ok(text) => Ok(parse_mountinfo(&text)),
        // No /proc is mounted: nothing is known.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file(path, error)),
    }
}

/// The contents of a file mountinfo. What is no line of such a file is left out.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n')
        .filter_map(Mount::parse)
        .collect()
}

/// The paths of the files and partitions that are swapped to.
pub fn swaps(system: &System) -> Result<Vec<PathBuf>> {
    let path = system.path("proc/swaps");
    match fs::read(&path) {
        Ok(text) => Ok(parse_swaps(&text)),
        // A kernel that has no swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file(path, error)),
    }
}

fn parse_swaps(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|&byte| byte == b'\n').skip(1);
    let paths = lines.filter_map(|line| line.split(|byte| byte.is_ascii_whitespace()).next());
    let paths = paths.filter(|path| path.starts_with(b"/"));
    paths.map(|path| unescape(path).into()).collect()
}

/// Undoes what the kernel does to bytes that would end a field: `\040` is a space.
fn unescape(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(first));
        rest = after
            .get(if code.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    OsString::from_vec(bytes)
}

/// The mount that `path`, which is absolute and has no symbolic links in it, lies in.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // Of two at the same place the later one hides the other.
    let inside = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    inside.max_by_key(|mount| mount.point.components().count())
}
