// SPDX-License-Identifier: GPL-2.0-only

//! Attribute groups of a device in sysfs, with a file for every value.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use super::{
    task,
    virtio::{
        Device,
        DeviceRef, //
    }, //
};
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
    sync::Arc, //
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
pub(crate) struct Attribute<T> {
    name: &'static CStr,
    mode: u16,
    show: Show<T>,
    store: Option<Store<T>>,
}

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
        Self {
            name,
            mode,
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

/// Files that are to lie in one directory.
pub(crate) struct Files<T: 'static> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// What lies in it.
    pub(crate) files: &'static [Attribute<T>],
}

/// A file of one device, as the driver core knows it.
#[repr(C)]
struct File<T: 'static> {
    attribute: bindings::device_attribute,
    what: &'static Attribute<T>,
    data: Arc<T>,
}

/// A named attribute group of a device. It is removed when this is dropped, which waits for
/// accesses to its files that are under way: before the device is removed from sysfs.
///
/// # Invariants
///
/// The group was created, and `files` does not change. `list` points to them.
pub(crate) struct Group<T: Send + Sync + 'static> {
    device: DeviceRef,
    name: &'static CStr,
    _files: KVec<File<T>>,
    list: KVec<*mut bindings::attribute>,
}

// SAFETY: The driver core does its own locking.
unsafe impl<T: Send + Sync> Send for Group<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Group<T> {}

impl<T: Send + Sync + 'static> Group<T> {
    /// Creates the group for `device`, which is on the bus. Its files are about `data`.
    pub(crate) fn new(device: &Device, data: &Arc<T>, what: &'static Files<T>) -> Result<Self> {
        let mut files = KVec::with_capacity(what.files.len(), GFP_KERNEL)?;
        for what in what.files {
            let data = data.clone();
            let attribute = Self::attribute(what);
            files.push(
                File {
                    attribute,
                    what,
                    data,
                },
                GFP_KERNEL,
            )?;
        }
        let mut list = KVec::with_capacity(files.len() + 1, GFP_KERNEL)?;
        for file in &mut files {
            let attribute = &raw mut file.attribute.attr;
            // SAFETY: The attribute is valid, and not in use yet.
            unsafe { super::bindings::virtio_device_stop_init_attribute(attribute) };
            list.push(attribute, GFP_KERNEL)?;
        }
        list.push(ptr::null_mut(), GFP_KERNEL)?;
        let group = Self::group(what.name, &list);
        // SAFETY: The device is valid. The attributes live until the group is removed, and their
        // functions fit them.
        to_result(unsafe {
            bindings::sysfs_create_group(&raw mut (*device.as_dev()).kobj, &group)
        })?;
        // INVARIANT: It was created just now.
        Ok(Self {
            device: device.into(),
            name: what.name,
            _files: files,
            list,
        })
    }

    fn attribute(what: &'static Attribute<T>) -> bindings::device_attribute {
        let mut attribute: bindings::device_attribute = pin_init::zeroed();
        attribute.attr.name = what.name.as_char_ptr();
        // An access does not allocate: the disk that memory would be written to may be stopped.
        attribute.attr.mode = what.mode | bindings::SYSFS_PREALLOC as u16;
        attribute.__bindgen_anon_1.show = Some(Self::show);
        attribute.__bindgen_anon_2.store = Some(Self::store);
        attribute
    }

    fn group(
        name: &'static CStr,
        list: &KVec<*mut bindings::attribute>,
    ) -> bindings::attribute_group {
        let mut group: bindings::attribute_group = pin_init::zeroed();
        group.name = name.as_char_ptr();
        group.__bindgen_anon_2.attrs = list.as_ptr().cast_mut();
        group
    }

    /// One of the files in it, for those who wait until it changes.
    pub(crate) fn poll(&self, name: &'static CStr) -> Option<Poll> {
        // SAFETY: By the invariant the group was created: the device has a node, which lives as
        // long as `self` does, at least. The reference to the directory is dropped.
        let file = unsafe {
            let device = (*self.device.as_dev()).kobj.sd;
            let group = self.name.as_char_ptr();
            let directory = bindings::kernfs_find_and_get_ns(device, group, ptr::null());
            let file = bindings::kernfs_find_and_get_ns(directory, name.as_char_ptr(), ptr::null());
            bindings::kernfs_put(directory);
            file
        };
        // INVARIANT: The function has taken a reference.
        NonNull::new(file).map(Poll)
    }

    /// # Safety
    ///
    /// `attribute` is that of a [`File`] of a group that exists, and `buffer` has room for a page.
    unsafe extern "C" fn show(
        _: *mut bindings::device,
        attribute: *mut bindings::device_attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: By the contract of this function.
        let file: &File<T> = unsafe { &*attribute.cast() };
        // INVARIANT: By the contract of this function.
        let mut text = Text {
            at: buffer.cast(),
            room: kernel::page::PAGE_SIZE,
        };
        match (file.what.show)(&file.data, &mut text) {
            Ok(()) => (kernel::page::PAGE_SIZE - text.room) as isize,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `attribute` is that of a [`File`] of a group that exists, and `buffer` has `length` bytes.
    unsafe extern "C" fn store(
        _: *mut bindings::device,
        attribute: *mut bindings::device_attribute,
        buffer: *const c_char,
        length: usize,
    ) -> isize {
        // SAFETY: By the contract of this function.
        let (file, text): (&File<T>, _) = unsafe {
            let text = slice::from_raw_parts(buffer.cast::<u8>(), length);
            (&*attribute.cast(), text)
        };
        if !task::is_administrator() {
            return EPERM.to_errno() as isize;
        }
        let Some(store) = file.what.store else {
            return EIO.to_errno() as isize;
        };
        match store(&file.data, text.strip_suffix(b"\n").unwrap_or(text)) {
            Ok(()) => length as isize,
            Err(error) => error.to_errno() as isize,
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Group<T> {
    fn drop(&mut self) {
        let group = Self::group(self.name, &self.list);
        // SAFETY: By the invariant the group was created, and nobody else removes it.
        unsafe {
            bindings::sysfs_remove_group(&raw mut (*self.device.as_dev()).kobj, &group);
        }
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
