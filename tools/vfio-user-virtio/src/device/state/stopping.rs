// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops and resumes: how the device answers what the driver asks for.

use std::time::Instant;

use super::State;
use crate::device::interrupts::Cause;
use crate::device::schedule::Event;
use crate::settings::{Answer, HangUp};
use crate::status::Stop;

impl State {
    pub(super) fn plan(&mut self, now: Instant) {
        let stop = self.parts.status.stop();
        self.schedule
            .begin(stop, now, &self.parts.settings, &mut self.random);
    }

    pub(super) fn stop_requested(&mut self, now: Instant) {
        self.parts.tally.stop_requested(self.parts.requests.len());
        if self.parts.settings.hang_up == HangUp::OnStop {
            self.hang_up();
        }
        self.plan(now);
        self.refuse_to_answer();
        self.answer(now);
    }

    /// NEEDS_RESET instead of an answer, where a setting asks for that.
    pub(super) fn refuse_to_answer(&mut self) {
        match (self.parts.status.stop(), self.parts.settings) {
            (Stop::Requested, settings) if settings.acknowledge == Answer::NeedsReset => {
                self.needs_reset("asked to, on a stop");
            }
            (Stop::Resuming, settings) if settings.resume == Answer::NeedsReset => {
                self.needs_reset("asked to, on a resume");
            }
            _ => {}
        }
    }

    /// Gives the answers whose time has come.
    pub(in crate::device) fn answer(&mut self, now: Instant) {
        while let Some((due, event)) = self.schedule.next(self.parts.status.stop()) {
            if due > now || (event == Event::AcknowledgeStop && !self.parts.is_quiet()) {
                return;
            }
            match event {
                Event::AcknowledgeStop => self.acknowledge_stop(now),
                Event::DropStop => {
                    self.parts.tally.counters.stops.dropped += 1;
                    self.go_on(now);
                }
                Event::AcknowledgeResume => {
                    self.parts
                        .tally
                        .resume_acknowledged(self.schedule.waited(now), now);
                    self.go_on(now);
                }
            }
        }
    }

    fn acknowledge_stop(&mut self, now: Instant) {
        self.parts.tally.stop_acknowledged(
            self.parts.requests.len(),
            self.schedule.waited(now),
            now,
        );
        self.parts.status.acknowledge_stop(self.parts.protocol());
        if self.parts.is_suspended() {
            self.parts.requests.suspend();
        }
        self.parts.withheld.configuration = Some(self.type_configuration());
        self.plan(now);
        if self.parts.settings.notify_when_stopped {
            self.configuration_interrupt();
        }
    }

    /// Serves the virtqueues again.
    fn go_on(&mut self, now: Instant) {
        self.parts.status.acknowledge_resume(self.parts.protocol());
        self.plan(now);
        for queue in &mut self.parts.queues {
            queue.notified = !self.parts.settings.forget_notifications;
        }
        // While it had stopped nothing was looked for.
        self.parts.requests.absent.forgive();
        let withheld = std::mem::take(&mut self.parts.withheld);
        if withheld.change {
            self.show_change();
        } else if withheld.needs_reset {
            self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
        }
        self.tell_of_changes();
    }
}
