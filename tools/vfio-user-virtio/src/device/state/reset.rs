// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From a reset to the next DRIVER_OK: the device returns to the state after power-on, and the virtqueues are set up anew.

use std::sync::Arc;

use super::State;
use crate::device::parts::Withheld;
use crate::device::queues::Virtqueue;
use crate::device::schedule::Schedule;
use crate::status::Status;

impl State {
    /// The driver is ready: sets the virtqueues up as it has laid them out. Whether they are there is looked at when there is a use for
    /// them.
    pub(super) fn start(&mut self) {
        let accepted = self.parts.registers.accepted();
        let queues: Vec<(Virtqueue, bool)> = self
            .parts
            .registers
            .queues
            .iter()
            .map(|registers| Virtqueue::new(registers, accepted))
            .collect();
        if !self.parts.pci.is_bus_master() {
            tracing::warn!(
                "DRIVER_OK without Bus Master Enable: nothing is done until that is set"
            );
        }
        let valid = queues.iter().all(|(_, valid)| *valid);
        self.parts.queues = queues.into_iter().map(|(queue, _)| queue).collect();
        self.laid_out(valid);
    }

    /// The driver has laid virtqueues out. `valid`: their addresses are aligned.
    pub(super) fn laid_out(&mut self, valid: bool) {
        if !valid {
            self.needs_reset("a virtqueue is not aligned");
        }
    }

    pub(in crate::device) fn reset(&mut self) {
        self.parts.tally.counters.resets += 1;
        self.parts.tally.counters.requests.dropped += self.parts.requests.drop_waiting();
        self.parts.resetting = true;
        if !self.parts.requests.are_executing() || self.work.abandon() {
            self.finish_reset();
        }
    }

    pub(in crate::device) fn is_resetting(&self) -> bool {
        self.parts.resetting
    }

    pub(super) fn finish_reset(&mut self) {
        self.parts.resetting = false;
        self.parts.tally.counters.requests.dropped += self.parts.requests.executed();
        // The next driver's requests are wanted.
        self.work = Arc::default();
        self.parts.status = Status::default();
        self.parts.registers.reset();
        self.interrupts.reset();
        self.parts.queues.clear();
        self.schedule = Schedule::default();
        self.parts.withheld = Withheld::default();
        self.parts.tally.reset();
        self.of_type.reset();
    }
}
