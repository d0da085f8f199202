// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/virtio_device_stop`: what programs say, and what they are answered.

use crate::{
    attrs::{
        errno,
        MAX_LEASE_MS,
        MAX_TIMEOUT_MS, //
    },
    device::Device,
    events::Devices,
    owner::{
        member::Member,
        Failure,
        Owner, //
    },
    state::{
        Reason,
        State, //
    },
    sys::{
        misc::File,
        task,
        uapi::{
            self,
            Argument,
            Extensible, //
        }, //
    },
};
use kernel::{
    ioctl::_IO,
    page::PAGE_SIZE,
    prelude::*,
    str::CStr,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// For how long a stop may stand if nothing else is said.
const LEASE_MS: u32 = 60_000;

const VERSION: u32 = _IO(uapi::MAGIC, 0);
const ADD: u32 = _IO(uapi::MAGIC, 1);
const REMOVE: u32 = _IO(uapi::MAGIC, 2);
const STOP: u32 = _IO(uapi::MAGIC, 3);
const RESUME: u32 = _IO(uapi::MAGIC, 4);
const RENEW: u32 = _IO(uapi::MAGIC, 5);
const REPORT: u32 = _IO(uapi::MAGIC, 6);
const CALL_OFF: u32 = _IO(uapi::MAGIC, 7);

impl File for Owner {
    type Shared = Arc<Devices>;

    fn open(devices: &Arc<Devices>) -> Result<Arc<Self>> {
        if !task::is_administrator() {
            return Err(EPERM);
        }
        Self::new(devices)
    }

    fn ioctl(owner: ArcBorrow<'_, Self>, command: u32, argument: usize) -> Result<isize> {
        match command {
            VERSION => return Ok(uapi::ABI as isize),
            ADD => add(&owner, argument),
            REMOVE => remove(&owner, argument),
            STOP | RESUME | RENEW => request(&owner, command, argument),
            REPORT => report(&owner, argument),
            CALL_OFF => {
                owner.call_off();
                Ok(())
            }
            _ => Err(ENOTTY),
        }?;
        Ok(0)
    }

    fn release(owner: Arc<Self>) {
        owner.close();
    }
}

fn add(owner: &Owner, argument: usize) -> Result {
    let (argument, mut add) = Argument::read::<uapi::Add>(argument)?;
    let parent = &add.parent;
    let name = CStr::from_bytes_until_nul(parent).map_err(|_| EINVAL)?;
    if parent
        .iter()
        .skip(name.to_bytes().len())
        .any(|&byte| byte != 0)
    {
        return Err(EINVAL);
    }
    argument.write(&add)?;
    let is_it = |device: &Device| {
        device.transport().device().index() == add.index && device.parent().name() == name
    };
    let cookie = owner.add(is_it, uapi::MAX_DEVICES as usize)?;
    add.cookie = cookie;
    argument.write(&add)
}

fn remove(owner: &Owner, argument: usize) -> Result {
    let (_, remove) = Argument::read::<uapi::Remove>(argument)?;
    if remove.reserved != 0 {
        return Err(EINVAL);
    }
    owner.remove(remove.cookie)
}

/// What is to be done by all devices. Whether the answer can be written is tried before.
fn request(owner: &Owner, command: u32, argument: usize) -> Result {
    let (argument, mut request) = Argument::read::<uapi::Request>(argument)?;
    let lease_ms = match request.lease_ms {
        0 => LEASE_MS,
        lease_ms @ 1..=MAX_LEASE_MS if command == STOP => lease_ms,
        _ => return Err(EINVAL),
    };
    let timeout_us = match request.timeout_ms {
        0 => None,
        timeout_ms @ 1..=MAX_TIMEOUT_MS if command != RENEW => Some(u64::from(timeout_ms) * 1000),
        _ => return Err(EINVAL),
    };
    if request.flags != 0 || (command == STOP && owner.members()?.is_empty()) {
        return Err(EINVAL);
    }
    (request.error, request.reason, request.cookie) = (0, 0, 0);
    argument.write(&request)?;
    let result = match command {
        STOP => owner.stop(timeout_us, Some(u64::from(lease_ms) * 1000)),
        RESUME => owner.resume(timeout_us),
        _ => owner.renew(),
    }?;
    let Err(Failure {
        cookie,
        error,
        reason,
    }) = result
    else {
        return Ok(());
    };
    let error = errno(error);
    request.error = error.to_errno();
    request.reason = reason as u32;
    request.cookie = cookie;
    argument.write(&request)?;
    Err(error)
}

fn report(owner: &Owner, argument: usize) -> Result {
    let (argument, mut report) = Argument::read::<uapi::Report>(argument)?;
    let size = report.status_size as usize;
    if report.flags != 0 || !(uapi::Status::FIRST_SIZE..=PAGE_SIZE).contains(&size) {
        return Err(EINVAL);
    }
    let room = report.count as usize;
    let mut at = usize::try_from(report.statuses).map_err(|_| EFAULT)?;
    let members = owner.members()?;
    for member in members.iter().take(room) {
        uapi::write(at, size, &status(owner, member))?;
        at = at.wrapping_add(size);
    }
    report.count = u32::try_from(members.len()).map_err(|_| EOVERFLOW)?;
    argument.write(&report)
}

fn status(owner: &Owner, member: &Member) -> uapi::Status {
    let Some(device) = owner.device(member) else {
        return uapi::Status {
            index: member.index,
            cookie: member.cookie,
            state: State::Unavailable as u32,
            reason: Reason::Gone as u32,
            in_flight: uapi::UNKNOWN,
            ..uapi::Status::default()
        };
    };
    let (in_flight, generation) = device.in_flight();
    let snapshot = device.snapshot_after_look();
    let own = member.stands(snapshot.state, snapshot.generation);
    let flag = |holds, flag: u32| if holds { flag } else { 0 };
    uapi::Status {
        index: member.index,
        cookie: member.cookie,
        flags: flag(own, uapi::STATUS_OWN) | flag(snapshot.is_answering, uapi::STATUS_ANSWERS),
        state: snapshot.state as u32,
        reason: snapshot.reason as u32,
        protocol: snapshot.protocol.map_or(0, |protocol| protocol as u32),
        reserved: 0,
        generation: snapshot.generation,
        in_flight: in_flight
            .filter(|_| generation == snapshot.generation)
            .map_or(uapi::UNKNOWN, u64::from),
        stop_us: snapshot.stats.last_stop.elapsed_us,
        resume_us: snapshot.stats.last_resume.elapsed_us,
    }
}
