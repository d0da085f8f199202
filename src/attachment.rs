// SPDX-License-Identifier: GPL-2.0-only

//! What ties a device to this module, from its addition to the bus to its removal.

use crate::{
    device::Device,
    sys::{
        module::ModuleRef,
        shadow::Attached,
        virtio::{
            self,
            Exclusive, //
        }, //
    },
};
use core::{
    ops::Deref,
    ptr, //
};
use kernel::sync::Arc;

/// An attachment.
pub(crate) struct Attachment {
    /// Later ones have greater ones.
    pub(crate) serial: u64,
    pub(crate) attached: Attached,
    pub(crate) device: Arc<Device>,
}

/// A device, while it is used by those who are not waited for when it goes. Dropped in this order.
pub(crate) struct Kept {
    device: Arc<Device>,
    _transport: ModuleRef,
}

impl Deref for Kept {
    type Target = Arc<Device>;

    fn deref(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Attachment {
    /// Nothing if its transport's module is being unloaded.
    pub(crate) fn keep(&self) -> Option<Kept> {
        Some(Kept {
            _transport: self.attached.keep_transport()?,
            device: self.device.clone(),
        })
    }

    /// Ends the attachment.
    pub(crate) fn end(self, exclusive: Exclusive<'_>) {
        self.attached.detach(exclusive);
        // The virtio core does not call us any more: nothing is queued from now on.
        self.device.detach();
    }

    pub(crate) fn is_of(&self, device: &virtio::Device) -> bool {
        ptr::eq(self.device.transport().device(), device)
    }
}
