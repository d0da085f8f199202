// SPDX-License-Identifier: GPL-2.0-only

//! The files in sysfs: `/sys/bus/virtio/devices/virtioN/device_stop/`.

use crate::{
    device::{
        Device,
        Snapshot, //
    },
    handshake::Cost,
    state::Error,
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
    sync::Arc, //
};

/// The longest time that a request may be given.
const MAX_TIMEOUT_MS: u32 = 600_000;

/// The longest lease: a day.
const MAX_LEASE_MS: u32 = 86_400_000;

/// The file that can be waited for.
pub(crate) const STATE: &CStr = c"state";

/// All files.
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
        Attribute::read_write(
            c"force",
            |device, text| show(text, u8::from(device.is_forced())),
            |device, text| flag(text).map(|on| device.set_force(on)),
        ),
        Attribute::read_write(
            c"accept_bit39",
            |device, text| show(text, u8::from(device.accepts_bit39())),
            |device, text| flag(text).map(|on| device.set_accept_bit39(on)),
        ),
        Attribute::write_only(c"renegotiate", store_renegotiate),
    ],
    group: c"stats",
    group_files: &[
        Attribute::read_only(c"stops", |device, text| {
            show(text, device.life().stats().stops)
        }),
        Attribute::read_only(c"resumes", |device, text| {
            show(text, device.life().stats().resumes)
        }),
        Attribute::read_only(c"timeouts", |device, text| {
            show(text, device.life().stats().timeouts)
        }),
        Attribute::read_only(c"failures", |device, text| {
            show(text, device.life().stats().failures)
        }),
        Attribute::read_only(c"late_acks", |device, text| {
            show(text, device.life().stats().late_acks)
        }),
        Attribute::read_only(c"dropped", |device, text| {
            show(text, device.life().stats().dropped)
        }),
        Attribute::read_only(c"lease_expiries", |device, text| {
            show(text, device.life().stats().lease_expiries)
        }),
        Attribute::read_only(c"last_stop_us", |device, text| {
            show(
                text,
                cost(&device.snapshot(), |snapshot| snapshot.last_stop).elapsed_us,
            )
        }),
        Attribute::read_only(c"last_resume_us", |device, text| {
            show(
                text,
                cost(&device.snapshot(), |snapshot| snapshot.last_resume).elapsed_us,
            )
        }),
        Attribute::read_only(c"last_status_reads", |device, text| {
            show(
                text,
                cost(&device.snapshot(), |snapshot| snapshot.last_stop).reads,
            )
        }),
    ],
};

fn show(text: &mut Text, value: impl Display) -> Result {
    writeln!(text, "{value}").map_err(|_| ENOSPC)
}

/// Nothing, as long as there was no such request.
fn cost(snapshot: &Snapshot, which: fn(&Snapshot) -> Option<Cost>) -> Cost {
    which(snapshot).unwrap_or(Cost {
        elapsed_us: 0,
        reads: 0,
    })
}

fn show_state(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.snapshot_after_look().life.state().name())
}

fn store_state(device: &Arc<Device>, text: &[u8]) -> Result {
    let result = match text {
        b"stop" => device.stop(),
        b"resume" => device.resume(),
        _ => return Err(EINVAL),
    };
    result.map_err(errno)
}

fn show_protocol(device: &Arc<Device>, text: &mut Text) -> Result {
    let protocol = device.snapshot().protocol;
    show(text, protocol.map_or("none", Protocol::name))
}

fn show_reason(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.snapshot_after_look().life.reason().name())
}

fn flag(text: &[u8]) -> Result<bool> {
    match text {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(EINVAL),
    }
}

fn show_timeout_ms(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.timeout_ms())
}

fn store_timeout_ms(device: &Arc<Device>, text: &[u8]) -> Result {
    match u32::from_str(text.as_ref())? {
        timeout_ms @ 1..=MAX_TIMEOUT_MS => {
            device.set_timeout_ms(timeout_ms);
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

fn show_lease_ms(device: &Arc<Device>, text: &mut Text) -> Result {
    show(text, device.lease_ms())
}

fn store_lease_ms(device: &Arc<Device>, text: &[u8]) -> Result {
    match u32::from_str(text.as_ref())? {
        lease_ms @ 0..=MAX_LEASE_MS => {
            device.set_lease_ms(lease_ms);
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
    show(text, device.snapshot_after_look().life.generation())
}

fn errno(error: Error) -> kernel::error::Error {
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
