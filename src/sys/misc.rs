// SPDX-License-Identifier: GPL-2.0-only

//! A character device whose files have something in common.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    fs::{
        self,
        file::flags::{
            O_ACCMODE,
            O_RDONLY, //
        }, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// An open file.
pub(crate) trait File: Sized + Send + Sync + 'static {
    /// What all of them have in common.
    type Shared: Send + Sync;

    /// Somebody opens one.
    fn open(shared: &Self::Shared) -> Result<Arc<Self>>;

    /// Somebody calls ioctl(2).
    fn ioctl(file: ArcBorrow<'_, Self>, command: u32, argument: usize) -> Result<isize>;

    /// It was closed by whoever had it last.
    fn release(file: Arc<Self>);
}

/// The device, as long as it can be opened.
#[pin_data]
pub(crate) struct Node<T: File> {
    /// Dropped first: nobody opens it from then on.
    #[pin]
    registration: MiscDeviceRegistration<Opened<T>>,
    shared: T::Shared,
}

impl<T: File> Node<T> {
    /// Makes `/dev/NAME`, which root may open for writing.
    pub(crate) fn new(name: &'static CStr, shared: T::Shared) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Before anybody can open it.
            shared,
            registration <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
        })
    }
}

/// Registered by [`Node`], and by nobody else.
struct Opened<T>(PhantomData<T>);

#[vtable]
impl<T: File> MiscDevice for Opened<T> {
    type Ptr = Arc<T>;

    fn open(file: &fs::File, registration: &MiscDeviceRegistration<Self>) -> Result<Arc<T>> {
        if file.flags() & O_ACCMODE == O_RDONLY {
            return Err(EACCES);
        }
        let registration = ptr::from_ref(registration);
        // SAFETY: Only `Node` can name this type, so that the registration is part of one.
        let node = unsafe { kernel::container_of!(registration, Node<T>, registration) };
        // SAFETY: It does not go before the registration has, and has what is shared since before.
        let shared = unsafe { &(*node).shared };
        T::open(shared)
    }

    fn ioctl(file: ArcBorrow<'_, T>, _: &fs::File, command: u32, argument: usize) -> Result<isize> {
        T::ioctl(file, command, argument)
    }

    fn release(file: Arc<T>, _: &fs::File) {
        T::release(file);
    }
}
