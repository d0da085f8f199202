// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device of any type that takes buffers and never uses them: for what a driver decides by type.

use crate::types::{Description, Malformed, Outcome, Request, Type, Wants};

/// A device that does nothing.
#[derive(Debug)]
pub struct Null {
    device_id: u16,
    queues: u16,
}

impl Null {
    /// A device of virtio type `device_id` with that many virtqueues.
    pub fn new(device_id: u16, queues: u16) -> Self {
        Self { device_id, queues }
    }
}

impl Type for Null {
    fn describe(&self) -> Description {
        Description {
            name: "null",
            device_id: self.device_id,
            pci_class: 0xff_0000,
            features: 0,
            queues: self.queues,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn wants(&self, _queue: usize) -> Wants {
        Wants::Forever
    }

    fn execute(&self, _request: Request<'_>) -> Result<Outcome, Malformed> {
        Err(Malformed("this device uses no buffers"))
    }
}
