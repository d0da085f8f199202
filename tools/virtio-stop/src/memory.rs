// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that stops the disk that it runs from, or that is swapped to, must not need that disk
//! until it has resumed it.

use std::hint::black_box;

use rustix::mm::{mlockall, MlockAllFlags};
use rustix::process::configure_io_flusher_behavior;

use crate::error::{Error, Result};

/// What the stack and the heap get in advance, in bytes: far more than a stop and a resume take.
const RESERVE: usize = 64 * 1024;

/// Keeps this process in memory: what it has mapped, and what it will. Where the kernel allocates
/// memory for this thread, and for those that it starts from now on, it does not wait for a disk
/// either; programs that it starts inherit that, but not that they are kept in memory.
///
/// # Errors
///
/// [`Error::Memory`]: this needs `CAP_IPC_LOCK` and `CAP_SYS_RESOURCE`.
pub fn lock() -> Result<()> {
    configure_io_flusher_behavior(true).map_err(|error| Error::Memory(error.into()))?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|error| Error::Memory(error.into()))?;
    touch_stack();
    // Below the size from which on the allocator gives it back to the kernel at once.
    black_box(vec![1_u8; RESERVE]);
    Ok(())
}

/// The stack grows when it is touched.
#[inline(never)]
fn touch_stack() {
    black_box([1_u8; RESERVE]);
}
