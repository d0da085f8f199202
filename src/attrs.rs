// SPDX-License-Identifier: GPL-2.0-only

//! The files in sysfs: `/sys/bus/virtio/devices/virtioN/device_stop/`.

use crate::{
    device::Device,
    machine::{
        Asker,
        Settings, //
    },
    state::{
        Error,
        Stats, //
    },
    status::Protocol,
    sys::sysfs::{
        Attribute,
        Files,
        Text, //
    },
};
use core::fmt::{
    Display,
    Write, //
};
use kernel::{
    prelude::*,
    str::parse_int::ParseInt,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The longest time that a request may be given.
pub(crate) const MAX_TIMEOUT_MS: u32 = 600_000;

/// The longest lease: a day.
pub(crate) const MAX_LEASE_MS: u32 = 86_400_000;

/// The file that can be waited for.
pub(crate) const STATE: &CStr = c"state";

/// What a device is asked and told by.
pub(crate) static FILES: Files<Device> = Files {
    name: c"device_stop",
    files: &[
        Attribute::read_write(STATE, show_state, store_state),
        Attribute::read_only(c"protocol", show_protocol),
        Attribute::read_only(c"reason", show_reason),
        Attribute::read_write(c"timeout_ms", show_timeout_ms, store_timeout_ms),
        Attribute::read_write(c"lease_ms", show_lease_ms, store_lease_ms),
        Attribute::write_only(c"renew", store_renew),
        Attribute::read_only(c"generation", show_generation),
        Attribute::read_only(c"in_flight", show_in_flight),
        Attribute::read_only(c"holder", show_holder),
        Attribute::read_write(c"force", show_force, store_force),
        Attribute::read_write(
            c"accept_bit39",
            |device, text| show(text, u8::from(device.accept_bit39.load(Relaxed))),
            |device, text| flag(text).map(|on| device.accept_bit39.store(on, Relaxed)),
        ),
        Attribute::write_only(c"renegotiate", store_renegotiate),
    ],
};

/// What was counted.
pub(crate) static STATS: Files<Device> = Files {
    name: c"device_stop_stats",
    files: &[
        Attribute::read_only(c"stops", |device, text| show(text, stats(device).stops)),
        Attribute::read_only(c"resumes", |device, text| show(text, stats(device).resumes)),
        Attribute::read_only(c"timeouts", |device, text| {
            show(text, stats(device).timeouts)
        }),
        Attribute::read_only(c"failures", |device, text| {
            show(text, stats(device).failures)
        }),
        Attribute::read_only(c"late_acks", |device, text| {
            show(text, stats(device).late_acks)
        }),
        Attribute::read_only(c"dropped", |device, text| show(text, stats(device).dropped)),
        Attribute::read_only(c"lease_expiries", |device, text| {
            show(text, stats(device).lease_expiries)
        }),
        Attribute::read_only(c"suspend_cleared", |device, text| {
            show(text, stats(device).suspend_cleared)
        }),
        Attribute::read_only(c"config_writes_dropped", |device, text| {
            show(text, stats(device).config_writes_dropped)
        }),
        Attribute::read_only(c"last_stop_us", |device, text| {
            show(text, stats(device).last_stop.elapsed_us)
        }),
        Attribute::read_only(c"last_resume_us", |device, text| {
            show(text, stats(device).last_resume.elapsed_us)
        }),
        Attribute::read_only(c"last_status_reads", |device, text| {
            show(text, stats(device).last_stop.reads)
        }),
    ],
};

fn show(text: &mut Text, value: impl Display) -> Result {
    writeln!(text, "{value}").map_err(|_| ENOSPC)
}

fn stats(device: &Arc<Device>) -> Stats {
    device.snapshot().stats
}

fn settings(device: &Arc<Device>) -> Settings {
    device.enter().guarded.machine.settings()
}

fn set(device: &Arc<Device>, change: impl FnOnce(&mut Settings)) {
    let mut entered = device.enter();
    let mut settings = entered.guarded.machine.settings();
    change(&mut settings);
    entered.guarded.machine.set(settings);
}

fn show_state(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.snapshot_after_look().state.name())
}

fn store_state(device: &Arc<Device>, text: &[u8]) -> Result {
    let result = match text {
        b"stop" => device.stop(Asker::Anybody),
        b"resume" => device.resume(Asker::Anybody, None),
        b"resume force" => device.resume(Asker::Root, None),
        _ => {
            let generation = text.strip_prefix(b"resume ").ok_or(EINVAL)?;
            let generation = u64::from_str(generation.as_ref())?;
            device.resume(Asker::Anybody, Some(generation))
        }
    };
    result.map_err(errno)
}

fn show_protocol(device: &Arc<Device>, text: &mut Text) -> Result {
    let protocol = device.snapshot().protocol;
    show(text, protocol.map_or("none", Protocol::name))
}

fn show_reason(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.snapshot_after_look().reason.name())
}

fn show_force(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, u8::from(settings(device).force))
}

fn store_force(device: &Arc<Device>, text: &[u8]) -> Result {
    let force = flag(text)?;
    set(device, |settings| settings.force = force);
    Ok(())
}

fn flag(text: &[u8]) -> Result<bool> {
    match text {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(EINVAL),
    }
}

fn show_timeout_ms(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, settings(device).timeout_us / 1000)
}

fn store_timeout_ms(device: &Arc<Device>, text: &[u8]) -> Result {
    match u32::from_str(text.as_ref())? {
        timeout_ms @ 1..=MAX_TIMEOUT_MS => {
            set(device, |settings| {
                settings.timeout_us = u64::from(timeout_ms) * 1000;
            });
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

fn show_lease_ms(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, settings(device).lease_us / 1000)
}

fn store_lease_ms(device: &Arc<Device>, text: &[u8]) -> Result {
    match u32::from_str(text.as_ref())? {
        lease_ms @ 0..=MAX_LEASE_MS => {
            set(device, |settings| {
                settings.lease_us = u64::from(lease_ms) * 1000;
            });
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

fn store_renew(device: &Arc<Device>, text: &[u8]) -> Result {
    let generation = u64::from_str(text.as_ref())?;
    device.renew(generation).map_err(errno)
}

fn store_renegotiate(device: &Arc<Device>, text: &[u8]) -> Result {
    match text {
        b"1" => device.renegotiate().map_err(errno),
        _ => Err(EINVAL),
    }
}

fn show_generation(device: &Arc<Device>, text: &mut Text) -> Result {
    let snapshot = device.snapshot_after_look();
    if !snapshot.is_answering {
        // Whether the device stands still can't be told.
        return Err(EAGAIN);
    }
    show(text, snapshot.generation)
}

fn show_in_flight(device: &Arc<Device>, text: &mut Text) -> Result {
    match device.in_flight().0 {
        Some(requests) => show(text, requests),
        None => show(text, "unknown"),
    }
}

fn show_holder(device: &Arc<Device>, text: &mut Text) -> Result {
    let entered = device.enter();
    let holder = entered.guarded.machine.holder();
    let opener = entered.guarded.opener;
    match opener.filter(|opener| holder == Some(opener.id())) {
        Some(opener) => show(text, opener),
        None => show(text, "none"),
    }
}

/// What a program gets.
pub(crate) fn errno(error: Error) -> kernel::error::Error {
    match error {
        Error::NotSupported => EOPNOTSUPP,
        Error::NoDriver => ENXIO,
        Error::Busy => EBUSY,
        Error::TimedOut => ETIMEDOUT,
        Error::CalledOff => ECANCELED,
        Error::NeedsReset => EIO,
        Error::Gone => ENODEV,
        Error::Stale => ESTALE,
        Error::Killed => EINTR,
    }
}
