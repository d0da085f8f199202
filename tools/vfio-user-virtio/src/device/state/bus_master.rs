// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bus Master Enable, a bit of the PCI command register: whether the device may reach the guest's memory, and send messages. All that it
//! would have done meanwhile it does when it may again.

use super::State;
use crate::device::interrupts::Cause;
use crate::memory::Memory;

impl State {
    /// Does what the command register has now. When it returns without the bit, nothing reaches for the memory any more.
    pub(in crate::device) fn follow_command(&mut self, memory: &Memory) {
        let bus_master = self.parts.pci.is_bus_master();
        memory.set_bus_master(bus_master);
        if bus_master {
            self.parts.requests.absent.mapped();
            self.tell_of_changes();
        } else {
            self.parts.requests.absent.forgive();
        }
    }

    /// Tells of a change of the configuration, or of NEEDS_RESET, that no message could tell of. S-DEV-2: not while the device is suspended.
    pub(super) fn tell_of_changes(&mut self) {
        let may_tell = self.parts.pci.is_bus_master() && !self.parts.is_suspended();
        if may_tell && self.interrupts.is_untold() {
            self.interrupt(Cause::Configuration, self.parts.registers.config_vector);
        }
    }
}
