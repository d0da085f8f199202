// SPDX-License-Identifier: GPL-2.0-only

//! Who has opened `/dev/virtio_device_stop`.

use crate::sys::task;
use core::fmt;
use kernel::{
    str::CStr,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Files that were opened so far.
static OPENED: Atomic<u64> = Atomic::new(0);

/// Who has opened a file. A hint: it may have given it to somebody else.
#[derive(Clone, Copy)]
pub(crate) struct Opener {
    id: u64,
    process: i32,
    name: [u8; 16],
}

impl Opener {
    /// The current task.
    pub(crate) fn current() -> Self {
        Self {
            id: OPENED.fetch_add(1, Relaxed) + 1,
            process: task::process(),
            name: task::name(),
        }
    }

    /// The number of the holder.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.process)?;
        let name = CStr::from_bytes_until_nul(&self.name).unwrap_or_default();
        // In a line of its own, whatever a task calls itself.
        name.to_bytes().iter().try_for_each(|&byte| match byte {
            b' '..=b'~' => fmt::Write::write_char(f, byte.into()),
            _ => fmt::Write::write_char(f, '?'),
        })
    }
}
