// SPDX-License-Identifier: GPL-2.0-only

//! What happens to the whole system: it goes to sleep, or reboots.
//!
//! C headers: [`include/linux/suspend.h`](srctree/include/linux/suspend.h),
//! [`include/linux/reboot.h`](srctree/include/linux/reboot.h)

use super::bindings;
use core::marker::PhantomData;
use kernel::{
    bindings::notifier_block,
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// `NOTIFY_STOP_MASK` and `NOTIFY_OK`, of which `notifier_from_errno` makes an answer.
const NOTIFY_STOP_MASK: c_int = 0x8000;
const NOTIFY_OK: c_int = 1;

/// What is about to happen, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The system is about to be suspended or hibernated. Can be refused.
    SleepBegins,
    /// It was, or it was not after all.
    SleepEnds,
    /// The system reboots, halts, or starts another kernel.
    Reboots,
}

/// Who is told.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Something happens to the system. May sleep.
    ///
    /// # Errors
    ///
    /// It is not to happen.
    fn event(&self, event: Event) -> Result;
}

/// A list of those who are told of something.
pub(crate) trait Chain {
    /// Puts a block on the list.
    ///
    /// # Safety
    ///
    /// The block is initialised, and stays valid until it is taken off.
    unsafe fn register(block: *mut notifier_block) -> c_int;

    /// Takes a block off the list, and waits for calls that are under way.
    ///
    /// # Safety
    ///
    /// The block is on the list.
    unsafe fn unregister(block: *mut notifier_block);

    /// What an action means.
    fn event(action: c_ulong) -> Option<Event>;
}

/// Those who are told of sleep.
pub(crate) struct Sleep;

impl Chain for Sleep {
    unsafe fn register(block: *mut notifier_block) -> c_int {
        // SAFETY: By the contract of this function.
        unsafe { bindings::virtio_device_stop_register_pm(block) }
    }

    unsafe fn unregister(block: *mut notifier_block) {
        // SAFETY: By the contract of this function.
        unsafe { bindings::virtio_device_stop_unregister_pm(block) };
    }

    fn event(action: c_ulong) -> Option<Event> {
        match action as u32 {
            bindings::PM_HIBERNATION_PREPARE
            | bindings::PM_SUSPEND_PREPARE
            | bindings::PM_RESTORE_PREPARE => Some(Event::SleepBegins),
            bindings::PM_POST_HIBERNATION
            | bindings::PM_POST_SUSPEND
            | bindings::PM_POST_RESTORE => Some(Event::SleepEnds),
            _ => None,
        }
    }
}

/// Those who are told of a reboot.
pub(crate) struct Reboot;

impl Chain for Reboot {
    unsafe fn register(block: *mut notifier_block) -> c_int {
        // SAFETY: By the contract of this function.
        unsafe { bindings::register_reboot_notifier(block) }
    }

    unsafe fn unregister(block: *mut notifier_block) {
        // SAFETY: By the contract of this function.
        unsafe { bindings::unregister_reboot_notifier(block) };
    }

    fn event(_: c_ulong) -> Option<Event> {
        Some(Event::Reboots)
    }
}

/// As long as this lives, `T` is told what `C` is about.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<C: Chain, T: Listener> {
    #[pin]
    block: Opaque<notifier_block>,
    listener: Arc<T>,
    _chain: PhantomData<C>,
}

// SAFETY: The notifier block is used by the list alone, which does its own locking.
unsafe impl<C: Chain, T: Listener> Send for Registration<C, T> {}
// SAFETY: As above.
unsafe impl<C: Chain, T: Listener> Sync for Registration<C, T> {}

impl<C: Chain, T: Listener> Registration<C, T> {
    /// Registers `listener`. It may be called before this returns.
    pub(crate) fn new(listener: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            listener,
            _chain: PhantomData,
            // SAFETY: The block is initialised before it is registered, and unregistered before it
            // is dropped. `listener` was initialised before it: the fields are in this order here.
            block <- Opaque::try_ffi_init(move |block: *mut notifier_block| unsafe {
                block.write(notifier_block {
                    notifier_call: Some(Self::call),
                    ..Default::default()
                });
                to_result(C::register(block))
            }),
        })
    }

    /// # Safety
    ///
    /// `block` is that of a registration.
    unsafe extern "C" fn call(
        block: *mut notifier_block,
        action: c_ulong,
        _: *mut c_void,
    ) -> c_int {
        // SAFETY: By the contract of this function. The block is unregistered before the
        // registration is dropped.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(block), Self, block) };
        match C::event(action).map(|event| this.listener.event(event)) {
            Some(Err(error)) => NOTIFY_STOP_MASK | (NOTIFY_OK - error.to_errno()),
            Some(Ok(())) | None => 0,
        }
    }
}

#[pinned_drop]
impl<C: Chain, T: Listener> PinnedDrop for Registration<C, T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The block was registered by `new`.
        unsafe { C::unregister(self.block.get()) };
    }
}
