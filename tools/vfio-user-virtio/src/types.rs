// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Device types: what is different between a disk and a network card. A type knows buffers and its configuration space; it knows
//! nothing of status, stops, virtqueue layouts or PCI.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::buffers::{Reader, Writer};

pub mod blk;
pub mod net;
pub mod null;
pub mod rng;
pub mod scsi;
pub mod store;

/// What the driver finds when it looks for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type's name, as it is named on the command line.
    pub name: &'static str,
    /// Virtio device type (virtio 1.4, section 5).
    pub device_id: u16,
    /// PCI class code.
    pub pci_class: u32,
    /// The features of this type that the device offers.
    pub features: u64,
    /// Virtqueues: 1 to [`MAX_QUEUES`].
    pub queues: u16,
}

/// The most virtqueues that a device can have.
pub const MAX_QUEUES: u16 = 64;

/// Buffers that the driver has made available, to be used now.
pub struct Request<'a> {
    /// The virtqueue's index.
    pub queue: usize,
    /// What the driver has written.
    pub input: Reader<'a>,
    /// What the driver wants to read.
    pub output: Writer<'a>,
    /// It is to fail, as far as the type knows of failing.
    pub fail: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it was, for the counters.
    pub kind: &'static str,
    /// Whether it ended well.
    pub ok: bool,
    /// Bytes written to the driver's buffers.
    pub written: u32,
}

/// How many of the buffers that wait in a virtqueue the device can use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// All: each is a request.
    All,
    /// So many: the device has that much to say.
    Some(usize),
    /// All, and it never gives them back.
    Forever,
}

/// The buffers are not those of a request of this type, so that not even an error can be reported in them.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub struct Malformed(pub &'static str);

/// Why an action was refused.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The device has no such action.
    #[error("this device can't do '{0}'")]
    Unknown(String),
    /// It has, but not in this way.
    #[error("{0}")]
    Value(&'static str),
    /// It was tried.
    #[error("it failed: {0}")]
    Failed(#[from] io::Error),
}

/// One type of device. Called by several threads.
pub trait Type: fmt::Debug + Send + Sync {
    /// What the driver finds.
    fn describe(&self) -> Description;

    /// Fills `config` with the device configuration space as it is now; what the type does not have is 0.
    fn configuration(&self, config: &mut [u8]);

    /// The driver writes to the device configuration space.
    fn write_configuration(&self, _offset: u64, _data: &[u8]) {}

    /// When the type has something to do by itself, without a request.
    fn next_event(&self) -> Option<Instant> {
        None
    }

    /// It is `now`: the type does what it has to do by then. Requests that are carried out afterwards are carried out at that time.
    fn pass(&self, _now: Instant) {}

    /// How many buffers of virtqueue `queue` the device can use now.
    fn wants(&self, _queue: usize) -> Wants {
        Wants::All
    }

    /// Carries a request out.
    fn execute(&self, request: Request<'_>) -> Result<Outcome, Malformed>;

    /// The driver has been given back a request of virtqueue `queue`, whose outcome was `ok`: none of its virtqueue was reset meanwhile.
    fn given_back(&self, _queue: usize, _ok: bool) {}

    /// The driver has reset virtqueue `queue`: it is given back none of its requests, whether they were carried out or not.
    fn queue_reset(&self, _queue: usize) {}

    /// Does what the user asks for by name, such as `resize:SECTORS`. Returns whether the configuration space is another now.
    fn act(&self, action: &str) -> Result<bool, ActionError> {
        Err(ActionError::Unknown(action.to_owned()))
    }

    /// Whether the driver may accept just these of the features that the device offers.
    fn can_do_with(&self, _features: u64) -> bool {
        true
    }

    /// The driver has accepted `features` (FEATURES_OK).
    fn negotiated(&self, _features: u64) {}

    /// Back to the state after power-on.
    fn reset(&self) {}

    /// What the type has to tell beyond requests.
    fn report(&self) -> Value {
        Value::Null
    }

    /// The file that the data is in.
    fn file(&self) -> Option<Arc<File>> {
        None
    }

    /// What a successor of this process has to know to go on as this type does.
    fn save(&self) -> Result<Value, serde_json::Error> {
        Ok(Value::Null)
    }

    /// Goes on as the type that has [saved](Self::save) this.
    fn restore(&mut self, saved: Value) -> Result<(), RestoreError> {
        Ok(parse(saved)?)
    }
}

/// Why a type can't go on as another did.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It was saved by something else.
    #[error(transparent)]
    Format(#[from] serde_json::Error),
    /// The device has other parts.
    #[error("{0}")]
    Fit(&'static str),
}

fn parse<T: DeserializeOwned>(saved: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(saved)
}

/// Writes little-endian fields into a configuration space.
fn put(config: &mut [u8], at: usize, bytes: &[u8]) {
    config
        .iter_mut()
        .skip(at)
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
}
