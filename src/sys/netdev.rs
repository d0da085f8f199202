// SPDX-License-Identifier: GPL-2.0-only

//! Network interfaces.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    bindings,
    rcu::GracePeriod,
    virtio::{
        Device,
        DeviceRef, //
    },
    virtqueue::{
        Virtqueue,
        Virtqueues, //
    },
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    types::NotThreadSafe, //
};

/// What the driver calls its control virtqueue.
const CONTROL: &CStr = c"control";

/// The device type (virtio 1.4, 5.1).
const NETWORK: u32 = 1;

impl Device {
    /// Whether that virtqueue of it is the one for a network device's commands, with one that
    /// nobody waits for any more.
    pub(super) fn has_abandoned_command(&self, queue: &Virtqueue<'_>) -> bool {
        let is_ours = self.device_type() == NETWORK && queue.is_control();
        is_ours && queue.is_broken() && !queue.is_empty()
    }
}

impl Virtqueue<'_> {
    fn is_control(&self) -> bool {
        self.name() == Some(CONTROL)
    }

    /// For which queue of the interface it sends (virtio 1.4, 5.1.2: receiveq1, transmitq1,
    /// receiveq2, and so on).
    fn sends_for(&self) -> Option<u32> {
        let (pair, sends) = (self.index() / 2, self.index() % 2 == 1);
        (sends && !self.is_control()).then_some(pair)
    }
}

/// The lock under which network interfaces are configured.
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct Rtnl(NotThreadSafe);

impl Rtnl {
    /// Waits for the lock.
    pub(crate) fn lock() -> Self {
        // SAFETY: The caller may sleep, and does not have the lock.
        unsafe { bindings::rtnl_lock() };
        Self(NotThreadSafe)
    }

    /// Nothing if somebody has the lock.
    pub(crate) fn try_lock() -> Option<Self> {
        // SAFETY: The caller may sleep.
        (unsafe { bindings::rtnl_trylock() } != 0).then(|| Self(NotThreadSafe))
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: This task has taken the lock.
        unsafe { bindings::rtnl_unlock() };
    }
}

/// The network interface of a virtio network device.
///
/// # Invariants
///
/// `netdev` points to a valid network interface, to which a reference is held.
pub(crate) struct Netdev {
    netdev: NonNull<kernel::bindings::net_device>,
    device: DeviceRef,
}

// SAFETY: A network interface may be used from any task.
unsafe impl Send for Netdev {}

/// A network interface that passes nothing on to its driver, until this is dropped. It keeps its
/// addresses, its routes and its carrier. Neither the driver nor the device may go meanwhile.
pub(crate) struct Detached {
    netdev: Option<(Netdev, KBox<Vlans>)>,
    uses: Uses,
    /// Nothing can be expected of the device any more.
    is_lost: bool,
    /// The device answers, as far as that is known.
    answers: bool,
    dispatched: GracePeriod,
}

/// What the driver may use while its interface is detached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// The virtqueues for frames: it gives the device buffers to receive with, and may send what
    /// comes late.
    Queues,
    /// Nothing: all virtqueues are broken, in which it can neither put nor find anything. When
    /// [`Detached::dispatched`] is over, it has used them for the last time.
    Nothing,
}

/// A bit for each VLAN.
type Vlans = [c_ulong; 4096 / c_ulong::BITS as usize];

impl Netdev {
    /// The network interface that the driver has added for `device`.
    pub(crate) fn find(device: &Device) -> Option<Self> {
        // SAFETY: `device` is valid.
        let netdev = unsafe { bindings::virtio_device_stop_find_netdev(device.as_raw()) };
        // INVARIANT: What is found is a network interface, with a reference to it.
        NonNull::new(netdev).map(|netdev| Self {
            netdev,
            device: device.into(),
        })
    }

    /// Keeps the driver from being asked for anything, and has its commands to the device fail: it
    /// would wait for their end with the lock held, and without sleeping. Nothing if the device has
    /// a command still; or, if the driver may use nothing, if user space has given it buffers of
    /// its own (AF_XDP): it takes them back by a reset of the virtqueue, whose failure it ignores.
    pub(crate) fn detach(self, uses: Uses, lock: &Rtnl) -> Option<Detached> {
        let mut vlans = KBox::new([0; 4096 / c_ulong::BITS as usize], GFP_NOWAIT).ok()?;
        // SAFETY: By the invariant the network interface is valid; the lock is held.
        let has_pools = unsafe { bindings::virtio_device_stop_has_pools(self.netdev.as_ptr()) };
        if uses == Uses::Nothing && has_pools {
            return None;
        }
        self.try_detach(uses, &mut vlans, lock)?;
        Some(Detached {
            netdev: Some((self, vlans)),
            uses,
            is_lost: false,
            answers: true,
            dispatched: GracePeriod::begin(),
        })
    }

    /// Nothing if that can't be done now.
    fn try_detach(&self, uses: Uses, vlans: &mut Vlans, lock: &Rtnl) -> Option<()> {
        // Whoever has it may be waiting for a poll, and so for others.
        let polls = match uses {
            Uses::Queues => None,
            Uses::Nothing => Some(PollsGuard::try_lock(self, lock)?),
        };
        if !self.breaks_control_queue() {
            return None;
        }
        // SAFETY: By the invariant the network interface is valid; the lock is held. There is a bit
        // for each VLAN.
        unsafe {
            bindings::virtio_device_stop_note_vlans(self.netdev.as_ptr(), vlans.as_mut_ptr());
            bindings::netif_device_detach(self.netdev.as_ptr());
        }
        if let Some(polls) = polls {
            polls.without(|| self.break_queues());
        }
        Some(())
    }

    /// Breaks the virtqueues for frames. Those to send with are held first, so that the driver is
    /// not given a frame that it would drop.
    fn break_queues(&self) {
        for queue in Virtqueues::lock(&self.device).iter() {
            if let Some(pair) = queue.sends_for() {
                // SAFETY: By the invariant the network interface is valid. The queue is one of its
                // own, and does not go meanwhile.
                unsafe {
                    let netdev = self.netdev.as_ptr();
                    bindings::virtio_device_stop_break_tx(netdev, pair, queue.as_raw());
                }
            } else {
                queue.set_broken(true);
            }
        }
    }

    /// Not if the device has a command that the driver waits for: its end would be taken for that
    /// of a later one. Most commands are given with the lock held, but not all: one that is given
    /// just now fails, and is seen when the virtqueue is to work again.
    fn breaks_control_queue(&self) -> bool {
        let queues = Virtqueues::lock(&self.device);
        let Some(control) = queues.iter().find(Virtqueue::is_control) else {
            return true;
        };
        // Broken: it was left so with a command that nobody waits for.
        if !control.is_broken() && !control.is_empty() {
            return false;
        }
        control.set_broken(true);
        true
    }

    /// What was broken works again, but for a control virtqueue with a command that nobody waits
    /// for.
    fn mend_queues(&self, uses: Uses, commands: bool) {
        let left = Virtqueues::lock(&self.device)
            .iter()
            .any(|queue| queue.is_control() && !queue.is_empty());
        self.device.mend_virtqueues(|queue| match uses {
            _ if queue.is_control() => commands && !left,
            Uses::Queues => false,
            Uses::Nothing => true,
        });
        if commands && left {
            // Somebody has put it there without the lock just when the virtqueue was broken, and
            // has given up. Its end would be taken for that of the next one.
            dev_warn!(
                self.device.as_device(),
                "a command is left in the control virtqueue: bind the driver anew\n"
            );
        }
    }

    /// The stack passes frames on again. The driver is not given one if there is no room for it.
    fn attach(&self, uses: Uses, _lock: &Rtnl) {
        let netdev = self.netdev.as_ptr();
        // SAFETY: By the invariant the network interface is valid; the lock is held. Nothing is
        // passed on before it was seen which queues are full.
        unsafe {
            if uses == Uses::Queues {
                bindings::virtio_device_stop_hold_tx(netdev);
            }
            bindings::virtio_device_stop_attach_netdev(netdev);
        }
        for queue in Virtqueues::lock(&self.device).iter() {
            if let Some(pair) = queue.sends_for() {
                // SAFETY: As above. The queue is one of its own, and does not go meanwhile.
                unsafe { bindings::virtio_device_stop_stop_full(netdev, pair, queue.as_raw()) };
            }
        }
        // SAFETY: As above.
        unsafe { bindings::virtio_device_stop_release_tx(netdev) };
    }

    /// The driver tells the device what it was asked for meanwhile, and looks at what that has to
    /// tell.
    fn catch_up(&self, before: &Vlans, _lock: &Rtnl) {
        // SAFETY: By the invariant the network interface and the device are valid; the lock is
        // held.
        unsafe {
            bindings::virtio_device_stop_set_rx_mode(self.netdev.as_ptr());
            bindings::virtio_device_stop_remove_vlans(self.netdev.as_ptr(), before.as_ptr());
            bindings::virtio_config_changed(self.device.as_raw());
        }
    }
}

/// The polls of an interface for what was received are about to be disabled for a moment: one that
/// runs just then could get a part of a frame only. They can't be held for longer, since others
/// disable them, too, with this locked, which is the interface's own lock.
struct PollsGuard<'a> {
    netdev: &'a Netdev,
    _not_send: NotThreadSafe,
}

impl<'a> PollsGuard<'a> {
    /// Nothing if somebody else has it.
    fn try_lock(netdev: &'a Netdev, _lock: &Rtnl) -> Option<Self> {
        // SAFETY: By the invariant the network interface is valid.
        let locked = unsafe { bindings::virtio_device_stop_trylock_netdev(netdev.netdev.as_ptr()) };
        // Not `then_some`: it would make, and drop, what unlocks a lock that somebody else has.
        locked.then(|| Self {
            netdev,
            _not_send: NotThreadSafe,
        })
    }

    fn without(self, what: impl FnOnce()) {
        let netdev = self.netdev.netdev.as_ptr();
        // SAFETY: By the invariant the network interface is valid; its lock and the RTNL are held.
        // So the driver has enabled the polls if and only if the interface is up.
        let disabled = unsafe { bindings::virtio_device_stop_disable_polls(netdev) };
        what();
        if disabled {
            // SAFETY: As above; they were disabled just now, on this task.
            unsafe { bindings::virtio_device_stop_enable_polls(netdev) };
        }
    }
}

impl Drop for PollsGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant the network interface is valid; this task has locked it.
        unsafe { bindings::virtio_device_stop_unlock_netdev(self.netdev.netdev.as_ptr()) };
    }
}

impl Detached {
    /// When it is over, the driver has used its virtqueues for the last time. Nothing if it goes
    /// on.
    pub(crate) fn dispatched(&self) -> Option<GracePeriod> {
        (self.uses == Uses::Nothing).then_some(self.dispatched)
    }

    /// The device has stopped. A driver that was told meanwhile that the device had sent something
    /// goes on sending, and may be told so even after this: what it sends then waits in the
    /// virtqueue.
    pub(crate) fn stop_queues(&self) {
        if let Some((netdev, _)) = &self.netdev {
            // SAFETY: By the invariant the network interface is valid.
            unsafe { bindings::netif_tx_stop_all_queues(netdev.netdev.as_ptr()) };
        }
    }

    /// Nothing can be expected of the device any more: what was broken stays so.
    pub(crate) fn device_is_lost(&mut self) {
        self.is_lost = true;
    }

    /// Whether the device answers, as far as that is known.
    pub(crate) fn device_answers(&mut self, answers: bool) {
        self.answers = answers;
    }

    /// As when it is dropped, for whoever has the lock already. If the device does not answer, the
    /// driver may not give it commands: it would wait for their end with the lock held. That is
    /// left, to be attached once more when the device answers.
    pub(crate) fn attach(mut self, lock: &Rtnl) -> Option<Self> {
        self.end(lock).map(|netdev| Self {
            netdev: Some(netdev),
            uses: Uses::Queues,
            is_lost: false,
            answers: true,
            dispatched: self.dispatched,
        })
    }

    /// The driver is about to go: it is left as it is.
    pub(crate) fn abandon(mut self) {
        self.netdev = None;
    }

    fn end(&mut self, lock: &Rtnl) -> Option<(Netdev, KBox<Vlans>)> {
        let (netdev, vlans) = self.netdev.take()?;
        if !self.is_lost {
            netdev.mend_queues(self.uses, self.answers);
        }
        netdev.attach(self.uses, lock);
        if self.is_lost {
            return None;
        }
        if !self.answers {
            return Some((netdev, vlans));
        }
        netdev.catch_up(&vlans, lock);
        None
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if self.netdev.is_some() {
            drop(self.end(&Rtnl::lock()));
        }
    }
}

impl Drop for Netdev {
    fn drop(&mut self) {
        // SAFETY: By the invariant a reference is held, which nobody else drops.
        unsafe { bindings::virtio_device_stop_put_netdev(self.netdev.as_ptr()) };
    }
}
