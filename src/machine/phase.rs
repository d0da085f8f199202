// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Where a device is in its life.

use super::super::state::Reason;
use super::ticket::Ticket;

/// What people want of the device, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Nothing. The reason says how the last stop has ended.
    Rest(Reason),
    /// A stop: the driver above is to be quiesced first.
    Quiescing {
        by: Ticket,
        since: u64,
        until: u64,
        step: Quiescing,
    },
    /// A stop: the device was asked.
    Stopping { by: Ticket, since: u64, until: u64 },
    /// The stop stands, until then if somebody does not end it before.
    Stopped { lease: Option<u64> },
    /// The end of a stop.
    Resuming {
        by: Resumer,
        before: Before,
        since: u64,
        until: u64,
    },
    /// The end of a stop that was given up, or that the device is about to end by itself.
    Aborting { since: u64, dropped: bool },
    /// As aborting, for so long that the driver above was let go.
    StopUnanswered { since: u64 },
    /// The end of a stop that the device has not acknowledged. The driver above is held.
    ResumeUnanswered,
}

/// Who has the device resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resumer {
    /// Whoever has asked for it.
    Asker(Ticket),
    /// Nobody: the holder of the stop has closed it, or a stop has come late.
    Nobody,
    /// Nobody: the lease is over.
    Lease,
    /// Whoever unbinds the driver, or removes the device or this module.
    Leaver,
}

/// What a device was before it was to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Before {
    Stopped,
    /// It was found to have stopped, or that could be, and nobody had asked for it.
    Found,
    Aborting {
        since: u64,
        dropped: bool,
    },
    StopUnanswered {
        since: u64,
    },
    ResumeUnanswered,
}

/// The driver above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Above {
    /// It works.
    Working,
    /// It is quiesced.
    Quiesced,
    /// It is being let go.
    Unquiescing,
}

/// Why nothing can be expected of a device before its next reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lost {
    /// It asks for one, or the driver has failed.
    NeedsReset,
    /// It has reset itself.
    Reset,
    /// It does not answer any more.
    Gone,
}

/// What the device was asked for, and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handshake {
    /// Nothing: it runs.
    Idle,
    /// To stop. `called_off`: that was withdrawn (VIRTIO_F_DEVICE_STOP), which proves nothing. It
    /// shows that it runs, but may yet stop.
    StopAsked { since: u64, called_off: bool },
    /// It has stopped, and was not asked to resume.
    Stopped,
    /// To resume, or it is to be if it stops: nobody has asked for that. `again`: to be asked once
    /// more, under VIRTIO_F_SUSPEND only if it was not yet. `cleared`: it was asked by clearing
    /// SUSPEND, too.
    ResumeAsked {
        since: u64,
        again: bool,
        cleared: bool,
    },
}

/// How far a stop has come before the device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Quiescing {
    /// User space is to be told.
    Announce,
    /// That is being done.
    Announcing,
    /// The driver above is to be quiesced.
    Quiesce,
    /// It is; whoever was about to give the device a request is to be waited for.
    Settle,
    /// That is being done.
    Settling,
    /// The device is to be asked.
    Ask,
}

/// The driver that the device is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Driver {
    None,
    Bound,
    /// It is about to be unbound.
    Unbinding,
    /// And no other one comes: the device or this module goes.
    Removed,
}

/// Who is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaver {
    /// The driver; another one may come.
    Driver,
    /// The device, or this module.
    Device,
}

impl Handshake {
    pub(super) const fn since(self) -> Option<u64> {
        match self {
            Self::StopAsked { since, .. } | Self::ResumeAsked { since, .. } => Some(since),
            Self::Idle | Self::Stopped => None,
        }
    }
}
