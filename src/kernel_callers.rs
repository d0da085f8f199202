// SPDX-License-Identifier: GPL-2.0-only

//! Other modules as owners, whose stops have no lease.

use crate::{
    attrs::{
        errno,
        MAX_TIMEOUT_MS, //
    },
    device::Device,
    events::Devices,
    owner::{
        Failure,
        Owner, //
    },
    sys::{
        exports::{
            Finder,
            Hold, //
        },
        uapi::MAX_DEVICES,
        virtio, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// For other modules.
pub(crate) struct Callers(pub(crate) Arc<Devices>);

impl Finder for Callers {
    fn get(&self, is_it: &dyn Fn(&virtio::Device) -> bool) -> Result<Arc<dyn Hold>> {
        let owner = Owner::new(&self.0)?;
        Hold::add(&*owner, is_it)?;
        Ok(owner)
    }
}

impl Hold for Owner {
    fn add(&self, is_it: &dyn Fn(&virtio::Device) -> bool) -> Result {
        let is_it = |device: &Device| is_it(device.transport().device());
        self.add(is_it, MAX_DEVICES as usize).map(|_| ())
    }

    fn stop(&self, timeout_ms: u32) -> Result {
        result(self.stop(timeout_us(timeout_ms)?, None))
    }

    fn look(&self) -> Result {
        result(self.look())
    }

    fn resume(&self, timeout_ms: u32) -> Result {
        result(self.resume(timeout_us(timeout_ms)?))
    }

    fn put(self: Arc<Self>) {
        self.close();
    }
}

fn timeout_us(timeout_ms: u32) -> Result<Option<u64>> {
    if timeout_ms > MAX_TIMEOUT_MS {
        return Err(EINVAL);
    }
    Ok((timeout_ms != 0).then(|| u64::from(timeout_ms) * 1000))
}

fn result(result: Result<Result<(), Failure>>) -> Result {
    result?.map_err(|failure| errno(failure.error))
}
