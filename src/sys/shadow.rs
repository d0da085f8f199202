// SPDX-License-Identifier: GPL-2.0-only

//! Between the virtio core and a transport: copies of the transport's operations, with five of them
//! replaced.
//!
//! `virtio_device.config` points to a constant table of the transport. For each such table one copy
//! is made, and devices are pointed at it. All its slots but five are the transport's own
//! functions: the data path does not come by here. The copies are never freed, since readers of
//! `config` hold no lock; there are as many as there are transports.
//!
//! Those who call `finalize_features`, `set_status` and `reset`, in the virtio core, all hold the
//! device's lock or its parent's. Whoever holds both locks can point a device back to the
//! transport's own table, and be sure that none of these calls comes by here any more. Drivers call
//! `set` and `disable_vq_and_reset` without these locks, and may have to wait here. So these calls
//! are counted, and waited for before this module goes.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{
    bindings::{
        self,
        virtio_config_ops,
        virtio_device,
        virtqueue, //
    },
    memory::NoIo,
    module::ModuleRef,
    transport::{
        Features,
        Transport, //
    },
    virtio::{
        Device,
        Exclusive,
        Parent, //
    },
};
use core::{
    cell::UnsafeCell,
    mem::transmute,
    ptr, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            AtomicFlag,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Who is called instead of the transport. May sleep.
pub(crate) trait Hooks: Send + Sync {
    /// The features are to be written.
    fn finalize_features(self: Arc<Self>, features: &Features<'_>) -> Result;
    /// The status is to be written.
    fn set_status(self: Arc<Self>, status: u8);
    /// The device is to be reset.
    fn reset(self: Arc<Self>);
    /// The driver wants to write to the configuration space: whether it may. Waits until it may, or
    /// never will.
    fn may_write_configuration(self: Arc<Self>) -> bool;
    /// The driver wants to reset a virtqueue: whether it may now.
    fn may_reset_queue(self: Arc<Self>) -> bool;
    /// What it was allowed to do is done.
    fn configured(self: Arc<Self>);
}

impl Transport {
    /// The transport of a device.
    pub(crate) fn of(device: Exclusive<'_>) -> Self {
        // SAFETY: The device is valid.
        unsafe { Self::original(device.device()) }
    }

    /// # Safety
    ///
    /// As for every operation of a transport: the table of the device does not change meanwhile.
    unsafe fn original(device: &Device) -> Self {
        // SAFETY: By the contract of this function.
        let ops = unsafe { (*device.as_raw()).config };
        let hook = set_status as *const () as usize;
        // SAFETY: The table is valid.
        let is_copy = unsafe { (*ops).set_status }.is_some_and(|slot| slot as usize == hook);
        let own = if is_copy {
            // SAFETY: Only the table of a `Shadow` has that function.
            unsafe {
                let ops: *const UnsafeCell<virtio_config_ops> = ops.cast();
                (*kernel::container_of!(ops, Shadow, ops)).original
            }
        } else {
            ops
        };
        // SAFETY: That is the transport's own table.
        unsafe { Self::new(device, own) }
    }
}

/// The copy of a transport's table.
#[repr(C)]
struct Shadow {
    ops: UnsafeCell<virtio_config_ops>,
    original: *const virtio_config_ops,
    /// What the original was: a transport that is loaded again may lie at the same address.
    contents: virtio_config_ops,
}

// SAFETY: `ops` is changed only with `STATE` locked, and by single stores.
unsafe impl Sync for Shadow {}

struct State {
    shadows: KVec<&'static Shadow>,
    attached: KVec<Entry>,
}

struct Entry {
    device: *const virtio_device,
    hooks: Arc<dyn Hooks>,
}

// SAFETY: The pointer is only compared.
unsafe impl Send for Entry {}

kernel::sync::global_lock! {
    // SAFETY: Initialised by `Shadows::new`, without which there is no way to the functions that
    // use it.
    unsafe(uninit) static STATE: Mutex<State> = State {
        shadows: KVec::new(),
        attached: KVec::new(),
    };
}

/// Members of a transport's table.
const SLOTS: usize = size_of::<virtio_config_ops>() / size_of::<usize>();

/// So many were looked into: all of them are functions, or null.
const KNOWN_SLOTS: usize = 18;

/// Stands for all copies. When it is dropped, after everything that is [`Attached`], no copy leads
/// into this module any more.
pub(crate) struct Shadows(());

impl Shadows {
    /// For the module's initialisation.
    ///
    /// # Errors
    ///
    /// EBUSY if it was called before. EOPNOTSUPP if the transports' tables are not what was looked
    /// into: what is copied blindly could be more than functions, and those that are replaced be
    /// called where nobody may sleep.
    pub(crate) fn new() -> Result<Self> {
        static USED: AtomicFlag = AtomicFlag::new(false);

        if SLOTS != KNOWN_SLOTS || size_of::<virtio_config_ops>() % size_of::<usize>() != 0 {
            pr_err!(
                "virtio transports with {SLOTS} operations, of which {KNOWN_SLOTS} are known\n"
            );
            return Err(EOPNOTSUPP);
        }
        if USED.xchg(true, Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: This is the first time, and the only one.
        unsafe { STATE.init() };
        Ok(Self(()))
    }

    /// Has `hooks` called instead of the transport's operations.
    pub(crate) fn attach(
        &self,
        exclusive: Exclusive<'_>,
        transport: &Transport,
        hooks: Arc<dyn Hooks>,
    ) -> Result<Attached> {
        let device = exclusive.device().as_raw();
        // Whoever brings a disk up again after a reset takes the lock, too: with its queue held.
        let _no_io = NoIo::enter();
        let mut state = STATE.lock();
        let shadow = match state
            .shadows
            .iter()
            .find(|shadow| shadow.is_of(transport.ops()))
        {
            Some(shadow) => shadow,
            None => {
                let shadow = Shadow::leak(transport.ops())?;
                state.shadows.push(shadow, GFP_KERNEL)?;
                shadow
            }
        };
        state.attached.push(Entry { device, hooks }, GFP_KERNEL)?;
        // SAFETY: The device is valid; the table is complete, and never freed.
        unsafe { bindings::virtio_device_stop_publish(device, shadow.ops.get()) };
        Ok(Attached {
            original: transport.ops(),
            parent: Parent::of(exclusive),
        })
    }
}

impl Drop for Shadows {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        for shadow in &state.shadows {
            // SAFETY: The table is valid for ever; single stores replace its slots, and readers get
            // the one function or the other.
            unsafe {
                let ops = shadow.ops.get();
                let was = &shadow.contents;
                ptr::write_volatile(&raw mut (*ops).finalize_features, was.finalize_features);
                ptr::write_volatile(&raw mut (*ops).set_status, was.set_status);
                ptr::write_volatile(&raw mut (*ops).reset, was.reset);
                ptr::write_volatile(&raw mut (*ops).set, was.set);
                ptr::write_volatile(
                    &raw mut (*ops).disable_vq_and_reset,
                    was.disable_vq_and_reset,
                );
            }
        }
        state.shadows = KVec::new();
        state.attached = KVec::new();
        drop(state);
        // Whoever has read a slot before, but not called it yet, does so before this returns. Who
        // has to wait in there has been counted.
        // SAFETY: May sleep.
        unsafe { bindings::virtio_device_stop_synchronize() };
        while CALLS.load(Acquire) != 0 {
            // All devices were left: nobody waits for anything but this processor.
            fsleep(Delta::from_millis(1));
        }
        // And who was counted returns.
        // SAFETY: As above.
        unsafe { bindings::virtio_device_stop_synchronize() };
    }
}

impl Shadow {
    /// Makes a copy of `original`, for ever.
    fn leak(original: *const virtio_config_ops) -> Result<&'static Self> {
        // SAFETY: The table is valid, and constant.
        let contents = unsafe { *original };
        let mut ops = contents;
        ops.finalize_features = Some(finalize_features);
        ops.set_status = Some(set_status);
        ops.reset = Some(reset);
        if contents.set.is_some() {
            ops.set = Some(set);
        }
        if contents.disable_vq_and_reset.is_some() {
            ops.disable_vq_and_reset = Some(disable_vq_and_reset);
        }
        let shadow = KBox::new(
            Self {
                ops: UnsafeCell::new(ops),
                original,
                contents,
            },
            GFP_KERNEL,
        )?;
        let shadow: &'static Self = KBox::leak(shadow);
        // SAFETY: The memory was allocated just now.
        unsafe { bindings::virtio_device_stop_not_leak(ptr::from_ref(shadow).cast()) };
        Ok(shadow)
    }

    /// Whether it is the copy of what lies at `ops` now.
    fn is_of(&self, ops: *const virtio_config_ops) -> bool {
        // SAFETY: The table is valid, and consists of as many pointers.
        let (now, then) = unsafe {
            (
                transmute::<virtio_config_ops, [usize; SLOTS]>(*ops),
                transmute::<virtio_config_ops, [usize; SLOTS]>(self.contents),
            )
        };
        ptr::eq(self.original, ops) && now == then
    }
}

/// A device whose operations are replaced, until [`Attached::detach`], before which it does not go.
#[must_use = "the device stays attached"]
pub(crate) struct Attached {
    original: *const virtio_config_ops,
    parent: Parent,
}

// SAFETY: The pointer is to a constant table.
unsafe impl Send for Attached {}
// SAFETY: As above.
unsafe impl Sync for Attached {}

impl Attached {
    /// Keeps the module that has the transport. What frees the device is in there: who has a
    /// reference to the device, but is not waited for when it goes, needs this, too. Nothing if the
    /// module is being unloaded.
    pub(crate) fn keep_transport(&self) -> Option<ModuleRef> {
        // SAFETY: It was not detached, which is done before its removal has ended.
        unsafe { self.parent.driver_module() }
    }

    /// The device has its transport's own operations again, and nobody is called from now on.
    pub(crate) fn detach(self, exclusive: Exclusive<'_>) {
        let device = exclusive.device().as_raw();
        // SAFETY: The device is valid, and the table is its transport's.
        unsafe { bindings::virtio_device_stop_publish(device, self.original) };
        let entry = {
            let mut state = STATE.lock();
            let mut attached = state.attached.iter();
            let at = attached.position(|entry| ptr::eq(entry.device, device));
            at.and_then(|at| state.attached.remove(at).ok())
        };
        drop(entry);
    }
}

/// Calls by drivers that are under way.
static CALLS: Atomic<u32> = Atomic::new(0);

/// A call by a driver, while this lives.
struct Call;

impl Call {
    fn begin() -> Self {
        CALLS.fetch_add(1, Acquire);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Release);
    }
}

/// Who to call for `device`, whose copied table has led here: its hooks if it is attached, and the
/// transport itself.
///
/// # Safety
///
/// `device` is valid, as for every operation of a transport.
unsafe fn called(device: *mut virtio_device) -> (Transport, Option<Arc<dyn Hooks>>) {
    // SAFETY: By the contract of this function.
    let (device, transport) = unsafe {
        let device = Device::from_raw(device);
        (device, Transport::original(device))
    };
    let state = STATE.lock();
    let entry = state
        .attached
        .iter()
        .find(|entry| ptr::eq(entry.device, device.as_raw()));
    let hooks = entry.map(|entry| entry.hooks.clone());
    (transport, hooks)
}

/// # Safety
///
/// `device` is valid, as for every operation of a transport.
unsafe extern "C" fn finalize_features(device: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of this function.
    let (transport, hooks) = unsafe { called(device) };
    let features = Features(&transport);
    let result = match hooks {
        Some(hooks) => hooks.finalize_features(&features),
        None => features.finalize(),
    };
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// # Safety
///
/// `device` is valid, as for every operation of a transport.
unsafe extern "C" fn set_status(device: *mut virtio_device, status: u8) {
    // SAFETY: By the contract of this function.
    let (transport, hooks) = unsafe { called(device) };
    match hooks {
        Some(hooks) => hooks.set_status(status),
        None => transport.set_status(status),
    }
}

/// # Safety
///
/// `device` is valid, as for every operation of a transport.
unsafe extern "C" fn reset(device: *mut virtio_device) {
    // SAFETY: By the contract of this function.
    let (transport, hooks) = unsafe { called(device) };
    match hooks {
        Some(hooks) => hooks.reset(),
        None => transport.reset(),
    }
}

/// # Safety
///
/// As for the operation: `value` has `length` bytes, and the configuration space of `device`, which
/// is valid, has them at `offset`.
unsafe extern "C" fn set(
    device: *mut virtio_device,
    offset: c_uint,
    value: *const c_void,
    length: c_uint,
) {
    let _call = Call::begin();
    // SAFETY: By the contract of this function.
    let (transport, hooks) = unsafe { called(device) };
    let may = |hooks: &Arc<dyn Hooks>| hooks.clone().may_write_configuration();
    if hooks.as_ref().is_none_or(may) {
        // SAFETY: By the contract of this function.
        unsafe { transport.configure(offset, value, length) };
        if let Some(hooks) = hooks {
            hooks.configured();
        }
    }
}

/// # Safety
///
/// As for the operation: `queue` is a virtqueue of a valid device, and nobody uses it.
unsafe extern "C" fn disable_vq_and_reset(queue: *mut virtqueue) -> c_int {
    let _call = Call::begin();
    // SAFETY: By the contract of this function.
    let (transport, hooks) = unsafe { called((*queue).vdev) };
    let may = |hooks: &Arc<dyn Hooks>| hooks.clone().may_reset_queue();
    if !hooks.as_ref().is_none_or(may) {
        return EBUSY.to_errno();
    }
    // SAFETY: By the contract of this function.
    let result = unsafe { transport.reset_queue(queue) };
    if let Some(hooks) = hooks {
        hooks.configured();
    }
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_shadow)]
mod tests {
    use super::*;
    use crate::sys::fake::{
        Fake,
        OPS, //
    };
    use core::mem::{
        forget,
        offset_of, //
    };
    use kernel::error::to_result;

    struct Counts {
        statuses: Atomic<u32>,
        resets: Atomic<u32>,
    }

    impl Hooks for Counts {
        fn finalize_features(self: Arc<Self>, _: &Features<'_>) -> Result {
            Err(ENOSPC)
        }

        fn set_status(self: Arc<Self>, status: u8) {
            self.statuses.add(u32::from(status), Relaxed);
        }

        fn reset(self: Arc<Self>) {
            self.resets.add(1, Relaxed);
        }

        fn may_write_configuration(self: Arc<Self>) -> bool {
            false
        }

        fn may_reset_queue(self: Arc<Self>) -> bool {
            false
        }

        fn configured(self: Arc<Self>) {}
    }

    fn counts() -> Result<Arc<Counts>> {
        Ok(Arc::new(
            Counts {
                statuses: Atomic::new(0),
                resets: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    fn attach(fake: &Fake, hooks: Arc<Counts>) -> Result<Attached> {
        // The module has its own, which is the one to be dropped.
        let shadows = Shadows(());
        let transport = Transport::of(fake.exclusive());
        let attached = shadows.attach(fake.exclusive(), &transport, hooks);
        forget(shadows);
        attached
    }

    fn slots(ops: *const virtio_config_ops) -> [usize; SLOTS] {
        // SAFETY: The table is valid, and consists of as many pointers.
        unsafe { transmute::<virtio_config_ops, [usize; SLOTS]>(*ops) }
    }

    fn config(fake: &Fake) -> *const virtio_config_ops {
        // SAFETY: The device is valid.
        unsafe { (*fake.device().as_raw()).config }
    }

    /// Whether the five operations are others where there are any, and all others the same.
    fn differ_in_five(now: *const virtio_config_ops, before: *const virtio_config_ops) -> bool {
        let replaced = [
            offset_of!(virtio_config_ops, finalize_features),
            offset_of!(virtio_config_ops, set_status),
            offset_of!(virtio_config_ops, reset),
            offset_of!(virtio_config_ops, set),
            offset_of!(virtio_config_ops, disable_vq_and_reset),
        ];
        let (now, before) = (slots(now), slots(before));
        (0..SLOTS).all(|slot| {
            let is_replaced = before[slot] != 0 && replaced.contains(&(slot * size_of::<usize>()));
            (now[slot] != before[slot]) == is_replaced
        })
    }

    /// The tests run in a machine that has a device on virtio-pci.
    #[test]
    fn data_path_of_virtio_pci_is_its_own() {
        let state = STATE.lock();
        let mut transports = 0;
        for shadow in &state.shadows {
            if !ptr::eq(shadow.original, &OPS.0) {
                assert!(differ_in_five(shadow.ops.get(), shadow.original));
                transports += 1;
            }
        }
        assert_eq!(transports, 1);
    }

    #[test]
    fn five_slots_are_replaced_and_the_others_are_the_transports() -> Result {
        let fake = Fake::new()?;
        let attached = attach(&fake, counts()?)?;
        assert!(differ_in_five(config(&fake), &OPS.0));
        attached.detach(fake.exclusive());
        assert!(ptr::eq(config(&fake), &OPS.0));
        Ok(())
    }

    #[test]
    fn core_calls_the_hooks_of_a_device_that_is_attached() -> Result {
        let fake = Fake::new()?;
        let other = Fake::new()?;
        let hooks = counts()?;
        let attached = attach(&fake, hooks.clone())?;
        let attached_other = attach(&other, counts()?)?;
        let shadow = config(&fake);
        assert!(ptr::eq(config(&other), shadow));
        let device = fake.device().as_raw();
        // What core does; the fake is valid.
        let call = || -> Result {
            // SAFETY: As above.
            unsafe {
                ((*shadow).set_status.ok_or(EINVAL)?)(device, 7);
                ((*shadow).reset.ok_or(EINVAL)?)(device);
                to_result(((*shadow).finalize_features.ok_or(EINVAL)?)(device))
            }
        };
        assert_eq!(call(), Err(ENOSPC));
        assert_eq!(hooks.statuses.load(Relaxed), 7);
        assert_eq!(hooks.resets.load(Relaxed), 1);
        assert_eq!(fake.status(), 15);
        attached.detach(fake.exclusive());
        attached_other.detach(other.exclusive());
        // A call that had read the slot before: it goes to the transport.
        assert_eq!(call(), Ok(()));
        assert_eq!(hooks.statuses.load(Relaxed), 7);
        assert_eq!(fake.status(), 0);
        Ok(())
    }

    #[test]
    fn a_transport_that_was_loaded_again_gets_a_copy_of_its_own() -> Result {
        let shadow = Shadow::leak(&OPS.0)?;
        assert!(shadow.is_of(&OPS.0));
        let mut loaded_again = OPS.0;
        assert!(!shadow.is_of(&loaded_again));
        let at_its_place = Shadow {
            ops: UnsafeCell::new(shadow.contents),
            original: &loaded_again,
            contents: shadow.contents,
        };
        assert!(at_its_place.is_of(&loaded_again));
        loaded_again.get_status = None;
        assert!(!at_its_place.is_of(&loaded_again));
        Ok(())
    }

    #[test]
    fn a_status_of_0_is_never_written() -> Result {
        let fake = Fake::new()?;
        let transport = Transport::of(fake.exclusive());
        transport.set_status(0);
        assert_eq!(fake.status(), 15);
        Ok(())
    }
}
