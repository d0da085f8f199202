// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stop and a resume, against what else keeps a device still: to unbind its driver, and to bind it again.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::{Ratio, Samples};
use crate::guest::{Error, Machine, Place};
use crate::table::time;

const ROUNDS: &str = "5";

/// Measures it.
///
/// # Errors
///
/// The guest does not end well.
pub(crate) fn measure(place: &Place) -> Result<Measured, Error> {
    let specs = [
        "blk,name=device_stop,protocol=device-stop",
        "blk,name=suspend,protocol=suspend",
    ]
    .map(str::to_owned);
    let devices = place.devices(&specs)?;
    let lines = place.run(
        &devices,
        &Machine::default(),
        include_str!("../../guest/rebind.sh"),
        &[ROUNDS],
    )?;
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    for protocol in ["device_stop", "suspend"] {
        let numbers = |at| lines.numbers(&["rebind", protocol], at);
        let (ours, theirs) = (numbers(0)?, numbers(1)?);
        let pairs: Vec<_> = theirs.iter().copied().zip(ours.iter().copied()).collect();
        let ratio = Ratio::of(&pairs);
        let (ours, theirs): (Samples, Samples) =
            (ours.into_iter().collect(), theirs.into_iter().collect());
        measured.rows.push(Row {
            what: format!("stop and resume of a disk, {protocol}, 1 CPU"),
            median: time(ours.median()),
            spread: format!("worst {}", time(ours.most())),
            against: format!("unbind and bind {}", time(theirs.median())),
            ratio: format!("1 : {:.0} ± {:.0}", ratio.mean, ratio.error),
        });
        figures.push(json!({ "protocol": protocol, "stop_and_resume_us": ours, "unbind_and_bind_us": theirs, "ratio": ratio }));
    }
    measured.figures = figures.into();
    Ok(measured)
}
