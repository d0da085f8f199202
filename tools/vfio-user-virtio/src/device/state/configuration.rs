// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The common configuration, but for the device status, and the configuration space of the type: what the driver writes there, sees
//! there, and is told of.

use std::time::Instant;

use super::State;
use crate::device::interrupts::Cause;
use crate::memory::Memory;
use crate::pci::DEVICE_SIZE;
use crate::registers::{QUEUE_ENABLE, QUEUE_RESET};
use crate::status::FEATURES_OK;

impl State {
    /// The driver writes to it, but for the status.
    pub(in crate::device) fn common_written(
        &mut self,
        offset: u64,
        length: usize,
        value: u64,
        memory: &Memory,
        now: Instant,
    ) {
        self.tell_time(now);
        self.look_for_added_buffers(memory);
        self.parts.judge.common_written(offset);
        let open = !self.parts.status.has(FEATURES_OK);
        self.parts.registers.write(offset, length, value, open);
        match offset {
            QUEUE_RESET => self.reset_selected_queue(),
            QUEUE_ENABLE => self.enable_selected_queue(),
            _ => {}
        }
    }

    /// The driver writes to it. S-DEV-2: a suspended device does not listen.
    pub(in crate::device) fn configuration_written(
        &mut self,
        offset: u64,
        data: &[u8],
        now: Instant,
    ) {
        self.tell_time(now);
        self.parts.judge.configuration_written(offset);
        if !self.parts.is_suspended() {
            self.of_type.write_configuration(offset, data);
        }
    }

    pub(super) fn type_configuration(&self) -> [u8; DEVICE_SIZE] {
        let mut config = [0; DEVICE_SIZE];
        self.of_type.configuration(&mut config);
        config
    }

    pub(in crate::device) fn configuration(&self) -> [u8; DEVICE_SIZE] {
        self.parts
            .withheld
            .configuration
            .unwrap_or_else(|| self.type_configuration())
    }

    /// The type's configuration is another now. While the device is stopped that is not shown, unless a setting asks for it.
    pub(in crate::device) fn configuration_changed(&mut self) {
        if self.parts.withheld.configuration.is_none() {
            self.show_change();
        } else if self.parts.settings.change_while_stopped {
            self.parts.withheld.configuration = Some(self.type_configuration());
            self.show_change();
        } else {
            self.parts.withheld.change = true;
        }
    }

    pub(super) fn show_change(&mut self) {
        self.parts.registers.config_generation =
            self.parts.registers.config_generation.wrapping_add(1);
        if self.parts.status.is_live() {
            self.configuration_interrupt();
        }
    }

    pub(super) fn configuration_interrupt(&mut self) {
        self.parts.tally.counters.configuration_changes += 1;
        self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
    }
}
