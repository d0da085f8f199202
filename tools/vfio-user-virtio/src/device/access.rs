// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The accesses to the PCI function: to its configuration space, and to the registers in its BAR 0.

use std::time::Instant;

use super::Device;
use crate::pci::Structure;
use crate::registers::DEVICE_STATUS;

impl Device {
    /// Reads from PCI configuration space.
    pub fn read_config(&self, offset: u64, data: &mut [u8], now: Instant) {
        let window = {
            let state = self.lock();
            state
                .parts
                .pci
                .read(offset, data, state.interrupts.is_pending());
            state.parts.pci.window(offset)
        };
        if let Some(window) = window {
            if let Some(data) = data.get_mut(..window.length) {
                self.read_bar(window.offset, data, now);
            }
        }
    }

    /// Writes to PCI configuration space.
    pub fn write_config(&self, offset: u64, data: &[u8], now: Instant) {
        let window = {
            let mut state = self.lock();
            let bus_master = state.parts.pci.is_bus_master();
            state.parts.pci.write(offset, data);
            if state.parts.pci.is_bus_master() != bus_master {
                state.follow_command(&self.memory);
                self.wake.notify_all();
            }
            state.parts.pci.window(offset)
        };
        if let Some(window) = window {
            if let Some(data) = data.get(..window.length) {
                self.write_bar(window.offset, data, now);
            }
        }
    }

    /// Reads from BAR 0.
    pub fn read_bar(&self, offset: u64, data: &mut [u8], now: Instant) {
        data.fill(0);
        match Structure::at(offset, self.common_size) {
            Structure::Common(DEVICE_STATUS) => {
                if let [byte] = data {
                    *byte = self.lock().read_status(&self.memory, now);
                }
            }
            Structure::Common(offset) => {
                let value = self.lock().parts.registers.read(offset, data.len());
                data.iter_mut()
                    .zip(value.to_le_bytes())
                    .for_each(|(to, from)| *to = from);
            }
            Structure::Device(offset) => {
                let config = self.lock().configuration();
                let from = usize::try_from(offset).unwrap_or(config.len());
                data.iter_mut()
                    .zip(config.iter().skip(from))
                    .for_each(|(to, from)| *to = *from);
            }
            Structure::Isr => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.lock().interrupts.read_isr();
                }
            }
            Structure::Notify(_) | Structure::None => {}
        }
    }

    /// Writes to BAR 0.
    pub fn write_bar(&self, offset: u64, data: &[u8], now: Instant) {
        // A client can say so. No driver has.
        if data.is_empty() {
            return;
        }
        let mut bytes = [0; 8];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = *from);
        let value = u64::from_le_bytes(bytes);
        match Structure::at(offset, self.common_size) {
            Structure::Common(DEVICE_STATUS) if data.len() == 1 => {
                self.lock().write_status(value as u8, &self.memory, now);
                self.wake.notify_all();
            }
            Structure::Common(offset) => {
                self.lock()
                    .common_written(offset, data.len(), value, &self.memory, now);
                self.wake.notify_all();
            }
            Structure::Notify(queue) => {
                let length = data.len();
                self.lock()
                    .notified(queue, value, length, &self.memory, now);
                self.wake.notify_all();
            }
            Structure::Device(offset) => {
                self.lock().configuration_written(offset, data, now);
            }
            Structure::Isr | Structure::None => {}
        }
    }
}
