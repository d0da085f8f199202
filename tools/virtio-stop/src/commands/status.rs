// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `status`: all that virtio_device_stop tells of devices.

use anstyle::Style;
use virtio_stop::device::System;
use virtio_stop::status::{status as report, Details, Status};
use virtio_stop::{resolve, Exit, Result};

use super::list;
use super::print::{self, Cell};

pub(crate) fn status(system: &System, names: &[String], json: bool) -> Result<Exit> {
    let devices = match names.is_empty() {
        true => system.devices()?,
        false => resolve(system, names)?,
    };
    let report = report(system, &devices)?;
    if json {
        print::document(&report)?;
        return Ok(Exit::Done);
    }
    let blocks: Vec<_> = report.devices.iter().map(block).collect();
    print::text(&blocks.join("\n"))?;
    list::remark(
        report.loaded,
        report.devices.iter().map(|status| &status.entry),
    );
    Ok(Exit::Done)
}

fn block(status: &Status) -> String {
    let entry = &status.entry;
    let title = format!("{} ({}, {})", entry.device, entry.kind, entry.parent);
    let title = print::styled(Style::new().bold(), &title);
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| {
        rows.push(vec![Cell::plain(format!("  {name}")), Cell::plain(value)]);
    };
    row("driver", or_none(entry.driver.clone()));
    row(
        "above",
        or_none((!entry.above.is_empty()).then(|| entry.above.join(", "))),
    );
    let state = print::styled(print::of_state(entry.state.as_deref()), list::state(entry));
    row("state", state);
    if let Some(why) = list::why(entry) {
        row("reason", why.into());
    }
    if let Some(protocol) = &entry.protocol {
        row("protocol", protocol.clone());
    }
    if let Some(details) = &status.details {
        details_of(details, &mut row);
    }
    format!("{title}\n{}", print::table(&rows))
}

fn details_of(details: &Details, row: &mut impl FnMut(&str, String)) {
    row("timeout", milliseconds(details.timeout_ms));
    let lease = match details.lease_ms {
        Some(0) => "none: a stop stands until it is ended".into(),
        other => milliseconds(other),
    };
    row("lease", lease);
    row("generation", or_unknown(details.generation));
    row("in flight", or_unknown(details.in_flight));
    row("holder", or_none(details.holder.clone()));
    if details.force {
        row("force", "stopped although its type should not be".into());
    }
    if details.accept_bit39 {
        row("accept_bit39", "its bit 39 is VIRTIO_F_DEVICE_STOP".into());
    }
    for (name, number) in &details.statistics {
        match name.strip_suffix("_us") {
            Some(name) => row(&name.replace('_', " "), format!("{number} us")),
            None => row(&name.replace('_', " "), number.to_string()),
        }
    }
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".into())
}

fn or_unknown(value: Option<u64>) -> String {
    value.map_or_else(|| "unknown".into(), |value| value.to_string())
}

fn milliseconds(value: Option<u64>) -> String {
    value.map_or_else(|| "unknown".into(), |value| format!("{value} ms"))
}
