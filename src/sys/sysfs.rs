// SPDX-License-Identifier: GPL-2.0-only

//! A directory in sysfs, with a file for every value.
//!
//! C header: [`include/linux/kobject.h`](srctree/include/linux/kobject.h)

use super::virtio::Device;
use core::{
    fmt::Write,
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        Arc,
        Completion, //
    },
    types::Opaque, //
};

/// What a file shows is written here; at most a page.
///
/// # Invariants
///
/// `at` points to `room` bytes that may be written.
pub(crate) struct Text {
    at: *mut u8,
    room: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.room = self.room.checked_sub(text.len()).ok_or(core::fmt::Error)?;
        // SAFETY: By the invariant there was room for the text. INVARIANT: Now there is less.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), self.at, text.len());
            self.at = self.at.add(text.len());
        }
        Ok(())
    }
}

/// What reading a file does.
pub(crate) type Show<T> = fn(&Arc<T>, &mut Text) -> Result;
/// What writing to a file does. A newline at the end of the text is taken off before.
pub(crate) type Store<T> = fn(&Arc<T>, &[u8]) -> Result;

/// A file. Only root may read it, or write to it.
#[repr(C)]
pub(crate) struct Attribute<T> {
    attribute: bindings::attribute,
    show: Show<T>,
    store: Option<Store<T>>,
}

// SAFETY: Attributes are constant.
unsafe impl<T> Sync for Attribute<T> {}

impl<T> Attribute<T> {
    /// A file that can be read.
    pub(crate) const fn read_only(name: &'static CStr, show: Show<T>) -> Self {
        Self::new(name, 0o400, show, None)
    }

    /// A file that can be read and written.
    pub(crate) const fn read_write(name: &'static CStr, show: Show<T>, store: Store<T>) -> Self {
        Self::new(name, 0o600, show, Some(store))
    }

    /// A file that can be written.
    pub(crate) const fn write_only(name: &'static CStr, store: Store<T>) -> Self {
        Self::new(name, 0o200, |_, _| Err(EIO), Some(store))
    }

    const fn new(name: &'static CStr, mode: u16, show: Show<T>, store: Option<Store<T>>) -> Self {
        let mut attribute: bindings::attribute = pin_init::zeroed();
        attribute.name = name.to_bytes_with_nul().as_ptr();
        // An access does not allocate: the disk that memory would be written to may be stopped.
        attribute.mode = mode | bindings::SYSFS_PREALLOC as u16;
        Self {
            attribute,
            show,
            store,
        }
    }
}

/// A file whose readers may wait until it changes (poll).
///
/// # Invariants
///
/// Points to a node of sysfs, to which a reference is held.
pub(crate) struct Poll(NonNull<bindings::kernfs_node>);

// SAFETY: A node may be used from any task.
unsafe impl Send for Poll {}
// SAFETY: As above.
unsafe impl Sync for Poll {}

impl Poll {
    /// The file has changed. Does not sleep, and does not allocate memory.
    pub(crate) fn wake(&self) {
        // SAFETY: By the invariant. The node may have been removed: nobody is told then.
        unsafe { bindings::kernfs_notify(self.0.as_ptr()) };
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        // SAFETY: By the invariant; nobody else drops that reference.
        unsafe { bindings::kernfs_put(self.0.as_ptr()) };
    }
}

/// The files of a directory.
pub(crate) struct Files<T: 'static> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// What lies in it.
    pub(crate) files: &'static [Attribute<T>],
    /// The name of the directory in it.
    pub(crate) group: &'static CStr,
    /// What lies in that.
    pub(crate) group_files: &'static [Attribute<T>],
}

/// A directory below a device. It is removed when this is dropped, which waits for accesses to its
/// files that are under way.
#[pin_data(PinnedDrop)]
pub(crate) struct Directory<T: Send + Sync + 'static> {
    #[pin]
    kobject: Opaque<bindings::kobject>,
    #[pin]
    released: Completion,
    data: Arc<T>,
}

// SAFETY: The kernel's object has its own locks.
unsafe impl<T: Send + Sync> Send for Directory<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Directory<T> {}

impl<T: Send + Sync + 'static> Directory<T> {
    const OPS: bindings::sysfs_ops = bindings::sysfs_ops {
        show: Some(Self::show),
        store: Some(Self::store),
    };

    const TYPE: bindings::kobj_type = {
        let mut kind: bindings::kobj_type = pin_init::zeroed();
        kind.release = Some(Self::release);
        kind.sysfs_ops = &Self::OPS;
        kind
    };

    /// Makes the directory of `files` below `device`. Their values are those of `data`.
    pub(crate) fn new(
        device: &Device,
        data: Arc<T>,
        files: &'static Files<T>,
    ) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                // SAFETY: The object is initialised here, and not used before it is pinned.
                kobject <- Opaque::ffi_init(|kobject: *mut bindings::kobject| unsafe {
                    kobject.write(pin_init::zeroed());
                    bindings::kobject_init(kobject, &Self::TYPE);
                }),
                released <- Completion::new(),
                data,
            }),
            GFP_KERNEL,
        )?;
        this.add(device, files)?;
        Ok(this)
    }

    fn add(&self, device: &Device, files: &'static Files<T>) -> Result {
        let kobject = self.kobject.get();
        let empty = [ptr::null_mut::<bindings::attribute>()];
        let mut group: bindings::attribute_group = pin_init::zeroed();
        group.name = files.group.as_char_ptr();
        group.__bindgen_anon_2.attrs = empty.as_ptr().cast_mut();
        // SAFETY: The object is initialised, the parent valid; all files and names are constant, and
        // the list of the empty group is needed only for the call.
        unsafe {
            to_result(bindings::kobject_add(
                kobject,
                &raw mut (*device.as_dev()).kobj,
                c"%s".as_char_ptr(),
                files.name.as_char_ptr(),
            ))?;
            for file in files.files {
                to_result(bindings::sysfs_create_file_ns(
                    kobject,
                    &file.attribute,
                    ptr::null(),
                ))?;
            }
            to_result(bindings::sysfs_create_group(kobject, &group))?;
            for file in files.group_files {
                to_result(bindings::sysfs_add_file_to_group(
                    kobject,
                    &file.attribute,
                    files.group.as_char_ptr(),
                ))?;
            }
        }
        Ok(())
    }

    /// One of the files in it, for those who wait until it changes.
    pub(crate) fn poll(&self, name: &'static CStr) -> Option<Poll> {
        // SAFETY: The object was added; its node lives as long as `self` does, at least.
        let file = unsafe {
            let directory = (*self.kobject.get()).sd;
            bindings::kernfs_find_and_get_ns(directory, name.as_char_ptr(), ptr::null())
        };
        // INVARIANT: The function has taken a reference.
        NonNull::new(file).map(Poll)
    }

    /// # Safety
    ///
    /// `kobject` is that of a directory.
    unsafe fn from_raw<'a>(kobject: *mut bindings::kobject) -> &'a Self {
        // SAFETY: By the contract of this function.
        unsafe { &*kernel::container_of!(Opaque::cast_from(kobject), Self, kobject) }
    }

    /// # Safety
    ///
    /// `kobject` is that of a directory.
    unsafe extern "C" fn release(kobject: *mut bindings::kobject) {
        // SAFETY: By the contract of this function; `drop` waits for the completion.
        unsafe { Self::from_raw(kobject) }.released.complete_all();
    }

    /// # Safety
    ///
    /// `kobject` is that of a directory, `attribute` that of an [`Attribute`] for it, and `buffer` has
    /// room for a page.
    unsafe extern "C" fn show(
        kobject: *mut bindings::kobject,
        attribute: *mut bindings::attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: By the contract of this function.
        let (this, file) = unsafe {
            let file = kernel::container_of!(attribute, Attribute<T>, attribute);
            (Self::from_raw(kobject), &*file.cast_const())
        };
        // INVARIANT: By the contract of this function.
        let mut text = Text {
            at: buffer.cast(),
            room: kernel::page::PAGE_SIZE,
        };
        match (file.show)(&this.data, &mut text) {
            Ok(()) => (kernel::page::PAGE_SIZE - text.room) as isize,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `kobject` is that of a directory, `attribute` that of an [`Attribute`] for it, and `buffer` has
    /// `length` bytes.
    unsafe extern "C" fn store(
        kobject: *mut bindings::kobject,
        attribute: *mut bindings::attribute,
        buffer: *const c_char,
        length: usize,
    ) -> isize {
        // SAFETY: By the contract of this function.
        let (this, file, text) = unsafe {
            let file = kernel::container_of!(attribute, Attribute<T>, attribute);
            let text = slice::from_raw_parts(buffer.cast::<u8>(), length);
            (Self::from_raw(kobject), &*file.cast_const(), text)
        };
        // SAFETY: Looks at the current task, and may be called by any.
        if !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
            return EPERM.to_errno() as isize;
        }
        let Some(store) = file.store else {
            return EIO.to_errno() as isize;
        };
        match store(&this.data, text.strip_suffix(b"\n").unwrap_or(text)) {
            Ok(()) => length as isize,
            Err(error) => error.to_errno() as isize,
        }
    }
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Directory<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The object was initialised, and this drops the only reference that is ours.
        unsafe {
            bindings::kobject_del(self.kobject.get());
            bindings::kobject_put(self.kobject.get());
        }
        self.released.wait_for_completion();
    }
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_sysfs)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_where_the_page_does() {
        let mut page = [b'x'; 8];
        // INVARIANT: As many bytes, but for one.
        let mut text = Text {
            at: page.as_mut_ptr(),
            room: page.len() - 1,
        };
        assert!(text.write_str("1234").is_ok());
        assert!(text.write_str("5678").is_err());
        assert!(text.write_str("").is_ok());
        assert!(text.write_str("567").is_ok());
        assert!(text.write_str("8").is_err());
        assert_eq!(&page, b"1234567x");
    }
}
