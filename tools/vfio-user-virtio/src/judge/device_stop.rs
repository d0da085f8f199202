// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rules of VIRTIO_F_DEVICE_STOP for what the driver writes to the status.

use super::{Judge, Owed, Write};
use crate::status::{Protocol, Stop, DEVICE_STOPPED, DRIVER_OK};

impl Judge {
    pub(super) fn device_stopped(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let negotiated = write.protocol == Protocol::DeviceStop;
        let wanted = written & DEVICE_STOPPED != 0;
        let stands = negotiated && matches!(write.stop, Stop::Requested | Stop::Stopped);
        if (wanted && !negotiated) || (wanted != stands && current & DRIVER_OK == 0) {
            self.note(
                "D-DRV-1",
                format!(
                    "{written:#04x} written over {current:#04x}, feature negotiated: {negotiated}"
                ),
            );
        }
        match (wanted, stands) {
            (true, false) if negotiated => self.owed = Owed::ReadAfterStop,
            (false, true) => self.owed = Owed::ReadAfterResume,
            _ => {}
        }
    }
}
