// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `list`: all virtio devices, a line each.

use anstyle::Style;
use virtio_stop::device::System;
use virtio_stop::overview::{overview, Access, Entry};
use virtio_stop::{reason, Exit, Result};

use super::print::{self, Cell};

const COLUMNS: [&str; 7] = [
    "DEVICE", "TYPE", "DRIVER", "ABOVE", "PROTOCOL", "STATE", "REASON",
];

pub(crate) fn list(system: &System, json: bool) -> Result<Exit> {
    let overview = overview(system)?;
    if json {
        print::document(&overview)?;
        return Ok(Exit::Done);
    }
    let title = COLUMNS.map(|title| Cell::styled(Style::new().bold(), title));
    let mut rows = vec![Vec::from(title)];
    rows.extend(overview.devices.iter().map(row));
    print::text(&print::table(&rows))?;
    remark(overview.loaded, overview.devices.iter());
    Ok(Exit::Done)
}

/// Why there is nothing in some columns.
pub(super) fn remark<'a>(loaded: bool, mut entries: impl Iterator<Item = &'a Entry>) {
    if !loaded {
        print::note(
            "virtio_device_stop is not loaded: 'modprobe virtio_device_stop', before the drivers \
             of the devices",
        );
    } else if entries.any(|entry| entry.access == Access::NotPermitted) {
        print::note("only root is permitted to read what virtio_device_stop tells");
    }
}

fn row(entry: &Entry) -> Vec<Cell> {
    let above = match entry.above.is_empty() {
        true => "-".into(),
        false => entry.above.join(","),
    };
    vec![
        Cell::plain(&entry.device),
        Cell::plain(&entry.kind),
        Cell::plain(entry.driver.as_deref().unwrap_or("-")),
        Cell::plain(above),
        Cell::plain(entry.protocol.as_deref().unwrap_or("-")),
        Cell::styled(print::of_state(entry.state.as_deref()), state(entry)),
        Cell::plain(why(entry).unwrap_or_default()),
    ]
}

/// The state, or why it is not known.
pub(super) fn state(entry: &Entry) -> &str {
    match entry.access {
        Access::Readable => entry.state.as_deref().unwrap_or("unknown"),
        Access::NotPermitted => "not permitted",
        Access::Absent => "-",
    }
}

/// The reason in words, if there is one.
pub(super) fn why(entry: &Entry) -> Option<&str> {
    let reason = entry.reason.as_deref();
    reason
        .filter(|&reason| reason != "none")
        .map(reason::explain)
}
