// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver reads and writes the device status.

use std::time::Instant;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::State;
use crate::device::parts::Parts;
use crate::judge::Write;
use crate::memory::Memory;
use crate::settings::{HangUp, ShowStatus};
use crate::status::{Effect, Protocol, Rules, Stop, FEATURES_OK};

impl State {
    pub(in crate::device) fn read_status(&mut self, memory: &Memory, now: Instant) -> u8 {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        let stop = self.parts.status.stop();
        self.parts.tally.status_read(stop, now);
        let value = match self.parts.settings.show_status {
            ShowStatus::Always(byte) if self.parts.status.is_live() => byte,
            ShowStatus::Stopping(byte) if stop != Stop::Running => byte,
            ShowStatus::Resuming(byte) if stop == Stop::Resuming => byte,
            ShowStatus::Random(seed) if self.parts.status.is_live() => {
                ShowStatus::random_byte(seed, self.parts.tally.counters.status_reads)
            }
            _ => self.parts.status.value(),
        };
        self.parts.judge.read(value, stop);
        value
    }

    pub(in crate::device) fn write_status(&mut self, written: u8, memory: &Memory, now: Instant) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.tally.counters.status_writes += 1;
        let protocol = self.parts.protocol();
        let fenced = self.parts.judge.forbids_buffers();
        self.parts.judge.write(Write {
            current: self.parts.status.value(),
            written,
            stop: self.parts.status.stop(),
            protocol,
        });
        if !fenced && self.parts.judge.forbids_buffers() {
            let Parts {
                lookout, queues, ..
            } = &mut self.parts;
            memory.observe(|memory| lookout.begin(queues, memory));
        }
        if written == 0 {
            self.reset();
            return;
        }
        if self.parts.resetting {
            return;
        }
        let accepted = self.parts.registers.accepted();
        let rules = Rules {
            protocol,
            features_acceptable: accepted & !self.parts.registers.offered() == 0
                && accepted & (1 << VIRTIO_F_VERSION_1) != 0
                && self.of_type.can_do_with(accepted)
                && !self.parts.settings.refuse_features
                && !(self.parts.settings.refuse_to_stop
                    && self.parts.accepted_protocol() != Protocol::None),
            resume_form: self.parts.settings.resume_form,
        };
        let negotiated = self.parts.status.has(FEATURES_OK);
        let effect = self.parts.status.write(written, rules);
        if !negotiated && self.parts.status.has(FEATURES_OK) {
            self.of_type.negotiated(accepted);
        }
        match effect {
            Effect::None | Effect::Reset => {}
            Effect::Start => self.start(),
            Effect::StopRequested => self.stop_requested(now),
            Effect::StopCalledOff => {
                self.parts.tally.stop_called_off();
                self.schedule
                    .called_off(now, &self.parts.settings, &mut self.random);
                self.answer(now);
            }
            Effect::ResumeRequested => {
                if self.parts.settings.hang_up == HangUp::OnResume {
                    self.hang_up();
                }
                self.plan(now);
                self.refuse_to_answer();
                self.answer(now);
            }
            Effect::ResumeCalledOff => self.plan(now),
        }
    }
}
