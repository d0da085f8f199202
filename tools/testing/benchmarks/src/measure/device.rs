// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reference device against QEMU's own virtio-blk, both on the same file; and the memory of its server.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::{Ratio, Samples};
use crate::guest::{Error, Machine, Place};

const ROUNDS: &str = "4";

/// Measures it.
///
/// # Errors
///
/// The guest does not end well.
pub(crate) fn measure(place: &Place) -> Result<Measured, Error> {
    let disks = |count: u32| {
        (0..count)
            .map(|number| format!("blk,name=disk{number}"))
            .collect::<Vec<_>>()
    };
    let resident = |count| {
        place
            .devices(&disks(count))
            .map(|devices| devices.resident())
    };
    let (one, eight) = (resident(1)?, resident(8)?);
    let file = place.work.path().join("shared");
    let made = std::fs::File::create(&file).and_then(|file| file.set_len(256 << 20));
    made.map_err(|error| Error::Write(file.display().to_string(), error))?;
    let devices = place.devices(&[format!("blk,name=ours,file={}", file.display())])?;
    let mut drive = std::ffi::OsString::from(
        "if=none,id=qemus,format=raw,cache=writeback,file.locking=off,file=",
    );
    drive.push(&file);
    let device = "virtio-blk-pci,drive=qemus,serial=qemus";
    let options = [
        ["--qemu-arg".into(), "-drive".into()],
        ["--qemu-arg".into(), drive],
    ]
    .concat();
    let more = ["--qemu-arg", "-device", "--qemu-arg", device].map(Into::into);
    let machine = Machine {
        options: [options, more.to_vec()].concat(),
        programs: &["fio"],
        ..Machine::default()
    };
    let lines = place.run(
        &devices,
        &machine,
        include_str!("../../guest/device.sh"),
        &[ROUNDS],
    )?;
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    for pattern in ["randread", "randwrite"] {
        for depth in ["1", "32"] {
            let numbers = |who| lines.numbers(&[who, pattern, depth], 1);
            let pairs: Vec<_> = numbers("ours")?
                .into_iter()
                .zip(numbers("qemus")?)
                .collect();
            let ratio = Ratio::of(&pairs);
            let (ours, theirs): (Samples, Samples) = (
                pairs.iter().map(|pair| pair.0).collect(),
                pairs.iter().map(|pair| pair.1).collect(),
            );
            measured.rows.push(Row {
                what: format!("{pattern} of 4 KiB a second, {depth} at a time"),
                median: format!("{:.0}", ours.median()),
                spread: format!("{:.0} to {:.0}", ours.quantile(0.0), ours.most()),
                against: format!("QEMU's virtio-blk {:.0}", theirs.median()),
                ratio: format!("{:.2} ± {:.2}", ratio.mean, ratio.error),
            });
            figures.push(json!({
                "pattern": pattern, "depth": depth, "ours_a_second": ours, "qemus_a_second": theirs, "ratio": ratio,
            }));
        }
    }
    if let (Some(one), Some(eight)) = (one, eight) {
        measured.rows.push(Row {
            what: "memory of the server with eight devices".to_owned(),
            median: format!("{eight} KiB"),
            against: format!("with one {one} KiB"),
            ratio: format!("{:.2}", eight as f64 / one as f64),
            ..Row::default()
        });
    }
    measured.figures =
        json!({ "disk": figures, "resident_kib": { "one_device": one, "eight_devices": eight } });
    Ok(measured)
}
