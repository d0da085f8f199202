// SPDX-License-Identifier: GPL-2.0-only

//! Negotiating with a device whose driver was bound before it could be, and stays bound.
//!
//! The device is reset, as by a function level reset, which few drivers live through: virtio_blk
//! keeps its disk, and what is done with it goes on. Nothing is tried that can be known to fail,
//! since a disk whose driver can't begin again is lost.

use crate::{
    device::Device,
    policy::Quiesce,
    state::Error,
    sys::{
        block::{
            Disk,
            WriteCache, //
        },
        lock::DeviceGuard,
        memory::NoIo,
        restart::Restartable, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Instant,
        Jiffies,
        Monotonic, //
    },
    types::ScopeGuard, //
};

/// How often somebody tries who meets another one that holds the locks.
const LOCK_WAIT_US: u64 = 1000;

fn jiffies(us: u64) -> Jiffies {
    msecs_to_jiffies(u32::try_from(us.div_ceil(1000)).unwrap_or(u32::MAX))
}

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
        let driver = Restartable::of(device, &locks).ok_or(Error::NotSupported)?;
        let _stops = self.refuse_stops()?;
        if self.snapshot().protocol.is_some() {
            return Ok(());
        }
        if !self.is_worth_negotiating() {
            return Err(Error::NotSupported);
        }
        let timeout = jiffies(self.timeout_us());
        let _frozen = disk.freeze(timeout).ok_or(Error::Busy)?;
        self.restart(&driver, &disk)
    }

    fn timeout_us(self: &Arc<Self>) -> u64 {
        self.enter().guarded.machine.settings().timeout_us
    }

    /// Keeps every stop from beginning, until what is returned is dropped.
    fn refuse_stops(self: &Arc<Self>) -> Result<impl Drop + '_, Error> {
        self.enter().guarded.machine.refuse_stops()?;
        Ok(ScopeGuard::new(|| {
            self.enter().guarded.machine.allow_stops()
        }))
    }

    fn restart(self: &Arc<Self>, driver: &Restartable<'_>, disk: &Disk) -> Result<(), Error> {
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
        self.snapshot()
            .protocol
            .map(|_| ())
            .ok_or(Error::NotSupported)
    }

    /// The locks that keep the device from being unplugged, reset, or its driver from being
    /// unbound. Not simply waited for: whoever unplugs the device has them, and waits until its
    /// files are not used.
    fn lock_for_restart(self: &Arc<Self>) -> Result<DeviceGuard, Error> {
        let start = Instant::<Monotonic>::now();
        loop {
            if let Some(locks) = DeviceGuard::try_lock(self.transport().device(), self.parent()) {
                return Ok(locks);
            }
            let seen = self.waiters.seen();
            if self.enter().guarded.machine.is_leaving() {
                return Err(Error::Gone);
            }
            let elapsed_us = u64::try_from(start.elapsed().as_micros_ceil()).unwrap_or(0);
            if elapsed_us >= self.timeout_us() {
                return Err(Error::Busy);
            }
            if self.waiters.wait(seen, LOCK_WAIT_US, true) {
                return Err(Error::Killed);
            }
        }
    }
}
