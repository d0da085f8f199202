// SPDX-License-Identifier: GPL-2.0-only

//! What happens on the virtio bus.
//!
//! C header: [`include/linux/device/bus.h`](srctree/include/linux/device/bus.h)

use super::virtio::{
    Bus,
    Device,
    Exclusive, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// What has happened, or is about to, to a device on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is about to be removed. The parent's lock is held.
    Deleting,
    /// A driver is about to be bound. The device's lock is held.
    Binding,
    /// A driver was bound. The device's lock is held.
    Bound,
    /// A driver could not be bound. The device's lock is held.
    NotBound,
    /// The driver is about to be unbound. The device's lock is held.
    Unbinding,
    /// The driver was unbound. The device's lock is held.
    Unbound,
}

/// Who is told.
pub(crate) trait Listener: Send + Sync + 'static {
    /// A device was added; no driver is bound yet.
    fn added(&self, device: Exclusive<'_>);
    /// It was removed, and its driver is gone.
    fn removed(&self, device: Exclusive<'_>);
    /// Something else happens to `device`. May sleep.
    fn event(&self, event: Event, device: &Device);
}

/// As long as this lives, `T` is told what happens on the bus.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Listener> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    bus: Bus,
    listener: Arc<T>,
}

// SAFETY: The notifier block is used by the bus alone, which does its own locking.
unsafe impl<T: Listener> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: Listener> Sync for Registration<T> {}

impl<T: Listener> Registration<T> {
    /// Registers `listener`. It may be called before this returns.
    pub(crate) fn new(bus: Bus, listener: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            bus,
            listener,
            // SAFETY: The block is initialised before it is registered, and unregistered before it
            // is dropped. `listener` was initialised before it: the fields are in this order here.
            block <- Opaque::try_ffi_init(move |block: *mut bindings::notifier_block| unsafe {
                block.write(bindings::notifier_block {
                    notifier_call: Some(Self::call),
                    ..Default::default()
                });
                to_result(bindings::bus_register_notifier(bus.as_raw(), block))
            }),
        })
    }

    /// # Safety
    ///
    /// `block` is that of a registration, `data` a device on its bus.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: By the contract of this function. The block is unregistered before the
        // registration is dropped.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(block), Self, block) };
        // SAFETY: By the contract of this function. The bus keeps the device valid for the call.
        let device = unsafe { Device::from_dev(data.cast()) };
        let event = match action as bindings::bus_notifier_event {
            bindings::bus_notifier_event_BUS_NOTIFY_ADD_DEVICE => {
                // SAFETY: Called by whoever adds it.
                this.listener.added(unsafe { Exclusive::new(device) });
                return 0;
            }
            bindings::bus_notifier_event_BUS_NOTIFY_REMOVED_DEVICE => {
                // SAFETY: Called by whoever removes it, before the reference to the parent is
                // dropped.
                this.listener.removed(unsafe { Exclusive::new(device) });
                return 0;
            }
            bindings::bus_notifier_event_BUS_NOTIFY_DEL_DEVICE => Event::Deleting,
            bindings::bus_notifier_event_BUS_NOTIFY_BIND_DRIVER => Event::Binding,
            bindings::bus_notifier_event_BUS_NOTIFY_BOUND_DRIVER => Event::Bound,
            bindings::bus_notifier_event_BUS_NOTIFY_DRIVER_NOT_BOUND => Event::NotBound,
            bindings::bus_notifier_event_BUS_NOTIFY_UNBIND_DRIVER => Event::Unbinding,
            bindings::bus_notifier_event_BUS_NOTIFY_UNBOUND_DRIVER => Event::Unbound,
            _ => return 0,
        };
        this.listener.event(event, device);
        0
    }
}

#[pinned_drop]
impl<T: Listener> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The block was registered by `new`. This waits for calls that are under way.
        unsafe {
            bindings::bus_unregister_notifier(self.bus.as_raw(), self.block.get());
        }
    }
}
