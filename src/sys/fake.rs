// SPDX-License-Identifier: GPL-2.0-only

//! For KUnit tests only: a virtio device on no bus, whose transport is a variable.

use super::{
    bindings::{
        virtio_config_ops,
        virtio_device, //
    },
    virtio::{
        Device,
        Exclusive, //
    },
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        static_lock_class, //
    },
    types::Opaque, //
};

/// A block device whose status field is a variable. Its transport resets it at once, and accepts
/// all features.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct Fake {
    #[pin]
    device: Opaque<virtio_device>,
    #[pin]
    parent: Opaque<bindings::device>,
    status: Atomic<u32>,
}

/// The operations of its transport.
pub(super) static OPS: Table = Table({
    // SAFETY: All are optional functions.
    let mut ops: virtio_config_ops = unsafe { core::mem::zeroed() };
    ops.get_status = Some(get_status);
    ops.set_status = Some(set_status);
    ops.reset = Some(reset);
    ops.get_features = Some(get_features);
    ops.finalize_features = Some(finalize_features);
    ops
});

/// A constant table of operations.
pub(super) struct Table(pub(super) virtio_config_ops);

// SAFETY: It is constant, and all it points to are functions and constants.
unsafe impl Sync for Table {}

impl Fake {
    /// A device whose driver is ready.
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                device <- Opaque::zeroed(),
                parent <- Opaque::zeroed(),
                status: Atomic::new(15),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: Both structures are zeroed, pinned, and used by nobody else yet.
        unsafe {
            let parent = this.parent.get();
            bindings::device_initialize(parent);
            (*parent).release = Some(release);
            let device = this.device.get();
            bindings::device_initialize(&raw mut (*device).dev);
            (*device).dev.release = Some(release);
            (*device).dev.parent = parent;
            (*device).id.device = 2;
            (*device).config = &OPS.0;
            let vqs = &raw mut (*device).vqs;
            (*vqs).next = vqs;
            (*vqs).prev = vqs;
            bindings::__spin_lock_init(
                &raw mut (*device).vqs_list_lock,
                c"fake".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
        Ok(this)
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: The device is initialised, and valid for as long as `self` is.
        unsafe { Device::from_raw(self.device.get()) }
    }

    /// The device, which nobody else knows.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        // SAFETY: It is on no bus, and its parent is valid for as long as `self` is.
        unsafe { Exclusive::new(self.device()) }
    }

    /// The status field.
    pub(crate) fn status(&self) -> u8 {
        self.status.load(Relaxed) as u8
    }

    /// The device shows this from now on.
    pub(crate) fn show(&self, status: u8) {
        self.status.store(u32::from(status), Relaxed);
    }

    /// # Safety
    ///
    /// `device` is that of a fake, which is valid for `'a`.
    unsafe fn from_raw<'a>(device: *mut virtio_device) -> &'a Self {
        // SAFETY: By the contract of this function.
        unsafe { &*kernel::container_of!(Opaque::cast_from(device), Self, device) }
    }
}

#[pinned_drop]
impl PinnedDrop for Fake {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Both were initialised, and these are the last references to them.
        unsafe {
            bindings::put_device(&raw mut (*self.device.get()).dev);
            bindings::put_device(self.parent.get());
        }
    }
}

/// Nothing is to be freed: the devices are part of a [`Fake`].
unsafe extern "C" fn release(_: *mut bindings::device) {}

/// # Safety
///
/// `device` is that of a fake.
unsafe extern "C" fn get_status(device: *mut virtio_device) -> u8 {
    // SAFETY: By the contract of this function.
    unsafe { Fake::from_raw(device) }.status()
}

/// # Safety
///
/// `device` is that of a fake.
unsafe extern "C" fn set_status(device: *mut virtio_device, status: u8) {
    // SAFETY: By the contract of this function.
    unsafe { Fake::from_raw(device) }.show(status);
}

/// # Safety
///
/// `device` is that of a fake.
unsafe extern "C" fn reset(device: *mut virtio_device) {
    // SAFETY: By the contract of this function.
    unsafe { Fake::from_raw(device) }.show(0);
}

unsafe extern "C" fn get_features(_: *mut virtio_device) -> u64 {
    0
}

unsafe extern "C" fn finalize_features(_: *mut virtio_device) -> c_int {
    0
}
