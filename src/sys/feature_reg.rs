// SPDX-License-Identifier: GPL-2.0-only

//! The driver's feature register of a virtio-pci device (virtio 1.4, 4.1.4.3).
//!
//! The virtio core clears the transport feature bits that it does not know before the transport
//! writes them. Such a bit can only be written behind it, through a mapping of one's own.

use super::{
    bindings,
    virtio::Device, //
};
use core::mem::offset_of;
use kernel::{
    bindings::{
        pci_dev,
        PCI_CAP_ID_VNDR, //
    },
    prelude::*, //
};

/// `VIRTIO_PCI_CAP_COMMON_CFG`.
const COMMON_CFG: u8 = 1;

/// The common configuration of a virtio-pci device.
pub(crate) struct CommonConfig {
    pci: *mut pci_dev,
    map: *mut c_void,
    length: u32,
}

// SAFETY: The mapping is valid in every context; writes to it happen only within
// `finalize_features`, which the virtio core serialises.
unsafe impl Send for CommonConfig {}
// SAFETY: As above.
unsafe impl Sync for CommonConfig {}

impl CommonConfig {
    /// Finds and maps it. The caller keeps the device, and with it its parent, for as long as the
    /// mapping lives.
    ///
    /// Nothing for a device that is not on virtio-pci, or that is a legacy device.
    pub(crate) fn map(device: &Device) -> Option<Self> {
        let pci = pci_parent(device)?;
        // SAFETY: `pci` is a valid PCI device, to which `device` holds a reference.
        unsafe {
            let mut at = kernel::bindings::pci_find_capability(pci, PCI_CAP_ID_VNDR as c_int);
            while at != 0 {
                let bar = read8(pci, at, offset_of!(bindings::virtio_pci_cap, bar));
                let offset = read32(pci, at, offset_of!(bindings::virtio_pci_cap, offset));
                let length = read32(pci, at, offset_of!(bindings::virtio_pci_cap, length));
                if read8(pci, at, offset_of!(bindings::virtio_pci_cap, cfg_type)) == COMMON_CFG
                    && bar < 6
                    && length as usize >= size_of::<bindings::virtio_pci_common_cfg>()
                {
                    let map = kernel::bindings::pci_iomap_range(
                        pci,
                        c_int::from(bar),
                        offset as c_ulong,
                        size_of::<bindings::virtio_pci_common_cfg>(),
                    );
                    // Not `then_some`: what can't be mapped would be unmapped.
                    return (!map.is_null()).then(|| Self { pci, map, length });
                }
                at = kernel::bindings::pci_find_next_capability(pci, at, PCI_CAP_ID_VNDR as c_int);
            }
        }
        None
    }

    /// Its length in bytes, as its capability has it.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// Writes the upper half of the driver's features.
    pub(super) fn write_upper_features(&self, features: u32) {
        let select = offset_of!(bindings::virtio_pci_common_cfg, guest_feature_select);
        let value = offset_of!(bindings::virtio_pci_common_cfg, guest_feature);
        // SAFETY: Both registers lie within the mapping.
        unsafe {
            kernel::bindings::iowrite32(1, self.map.byte_add(select));
            kernel::bindings::iowrite32(features, self.map.byte_add(value));
        }
    }
}

impl Drop for CommonConfig {
    fn drop(&mut self) {
        // SAFETY: The mapping was made by `pci_iomap_range` for this device, which still exists.
        unsafe { kernel::bindings::pci_iounmap(self.pci, self.map) };
    }
}

/// The PCI device that `device` is the virtio side of.
fn pci_parent(device: &Device) -> Option<*mut pci_dev> {
    let parent = device.parent();
    // SAFETY: The parent is valid. That it is on the PCI bus is not enough: a virtio device that a
    // vDPA driver provides can have a PCI parent too. The driver of virtio-pci has the virtio
    // device at the start of its own data.
    unsafe {
        if (*parent).bus != &raw const kernel::bindings::pci_bus_type
            || (*parent).driver.is_null()
            || CStr::from_char_ptr((*(*parent).driver).name) != c"virtio-pci"
            || kernel::bindings::dev_get_drvdata(parent) != device.as_raw().cast()
        {
            return None;
        }
        Some(kernel::container_of!(parent, pci_dev, dev))
    }
}

/// # Safety
///
/// `pci` is valid.
unsafe fn read8(pci: *mut pci_dev, at: u8, offset: usize) -> u8 {
    let mut value = 0xff;
    // SAFETY: By the contract of this function. A read that fails leaves ones.
    unsafe {
        kernel::bindings::pci_read_config_byte(
            pci,
            c_int::from(at) + offset as c_int,
            &raw mut value,
        )
    };
    value
}

/// # Safety
///
/// `pci` is valid.
unsafe fn read32(pci: *mut pci_dev, at: u8, offset: usize) -> u32 {
    let mut value = u32::MAX;
    // SAFETY: By the contract of this function. A read that fails leaves ones.
    unsafe {
        kernel::bindings::pci_read_config_dword(
            pci,
            c_int::from(at) + offset as c_int,
            &raw mut value,
        )
    };
    value
}
