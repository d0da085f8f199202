// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many devices at once, each of which takes a while to answer, against one after the other.

use serde_json::json;

use super::{Measured, Row};
use crate::figures::{Ratio, Samples};
use crate::guest::{Error, Machine, Place};
use crate::table::time;

const ROUNDS: usize = 3;
const COUNTS: [usize; 2] = [8, 32];
/// How long a device takes to answer a stop, and a resume.
const ANSWER_MS: u32 = 50;

/// Measures it.
///
/// # Errors
///
/// The guest does not end well.
pub(crate) fn measure(place: &Place) -> Result<Measured, Error> {
    let spec = |number: usize| {
        let of_type = match number % 8 {
            3..=5 => format!("net,name=nic{number},mac=02:00:00:00:01:{number:02x}"),
            6 | 7 => format!("rng,name=entropy{number}"),
            _ => format!("blk,name=disk{number}"),
        };
        format!(
            "{of_type},protocol=device-stop,acknowledge=after:{ANSWER_MS},resume=after:{ANSWER_MS}"
        )
    };
    let specs: Vec<_> = (0..32).map(spec).collect();
    let devices = place.devices(&specs)?;
    let machine = Machine {
        processors: 2,
        ..Machine::default()
    };
    let words: Vec<String> = std::iter::once(ROUNDS)
        .chain(COUNTS)
        .map(|number| number.to_string())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let lines = place.run(
        &devices,
        &machine,
        include_str!("../../guest/many.sh"),
        &words,
    )?;
    let mut measured = Measured::default();
    let mut figures = Vec::new();
    for count in COUNTS {
        let (mut all, mut slowest, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (count, round) = (count.to_string(), round.to_string());
            let alone = lines.numbers(&["alone", &count, &round], 0)?;
            all.extend(lines.numbers(&["all", &count, &round], 0)?);
            slowest.push(alone.iter().copied().fold(0.0, f64::max));
            sums.push(alone.iter().sum::<f64>());
        }
        let ratio = |others: &[f64]| {
            let pairs: Vec<_> = all.iter().copied().zip(others.iter().copied()).collect();
            Ratio::of(&pairs)
        };
        let (to_slowest, to_sum) = (ratio(&slowest), ratio(&sums));
        let [all, slowest, sums] =
            [&all, &slowest, &sums].map(|values| values.iter().copied().collect::<Samples>());
        measured.rows.push(Row {
            what: format!("{count} devices at once, each answers after {ANSWER_MS} ms, 2 CPU"),
            median: time(all.median()),
            spread: format!("worst {}", time(all.most())),
            against: format!(
                "the slowest alone {}; one after the other {}",
                time(slowest.median()),
                time(sums.median())
            ),
            ratio: format!(
                "{:.2} ± {:.2}; 1 : {:.1}",
                to_slowest.mean,
                to_slowest.error,
                1.0 / to_sum.mean
            ),
        });
        figures.push(json!({
            "devices": count, "all_us": all, "slowest_alone_us": slowest, "one_after_the_other_us": sums,
            "ratio_to_slowest": to_slowest, "ratio_to_sum": to_sum,
        }));
    }
    measured.figures = figures.into();
    Ok(measured)
}
