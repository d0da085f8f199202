// SPDX-License-Identifier: GPL-2.0-only

//! The virtio bus and its devices.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    bindings,
    memory::NoIo,
    module::ModuleRef, //
};
use core::{
    marker::PhantomPinned,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    str::CString,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque,
};

/// A device on the virtio bus.
#[repr(transparent)]
pub(crate) struct Device(Opaque<bindings::virtio_device>);

// SAFETY: The methods of `Device` do their own locking, or read what does not change.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

// SAFETY: `get_device` and `put_device` count references to the embedded `struct device`, whose
// release frees the whole `struct virtio_device`.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: `self` is a valid device.
        unsafe { kernel::bindings::get_device(self.as_dev()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference, so that the device is valid.
        unsafe { kernel::bindings::put_device(obj.as_ref().as_dev()) };
    }
}

impl Device {
    /// # Safety
    ///
    /// `ptr` is a valid device, and stays so for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::virtio_device) -> &'a Self {
        // CAST: `Device` is transparent.
        // SAFETY: By the contract of this function.
        unsafe { &*ptr.cast() }
    }

    /// # Safety
    ///
    /// `dev` is embedded in a virtio device, which stays valid for `'a`.
    pub(super) unsafe fn from_dev<'a>(dev: *mut kernel::bindings::device) -> &'a Self {
        // SAFETY: By the contract of this function.
        unsafe { Self::from_raw(bindings::virtio_device_stop_to_virtio(dev)) }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    pub(super) fn as_dev(&self) -> *mut kernel::bindings::device {
        // SAFETY: `self` is a valid device; no reference to it is made.
        unsafe { &raw mut (*self.as_raw()).dev }
    }

    /// The device that provides this one, for example the PCI function; it has one. Valid for as
    /// long as this one is on the bus, or a [`Parent`] is held.
    pub(super) fn parent(&self) -> *mut kernel::bindings::device {
        // SAFETY: `self` is a valid device, whose parent is set before it is added to the bus.
        unsafe { (*self.as_dev()).parent }
    }

    /// The device, for messages.
    pub(crate) fn as_device(&self) -> &device::Device {
        // SAFETY: The embedded device is valid for as long as `self` is.
        unsafe { device::Device::from_raw(self.as_dev()) }
    }

    /// The device type (virtio 1.4, section 5).
    pub(crate) fn device_type(&self) -> u32 {
        // SAFETY: `self` is a valid device, and its type never changes.
        unsafe { (*self.as_raw()).id.device }
    }

    /// The N of its name, virtioN. It is used again when the device has gone.
    pub(crate) fn index(&self) -> u32 {
        // SAFETY: `self` is a valid device that was added to the bus: its index is not
        // negative, and never changes.
        unsafe { (*self.as_raw()).index as u32 }
    }

    /// Whether a driver is bound, or being bound or unbound. Stable only under the device's lock.
    pub(crate) fn has_driver(&self) -> bool {
        // SAFETY: `self` is a valid device.
        unsafe { !(*self.as_dev()).driver.is_null() }
    }

    /// The features 0 to 63 that were negotiated.
    pub(super) fn features(&self) -> u64 {
        // SAFETY: `self` is a valid device.
        unsafe { *(*self.as_raw()).__bindgen_anon_1.features.as_ref() }
    }

    /// Whether this feature, below 64, was negotiated.
    pub(crate) fn has_feature(&self, feature: u32) -> bool {
        self.features() & (1 << feature) != 0
    }

    /// Whether the virtio core, or the driver that is bound, negotiates this feature by itself. The
    /// device's lock is held, or that of its parent.
    pub(crate) fn kernel_negotiates(&self, feature: u32) -> bool {
        // SAFETY: `self` is a valid device, and its driver does not go meanwhile.
        unsafe { bindings::virtio_device_stop_kernel_negotiates(self.as_raw(), feature) }
    }

    /// Notes that this feature, below 64, was negotiated.
    pub(super) fn set_feature(&self, feature: u32) {
        // SAFETY: `self` is a valid device. The only caller runs within `finalize_features`, which
        // the virtio core serialises.
        unsafe { *(*self.as_raw()).__bindgen_anon_1.features.as_mut() |= 1 << feature };
    }

    /// Notes that this feature, below 64, was not negotiated after all.
    pub(super) fn clear_feature(&self, feature: u32) {
        // SAFETY: As for `set_feature`.
        unsafe { *(*self.as_raw()).__bindgen_anon_1.features.as_mut() &= !(1 << feature) };
    }

    /// Marks all virtqueues as broken: what the driver submits from now on ends with an error.
    pub(crate) fn break_virtqueues(&self) {
        // SAFETY: `self` is a valid device; the function takes the lock that it needs.
        unsafe { bindings::virtio_break_device(self.as_raw()) };
    }

    /// Tells user space (udev) that the device has come to `state`. Allocates memory.
    pub(crate) fn tell_user_space(&self, state: &'static str) {
        // To get memory must not wait for the device itself.
        let _no_io = NoIo::enter();
        // Whoever wants to be sure reads the state: that there is no memory for this harms nobody.
        let Ok(variable) = CString::try_from_fmt(fmt!("DEVICE_STOP={state}")) else {
            return;
        };
        let mut environment = [variable.as_char_ptr().cast_mut(), ptr::null_mut()];
        // SAFETY: `self` is a valid device, and the list of variables ends with a null pointer. The
        // function copies them, and changes none.
        unsafe {
            kernel::bindings::kobject_uevent_env(
                &raw mut (*self.as_dev()).kobj,
                kernel::bindings::kobject_action_KOBJ_CHANGE,
                environment.as_mut_ptr(),
            )
        };
    }
}

/// A device on the bus that nobody probes, removes, resets, or puts to sleep meanwhile.
///
/// # Invariants
///
/// For `'a`, this task holds the locks of the device and its parent, or is told of its addition to
/// the bus or its removal by whoever does that. The parent is valid.
#[derive(Clone, Copy)]
pub(crate) struct Exclusive<'a>(&'a Device);

impl<'a> Exclusive<'a> {
    /// # Safety
    ///
    /// The invariant holds.
    pub(super) unsafe fn new(device: &'a Device) -> Self {
        // INVARIANT: By the contract of this function.
        Self(device)
    }

    /// The device.
    pub(crate) fn device(self) -> &'a Device {
        self.0
    }
}

/// The device that provides a virtio device. The virtio device itself drops its reference to it
/// when it is removed, while others may still wait for the parent's lock.
#[derive(Clone)]
pub(crate) struct Parent(ARef<device::Device>);

impl Parent {
    /// The parent of `device`.
    pub(crate) fn of(device: Exclusive<'_>) -> Self {
        // SAFETY: By the invariant of `Exclusive` the parent is valid.
        Self(unsafe { device::Device::get_device(device.device().parent()) })
    }

    pub(super) fn as_raw(&self) -> *mut kernel::bindings::device {
        // CAST: `device::Device` is transparent, and may be changed behind a reference.
        ptr::from_ref::<device::Device>(&self.0).cast_mut().cast()
    }

    /// Keeps the module that has its driver, and with that what frees the virtio device. Nothing
    /// if that is being unloaded.
    ///
    /// # Safety
    ///
    /// The virtio device is on the bus, or its removal has not ended.
    pub(super) unsafe fn driver_module(&self) -> Option<ModuleRef> {
        // SAFETY: The device is valid: a reference is held.
        let module = unsafe { bindings::virtio_device_stop_driver_module(self.as_raw()) };
        // SAFETY: The driver is not unbound before the virtio device has gone.
        unsafe { ModuleRef::from_raw(module.cast()) }
    }

    /// What it is called in sysfs.
    pub(crate) fn name(&self) -> &CStr {
        self.0.name()
    }

    /// Whether the bus knows it still, whatever it shows by itself.
    pub(crate) fn is_present(&self) -> bool {
        // SAFETY: The device is valid: a reference is held.
        unsafe { bindings::virtio_device_stop_is_present(self.as_raw()) }
    }
}

/// The virtio bus.
#[derive(Clone, Copy)]
pub(crate) struct Bus(*const kernel::bindings::bus_type);

// SAFETY: The bus is a constant of the virtio core, which this module depends on.
unsafe impl Send for Bus {}
// SAFETY: As above.
unsafe impl Sync for Bus {}

impl Bus {
    /// Finds the bus, and what the virtio core negotiates by itself, before anything is asked of a
    /// [`Device`]. The core does not export its bus, but puts it into every driver.
    pub(crate) fn find(module: &'static ThisModule) -> Result<Self> {
        /// A driver, and the empty list of what it drives.
        struct Probe {
            driver: bindings::virtio_driver,
            ids: [bindings::virtio_device_id; 1],
            _pin: PhantomPinned,
        }

        // SAFETY: The module is not loaded yet: nobody else asks.
        to_result(unsafe { bindings::virtio_device_stop_ask_core() })?;
        let mut probe = KBox::new(
            Probe {
                driver: bindings::virtio_driver::default(),
                ids: [bindings::virtio_device_id::default()],
                _pin: PhantomPinned,
            },
            GFP_KERNEL,
        )?;
        let ids = probe.ids.as_ptr();
        probe.driver.driver.name = c"virtio_device_stop".as_char_ptr();
        probe.driver.id_table = ids;
        let driver = &raw mut probe.driver;
        // SAFETY: The driver has a name and a table of devices, which is empty: no callback is ever
        // called. It is not moved until it is unregistered.
        to_result(unsafe { bindings::__register_virtio_driver(driver, module.as_ptr()) })?;
        // SAFETY: The driver is registered.
        let bus = unsafe { (*driver).driver.bus };
        // SAFETY: The driver is registered, and nobody else unregisters it.
        unsafe { bindings::unregister_virtio_driver(driver) };
        Ok(Self(bus))
    }

    pub(super) fn as_raw(&self) -> *const kernel::bindings::bus_type {
        self.0
    }

    /// Calls `body` for every device that is on the bus now, with its lock and its parent's held,
    /// and those that are below a bus from which virtio devices are stopped: PCI.
    ///
    /// The walk is over the parents: to know the virtio device alone does not keep its parent from
    /// being freed before it is locked.
    pub(crate) fn for_each_locked(&self, body: impl FnMut(Exclusive<'_>)) {
        struct Walk<F> {
            bus: *const kernel::bindings::bus_type,
            body: F,
        }

        /// # Safety
        ///
        /// `dev` is valid, and `walk` a `Walk<F>` that nobody else uses.
        unsafe extern "C" fn parent<F: FnMut(Exclusive<'_>)>(
            dev: *mut kernel::bindings::device,
            walk: *mut c_void,
        ) -> c_int {
            // SAFETY: By the contract of this function; the walk over the bus has a reference to
            // `dev`.
            unsafe {
                // Not every device on the bus is to be waited for.
                if kernel::bindings::device_for_each_child(dev, walk, Some(is_ours::<F>)) != 0 {
                    bindings::virtio_device_stop_lock(dev);
                    kernel::bindings::device_for_each_child(dev, walk, Some(child::<F>));
                    bindings::virtio_device_stop_unlock(dev);
                }
            }
            0
        }

        /// # Safety
        ///
        /// As for `parent`.
        unsafe extern "C" fn is_ours<F: FnMut(Exclusive<'_>)>(
            dev: *mut kernel::bindings::device,
            walk: *mut c_void,
        ) -> c_int {
            // SAFETY: By the contract of this function.
            unsafe { c_int::from((*dev).bus == (*walk.cast::<Walk<F>>()).bus) }
        }

        /// # Safety
        ///
        /// As for `parent`, and the lock of the parent of `dev` is held.
        unsafe extern "C" fn child<F: FnMut(Exclusive<'_>)>(
            dev: *mut kernel::bindings::device,
            walk: *mut c_void,
        ) -> c_int {
            // SAFETY: By the contract of this function. What is on the bus is a virtio device; the
            // walk over the children has a reference to it.
            unsafe {
                if is_ours::<F>(dev, walk) != 0 {
                    bindings::virtio_device_stop_lock(dev);
                    // What was removed from the bus meanwhile has no parent any more.
                    let device = Device::from_dev(dev);
                    if bindings::virtio_device_stop_is_registered(device.as_raw()) {
                        ((*walk.cast::<Walk<F>>()).body)(Exclusive::new(device));
                    }
                    bindings::virtio_device_stop_unlock(dev);
                }
            }
            0
        }

        fn walk_on<F: FnMut(Exclusive<'_>)>(mut walk: Walk<F>) {
            // SAFETY: The bus is valid, and `walk` outlives the call.
            unsafe {
                kernel::bindings::bus_for_each_dev(
                    &raw const kernel::bindings::pci_bus_type,
                    ptr::null_mut(),
                    (&raw mut walk).cast(),
                    Some(parent::<F>),
                )
            };
        }

        walk_on(Walk { bus: self.0, body });
    }
}

/// A counted reference to a device.
pub(crate) type DeviceRef = ARef<Device>;

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_virtio)]
mod tests {
    use super::*;
    use crate::sys::{
        fake::Fake,
        feature_reg::CommonConfig, //
    };

    #[test]
    fn a_feature_is_its_bit() -> Result {
        let fake = Fake::new()?;
        let device = fake.device();
        for feature in 0..64 {
            assert!(!device.has_feature(feature));
            device.set_feature(feature);
            assert!(device.has_feature(feature));
            assert_eq!(device.features(), u64::MAX >> (63 - feature));
        }
        Ok(())
    }

    #[test]
    fn a_device_that_is_not_on_virtio_pci_has_no_common_configuration() -> Result {
        let fake = Fake::new()?;
        assert!(CommonConfig::map(fake.device()).is_none());
        Ok(())
    }

    #[test]
    fn a_reference_keeps_the_device() -> Result {
        let fake = Fake::new()?;
        let reference: DeviceRef = ARef::from(fake.device());
        assert_eq!(reference.device_type(), 2);
        assert!(!reference.has_driver());
        Ok(())
    }
}
