// SPDX-License-Identifier: GPL-2.0-only

//! What the virtio core does with a device comes by here: it negotiates, writes the status, and
//! resets.
//!
//! Takes the lock `status` only: its callers have locks that whoever is in the machine may wait
//! for. But for drivers that configure their device: what these have, nobody in the machine waits
//! for.

use crate::{
    device::Device,
    machine::Permit,
    negotiate::{
        self,
        Offer,
        VIRTIO_F_DEVICE_STOP,
        VIRTIO_F_SUSPEND, //
    },
    policy::Policy,
    state::Reason,
    status::{
        Access,
        Protocol,
        Seen,
        Status, //
    },
    sys::{
        feature_reg::CommonConfig,
        shadow::Hooks,
        transport::Features, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

impl Device {
    /// What holds for devices of its type.
    pub(crate) fn policy(&self) -> Policy {
        Policy::of(self.transport().device().device_type())
    }

    /// Which of the features to accept that the device offers.
    fn choose(&self, offered: u64) -> Result<(Protocol, &CommonConfig), Reason> {
        let (decline, accepted) = {
            let status = self.status.lock();
            (status.decline, status.accepted)
        };
        if decline {
            return Err(Reason::BoundBefore);
        }
        let common = self.common.as_ref().ok_or(Reason::Transport)?;
        let device = self.transport().device();
        let offer = Offer {
            features: offered,
            transport: negotiate::Transport::Pci {
                common_length: common.length(),
            },
            kernel_suspends: device.kernel_negotiates(VIRTIO_F_SUSPEND)
                || device.has_feature(VIRTIO_F_SUSPEND) && accepted != Some(Protocol::Suspend),
            kernel_takes_bit_39: device.kernel_negotiates(VIRTIO_F_DEVICE_STOP),
            bit_39_is_device_stop: self.accept_bit39.load(Relaxed),
        };
        let protocol = offer.choose(self.environment.allowed)?;
        if self.policy().refuses() {
            return Err(Reason::TypeRefused);
        }
        Ok((protocol, common))
    }

    /// Whether a feature would be accepted that the device offers. If not, the reason says why.
    pub(crate) fn is_worth_negotiating(self: &Arc<Self>) -> bool {
        let choice = self.choose(self.transport().offered());
        if let Err(reason) = choice {
            self.status.lock().field.negotiate(Err(reason));
            drop(self.enter().run());
        }
        choice.is_ok()
    }

    /// Has nothing accepted from now on, or again what there is.
    pub(crate) fn decline(&self, decline: bool) {
        self.status.lock().decline = decline;
    }

    /// A driver is about to be bound.
    pub(crate) fn binding(self: &Arc<Self>) {
        {
            let mut status = self.status.lock();
            status.field.negotiate(Err(Reason::NotOffered));
            status.accepted = None;
        }
        let guarded = &mut self.enter().guarded;
        guarded.mends = false;
        guarded.machine.binding();
    }

    /// A driver was bound, or was bound when this module was loaded.
    pub(crate) fn bound(self: &Arc<Self>) {
        self.enter().guarded.machine.bound();
    }

    /// The driver was bound before this module was loaded. If a feature is negotiated all the same
    /// that the kernel does not know, then by this module when it was loaded before.
    pub(crate) fn bound_before(self: &Arc<Self>) {
        let device = self.transport().device();
        let has = |feature| device.has_feature(feature) && !device.kernel_negotiates(feature);
        let accepted = if has(VIRTIO_F_SUSPEND) {
            Some(Protocol::Suspend)
        } else {
            has(VIRTIO_F_DEVICE_STOP).then_some(Protocol::DeviceStop)
        };
        let may_be_stopped = |protocol| {
            let seen = Status(self.transport().status()).seen(protocol);
            matches!(
                seen,
                Seen::Stopped | Seen::Between | Seen::Ones | Seen::Garbage
            )
        };
        let negotiated = match accepted {
            Some(protocol) if self.environment.allowed.permits(protocol) => Ok(protocol),
            // To be resumed.
            Some(protocol) if may_be_stopped(protocol) => Ok(protocol),
            Some(_) => Err(Reason::Disabled),
            // To bind it again would not help.
            None if self.policy().refuses() => Err(Reason::TypeRefused),
            None => Err(Reason::BoundBefore),
        };
        {
            let mut status = self.status.lock();
            status.field.negotiate(negotiated);
            status.field.found_ready();
            status.accepted = accepted;
        }
        self.bound_and_looked_at();
    }

    /// This module may have been unloaded while the device did not resume. Nobody can have it
    /// stopped before it was looked at.
    fn bound_and_looked_at(self: &Arc<Self>) {
        let mut entered = self.enter();
        entered.guarded.machine.bound();
        let epoch = entered.guarded.machine.epoch();
        let found = {
            let mut status = self.status.lock();
            status.field.access(self.transport(), epoch, Access::Read)
        };
        if let Ok(answer) = found {
            // Its virtqueues may have been broken then.
            entered.guarded.mends = true;
            entered.guarded.machine.found(self.now(), answer.seen);
            drop(entered.run());
        }
    }

    /// The driver was unbound, or could not be bound.
    pub(crate) fn unbound(self: &Arc<Self>) {
        self.enter().guarded.machine.unbound();
    }
}

impl Hooks for Device {
    fn finalize_features(self: Arc<Self>, features: &Features<'_>) -> Result {
        let choice = self.choose(features.offered());
        let negotiated = match choice {
            Ok((Protocol::Suspend, _)) => features
                .finalize_with(VIRTIO_F_SUSPEND)?
                .then_some(Protocol::Suspend)
                .ok_or(Reason::Transport),
            Ok((Protocol::DeviceStop, common)) => {
                features.finalize()?;
                features.accept(common, VIRTIO_F_DEVICE_STOP);
                Ok(Protocol::DeviceStop)
            }
            Err(reason) => {
                if self.status.lock().accepted == Some(Protocol::Suspend) {
                    features.retract(VIRTIO_F_SUSPEND);
                }
                features.finalize()?;
                Err(reason)
            }
        };
        let mut status = self.status.lock();
        status.field.negotiate(negotiated);
        status.accepted = negotiated.ok();
        Ok(())
    }

    fn set_status(self: Arc<Self>, value: u8) {
        let becomes_ready = {
            let mut status = self.status.lock();
            status.field.write_for_core(self.transport(), Status(value))
        };
        if becomes_ready {
            self.kick();
        }
    }

    fn reset(self: Arc<Self>) {
        self.status.lock().field.reset_begins();
        // Who waits for the device waits in vain.
        self.waiters.wake();
        self.transport().reset();
        self.status.lock().field.reset_ends();
        self.kick();
    }

    fn may_write_configuration(self: Arc<Self>) -> bool {
        self.may_write()
    }

    fn may_reset_queue(self: Arc<Self>) -> bool {
        self.permit_queue() == Permit::Granted
    }

    fn configured(self: Arc<Self>) {
        self.has_configured();
    }
}

#[cfg(CONFIG_VIRTIO_DEVICE_STOP_KUNIT_TEST)]
#[kunit_tests(virtio_device_stop_hooks)]
mod tests {
    use super::*;
    use crate::{
        device::Environment,
        machine::{
            Asker,
            Leaver, //
        },
        negotiate::Allowed,
        state::{
            Error,
            State, //
        },
        sys::{
            fake::Fake,
            transport::Transport,
            virtio::Parent,
            work::Queue, //
        },
    };
    use kernel::sync::atomic::AtomicFlag;

    const READY: u8 = 15;
    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

    /// A device whose driver is bound. The fake has no disk, so that it can't be stopped; what
    /// comes after a stop is for the model checker and the guests.
    fn running(fake: &Fake, protocol: Protocol) -> Result<Arc<Device>> {
        let environment = Environment {
            timers: Arc::new(Queue::new(c"test")?, GFP_KERNEL)?,
            releases: Arc::new(Queue::new(c"test")?, GFP_KERNEL)?,
            module: const { &<crate::DeviceStop as kernel::ModuleMetadata>::THIS_MODULE },
            allowed: Allowed {
                device_stop: true,
                suspend: true,
            },
            asleep: Arc::new(AtomicFlag::new(false), GFP_KERNEL)?,
        };
        let exclusive = fake.exclusive();
        let (transport, parent) = (Transport::of(exclusive), Parent::of(exclusive));
        let device = Device::new(transport, parent, environment)?;
        {
            let mut status = device.status.lock();
            status.field.negotiate(Ok(protocol));
            status.field.found_ready();
        }
        device.bound();
        Ok(device)
    }

    /// What the device shows when it has stopped.
    fn stopped(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::DeviceStop => READY | Status::DEVICE_STOPPED,
            Protocol::Suspend => READY & !Status::DRIVER_OK | Status::SUSPEND,
        }
    }

    #[test]
    fn core_can_not_invent_a_stop() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            Hooks::set_status(device.clone(), stopped(protocol));
            assert_eq!(fake.status(), READY);
            device.detach();
        }
        Ok(())
    }

    #[test]
    fn a_driver_that_survives_a_reset_is_ready_again() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            let generation = device.snapshot().generation;
            Hooks::reset(device.clone());
            assert_eq!(fake.status(), 0);
            assert!(device.snapshot().reason == Reason::Reset);
            Hooks::set_status(device.clone(), 11);
            assert!(device.snapshot().reason == Reason::Reset);
            // Without the feature it can't be stopped.
            Hooks::set_status(device.clone(), READY);
            assert!(device.snapshot().state == State::Unavailable);
            device.status.lock().field.negotiate(Ok(protocol));
            let snapshot = device.snapshot();
            assert!(snapshot.state == State::Running);
            assert!(snapshot.generation > generation);
            device.detach();
        }
        Ok(())
    }

    #[test]
    fn what_can_not_be_quiesced_is_not_stopped() -> Result {
        for protocol in BOTH {
            let fake = Fake::new()?;
            let device = running(&fake, protocol)?;
            assert!(device.stop(Asker::Anybody) == Err(Error::NotSupported));
            let snapshot = device.snapshot_after_look();
            assert!(snapshot.state == State::Running);
            assert!(snapshot.reason == Reason::NoQuiesce);
            assert_eq!(fake.status(), READY);
            assert!(device.resume(Asker::Anybody, None) == Ok(()));
            device.detach();
        }
        Ok(())
    }

    #[test]
    fn nothing_is_stopped_while_the_system_is_asleep() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::Suspend)?;
        device.environment.asleep.store(true, Relaxed);
        assert!(device.stop(Asker::Anybody) == Err(Error::Busy));
        device.environment.asleep.store(false, Relaxed);
        assert!(device.stop(Asker::Anybody) == Err(Error::NotSupported));
        device.detach();
        Ok(())
    }

    #[test]
    fn a_driver_that_leaves_leaves_nothing_behind() -> Result {
        let fake = Fake::new()?;
        let device = running(&fake, Protocol::DeviceStop)?;
        device.leave(Leaver::Driver);
        assert!(device.snapshot().reason == Reason::NoDriver);
        assert!(device.stop(Asker::Anybody) == Err(Error::NoDriver));
        device.detach();
        assert!(Arc::into_unique_or_drop(device).is_some());
        Ok(())
    }

    #[test]
    fn the_kernel_negotiates_neither_feature_by_itself() -> Result {
        let fake = Fake::new()?;
        for feature in [VIRTIO_F_DEVICE_STOP, VIRTIO_F_SUSPEND] {
            assert!(!fake.device().kernel_negotiates(feature));
        }
        // VIRTIO_F_RING_PACKED, which core knows.
        assert!(fake.device().kernel_negotiates(34));
        Ok(())
    }
}
