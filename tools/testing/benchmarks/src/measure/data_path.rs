// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the module costs when nothing is stopped.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::{Ratio, Samples};
use crate::guest::{Error, Machine, Place};

const ROUNDS: usize = 20;

/// Measures it.
///
/// # Errors
///
/// The guest does not end well.
pub(crate) fn measure(place: &Place) -> Result<Measured, Error> {
    let specs = [
        "blk,name=disk,protocol=device-stop",
        "net,name=nic,protocol=device-stop",
    ]
    .map(str::to_owned);
    let devices = place.devices(&specs)?;
    let machine = Machine {
        programs: &["fio"],
        ..Machine::default()
    };
    let lines = place.run(
        &devices,
        &machine,
        include_str!("../../guest/data-path.sh"),
        &[&ROUNDS.to_string()],
    )?;
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    for (at, what) in [(0, "reads"), (1, "frames")] {
        let mut pairs = Vec::new();
        for round in 0..ROUNDS {
            let round = round.to_string();
            let number = |who| lines.numbers(&[who, &round], at);
            pairs.extend(number("with")?.into_iter().zip(number("without")?));
        }
        let ratio = Ratio::of(&pairs);
        let (with, without): (Samples, Samples) = (
            pairs.iter().map(|pair| pair.0).collect(),
            pairs.iter().map(|pair| pair.1).collect(),
        );
        measured.rows.push(Row {
            what: format!("{what} a second, with the module, 1 CPU"),
            median: format!("{:.0}", with.median()),
            spread: format!("{:.0} to {:.0}", with.quantile(0.05), with.quantile(0.95)),
            against: format!("without it {:.0}", without.median()),
            ratio: format!("{:.3} ± {:.3}", ratio.mean, ratio.error),
        });
        figures.push(json!({ "what": what, "with_a_second": with, "without_a_second": without, "ratio": ratio }));
    }
    measured.figures = figures.into();
    Ok(measured)
}
