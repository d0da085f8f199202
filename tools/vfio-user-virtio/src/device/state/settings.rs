// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The settings change at run time: what is pending is answered as they have it now.

use std::collections::BTreeMap;
use std::time::Instant;

use super::State;
use crate::settings::{self, Settings};
use crate::status::Stop;

impl State {
    pub(in crate::device) fn set(
        &mut self,
        changes: &BTreeMap<String, String>,
        now: Instant,
    ) -> Result<(), settings::Error> {
        let mut settings = self.parts.settings;
        settings.set_all(changes)?;
        self.change(settings, now);
        Ok(())
    }

    /// All settings as if none had been given.
    pub(in crate::device) fn behave(&mut self, now: Instant) {
        self.change(Settings::default(), now);
    }

    fn change(&mut self, settings: Settings, now: Instant) {
        let before = std::mem::replace(&mut self.parts.settings, settings);
        let stop = self.parts.status.stop();
        let answers =
            |settings: Settings| (settings.acknowledge, settings.resume, settings.drop_stop);
        if answers(before) != answers(settings) && stop != Stop::Running {
            self.schedule.replan(stop, &settings, &mut self.random);
            self.refuse_to_answer();
            self.answer(now);
        }
    }
}
