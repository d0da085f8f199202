// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! With which status a program ends that has failed.

use std::io;
use std::process::ExitCode;

use crate::error::{is_unsupported, Error};
use crate::refusal::{Cause, Request};

/// With which status a program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done. `check`: a stop would work.
    Done = 0,
    /// Something else failed. `check`: a stop would work, with warnings.
    Failed = 1,
    /// The command line is wrong, or names what does not exist. `check`: a stop would not work.
    Usage = 2,
    /// A device can't be stopped: it, its driver or this kernel does not support it.
    Unsupported = 3,
    /// A device did not stand still from the stop to the resume.
    NotStill = 4,
    /// Somebody else has stopped a device, or the driver above it could not be held.
    Busy = 5,
    /// A device has not answered in time.
    TimedOut = 6,
    /// A device was removed or reset, or it needs a reset.
    Gone = 7,
    /// This user may not do that.
    Denied = 8,
    /// A signal, or the time that it may take, has ended it before it was done. What was stopped
    /// has resumed, or does as soon as it answers.
    Interrupted = 9,
    /// The command to run can't be executed, or not while the devices stand still.
    NotExecutable = 126,
    /// There is no such command to run.
    NotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Error {
    /// A device may still be stopped after this, or was lost.
    pub fn is_grave(&self) -> bool {
        match self {
            Self::Refused(refusal) if refusal.request == Request::Resume => {
                refusal.cause() != Cause::Ended
            }
            _ => matches!(self.exit(), Exit::TimedOut | Exit::Gone),
        }
    }

    /// With which status a program ends that fails with this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Denied
            }
            Self::File { .. }
            | Self::Output(_)
            | Self::Wait(_)
            | Self::Unguarded
            | Self::AgentGone(_)
            | Self::NothingFrozen(_)
            | Self::NotFrozen(_) => Exit::Failed,
            Self::Unknown(_)
            | Self::NotVirtio { .. }
            | Self::Ambiguous(_)
            | Self::NotMountPoint { .. } => Exit::Usage,
            Self::NotLoaded | Self::NoNode | Self::Interface(_) => Exit::Unsupported,
            Self::Refused(refusal) => refused(refusal.cause()),
            Self::NotStill { .. } => Exit::NotStill,
            Self::Owner(source)
            | Self::Memory(source)
            | Self::Signals(source)
            | Self::Guard(source)
            | Self::Freeze { source, .. }
            | Self::Thaw { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Exit::Denied,
                io::ErrorKind::ResourceBusy => Exit::Busy,
                _ if is_unsupported(source) => Exit::Unsupported,
                _ => Exit::Failed,
            },
            Self::Interrupted(_) | Self::TooLong(_) => Exit::Interrupted,
            Self::CommandNotFound(_) => Exit::NotFound,
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            Self::Command { .. } | Self::CommandStands { .. } => Exit::NotExecutable,
            Self::OutputStands(_)
            | Self::MessagesStand(_)
            | Self::EndClosed(_)
            | Self::EndHeld(_)
            | Self::EndUnfit(_)
            | Self::Descriptor { .. }
            | Self::OneGeneration(_) => Exit::Usage,
        }
    }
}

fn refused(cause: Cause) -> Exit {
    match cause {
        Cause::Unsupported | Cause::NoDriver => Exit::Unsupported,
        Cause::Busy => Exit::Busy,
        Cause::TimedOut => Exit::TimedOut,
        Cause::CalledOff => Exit::Interrupted,
        Cause::Ended => Exit::NotStill,
        Cause::NeedsReset | Cause::Gone => Exit::Gone,
        Cause::Denied => Exit::Denied,
        Cause::Other => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_type_that_can_not_be_frozen_is_told_from_one_that_fails() {
        let freeze = |errno: Errno| Error::Freeze {
            point: "/boot/efi".into(),
            source: errno.into(),
        };
        let unfit = freeze(Errno::OPNOTSUPP);
        assert_eq!(unfit.exit(), Exit::Unsupported);
        assert!(unfit.to_string().contains("unmount it"), "{unfit}");
        assert_eq!(freeze(Errno::BUSY).exit(), Exit::Busy);
        assert_eq!(freeze(Errno::IO).exit(), Exit::Failed);
    }
}
