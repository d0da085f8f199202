// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What devices of vfio-user-virtio say of themselves, again and again, while the process behind them is exchanged.

use serde_json::{Map, Value};

use crate::picture::exchanges::{Curve, Timeline};

/// How long to look at the devices before the first exchange, and after the last, in seconds.
const MARGIN_S: f64 = 2.0;

/// What the devices had done at some time. Their counters go on when another process does.
#[derive(Debug)]
struct Sample {
    at_s: f64,
    takeovers: u64,
    stood_still_ms: f64,
    counts: Vec<u64>,
}

/// What was seen of the devices.
#[derive(Debug, Default)]
pub struct Samples {
    titles: Vec<String>,
    samples: Vec<Sample>,
}

impl Samples {
    /// Takes note of the reports of all devices, at `at_s`, in seconds.
    ///
    /// Returns whether the devices still have a client: without one they are left out.
    pub fn push(&mut self, at_s: f64, reports: &Map<String, Value>) -> bool {
        let connected = |report: &Value| report.get("connected") == Some(&Value::Bool(true));
        if !reports.values().all(connected) {
            return false;
        }
        let number = |report: &Value, path| report.pointer(path).and_then(Value::as_u64);
        let most = |path| {
            reports
                .values()
                .filter_map(|report| number(report, path))
                .max()
        };
        let of = |(name, report): (&String, &Value)| {
            let (path, what) = counted(report);
            let count = number(report, path).unwrap_or_default();
            (format!("{name}: {what} in 100 ms"), count)
        };
        let (titles, counts) = reports.iter().map(of).unzip();
        self.titles = titles;
        let stood_still_us = most("/counters/stops/last_stopped_us").unwrap_or_default();
        self.samples.push(Sample {
            at_s,
            takeovers: most("/counters/takeovers").unwrap_or_default(),
            stood_still_ms: u32::try_from(stood_still_us).map_or(f64::INFINITY, f64::from) / 1000.0,
            counts,
        });
        true
    }

    /// What there is to draw: from shortly before the first exchange until shortly after the last.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let pairs = || self.samples.iter().zip(self.samples.iter().skip(1));
        let exchanged = |(before, after): &(&Sample, &Sample)| before.takeovers < after.takeovers;
        let seen = || pairs().filter(exchanged).map(|(_, after)| after);
        let first = seen().next().map_or(0.0, |sample| sample.at_s);
        let last = seen().last().map_or(f64::INFINITY, |sample| sample.at_s);
        let begin = (first - MARGIN_S).max(0.0);
        let shown = || {
            pairs().filter(|(before, after)| {
                before.at_s >= begin && after.at_s <= last + MARGIN_S && after.at_s > before.at_s
            })
        };
        let curve = |(number, title): (usize, &String)| Curve {
            title: title.clone(),
            counts: shown()
                .map(|(before, after)| {
                    let at = |sample: &Sample| sample.counts.get(number).copied().unwrap_or(0);
                    let more = u32::try_from(at(after).saturating_sub(at(before)));
                    more.map_or(f64::INFINITY, f64::from) * 0.1 / (after.at_s - before.at_s)
                })
                .collect(),
        };
        Timeline {
            times_s: shown()
                .map(|(before, after)| (before.at_s + after.at_s) / 2.0 - begin)
                .collect(),
            curves: self.titles.iter().enumerate().map(curve).collect(),
            exchanges: seen()
                .map(|sample| (sample.at_s - begin, self.stood_still(sample.takeovers)))
                .collect(),
        }
    }

    /// For how long the devices stood still for that exchange: they say so only once they have all been resumed.
    fn stood_still(&self, takeovers: u64) -> f64 {
        let of_it = |sample: &&Sample| sample.takeovers == takeovers;
        let last = self.samples.iter().filter(of_it).last();
        last.map_or(0.0, |sample| sample.stood_still_ms)
    }
}

/// What of a device to count: where it is in the report, and what it is called.
fn counted(report: &Value) -> (&'static str, &'static str) {
    match report.get("type").and_then(Value::as_str) {
        Some("net") => ("/of_type/peer/numbered", "numbered frames sent back"),
        _ => ("/counters/requests/completed", "requests completed"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::picture::exchanges::draw;

    fn reports(
        takeovers: u64,
        completed: u64,
        numbered: u64,
        stopped_us: u64,
    ) -> Map<String, Value> {
        let counters = json!({
            "takeovers": takeovers, "requests": { "completed": completed }, "stops": { "last_stopped_us": stopped_us },
        });
        let disk = json!({ "type": "blk", "connected": true, "counters": counters });
        let peer = json!({ "peer": { "numbered": numbered } });
        let nic =
            json!({ "type": "net", "connected": true, "counters": counters, "of_type": peer });
        Map::from_iter([("disk".to_owned(), disk), ("nic".to_owned(), nic)])
    }

    /// 100 requests and 10 frames in 100 ms; an exchange that takes from 3.0 to 3.2 s, after which nobody can be asked until 3.3 s.
    fn samples() -> Samples {
        let mut samples = Samples::default();
        for tenth in 0..=60 {
            let at = f64::from(tenth) / 10.0;
            let seen = match tenth {
                ..=30 => reports(0, tenth as u64 * 100, tenth as u64 * 10, 0),
                31 | 32 => continue,
                33 => reports(1, 3000, 300, 0),
                _ => reports(
                    1,
                    (tenth - 3) as u64 * 100,
                    (tenth - 3) as u64 * 10,
                    250_000,
                ),
            };
            assert!(samples.push(at, &seen));
        }
        samples
    }

    #[test]
    fn a_timeline_shows_the_exchange_and_what_is_around_it() {
        let timeline = samples().timeline();
        // From 1.3 to 5.3 s.
        assert_eq!(timeline.exchanges.len(), 1);
        let (at, stood_still) = timeline.exchanges[0];
        assert!((at - 2.0).abs() < 1e-6 && (stood_still - 250.0).abs() < 1e-6);
        let [disk, nic] = &timeline.curves[..] else {
            panic!("{timeline:?}")
        };
        assert_eq!(disk.title, "disk: requests completed in 100 ms");
        assert_eq!(nic.title, "nic: numbered frames sent back in 100 ms");
        assert_eq!(disk.counts.len(), timeline.times_s.len());
        assert!((timeline.times_s[0] - 0.05).abs() < 0.06, "{timeline:?}");
        let still = timeline.times_s.iter().zip(&disk.counts);
        let still: Vec<_> = still.filter(|(_, count)| **count == 0.0).collect();
        assert_eq!(still.len(), 1, "{timeline:?}");
        assert!((still[0].0 - 1.85).abs() < 1e-6, "{still:?}");
        let moving = nic.counts.iter().filter(|count| **count > 0.0);
        assert!(
            moving.clone().count() > 30 && moving.clone().all(|count| (count - 10.0).abs() < 1e-6)
        );
    }

    #[test]
    fn an_interval_that_took_longer_counts_for_less() {
        let mut samples = Samples::default();
        samples.push(0.0, &reports(0, 0, 0, 0));
        samples.push(0.4, &reports(0, 80, 40, 0));
        let timeline = samples.timeline();
        assert!(
            (timeline.curves[0].counts[0] - 20.0).abs() < 1e-6,
            "{timeline:?}"
        );
        assert!(
            (timeline.curves[1].counts[0] - 10.0).abs() < 1e-6,
            "{timeline:?}"
        );
        assert_eq!(timeline.exchanges, []);
    }

    #[test]
    fn devices_without_a_client_are_left_out() {
        let mut samples = samples();
        let before = samples.samples.len();
        let mut gone = reports(1, 5, 5, 0);
        gone["nic"]["connected"] = false.into();
        assert!(!samples.push(7.0, &gone));
        assert_eq!(samples.samples.len(), before);
    }

    #[test]
    fn a_picture_has_a_panel_for_each_device_and_a_line_for_each_exchange() {
        let svg = draw(&samples().timeline()).unwrap();
        assert_eq!(svg.matches("in 100 ms").count(), 2, "{svg}");
        assert_eq!(svg.matches("exchange 1: 250 ms").count(), 2, "{svg}");
        assert!(!svg.contains("#FFFFFF") && svg.len() < 60_000, "{svg}");
        // Nothing was seen.
        assert!(draw(&Samples::default().timeline()).is_ok());
    }
}
