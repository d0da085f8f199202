// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When the device answers stops and resumes, as its settings have it. Knows time, but no queues: an answer that is due may have to
//! wait for requests still.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::portable;
use crate::settings::{Answer, DropStop, Settings};
use crate::status::Stop;

/// What time brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A stop is acknowledged.
    AcknowledgeStop,
    /// A stop that was acknowledged ends by itself.
    DropStop,
    /// A resume is acknowledged.
    AcknowledgeResume,
}

/// The answers that the device has yet to give.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    /// When the driver asked for the stop or the resume that is pending, or the device acknowledged the stop that stands.
    #[serde(with = "portable::instant::option")]
    since: Option<Instant>,
    /// When that brings an event.
    #[serde(with = "portable::instant::option")]
    due: Option<Instant>,
    /// A stop that was called off will be acknowledged all the same.
    #[serde(with = "portable::instant::option")]
    late: Option<Instant>,
}

impl Schedule {
    fn plan(&mut self, at: Instant, delay: Option<Duration>) {
        self.since = Some(at);
        self.due = delay.map(|delay| at + delay);
    }

    /// The device has come to be in `stop` at `now`.
    pub(super) fn begin(
        &mut self,
        stop: Stop,
        now: Instant,
        settings: &Settings,
        random: &mut fastrand::Rng,
    ) {
        let answered = |answer, random: &mut fastrand::Rng| match answer {
            Answer::AtOnce => Some(Duration::ZERO),
            Answer::After(delay) => Some(delay.choose(random)),
            Answer::Never | Answer::GivenUp(_) | Answer::NeedsReset => None,
        };
        self.late = None;
        match stop {
            Stop::Running => (self.since, self.due) = (None, None),
            Stop::Requested => self.plan(now, answered(settings.acknowledge, random)),
            Stop::Resuming => self.plan(now, answered(settings.resume, random)),
            Stop::Stopped => {
                let delay = match settings.drop_stop {
                    DropStop::Never => None,
                    DropStop::After(delay) => Some(delay.choose(random)),
                };
                self.plan(now, delay);
            }
        }
    }

    /// The settings are others now: what is pending is answered as they have it.
    pub(super) fn replan(&mut self, stop: Stop, settings: &Settings, random: &mut fastrand::Rng) {
        if let Some(since) = self.since {
            self.begin(stop, since, settings, random);
        }
    }

    /// The driver has called a stop off at `now`.
    pub(super) fn called_off(
        &mut self,
        now: Instant,
        settings: &Settings,
        random: &mut fastrand::Rng,
    ) {
        self.begin(Stop::Running, now, settings, random);
        if let Answer::GivenUp(delay) = settings.acknowledge {
            self.late = Some(now + delay.choose(random));
        }
    }

    /// How long ago what is pending was asked for.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What time brings next to a device that is in `stop`.
    pub(super) fn next(&self, stop: Stop) -> Option<(Instant, Event)> {
        let (due, event) = match stop {
            Stop::Running => (self.late, Event::AcknowledgeStop),
            Stop::Requested => (self.due, Event::AcknowledgeStop),
            Stop::Stopped => (self.due, Event::DropStop),
            Stop::Resuming => (self.due, Event::AcknowledgeResume),
        };
        due.map(|due| (due, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> Settings {
        let mut settings = Settings::default();
        settings.set(name, value).unwrap();
        settings
    }

    /// In how many milliseconds a device that came to be in `stop` just now has an event.
    fn due(stop: Stop, settings: &Settings) -> Option<(u128, Event)> {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        schedule.begin(stop, now, settings, &mut fastrand::Rng::with_seed(1));
        let (due, event) = schedule.next(stop)?;
        Some(((due - now).as_millis(), event))
    }

    #[test]
    fn every_state_has_its_event() {
        let late = settings("acknowledge", "after:7");
        assert_eq!(
            due(Stop::Requested, &late),
            Some((7, Event::AcknowledgeStop))
        );
        assert_eq!(due(Stop::Stopped, &late), None);
        assert_eq!(
            due(Stop::Resuming, &late),
            Some((0, Event::AcknowledgeResume))
        );
        assert_eq!(due(Stop::Running, &late), None);
        assert_eq!(
            due(Stop::Requested, &settings("acknowledge", "never")),
            None
        );
        assert_eq!(
            due(Stop::Requested, &settings("acknowledge", "given-up:1")),
            None
        );
        assert_eq!(due(Stop::Resuming, &settings("resume", "never")), None);
        let dropping = settings("drop_stop", "after:3");
        assert_eq!(due(Stop::Stopped, &dropping), Some((3, Event::DropStop)));
    }

    #[test]
    fn only_a_device_that_waits_for_it_answers_a_stop_that_was_called_off() {
        for (value, expected) in [("given-up:5", Some(5)), ("never", None)] {
            let (now, mut schedule) = (Instant::now(), Schedule::default());
            let settings = settings("acknowledge", value);
            let mut random = fastrand::Rng::with_seed(1);
            schedule.begin(Stop::Requested, now, &settings, &mut random);
            schedule.called_off(now, &settings, &mut random);
            let next = schedule
                .next(Stop::Running)
                .map(|(due, _)| (due - now).as_millis());
            assert_eq!(next, expected);
        }
    }

    #[test]
    fn a_changed_setting_counts_from_the_drivers_write() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let mut random = fastrand::Rng::with_seed(1);
        schedule.begin(
            Stop::Requested,
            now,
            &settings("acknowledge", "never"),
            &mut random,
        );
        schedule.replan(
            Stop::Requested,
            &settings("acknowledge", "after:9"),
            &mut random,
        );
        let next = schedule
            .next(Stop::Requested)
            .map(|(due, _)| (due - now).as_millis());
        assert_eq!(next, Some(9));
    }
}
