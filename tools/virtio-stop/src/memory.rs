// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that stops the disk that it runs from, or that is swapped to, must not need that disk
//! until it has resumed it.

use std::hint::black_box;

use rustix::mm::{mlockall, MlockAllFlags};
use rustix::process::{configure_io_flusher_behavior, getrlimit, setrlimit, Resource, Rlimit};

use crate::error::{Error, Result};

/// What the stack and the heap get in advance, in bytes: far more than a stop and a resume take.
const RESERVE: usize = 64 * 1024;

/// How much of the stack a thread gets that does next to nothing. All of it is kept in memory.
pub(crate) const STACK: usize = 128 * 1024;

/// Keeps this process in memory: what it has mapped, and what it will. Where the kernel allocates
/// memory for this thread, and for those that it starts from now on, it does not wait for a disk
/// either; programs that it starts inherit that, but not that they are kept in memory. Neither
/// writes a core dump, which could be to that disk, unless it raises its soft limit for that.
///
/// # Errors
///
/// [`Error::Memory`]: this needs `CAP_IPC_LOCK` and `CAP_SYS_RESOURCE`.
pub fn lock() -> Result<()> {
    configure_io_flusher_behavior(true).map_err(|error| Error::Memory(error.into()))?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|error| Error::Memory(error.into()))?;
    dump_nothing();
    touch_stack();
    // Below the size from which on the allocator gives it back to the kernel at once.
    black_box(vec![1_u8; RESERVE]);
    Ok(())
}

/// A limit of one byte is too small for a dump, and the kernel does not start a program either that
/// dumps are piped to, as it does if the limit is 0.
fn dump_nothing() {
    let maximum = getrlimit(Resource::Core).maximum.map(|bytes| bytes.max(1));
    let limit = Rlimit {
        current: Some(1),
        maximum,
    };
    // It fails only where this process has no privileges, and can stop nothing.
    let _ = setrlimit(Resource::Core, limit);
}

/// The stack grows when it is touched.
#[inline(never)]
fn touch_stack() {
    black_box([1_u8; RESERVE]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_is_dumped() {
        let before = getrlimit(Resource::Core);
        dump_nothing();
        let after = getrlimit(Resource::Core);
        // Without privileges, a hard limit of 0 stays.
        let is_allowed = before.maximum != Some(0);
        assert!(after.current == Some(1) || !is_allowed);
        assert!(after.maximum == before.maximum || !is_allowed);
    }
}
