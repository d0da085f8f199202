// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A snapshot, as people read it.

use std::fmt::Write;

use serde_json::Value;

use super::{DeviceSnapshot, Error, Snapshot};
use crate::client::plain;

/// What is in a snapshot: a part for each device.
pub fn show(text: &[u8]) -> Result<String, Error> {
    let snapshot = Snapshot::parse(text)?;
    let mut text = format!(
        "snapshot of version {}, by vfio-user-virtio {}\n",
        snapshot.version, snapshot.program
    );
    for device in &snapshot.devices {
        text.push_str(&show_device(device));
    }
    Ok(text)
}

fn show_device(device: &DeviceSnapshot) -> String {
    let field = |path: &str| device.image.pointer(path);
    let value = |path: &str| field(path).map_or_else(|| "?".to_owned(), plain);
    let number = |path: &str| field(path).and_then(Value::as_u64).unwrap_or(0);
    let count = |path: &str| field(path).and_then(Value::as_array).map_or(0, Vec::len);
    let mut text = format!("\n{}\n", device.spec.name);
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<10}{value}");
    };
    row("socket", device.spec.socket.display().to_string());
    if let Some(file) = device.spec.file() {
        row("file", file.display().to_string());
    }
    row(
        "state",
        format!(
            "{}, status {:#04x}",
            value("/parts/status/stop"),
            number("/parts/status/value")
        ),
    );
    row(
        "features",
        format!(
            "{:#x} of {:#x}",
            number("/parts/registers/accepted"),
            number("/parts/registers/offered")
        ),
    );
    let kinds = [
        "waiting",
        "saying",
        "left",
        "absent/requests",
        "absent/done",
    ];
    let requests = kinds.map(|kind| count(&format!("/parts/requests/{kind}")));
    row(
        "requests",
        format!(
            "{} in flight, {} completed",
            requests.iter().sum::<usize>(),
            number("/parts/tally/counters/requests/completed")
        ),
    );
    row("breaches", value("/parts/judge/count"));
    for index in 0..count("/parts/queues") {
        let number = format!("queue {index}");
        let ring = |kind: &str| field(&format!("/parts/queues/{index}/ring/{kind}"));
        row(&number, show_ring(ring("split"), ring("packed")));
    }
    text
}

/// A virtqueue's ring, of whichever kind it is.
fn show_ring(split: Option<&Value>, packed: Option<&Value>) -> String {
    let Some(ring) = split.or(packed) else {
        return "not enabled".to_owned();
    };
    let number = |path: &str| ring.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    if packed.is_some() {
        format!(
            "packed, {} entries, available from {}, used from {}, at {:#x}",
            number("/size"),
            number("/next_avail/index"),
            number("/next_used/index"),
            number("/ring")
        )
    } else {
        format!(
            "{} entries, available from {}, used from {}, at {:#x} {:#x} {:#x}",
            number("/size"),
            number("/next_avail"),
            number("/next_used"),
            number("/desc_table"),
            number("/avail_ring"),
            number("/used_ring")
        )
    }
}
