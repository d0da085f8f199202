// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The judge: watches what the driver does, and notes where it breaks the protocol.
//!
//! VIRTIO_F_DEVICE_STOP, by the RFC "virtio: introduce VIRTIO_F_DEVICE_STOP" (virtio-comment, December 2020):
//!
//! * D-DRV-1: the driver MUST NOT set or clear DEVICE_STOPPED while DRIVER_OK is not set, and of course not without the feature.
//! * D-DRV-2: having set it, the driver MUST re-read the status.
//! * D-DRV-3: having cleared it, the driver MUST read the status to make sure.
//! * D-DRV-4: the driver MUST NOT clear any other bit; after FAILED it MUST reset first.
//!
//! VIRTIO_F_SUSPEND, by virtio 1.4 ("Device Suspend"):
//!
//! * S-DRV-1: the driver SHOULD NOT set SUSPEND without DRIVER_OK and the feature.
//! * S-DRV-2: having set it, the driver MUST re-read the status until it shows SUSPEND without DRIVER_OK; from then on, and until it
//!   resumes the device, it MUST NOT add buffers, notify, or change the configuration space.
//! * S-DRV-3: to resume, the driver sets DRIVER_OK, and MUST wait for DRIVER_OK without SUSPEND before it does any of that again.
//! * S-DRV-4: the virtqueues stay live meanwhile, and only a reset ends that (3.3.1): the driver MUST NOT alter or detach the buffers that
//!   it has exposed, nor lay out a virtqueue or negotiate features anew. Seen of it are an available index that goes back, and writes to
//!   the registers. Selecting a virtqueue, or half of the features, alters nothing.
//!
//! And under whatever protocol, by virtio 1.4, 2.1.1:
//!
//! * STATUS-1: the driver MUST NOT clear a status bit (under VIRTIO_F_DEVICE_STOP this is D-DRV-4).
//! * STATUS-2: the driver MUST NOT notify the device before DRIVER_OK.

use serde::{Deserialize, Serialize};

use crate::status::{Protocol, Stop, DEVICE_STOPPED, DRIVER_OK, FAILED, SUSPEND};
use suspend::Fence;

pub use breaches::Breach;

mod breaches;
mod device_stop;
mod suspend;
#[cfg(test)]
mod tests;

/// What the driver has yet to see before it may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Owed {
    /// Nothing.
    #[default]
    Nothing,
    /// Any look at the status, after it asked for a stop.
    ReadAfterStop,
    /// Any look at the status, after it asked for a resume.
    ReadAfterResume,
}

/// A write of the device status by the driver.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// What the status reads.
    pub current: u8,
    /// What the driver writes.
    pub written: u8,
    /// Where the device is.
    pub stop: Stop,
    /// What was negotiated.
    pub protocol: Protocol,
}

/// The judge of one driver.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The bits that the driver knows of: what it last read or wrote. A bit that the device set since can't be held against it.
    seen: u8,
    owed: Owed,
    fence: Fence,
    count: u64,
    breaches: Vec<Breach>,
    /// Now, in microseconds since the server started.
    at_us: u64,
}

impl Judge {
    /// The device was reset by other means than the status.
    pub fn reset(&mut self) {
        self.seen = 0;
        self.owed = Owed::Nothing;
        self.fence = Fence::None;
    }

    /// The driver has read `value`, with the device in `stop`. A device that runs again may have been resumed, or have dropped the
    /// suspension by itself: the driver that sees it may go on.
    pub fn read(&mut self, value: u8, stop: Stop) {
        self.seen = value;
        self.owed = Owed::Nothing;
        if stop == Stop::Running && value & (SUSPEND | DRIVER_OK) == DRIVER_OK {
            self.fence = Fence::None;
        }
    }

    /// The driver writes the status.
    pub fn write(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let seen = std::mem::replace(&mut self.seen, written);
        let owed = std::mem::take(&mut self.owed);
        if written == 0 {
            self.fence = Fence::None;
            return;
        }
        let unread = |after| format!("{written:#04x} written {after}, without reading the status");
        match (owed, write.protocol) {
            (Owed::Nothing, _) => {}
            (Owed::ReadAfterStop, Protocol::Suspend) => {
                self.note("S-DRV-2", unread("after setting SUSPEND"));
            }
            (Owed::ReadAfterStop, _) => {
                self.note("D-DRV-2", unread("after setting DEVICE_STOPPED"));
            }
            (Owed::ReadAfterResume, Protocol::Suspend) => {
                self.note("S-DRV-3", unread("after asking for a resume"));
            }
            (Owed::ReadAfterResume, _) => {
                self.note("D-DRV-3", unread("after clearing DEVICE_STOPPED"));
            }
        }
        self.device_stopped(write);
        self.suspend(write);
        // While SUSPEND stands DRIVER_OK does not: to leave it out is not to clear it.
        let own = match write.protocol {
            Protocol::DeviceStop => DEVICE_STOPPED,
            Protocol::None | Protocol::Suspend => 0,
        };
        // A stop that is pending was set by the driver, and reads clear.
        let pending = match (write.protocol, write.stop) {
            (Protocol::Suspend, Stop::Requested) => SUSPEND,
            _ => 0,
        };
        let cleared = ((seen & current) | pending) & !written & !own;
        let rule = match write.protocol {
            Protocol::DeviceStop => "D-DRV-4",
            Protocol::None | Protocol::Suspend => "STATUS-1",
        };
        if cleared != 0 {
            self.note(
                rule,
                format!("{written:#04x} written over {current:#04x} clears {cleared:#04x}"),
            );
        }
        if current & FAILED != 0 && written & !current & !own != 0 {
            self.note(
                rule,
                format!("{written:#04x} written over {current:#04x}: no reset after FAILED"),
            );
        }
    }

    /// The driver notifies virtqueue `queue`. `live`: it has set DRIVER_OK.
    pub fn notification(&mut self, queue: usize, live: bool) {
        if !live {
            self.note(
                "STATUS-2",
                format!("virtqueue {queue} notified before DRIVER_OK"),
            );
        }
        self.fenced(|| format!("virtqueue {queue} notified"));
    }
}
