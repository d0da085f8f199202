// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long after an acknowledgement the driver looks, as the device sees it: this module, and drivers that look at fixed times.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::Samples;
use crate::guest::{Error, Machine, Place};
use crate::table::time;
use benchmarks::picture;

const ROUNDS: &str = "9";
const DELAYS_MS: [&str; 9] = ["0.1", "0.3", "1", "3", "10", "30", "100", "300", "1000"];
/// In the guest's word, and for people.
const DRIVERS: [(&str, &str); 3] = [
    ("module", "this module"),
    ("1000", "a look every 1 ms"),
    ("10000", "a look every 10 ms"),
];

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
        include_str!("../../guest/overshoot.sh"),
        &[ROUNDS],
    )?;
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    let mut curves: Vec<_> = DRIVERS
        .iter()
        .map(|(_, name)| (*name, Vec::new()))
        .collect();
    for protocol in ["device_stop", "suspend"] {
        for delay in DELAYS_MS {
            let samples = |driver, at| {
                let numbers = lines.numbers(&["overshoot", protocol, driver, delay], at)?;
                Ok::<Samples, Error>(numbers.into_iter().collect())
            };
            let mut medians = Vec::new();
            for ((driver, _), (_, curve)) in DRIVERS.iter().zip(&mut curves) {
                let (stop, resume) = (samples(*driver, 0)?, samples(*driver, 1)?);
                medians.push(stop.median());
                if protocol == "device_stop" {
                    curve.push((delay.parse().unwrap_or(f64::NAN), stop.median() / 1000.0));
                }
                figures.push(json!({
                    "protocol": protocol, "driver": driver, "acknowledged_after_ms": delay, "stop_us": stop, "resume_us": resume,
                }));
            }
            let stop = samples("module", 0)?;
            if let [ours, every_1_ms, every_10_ms] = medians.as_slice() {
                measured.rows.push(Row {
                    what: format!("stop acknowledged after {delay} ms, {protocol}"),
                    median: time(*ours),
                    spread: format!("worst {}", time(stop.most())),
                    against: format!(
                        "every 1 ms: {}; every 10 ms: {}",
                        time(*every_1_ms),
                        time(*every_10_ms)
                    ),
                    ratio: format!("{:.2}; {:.2}", ours / every_1_ms, ours / every_10_ms),
                });
            }
        }
    }
    measured.figures = figures.into();
    measured
        .pictures
        .push(("overshoot", picture::overshoot(&curves)?));
    Ok(measured)
}
