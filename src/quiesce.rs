// SPDX-License-Identifier: GPL-2.0-only

//! Quiescing the driver above while its device is stopped.

use crate::{
    policy::Quiesce,
    status::Protocol,
    sys::{
        block::{
            self,
            Disk, //
        },
        netdev::{
            Detached,
            Netdev,
            Rtnl,
            Uses, //
        },
        rcu::GracePeriod,
        scsi,
        virtio::Device, //
    },
};

/// A driver that is quiesced. It is let go when this is dropped.
pub(crate) enum Quiesced {
    /// The driver of a block device.
    Block(block::Quiesced),
    /// The driver of a network device.
    Net(Detached),
    /// The driver of a SCSI host.
    Scsi(scsi::Quiesced),
    /// A driver that takes care of itself.
    Nothing,
}

/// What is to be quiesced can't be found.
pub(crate) struct NotFound;

impl Quiesced {
    /// Quiesces the driver of `device`. Nothing if that can't be done now: to be tried again.
    pub(crate) fn try_begin(
        device: &Device,
        how: Quiesce,
        protocol: Protocol,
    ) -> Result<Option<Self>, NotFound> {
        match how {
            Quiesce::Block => {
                let disk = Disk::find(device).ok_or(NotFound)?;
                Ok(Some(Self::Block(disk.quiesce())))
            }
            Quiesce::Net => {
                let netdev = Netdev::find(device).ok_or(NotFound)?;
                let lock = Rtnl::try_lock();
                let uses = if protocol.allows_buffers() {
                    Uses::Queues
                } else {
                    Uses::Nothing
                };
                Ok(lock.and_then(|lock| netdev.detach(uses, &lock).map(Self::Net)))
            }
            Quiesce::Scsi => {
                let host = scsi::Host::find(device).ok_or(NotFound)?;
                Ok(host
                    .quiesce(device, !protocol.allows_buffers())
                    .map(Self::Scsi))
            }
            Quiesce::Nothing => Ok(Some(Self::Nothing)),
        }
    }

    /// When it is over, the driver was given the last request. Devices that were quiesced one after
    /// the other have one wait in common. Nothing if the driver goes on.
    pub(crate) fn dispatched(&self) -> Option<GracePeriod> {
        match self {
            Self::Block(disk) => Some(disk.dispatched()),
            Self::Scsi(host) => Some(host.dispatched()),
            Self::Net(netdev) => netdev.dispatched(),
            Self::Nothing => None,
        }
    }

    /// Whether nothing has come in between, as of then.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Scsi(host) => host.is_settled(),
            Self::Block(_) | Self::Net(_) | Self::Nothing => true,
        }
    }

    /// Whether to let the driver go may wait, for the RTNL.
    pub(crate) fn waits_to_end(&self) -> bool {
        matches!(self, Self::Net(_))
    }

    /// Lets the driver go, by whoever has the RTNL. What can't be let go before the device answers
    /// is what this returns.
    pub(crate) fn end(self, lock: &Rtnl) -> Option<Self> {
        match self {
            Self::Net(netdev) => netdev.attach(lock).map(Self::Net),
            Self::Block(_) | Self::Scsi(_) | Self::Nothing => None,
        }
    }

    /// Whether the device answers, as far as that is known. If it does not, who is let go must not
    /// wait for it with the RTNL held.
    pub(crate) fn device_answers(&mut self, answers: bool) {
        if let Self::Net(netdev) = self {
            netdev.device_answers(answers);
        }
    }

    /// The driver is about to go: what stays of it is left as it is.
    pub(crate) fn abandon(self) {
        if let Self::Net(netdev) = self {
            netdev.abandon();
        }
    }

    /// The device has stopped.
    pub(crate) fn device_has_stopped(&self) {
        match self {
            Self::Net(netdev) => netdev.stop_queues(),
            Self::Block(_) | Self::Scsi(_) | Self::Nothing => {}
        }
    }

    /// Nothing can be expected of the device any more: what was broken stays so.
    pub(crate) fn device_is_lost(&mut self) {
        match self {
            Self::Net(netdev) => netdev.device_is_lost(),
            Self::Scsi(host) => host.device_is_lost(),
            Self::Block(_) | Self::Nothing => {}
        }
    }

    /// How many requests the driver has still. Nothing if that can't be known.
    pub(crate) fn in_flight(&self) -> Option<u32> {
        match self {
            Self::Block(disk) => Some(disk.in_flight()),
            Self::Scsi(host) => host.in_flight(),
            Self::Net(_) | Self::Nothing => None,
        }
    }

    /// Whether nothing is lost when what the driver submits ends with an error from now on: the
    /// device has none of its requests, or they may get lost.
    pub(crate) fn may_break(&self) -> bool {
        match self {
            Self::Block(disk) => disk.in_flight() == 0,
            Self::Scsi(host) => host.in_flight() == Some(0),
            Self::Net(_) => true,
            Self::Nothing => false,
        }
    }
}
