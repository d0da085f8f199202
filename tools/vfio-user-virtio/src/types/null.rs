// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device of any type that does nothing: for what a driver decides by type. It keeps the buffers that it is given, or answers with
//! zeroes, which in most protocols is success.

use std::io;

use crate::types::{put, Description, Malformed, Outcome, Request, Type, Wants};

/// A device that does nothing.
#[derive(Debug)]
pub struct Null {
    device_id: u16,
    queues: u16,
    /// The features of its type that it offers.
    features: u64,
    /// What its configuration space begins with.
    config: Vec<u8>,
    /// A bit for each virtqueue that it answers in.
    answers: u64,
}

impl Null {
    /// A device of virtio type `device_id` with that many virtqueues.
    pub fn new(device_id: u16, queues: u16) -> Self {
        Self {
            device_id,
            queues,
            features: 0,
            config: Vec::new(),
            answers: 0,
        }
    }

    /// It offers these features of its type.
    pub fn with_features(self, features: u64) -> Self {
        Self { features, ..self }
    }

    /// Its configuration space begins with these bytes, and goes on with zeroes.
    pub fn with_config(self, config: Vec<u8>) -> Self {
        Self { config, ..self }
    }

    /// It gives back what it finds in the virtqueues of which a bit is set, filled with zeroes.
    pub fn with_answers(self, answers: u64) -> Self {
        Self { answers, ..self }
    }
}

impl Type for Null {
    fn describe(&self) -> Description {
        Description {
            name: "null",
            device_id: self.device_id,
            pci_class: 0xff_0000,
            features: self.features,
            queues: self.queues,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
        put(config, 0, &self.config);
    }

    fn wants(&self, queue: usize) -> Wants {
        match self.answers & (1 << queue) {
            0 => Wants::Forever,
            _ => Wants::All,
        }
    }

    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let room = request.output.available_bytes() as u64;
        let answer = &mut io::Read::take(io::repeat(0), room);
        io::copy(answer, &mut request.output).map_err(|_| Malformed("no room for the answer"))?;
        Ok(Outcome {
            kind: "answered",
            ok: true,
            written: u32::try_from(room).unwrap_or(u32::MAX),
        })
    }
}
