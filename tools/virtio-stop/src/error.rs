// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong, and with which status a program ends then.

use std::io;
use std::path::PathBuf;

/// The result of what this crate does.
pub type Result<T> = std::result::Result<T, Error>;

/// With which status a program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done. `check`: a stop would work.
    Done = 0,
    /// Something else failed. `check`: a stop would work, with warnings.
    Failed = 1,
    /// The command line is wrong, or names what does not exist. `check`: a stop would not work.
    Usage = 2,
    /// A device can't be stopped: it, its driver or this kernel does not support it.
    Unsupported = 3,
    /// A device did not stand still from the stop to the resume.
    NotStill = 4,
    /// Somebody else has stopped a device, or the driver above it could not be held.
    Busy = 5,
    /// A device has not answered in time.
    TimedOut = 6,
    /// A device was removed or reset, or it needs a reset.
    Gone = 7,
    /// This user may not do that.
    Denied = 8,
    /// A signal has ended it before it was done. What was stopped has resumed.
    Interrupted = 9,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing has this name.
    #[error("{0}: no such device. 'virtio-stop list' shows the virtio devices")]
    Unknown(String),
    /// What has this name is not above a virtio device.
    #[error("{name}: not a virtio device, nor above one: {why}")]
    NotVirtio {
        /// As it was given.
        name: String,
        /// What it is.
        why: String,
    },
    /// This name is a disk's and a network interface's.
    #[error(
        "{0}: there are a disk and a network interface of this name: \
         write /dev/{0} or /sys/class/net/{0}"
    )]
    Ambiguous(String),
    /// This path is neither in /dev, nor in /sys, nor a mount point.
    #[error("{path}: not a mount point. It lies in the file system at {point}")]
    NotMountPoint {
        /// As it was given.
        path: String,
        /// Where what it lies in is mounted.
        point: PathBuf,
    },
    /// The module is not loaded.
    #[error(
        "virtio_device_stop is not loaded: 'modprobe virtio_device_stop', before the drivers of the devices"
    )]
    NotLoaded,
}

impl Error {
    /// A file could not be read or written.
    pub fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }

    /// With which status a program ends that fails with this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Denied
            }
            Self::File { .. } => Exit::Failed,
            Self::Unknown(_)
            | Self::NotVirtio { .. }
            | Self::Ambiguous(_)
            | Self::NotMountPoint { .. } => Exit::Usage,
            Self::NotLoaded => Exit::Unsupported,
        }
    }
}
