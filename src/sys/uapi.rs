// SPDX-License-Identifier: GPL-2.0-only

//! Structures that programs hand over, and that begin with their size.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h),
//! `copy_struct_from_user()`

use super::bindings;
pub(crate) use bindings::{
    virtio_device_stop_add as Add,
    virtio_device_stop_remove as Remove,
    virtio_device_stop_report as Report,
    virtio_device_stop_request as Request,
    virtio_device_stop_status as Status, //
};
pub(crate) use bindings::{
    VIRTIO_DEVICE_STOP_ABI as ABI,
    VIRTIO_DEVICE_STOP_IOC_MAGIC as MAGIC,
    VIRTIO_DEVICE_STOP_MAX_DEVICES as MAX_DEVICES,
    VIRTIO_DEVICE_STOP_STATUS_ANSWERS as STATUS_ANSWERS,
    VIRTIO_DEVICE_STOP_STATUS_OWN as STATUS_OWN, //
};
use core::mem::size_of;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// [`Status::in_flight`]: that can't be known. The header's has a suffix that bindgen does not
/// take.
pub(crate) const UNKNOWN: u64 = u64::MAX;

// SAFETY: All members are integers, or arrays of them.
unsafe impl FromBytes for Add {}
// SAFETY: And there is nothing between them: see the sizes below.
unsafe impl AsBytes for Add {}
// SAFETY: As above.
unsafe impl FromBytes for Remove {}
// SAFETY: As above.
unsafe impl AsBytes for Remove {}
// SAFETY: As above.
unsafe impl FromBytes for Request {}
// SAFETY: As above.
unsafe impl AsBytes for Request {}
// SAFETY: As above.
unsafe impl FromBytes for Status {}
// SAFETY: As above.
unsafe impl AsBytes for Status {}
// SAFETY: As above.
unsafe impl FromBytes for Report {}
// SAFETY: As above.
unsafe impl AsBytes for Report {}

const _: () = assert!(size_of::<Add>() == 2 * 4 + 64 + 8);
const _: () = assert!(size_of::<Remove>() == 2 * 4 + 8);
const _: () = assert!(size_of::<Request>() == 6 * 4 + 8);
const _: () = assert!(size_of::<Status>() == 6 * 4 + 5 * 8);
const _: () = assert!(size_of::<Report>() == 4 * 4 + 8);

/// A structure that may become longer.
pub(crate) trait Extensible: FromBytes + AsBytes + Default {
    /// How long it was at first, in bytes.
    const FIRST_SIZE: usize;
}

impl Extensible for Add {
    const FIRST_SIZE: usize = 80;
}
impl Extensible for Remove {
    const FIRST_SIZE: usize = 16;
}
impl Extensible for Request {
    const FIRST_SIZE: usize = 32;
}
impl Extensible for Status {
    const FIRST_SIZE: usize = 64;
}
impl Extensible for Report {
    const FIRST_SIZE: usize = 24;
}

/// A structure in a program's memory that begins with its size.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    address: usize,
    size: usize,
}

impl Argument {
    /// Takes what is at `address`.
    ///
    /// # Errors
    ///
    /// EFAULT; EINVAL if it is shorter than it ever was; E2BIG if it has more than `T`, and that is
    /// not 0.
    pub(crate) fn read<T: Extensible>(address: usize) -> Result<(Self, T)> {
        let at = |offset| UserPtr::from_addr(address).wrapping_byte_add(offset);
        let size: u32 = UserSlice::new(at(0), size_of::<u32>()).reader().read()?;
        let size = size as usize;
        if size < T::FIRST_SIZE {
            return Err(EINVAL);
        }
        if size > PAGE_SIZE {
            return Err(E2BIG);
        }
        let mut value = T::default();
        let mut reader = UserSlice::new(at(0), size).reader();
        let bytes = value.as_bytes_mut();
        let known = size.min(bytes.len());
        reader.read_slice(bytes.get_mut(..known).ok_or(EINVAL)?)?;
        while !reader.is_empty() {
            if reader.read::<u8>()? != 0 {
                return Err(E2BIG);
            }
        }
        Ok((Self { address, size }, value))
    }

    /// Writes it back, as far as the program knows it.
    ///
    /// # Errors
    ///
    /// EFAULT.
    pub(crate) fn write(self, value: &impl AsBytes) -> Result {
        write(self.address, self.size, value)
    }
}

/// Writes `value` to an `address` in a program's memory where there are `size` bytes. What it does
/// not know is left out; what we do not know is 0.
///
/// # Errors
///
/// EFAULT.
pub(crate) fn write(address: usize, size: usize, value: &impl AsBytes) -> Result {
    let mut writer = UserSlice::new(UserPtr::from_addr(address), size).writer();
    let bytes = value.as_bytes();
    writer.write_slice(bytes.get(..size).unwrap_or(bytes))?;
    while !writer.is_empty() {
        writer.write(&0_u8)?;
    }
    Ok(())
}
