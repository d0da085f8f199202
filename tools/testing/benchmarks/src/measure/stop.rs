// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! write(2) of `stop` and `resume`, against the handshake in it, with devices that answer at once.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::Samples;
use crate::guest::{Error, Machine, Place};
use crate::table::time;

const CYCLES: &str = "200";

/// What a driver's word for the protocol is, and the module's.
const PROTOCOLS: [(&str, &str); 2] = [("device-stop", "device_stop"), ("suspend", "suspend")];
const TYPES: [&str; 3] = ["blk", "scsi", "net"];

/// Measures it.
///
/// # Errors
///
/// A guest does not end well.
pub(crate) fn measure(place: &Place) -> Result<Measured, Error> {
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    for processors in [1, 2, 4] {
        let mut specs = Vec::new();
        for (protocol, name) in PROTOCOLS {
            specs.push(format!(
                "blk,name=blk-{name},protocol={protocol},queues={processors}"
            ));
            specs.push(format!(
                "scsi,name=scsi-{name},protocol={protocol},queues={processors}"
            ));
            let last = specs.len();
            specs.push(format!(
                "net,name=net-{name},protocol={protocol},mac=02:00:00:00:00:{last:02x}"
            ));
        }
        let devices = place.devices(&specs)?;
        let machine = Machine {
            processors,
            ..Machine::default()
        };
        let lines = place.run(
            &devices,
            &machine,
            include_str!("../../guest/stop.sh"),
            &[CYCLES],
        )?;
        for (_, protocol) in PROTOCOLS {
            for of_type in TYPES {
                let cycle = |at| {
                    Ok::<Samples, Error>(
                        lines
                            .numbers(&["write", protocol, of_type], at)?
                            .into_iter()
                            .collect(),
                    )
                };
                let accesses = |at| lines.numbers(&["accesses", protocol, of_type], at);
                for (what, write, handshake, accesses) in [
                    ("stop", cycle(0)?, cycle(2)?, accesses(0)?),
                    ("resume", cycle(1)?, cycle(3)?, accesses(1)?),
                ] {
                    let ratio = write.median() / handshake.median();
                    let accesses = accesses.first().copied().unwrap_or(f64::NAN);
                    measured.rows.push(Row {
                        what: format!("{what}: {of_type}, {protocol}, {processors} CPU"),
                        median: time(write.median()),
                        spread: format!("p95 {}", time(write.quantile(0.95))),
                        against: format!(
                            "handshake {}, {accesses} accesses",
                            time(handshake.median())
                        ),
                        ratio: format!("{ratio:.1}"),
                    });
                    figures.push(json!({
                        "what": what, "type": of_type, "protocol": protocol, "processors": processors,
                        "status_accesses": accesses, "write_us": write, "handshake_us": handshake, "ratio_of_medians": ratio,
                    }));
                }
            }
        }
    }
    measured.figures = figures.into();
    Ok(measured)
}
