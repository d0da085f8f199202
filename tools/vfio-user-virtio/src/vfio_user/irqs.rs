// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VFIO_USER_DEVICE_GET_IRQ_INFO and VFIO_USER_DEVICE_SET_IRQS: the device has MSI-X vectors, or INTx.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
};

use crate::device::Device;
use crate::eventfd::Eventfd;

/// To signal the files that come with the message, or, without files, not to signal any more.
const SIGNAL: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
/// With no interrupts: to take everything away.
const DISABLE: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
const MASK: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
const UNMASK: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;

/// The properties, and the number, of the interrupts of a kind.
pub(super) fn info(device: &Device, index: u32) -> Result<(u32, u32), Errno> {
    match (index, device.vectors()) {
        (VFIO_PCI_MSIX_IRQ_INDEX, vectors @ 1..) => Ok((
            VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
            vectors.into(),
        )),
        (VFIO_PCI_INTX_IRQ_INDEX, 0) => Ok((
            VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED,
            1,
        )),
        (..VFIO_PCI_NUM_IRQS, _) => Ok((0, 0)),
        _ => Err(Errno::INVAL),
    }
}

/// Does to `count` interrupts from `start` on what `flags` say.
pub(super) fn set(
    device: &Device,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    files: Vec<OwnedFd>,
) -> Result<(), Errno> {
    let (_, there) = info(device, index)?;
    if start.checked_add(count).is_none_or(|end| end > there) {
        return Err(Errno::INVAL);
    }
    let mut files = files
        .into_iter()
        .map(Eventfd::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let (start, count) = (start as usize, count as usize);
    let intx = index == VFIO_PCI_INTX_IRQ_INDEX && count > 0;
    match flags {
        SIGNAL if !files.is_empty() && files.len() != count => return Err(Errno::INVAL),
        SIGNAL if intx => device.set_intx(files.pop()),
        SIGNAL => device.set_vectors(start, count, files),
        _ if !files.is_empty() => return Err(Errno::INVAL),
        DISABLE if (start, count) == (0, 0) => {
            // Not those of the other kind.
            if there > 0 {
                device.clear_interrupts();
            }
        }
        MASK if intx => device.mask_intx(),
        UNMASK if intx => device.unmask_intx(),
        _ => return Err(Errno::OPNOTSUPP),
    }
    Ok(())
}
