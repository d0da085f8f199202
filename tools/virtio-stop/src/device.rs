// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio device, and the files that virtio_device_stop gives it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where the kernel shows itself: `/`, or the root of a tree that looks like it, for tests.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self::new("/")
    }
}

impl System {
    /// What is below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where `path`, which begins with no slash, is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Where the absolute `path` is.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What `path`, which is below the root, is called there; with its symbolic links followed.
    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let path = fs::canonicalize(path)?;
        let inside = path.strip_prefix(&self.root).unwrap_or(&path);
        Ok(Path::new("/").join(inside))
    }

    /// The folders that the symbolic links in a folder of sysfs lead to, with their names. Nothing,
    /// if the folder is not there: the kernel has none of these. What goes meanwhile is left out.
    pub fn links(&self, folder: &str) -> Result<Vec<(String, PathBuf)>> {
        let folder = self.path(folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file(folder, error)),
        };
        let mut links = Vec::new();
        for entry in entries {
            let link = entry.map_err(|error| Error::file(&folder, error))?.path();
            let name = link.file_name().unwrap_or_default().to_string_lossy();
            match fs::canonicalize(&link) {
                Ok(path) if path.is_dir() => links.push((name.into_owned(), path)),
                // No device, for example /sys/class/net/bonding_masters.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file(link, error)),
            }
        }
        Ok(links)
    }

    /// All virtio devices, by their index.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let links = self.links("sys/bus/virtio/devices")?.into_iter();
        let mut devices: Vec<_> = links
            .filter_map(|(name, path)| {
                let index = name.strip_prefix("virtio")?.parse().ok()?;
                Some(Device::new(index, path))
            })
            .collect();
        devices.sort_by_key(|device| device.index);
        Ok(devices)
    }
}

/// A virtio device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// The N of virtioN.
    pub index: u32,
    /// The name of the device above it in sysfs, for example `0000:00:04.0`. Indexes are used
    /// again: both together are the device, as long as it is there.
    pub parent: String,
    /// Its folder in sysfs, with no symbolic link in its path.
    pub path: PathBuf,
}

impl Device {
    fn new(index: u32, path: PathBuf) -> Self {
        let parent = path.parent().and_then(Path::file_name);
        let parent = parent.unwrap_or_default().to_string_lossy().into_owned();
        Self {
            index,
            parent,
            path,
        }
    }

    /// As the kernel names it.
    pub fn name(&self) -> String {
        format!("virtio{}", self.index)
    }

    /// One of the files of virtio_device_stop, for example `state`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join("device_stop").join(name)
    }

    /// The contents of one of them, without the end of the line; `None` if it is not there: the
    /// module is not loaded, or the device has gone.
    pub fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(path, error)),
        }
    }
}
