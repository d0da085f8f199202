// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Which virtio device types may be stopped, and how the driver above is held meanwhile.
//!
//! A type is stopped only where Linux' driver is known to wait without harm. A block device is
//! quiesced at its request queue: requests wait there, without timeouts and without errors. Other
//! drivers spin in their control virtqueue with a lock held (net), disable interrupts while they
//! wait (console, iommu), or give up and free buffers that the device still owns (i2c).

use super::state::Reason;

/// Virtio device types (virtio 1.4, section 5).
pub mod device_type {
    /// Block device.
    pub const BLOCK: u32 = 2;
}

/// How the driver above is held while its device is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiesce {
    /// The request queue of the disk is quiesced.
    Block,
}

/// How devices of this type are quiesced.
///
/// # Errors
///
/// Why they are not stopped.
pub const fn quiesce(device_type: u32) -> Result<Quiesce, Reason> {
    match device_type {
        device_type::BLOCK => Ok(Quiesce::Block),
        _ => Err(Reason::TypeRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_block_devices_are_stopped() {
        for device_type in 0..=64 {
            let expected = match device_type {
                2 => Ok(Quiesce::Block),
                _ => Err(Reason::TypeRefused),
            };
            assert_eq!(quiesce(device_type), expected);
        }
    }
}
