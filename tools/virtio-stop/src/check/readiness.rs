// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the module could stop the devices.

use super::Subject;
use crate::device::Device;
use crate::error::Result;
use crate::overview::{is_loaded, known, Access, Entry};
use crate::reason::explain;

pub(super) fn look(subject: &mut Subject<'_>) -> Result<()> {
    if !is_loaded(subject.system) {
        let message = "virtio_device_stop is not loaded: 'modprobe virtio_device_stop', before \
                       the drivers of the devices.";
        subject.error("not_loaded", Vec::new(), message.into());
        return Ok(());
    }
    for device in subject.devices {
        let entry = Entry::read(&subject.stack, device)?;
        let names = vec![device.name()];
        match entry.access {
            Access::Absent => {
                let message = "The device is gone: 'virtio-stop list' shows which there are.";
                subject.error("gone", names, message.into());
            }
            Access::NotPermitted => {
                let message = "Only root is permitted to stop it, and to know whether it can be \
                               stopped: check as root.";
                subject.error("not_permitted", names, message.into());
            }
            Access::Readable => state(subject, device, &entry)?,
        }
    }
    Ok(())
}

fn state(subject: &mut Subject<'_>, device: &Device, entry: &Entry) -> Result<()> {
    let names = vec![device.name()];
    let reason = entry.reason.as_deref().unwrap_or("none");
    let state = entry.state.as_deref().unwrap_or_default();
    match state {
        "running" if reason == "none" => {}
        "running" => {
            let message = format!("It can be stopped, but {}.", explain(reason));
            subject.note(reason, names.clone(), message);
        }
        "unavailable" => {
            let message = format!("It can't be stopped: {}.", explain(reason));
            let code = if reason == "none" { state } else { reason };
            subject.error(code, names.clone(), message);
        }
        "failed" => {
            let message = format!("It has failed: {}.", explain(reason));
            subject.error(state, names.clone(), message);
        }
        _ => {
            let holder = known(device, "holder")?.filter(|holder| holder != "none");
            let by = holder.map_or("without an owner".into(), |holder| format!("by {holder}"));
            let message = format!(
                "It is {state} already, {by}: wait until that is over, or end it with \
                 'virtio-stop resume {}'.",
                device.name()
            );
            subject.error("busy", names.clone(), message);
        }
    }
    if known(device, "force")?.as_deref() == Some("1") {
        let message = "Devices of its type should not be stopped, but 1 was written to its \
                       device_stop/force: its driver knows of no stop.";
        subject.warn("forced", names.clone(), message.into());
    }
    if entry.protocol.as_deref() == Some("suspend") {
        let message = "It is stopped by VIRTIO_F_SUSPEND, and may still have requests then: see \
                       in_flight before what is behind it is exchanged.";
        subject.note("suspend", names, message.into());
    }
    Ok(())
}
