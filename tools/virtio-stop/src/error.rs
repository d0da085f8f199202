// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::refusal::Refusal;

/// The result of what this crate does.
pub type Result<T> = std::result::Result<T, Error>;

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
    /// What is to be shown can't be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// Changes can't be waited for.
    #[error("can't wait for changes: {0}")]
    Wait(#[source] io::Error),
    /// The module is not loaded.
    #[error(
        "virtio_device_stop is not loaded: 'modprobe virtio_device_stop', before the drivers of the devices"
    )]
    NotLoaded,
    /// The module is loaded, but its file in /dev is not there.
    #[error(
        "virtio_device_stop is loaded, but /dev/virtio_device_stop is not here: in a container, \
         give it this device"
    )]
    NoNode,
    /// The module has an interface that this program does not know.
    #[error("virtio_device_stop has interface {0}, this program needs 1: use one from its time")]
    Interface(i32),
    /// `/dev/virtio_device_stop` has failed, but none of the devices.
    #[error("/dev/virtio_device_stop: {0}")]
    Owner(#[source] io::Error),
    /// A device has not done what it was asked for.
    #[error("{0}")]
    Refused(Refusal),
    /// A device did not stand still.
    #[error("{device} did not stand still: {why}")]
    NotStill {
        /// The device.
        device: String,
        /// Why that is so.
        why: crate::proof::Unstill,
    },
    /// This process can't be kept in memory.
    #[error("can't be kept in memory: {0}. This needs CAP_IPC_LOCK and CAP_SYS_RESOURCE")]
    Memory(#[source] io::Error),
    /// Signals can't be caught.
    #[error("can't catch signals: {0}")]
    Signals(#[source] io::Error),
    /// What would thaw file systems, should this process die, does not start.
    #[error("what guards frozen file systems does not start: {0}")]
    Guard(#[source] io::Error),
    /// What would thaw file systems, should this process die, has died.
    #[error("what guards frozen file systems was killed: nothing is frozen or stopped any more")]
    Unguarded,
    /// A file system can't be frozen.
    #[error("{point}: can't be frozen: {source}. {}", freeze_advice(.source))]
    Freeze {
        /// Where it is mounted.
        point: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file system can't be thawed.
    #[error("{point}: can't be thawed: {source}. 'fsfreeze --unfreeze {point}' tries again")]
    Thaw {
        /// Where it is mounted.
        point: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to have frozen file systems lives no more.
    #[error("process {0}, by which file systems are frozen, has ended")]
    AgentGone(i32),
    /// What was to freeze file systems has not.
    #[error(
        "process {0} has frozen no file systems, or has thawed them already: nothing is stopped"
    )]
    NothingFrozen(i32),
    /// A file system is not frozen.
    #[error("{0} is not frozen by that process: nothing is stopped")]
    NotFrozen(PathBuf),
    /// A signal has come before it was done.
    #[error("ended by signal {0}")]
    Interrupted(i32),
    /// The devices have stood still for as long as they may.
    #[error("ended after --max-time, {0} ms: the devices could not stand still any longer")]
    TooLong(u32),
    /// There is no such command to run.
    #[error("{}: command not found", .0.to_string_lossy())]
    CommandNotFound(OsString),
    /// A command can't be executed.
    #[error("{path}: {source}")]
    Command {
        /// The command.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command would wait for what stands still.
    #[error(
        "{path} can't begin while {point} stands still: it needs {needed}. \
         Use a static program that lies elsewhere, or --until-eof"
    )]
    CommandStands {
        /// The command.
        path: PathBuf,
        /// What it needs.
        needed: PathBuf,
        /// Where what it needs is mounted.
        point: PathBuf,
    },
    /// Standard output would wait for what stands still.
    #[error("standard output is a file on {0}, which is to stand still: use a pipe")]
    OutputStands(PathBuf),
    /// Standard error would wait for what is frozen.
    #[error("standard error is a file on {0}, which is to be frozen: use a pipe")]
    MessagesStand(PathBuf),
    /// Nobody can say when to resume.
    #[error("file descriptor {0} is closed on its other side: nobody could say when to resume")]
    EndClosed(i32),
    /// Nobody can close what has one side only.
    #[error("file descriptor {0} is a file or a disk, which nobody can close: use a pipe")]
    EndUnfit(i32),
    /// Nobody else can say when to resume.
    #[error(
        "file descriptor {0} is a pipe that this process could write to itself, so that it never \
         ends: open it for reading only, and close the end that is written to"
    )]
    EndHeld(i32),
    /// A file descriptor that was given is none.
    #[error("file descriptor {fd}: {source}")]
    Descriptor {
        /// The number.
        fd: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A generation was given, and devices that can't all have it.
    #[error("a generation is that of one device: these are {0}")]
    OneGeneration(usize),
}

/// EOPNOTSUPP, which has no kind of its own.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::OPNOTSUPP)
}

fn freeze_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => "It is frozen already: 'fsfreeze --unfreeze' ends that",
        _ if is_unsupported(error) => "Its type does not allow that: unmount it",
        _ => "'virtio-stop run' without --freeze does not try",
    }
}

impl Error {
    /// A file could not be read or written.
    pub fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }
}
