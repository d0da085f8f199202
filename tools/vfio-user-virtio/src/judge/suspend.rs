// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rules of VIRTIO_F_SUSPEND: what the driver may not do from its write of SUSPEND until it sees that the device runs again.

use serde::{Deserialize, Serialize};

use super::{Judge, Owed, Write};
use crate::registers::{CONFIG_MSIX_VECTOR, DRIVER_FEATURE, QUEUE_SIZE};
use crate::status::{Protocol, Stop, DRIVER_OK, SUSPEND};

/// From the driver's write of SUSPEND to its look at a device that runs again, it may not touch the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fence {
    #[default]
    None,
    Suspending,
    Resuming,
}

impl Judge {
    /// Whether the driver is to add no buffers, so that somebody should look.
    pub fn forbids_buffers(&self) -> bool {
        self.fence != Fence::None
    }

    pub(super) fn suspend(&mut self, write: Write) {
        let Write {
            current, written, ..
        } = write;
        let negotiated = write.protocol == Protocol::Suspend;
        let wanted = written & SUSPEND != 0;
        match write.stop {
            Stop::Running | Stop::Resuming if wanted && self.fence != Fence::Resuming => {
                if !negotiated || current & DRIVER_OK == 0 {
                    self.note(
                        "S-DRV-1",
                        format!(
                            "{written:#04x} written over {current:#04x}, feature negotiated: {negotiated}"
                        ),
                    );
                } else {
                    self.owed = Owed::ReadAfterStop;
                    self.fence = Fence::Suspending;
                }
            }
            Stop::Stopped if negotiated && written & DRIVER_OK != 0 => {
                self.owed = Owed::ReadAfterResume;
                self.fence = Fence::Resuming;
            }
            _ => {}
        }
    }

    /// The driver has moved the available index of virtqueue `queue` on by `buffers`. No virtqueue has half as many as the index can
    /// count: more were taken back.
    pub fn buffers_added(&mut self, queue: usize, buffers: u16) {
        if buffers <= u16::MAX / 2 {
            self.fenced(|| format!("{buffers} buffers added to virtqueue {queue}"));
        } else {
            let detached = buffers.wrapping_neg();
            self.live(|| format!("{detached} buffers detached from virtqueue {queue}"));
        }
    }

    /// The driver writes to the common configuration, but for the status.
    pub fn common_written(&mut self, offset: u64) {
        match offset {
            DRIVER_FEATURE..CONFIG_MSIX_VECTOR => {
                self.live(|| "driver_feature written".to_owned());
            }
            QUEUE_SIZE.. => {
                self.live(|| format!("a live virtqueue altered by register {offset:#x}"));
            }
            _ => {}
        }
    }

    /// The driver writes to the device configuration space.
    pub fn configuration_written(&mut self, offset: u64) {
        self.fenced(|| format!("configuration space written at {offset:#x}"));
    }

    pub(super) fn fenced(&mut self, what: impl FnOnce() -> String) {
        match self.fence {
            Fence::None => {}
            Fence::Suspending => self.note("S-DRV-2", what() + " after setting SUSPEND"),
            Fence::Resuming => self.note("S-DRV-3", what() + " before the device runs again"),
        }
    }

    /// 3.3.1: what only a reset allows for again.
    fn live(&mut self, what: impl FnOnce() -> String) {
        match self.fence {
            Fence::None => {}
            Fence::Suspending => self.note("S-DRV-4", what() + " after setting SUSPEND"),
            Fence::Resuming => self.note("S-DRV-4", what() + " before the device runs again"),
        }
    }
}
