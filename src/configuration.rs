// SPDX-License-Identifier: GPL-2.0-only

//! A driver that writes to its device's configuration space, or resets a virtqueue, waits under
//! VIRTIO_F_SUSPEND until the device runs. It may have locks that others need, but none that the
//! device is resumed with.

use crate::{
    device::Device,
    machine::Permit, //
};
use kernel::sync::Arc;

/// How long a driver sleeps before it looks by itself. It is woken earlier.
const LONG_US: u64 = 1_000_000;

impl Device {
    /// Whether the driver may write now, or after a wait that ends when the device runs, the driver
    /// is about to go, or the task is being killed.
    pub(crate) fn may_write(self: &Arc<Self>) -> bool {
        loop {
            let seen = self.waiters.seen();
            match self.permit() {
                Permit::Granted => return true,
                Permit::NotNow => {}
                Permit::Never => break,
            }
            if self.waiters.wait(seen, LONG_US, true) {
                break;
            }
        }
        let mut entered = self.enter();
        entered.guarded.machine.configuration_dropped();
        false
    }

    /// Whether the driver may configure the device now.
    pub(crate) fn permit(self: &Arc<Self>) -> Permit {
        self.enter().guarded.machine.configure()
    }

    /// The same for a virtqueue that is to be reset.
    pub(crate) fn permit_queue(self: &Arc<Self>) -> Permit {
        self.enter().guarded.machine.configure_queue()
    }

    /// It has.
    pub(crate) fn has_configured(self: &Arc<Self>) {
        self.enter().guarded.machine.configured();
    }
}
