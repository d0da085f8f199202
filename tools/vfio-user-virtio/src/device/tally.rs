// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device counts, and how long stops and resumes take.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::portable;
use crate::report::Counters;
use crate::status::Stop;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tally {
    pub(super) counters: Counters,
    /// From the driver's write for a stop until it sees that the device has stopped.
    status_reads_since_stop: Option<u64>,
    /// When the last acknowledgement was given, until the driver looks.
    #[serde(with = "portable::instant::option")]
    unseen: Option<Instant>,
    /// When the last stop was acknowledged.
    #[serde(with = "portable::instant::option")]
    stopped: Option<Instant>,
}

impl Tally {
    /// The driver reads the status of a device that is in `stop`.
    pub(super) fn status_read(&mut self, stop: Stop, now: Instant) {
        self.counters.status_reads += 1;
        let stops = &mut self.counters.stops;
        if let Some(reads) = self.status_reads_since_stop.as_mut() {
            *reads += 1;
            stops.last_status_reads = *reads;
        }
        if stop == Stop::Stopped {
            self.status_reads_since_stop = None;
        }
        if let Some(at) = self.unseen.take() {
            let seen = micros(now.saturating_duration_since(at));
            match stop {
                Stop::Stopped => stops.last_seen_us = seen,
                _ => stops.last_resume_seen_us = seen,
            }
        }
    }

    /// The driver asks for a stop, with so many `requests` in flight.
    pub(super) fn stop_requested(&mut self, requests: u64) {
        let stops = &mut self.counters.stops;
        stops.requested += 1;
        stops.requested_with_requests += u64::from(requests > 0);
        stops.last_requests_when_requested = requests;
        self.status_reads_since_stop = Some(0);
    }

    /// The driver has called the stop off.
    pub(super) fn stop_called_off(&mut self) {
        self.counters.stops.called_off += 1;
        self.status_reads_since_stop = None;
    }

    /// The device acknowledges a stop that was asked for `waited` ago, with so many `requests` in flight.
    pub(super) fn stop_acknowledged(&mut self, requests: u64, waited: Duration, now: Instant) {
        let stops = &mut self.counters.stops;
        stops.acknowledged += 1;
        stops.acknowledged_with_requests += u64::from(requests > 0);
        stops.last_requests_when_acknowledged = requests;
        stops.last_acknowledge_us = micros(waited);
        self.unseen = Some(now);
        self.stopped = Some(now);
    }

    /// The device acknowledges a resume that was asked for `waited` ago.
    pub(super) fn resume_acknowledged(&mut self, waited: Duration, now: Instant) {
        let stops = &mut self.counters.stops;
        stops.resumed += 1;
        stops.last_resume_us = micros(waited);
        self.unseen = Some(now);
        if let Some(at) = self.stopped.take() {
            stops.last_stopped_us = micros(now.saturating_duration_since(at));
        }
    }

    /// The device is reset: whatever stop or resume is being measured is over.
    pub(super) fn reset(&mut self) {
        self.status_reads_since_stop = None;
        self.unseen = None;
        self.stopped = None;
    }
}

/// In microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
