// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The entropy device (virtio 1.4, 5.4): buffers are filled with the host's random bytes.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::types::{Description, Malformed, Outcome, Request, Type};

/// One request gets no more than this: a driver must ask again (5.4.6.1: the device may use a buffer partly).
const MOST: usize = 64 * 1024;

/// A source of entropy.
#[derive(Debug)]
pub struct Rng(File);

impl Rng {
    /// A source of the host's random bytes.
    pub fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }
}

impl Type for Rng {
    fn describe(&self) -> Description {
        Description {
            name: "rng",
            device_id: 4,
            pci_class: 0xff_0000,
            features: 0,
            queues: 1,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let length = request.output.available_bytes().min(MOST);
        if length == 0 {
            return Err(Malformed("no room for random bytes"));
        }
        // 5.4.6.2: a device must place one or more random bytes into the buffer, so that it has no way to say that it can't. A driver may
        // take a length of 0 for the end of the device.
        let length = if request.fail { 1 } else { length };
        let mut bytes = vec![0; length];
        let mut source = &self.0;
        source
            .read_exact(&mut bytes)
            .map_err(|_| Malformed("no random bytes to be had"))?;
        request
            .output
            .write_all(&bytes)
            .map_err(|_| Malformed("no memory for random bytes"))?;
        Ok(Outcome {
            kind: "entropy",
            ok: !request.fail,
            written: u32::try_from(length).unwrap_or(u32::MAX),
        })
    }
}
