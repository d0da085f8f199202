// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! For how long a stop may stand, against what does not wait that long.

use super::Subject;
use crate::error::Result;
use crate::overview::{known, Access, Entry};
use crate::sysfs::{line, names, number};

/// The types whose users wait in a way that nothing ends.
const STORAGE: [&str; 5] = ["block", "scsi", "9p", "filesystem", "pmem"];

pub(super) fn look(subject: &mut Subject<'_>) -> Result<()> {
    for device in subject.devices {
        let entry = Entry::read(&subject.stack, device)?;
        if entry.access != Access::Readable {
            continue;
        }
        let lease = known(device, "lease_ms")?.and_then(|text| text.parse().ok());
        let names = vec![device.name()];
        match lease {
            None => {}
            Some(0) => {
                let message = "Its lease_ms is 0: a stop without an owner stands until somebody \
                               ends it, even if nobody can. Write 60000 to device_stop/lease_ms.";
                subject.warn("no_lease", names.clone(), message.into());
                against(subject, &entry, names, u64::MAX);
            }
            Some(lease) => against(subject, &entry, names, lease),
        }
    }
    Ok(())
}

/// How long a stop may stand that `run` makes, which renews the lease.
const RENEWED: &str =
    "'virtio-stop run' renews it for as long as it takes: limit that with --max-time";

fn against(subject: &mut Subject<'_>, entry: &Entry, devices: Vec<String>, lease_ms: u64) {
    if !STORAGE.contains(&entry.kind.as_str()) {
        return;
    }
    let lease = match lease_ms {
        u64::MAX => "for ever".to_owned(),
        lease => format!("for {} s", lease.div_ceil(1000)),
    };
    let kernel = subject.system.path("proc/sys/kernel");
    let hung: u64 = number(&kernel.join("hung_task_timeout_secs")).unwrap_or(0);
    let panics = number::<u64>(&kernel.join("hung_task_panic")).is_some_and(|on| on > 0);
    let is_over = lease_ms > hung.saturating_mul(1000);
    if hung > 0 && (is_over || panics) {
        let (code, then) = match panics {
            true => ("hung_task_panic", "panics"),
            false => ("hung_task", "warns"),
        };
        let message = format!(
            "A stop may stand {lease}, and the kernel {then} when a task has waited for {hung} s: \
             take a shorter lease, or raise kernel.hung_task_timeout_secs. {RENEWED}."
        );
        subject.warn(code, devices.clone(), message);
    }
    let folder = subject.system.path("sys/class/watchdog");
    for name in names(&folder) {
        let path = folder.join(&name);
        let active = line(&path.join("state")).as_deref() == Some("active");
        let timeout: u64 = number(&path.join("timeout")).unwrap_or(0);
        if active && timeout > 0 {
            let message = format!(
                "A stop may stand {lease}, and {name} resets the guest when nobody has fed it for \
                 {timeout} s: who feeds it must not need the device. {RENEWED}."
            );
            subject.warn("watchdog", devices.clone(), message);
        }
    }
}
