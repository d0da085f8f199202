// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A disk and a network device under load, over two seconds with a stop and a resume.

use serde_json::json;

use super::{Measured, Row};
use crate::guest::{Error, Machine, Place};
use benchmarks::picture::{self, Timeline};

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
        processors: 2,
        programs: &["fio"],
        ..Machine::default()
    };
    let lines = place.run(
        &devices,
        &machine,
        include_str!("../../guest/timeline.sh"),
        &[],
    )?;
    let sample = |at| lines.numbers(&["sample"], at);
    let (begins, ends, requests, frames) = (sample(0)?, sample(1)?, sample(2)?, sample(3)?);
    let first = |what, at| {
        Ok::<f64, Error>(
            lines
                .numbers(&[what, "disk"], at)?
                .first()
                .copied()
                .unwrap_or(f64::NAN),
        )
    };
    let last = |what, at| {
        Ok::<f64, Error>(
            lines
                .numbers(&[what, "nic"], at)?
                .first()
                .copied()
                .unwrap_or(f64::NAN),
        )
    };
    let (stop_begins, stopped) = (first("stop", 0)?, last("stop", 1)?);
    let (resume_begins, resumed) = (first("resume", 0)?, last("resume", 1)?);
    let within = |counts: &[f64]| -> f64 {
        let intervals = begins.iter().zip(&ends).zip(counts);
        intervals
            .filter(|((begin, end), _)| **begin >= stopped && **end <= resume_begins)
            .map(|(_, count)| count)
            .sum()
    };
    let mut measured = Measured::default();
    for (what, counts) in [
        ("requests of the disk", &requests),
        ("frames of the interface", &frames),
    ] {
        measured.rows.push(Row {
            what: format!("{what} while both are stopped"),
            median: format!("{}", within(counts)),
            against: format!("in all {}", counts.iter().sum::<f64>()),
            ..Row::default()
        });
    }
    let timeline = Timeline {
        times_ms: begins,
        requests,
        frames,
        stopped_ms: (stopped, resume_begins),
    };
    measured
        .pictures
        .push(("timeline", picture::timeline(&timeline)?));
    measured.figures = json!({
        "interval_begins_ms": timeline.times_ms, "interval_ends_ms": ends, "requests": timeline.requests, "frames": timeline.frames,
        "stop_ms": [stop_begins, stopped], "resume_ms": [resume_begins, resumed],
    });
    Ok(measured)
}
