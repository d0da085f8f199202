// SPDX-License-Identifier: GPL-2.0-only

//! The task that calls.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use super::bindings;
use kernel::prelude::*;

/// Whether it may administrate the system (CAP_SYS_ADMIN).
pub(crate) fn is_administrator() -> bool {
    // SAFETY: Looks at the current task, and may be called by any.
    unsafe { kernel::bindings::capable(kernel::bindings::CAP_SYS_ADMIN as c_int) }
}

/// The number of its process, as the initial PID namespace has it.
pub(crate) fn process() -> i32 {
    kernel::current!().tgid()
}

/// Its name, and zeros.
pub(crate) fn name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: So many bytes are written.
    unsafe { bindings::virtio_device_stop_comm(name.as_mut_ptr().cast()) };
    name
}
