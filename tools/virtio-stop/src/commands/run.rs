// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `run`: what is done while the devices stand still. Nothing is printed between the stop and the
//! resume, but what somebody waits for who has no command.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use virtio_stop::agent::Agent;
use virtio_stop::command::Command;
use virtio_stop::device::{Device, System};
use virtio_stop::executable::Mounts;
use virtio_stop::freeze::FileSystems;
use virtio_stop::freezing::{standing, unfrozen};
use virtio_stop::mounts::mounts;
use virtio_stop::session::{Limits, Session};
use virtio_stop::signals::{self, Signals};
use virtio_stop::task::{Task, Until};
use virtio_stop::{memory, mounted_above, resolve, Error, Mount, Owner, Result};

use super::end;
use super::print;
use super::told::{self, Stopped};
use crate::args::Run;

/// Does it. Returns the status to end with.
pub(crate) fn run(system: &System, args: &Run, json: bool) -> Result<u8> {
    let devices = resolve(system, &args.devices)?;
    let above = mounted_above(system, &devices)?;
    if args.freeze || args.frozen_by.is_some() {
        for remark in unfrozen(system, &devices)? {
            print::note(&remark);
        }
    }
    if args.dry_run {
        let frozen: &[Mount] = if args.freeze { &above } else { &[] };
        told::plan(&devices, frozen, &args.command, json)?;
        return Ok(0);
    }
    let end = end(system, args)?;
    let mut owner = Owner::open(system)?;
    let signals = Signals::catch().map_err(Error::Signals)?;
    signals::outlast_suspend_key().map_err(Error::Signals)?;
    if end.is_some() {
        signals::ignore_background();
    }
    memory::lock()?;
    for device in &devices {
        owner.add(device)?;
    }
    let frozen: &[Mount] = if args.freeze { &above } else { &[] };
    let mut file_systems = FileSystems::open(match args.frozen_by {
        Some(_) => &above,
        None => frozen,
    })?;
    // What is declared last is dropped first: whatever happens, the devices resume before the thaw,
    // which may write to them.
    let owner = owner;
    let (all, still) = (mounts(system)?, standing(system, &devices)?);
    let mounts = Mounts {
        all: &all,
        still: &still,
    };
    let stdout = io::stdout();
    // Who waits for what is said must not wait for what stands still himself.
    if end.is_some() || args.freeze {
        if let Some(mount) = mounts.still_at(Path::new("/proc/self/fd/1")) {
            return Err(Error::OutputStands(mount.point.clone()));
        }
    }
    if args.freeze || args.frozen_by.is_some() {
        if let Some(mount) = mounts.still_at(Path::new("/proc/self/fd/2")) {
            return Err(Error::MessagesStand(mount.point.clone()));
        }
    }
    let task = match end {
        Some(end) => Task::Until {
            end,
            out: stdout.as_fd(),
            tell: Box::new(Stopped::of(&devices)),
        },
        None => Task::Command(Command::start(&args.command, mounts)?),
    };
    if let Task::Until {
        end: Until::Thaw(agent),
        ..
    } = &task
    {
        agent.frozen(|| signals.last())?;
        for point in file_systems.are_frozen()? {
            print::note(&format!("{} can't be frozen, by nobody", point.display()));
        }
        // They are thawed by somebody else.
        file_systems = FileSystems::open(&[])?;
    }
    announce(&devices, json);
    let limits = Limits {
        timeout_ms: args.timeout,
        lease_ms: args.lease,
        max_time_ms: args.max_time,
        allow_in_flight: args.allow_in_flight,
    };
    // Standard error does not stand still if anything is frozen. What has failed is said again
    // when all is over.
    let complain = |error: &Error| {
        print::note(&format!("{error}. To thaw waits if a disk does not answer"));
    };
    let session = Session::new(&owner, &signals, &file_systems, limits, task, &complain);
    let (outcome, looks) = session.run();
    let json = json || args.command.is_empty();
    Ok(told::outcome(&devices, frozen, args, outcome, &looks, json))
}

/// What is waited for instead of a command.
fn end(system: &System, args: &Run) -> Result<Option<Until>> {
    Ok(match (args.frozen_by, &args.frozen_while, args.hold) {
        (Some(pid), Some(file), _) => Some(Until::Thaw(Agent::open(system, pid, file)?)),
        (_, _, Some(fd)) => Some(Until::Eof(end::end(fd)?)),
        _ if args.until_eof => Some(Until::Eof(end::end(0)?)),
        _ if args.until_input => Some(Until::Input(end::end(0)?)),
        _ => None,
    })
}

/// Somebody looks on who may wonder how long it takes.
fn announce(devices: &[Device], json: bool) {
    if json || !io::stderr().is_terminal() {
        return;
    }
    let names: Vec<_> = devices.iter().map(Device::name).collect();
    print::note(&format!("stopping {} ...", names.join(", ")));
}
