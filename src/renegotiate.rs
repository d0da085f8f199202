// SPDX-License-Identifier: GPL-2.0-only

//! Negotiating with a device whose driver was bound before it could be, and stays bound.
//!
//! The device is reset, as by a function level reset, which few drivers live through: virtio_blk keeps
//! its disk, and what is done with it goes on. Nothing is tried that can be known to fail, since a
//! disk whose driver can't begin again is lost.

use crate::{
    device::Device,
    policy::Quiesce,
    state::Error,
    sys::{
        block::{
            Disk,
            WriteCache, //
        },
        lock::{
            sleep_killable,
            DeviceGuard,
            NoIo, //
        },
        virtio::Restartable, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    }, //
};

/// How often somebody tries who meets another one that holds the locks.
const LOCK_WAIT_US: u64 = 1000;

impl Device {
    /// Negotiates what the device can be stopped by, if that is not so already.
    pub(crate) fn renegotiate(self: &Arc<Self>) -> Result<(), Error> {
        let device = self.transport().device();
        let _no_io = NoIo::enter();
        let disk = match self.policy().quiesce {
            Quiesce::Block => Disk::find(device),
            _ => None,
        };
        if self.snapshot().protocol.is_some() {
            return Ok(());
        }
        let disk = disk.ok_or(Error::NotSupported)?;
        if disk.polls() || disk.is_zoned() {
            return Err(Error::NotSupported);
        }
        // With no lock held: whoever unplugs a device that does not answer has to get them.
        disk.flush().map_err(|_| Error::NeedsReset)?;
        let locks = self.lock_for_restart()?;
        let driver = device.restartable(&locks).ok_or(Error::NotSupported)?;
        let _at_rest = self.at_rest().ok_or(Error::Busy)?;
        if self.snapshot().protocol.is_some() {
            return Ok(());
        }
        if !self.is_worth_negotiating() {
            return Err(Error::NotSupported);
        }
        let timeout = msecs_to_jiffies(self.timeout_ms());
        let _frozen = disk.freeze(timeout).ok_or(Error::Busy)?;
        self.restart(&driver, &disk)
    }

    fn restart(&self, driver: &Restartable<'_>, disk: &Disk) -> Result<(), Error> {
        let device = self.transport().device();
        let cache = WriteCache::of(device);
        driver.prepare().map_err(|_| Error::NotSupported)?;
        let mut begun = driver.begin_again();
        if begun.is_err() {
            // The device may not have liked what was accepted on top of what the driver knows.
            self.decline(true);
            begun = driver.begin_again();
            self.decline(false);
        }
        if begun.is_err() {
            dev_err!(
                device.as_device(),
                "the driver can't begin again after a reset: the disk is lost\n"
            );
            disk.give_up();
            return Err(Error::NeedsReset);
        }
        if let Some(cache) = cache.filter(|cache| WriteCache::of(device) != Some(*cache)) {
            cache.choose(device);
        }
        self.restarted().ok_or(Error::NotSupported)
    }

    /// The locks that keep the device from being unplugged, reset, or its driver from being unbound. Not
    /// simply waited for: whoever unplugs the device has them, and waits until its files are not used.
    fn lock_for_restart(&self) -> Result<DeviceGuard, Error> {
        let start = Instant::<Monotonic>::now();
        loop {
            if let Some(locks) = DeviceGuard::try_lock(self.transport().device()) {
                return Ok(locks);
            }
            if self.is_leaving() {
                return Err(Error::Gone);
            }
            let elapsed_us = u64::try_from(start.elapsed().as_micros_ceil()).unwrap_or(0);
            if elapsed_us >= self.timeout_us() {
                return Err(Error::Busy);
            }
            if sleep_killable(LOCK_WAIT_US) {
                return Err(Error::Killed);
            }
        }
    }
}
