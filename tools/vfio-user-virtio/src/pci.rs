// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI function: configuration space, and where in the BARs the virtio structures lie (virtio 1.4, 4.1.4).

use serde::{Deserialize, Serialize};

use crate::portable;

/// Bytes of configuration space.
pub const CONFIG_SIZE: usize = 256;
/// BAR 0 holds the virtio structures, a page each.
pub const BAR_SIZE: u64 = 0x4000;
/// BAR 2 holds the MSI-X table and, in its second half, the pending bits. QEMU serves both itself.
pub const MSIX_BAR_SIZE: u64 = 0x1000;

const PAGE: u64 = 0x1000;
const MSIX_PBA: u32 = 0x800;
/// `notify_off_multiplier`: each virtqueue has a doorbell of its own, that many bytes apart.
pub const NOTIFY_MULTIPLIER: u32 = 4;

/// Bytes of a common configuration that ends before `queue_notify_data`: bit 39 can't be VIRTIO_F_NOTIF_CONFIG_DATA then.
pub const SHORT_COMMON: u32 = 56;
/// Bytes of one that ends with `queue_reset`, as virtio 1.2 has it.
pub const LONG_COMMON: u32 = 60;
/// Bytes of the device configuration space.
pub const DEVICE_SIZE: usize = 0x100;

const VIRTIO_VENDOR: u16 = 0x1af4;
const MODERN_DEVICE_BASE: u16 = 0x1040;
/// The low byte of the command register, and a bit in it.
const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 1 << 2;
/// The low byte of the status register, and a bit in it.
const STATUS: usize = 0x06;
const INTERRUPT_STATUS: u8 = 1 << 3;
const INTERRUPT_PIN: usize = 0x3d;
const CAP_MSIX: usize = 0x40;
/// The high byte of message control, and a bit in it.
const MSIX_CONTROL: usize = CAP_MSIX + 3;
const MSIX_ENABLE: u8 = 0x80;
const CAP_COMMON: usize = 0x4c;
const CAP_NOTIFY: usize = 0x5c;
const CAP_ISR: usize = 0x70;
const CAP_DEVICE: usize = 0x80;
const CAP_WINDOW: usize = 0x90;
/// `cap.bar`, `cap.offset` and `cap.length` of the PCI configuration access capability are the driver's to write.
const WINDOW_BAR: usize = CAP_WINDOW + 4;
const WINDOW_DATA: usize = CAP_WINDOW + 16;

/// Which virtio structure a byte of BAR 0 belongs to, and its offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The common configuration.
    Common(u64),
    /// The interrupt status.
    Isr,
    /// The device configuration space.
    Device(u64),
    /// The doorbell of this virtqueue.
    Notify(u16),
    /// Nothing.
    None,
}

impl Structure {
    /// The structure at `offset` in BAR 0 of a device whose common configuration has `common` bytes.
    pub fn at(offset: u64, common: u32) -> Self {
        let within = offset % PAGE;
        match offset / PAGE {
            0 if within < u64::from(common) => Self::Common(within),
            1 if within == 0 => Self::Isr,
            2 if within < DEVICE_SIZE as u64 => Self::Device(within),
            3 => match u16::try_from(within / u64::from(NOTIFY_MULTIPLIER)) {
                Ok(queue) => Self::Notify(queue),
                Err(_) => Self::None,
            },
            _ => Self::None,
        }
    }
}

/// An access to BAR 0 through configuration space (virtio 1.4, 4.1.4.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset in BAR 0.
    pub offset: u64,
    /// Bytes: 1, 2 or 4.
    pub length: usize,
}

/// The configuration space.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(with = "portable::hex")]
    bytes: [u8; CONFIG_SIZE],
    #[serde(with = "portable::hex")]
    writable: [u8; CONFIG_SIZE],
}

impl Config {
    /// The configuration space of a virtio device of type `device_id` (virtio 1.4, section 5) and PCI class `class`, with that many
    /// MSI-X vectors, or, with none, INTx, and a common configuration of `common` bytes.
    pub fn new(device_id: u16, class: u32, vectors: u16, common: u32) -> Self {
        let mut config = Self {
            bytes: [0; CONFIG_SIZE],
            writable: [0; CONFIG_SIZE],
        };
        config.put(0x00, &VIRTIO_VENDOR.to_le_bytes());
        config.put(
            0x02,
            &MODERN_DEVICE_BASE.saturating_add(device_id).to_le_bytes(),
        );
        config.put(STATUS, &0x0010u16.to_le_bytes()); // Status: there is a capability list.
        config.put(0x08, &((class << 8) | 1).to_le_bytes()); // Revision 1: not transitional.
        config.put(0x10, &0b100u32.to_le_bytes()); // BAR 0: memory, 64 bits.
        config.put(0x2c, &VIRTIO_VENDOR.to_le_bytes());
        config.put(
            0x2e,
            &MODERN_DEVICE_BASE.saturating_add(device_id).to_le_bytes(),
        );
        if vectors == 0 {
            config.put(0x34, &[CAP_COMMON as u8]);
            config.put(INTERRUPT_PIN, &[1]);
        } else {
            config.put(0x34, &[CAP_MSIX as u8]);
            config.put(CAP_MSIX, &[0x11, CAP_COMMON as u8]);
            config.put(CAP_MSIX + 2, &(vectors - 1).to_le_bytes());
            config.put(CAP_MSIX + 4, &2u32.to_le_bytes());
            config.put(CAP_MSIX + 8, &(MSIX_PBA | 2).to_le_bytes());
            config.allow(0x18, &(!(MSIX_BAR_SIZE as u32 - 1)).to_le_bytes());
            config.allow(CAP_MSIX + 2, &0xc000u16.to_le_bytes());
        }
        config.virtio_cap(CAP_COMMON, CAP_NOTIFY, 16, 1, 0, common);
        config.virtio_cap(CAP_NOTIFY, CAP_ISR, 20, 2, 3 * PAGE as u32, PAGE as u32);
        config.put(CAP_NOTIFY + 16, &NOTIFY_MULTIPLIER.to_le_bytes());
        config.virtio_cap(CAP_ISR, CAP_DEVICE, 16, 3, PAGE as u32, 1);
        config.virtio_cap(
            CAP_DEVICE,
            CAP_WINDOW,
            16,
            4,
            2 * PAGE as u32,
            DEVICE_SIZE as u32,
        );
        config.virtio_cap(CAP_WINDOW, 0, 20, 5, 0, 0);

        config.allow(COMMAND, &0x0406u16.to_le_bytes()); // Command: memory, bus master, no INTx.
        config.allow(0x0c, &[0xff]);
        config.allow(0x10, &(!(BAR_SIZE as u32 - 1)).to_le_bytes());
        config.allow(0x14, &u32::MAX.to_le_bytes());
        config.allow(0x3c, &[0xff]);
        config.allow(WINDOW_BAR, &[0xff]);
        config.allow(WINDOW_BAR + 4, &[0xff; 8]);
        config
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes
            .iter_mut()
            .skip(at)
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable
            .iter_mut()
            .skip(at)
            .zip(mask)
            .for_each(|(to, from)| *to = *from);
    }

    fn virtio_cap(&mut self, at: usize, next: usize, size: u8, kind: u8, offset: u32, length: u32) {
        self.put(at, &[0x09, next as u8, size, kind, 0]);
        self.put(at + 8, &offset.to_le_bytes());
        self.put(at + 12, &length.to_le_bytes());
    }

    /// Whether the driver finds the same here as in `other`, but for what it has written itself.
    pub fn is_like(&self, other: &Self) -> bool {
        let fixed = |config: &Self| {
            let bytes = config.bytes.iter().zip(&config.writable);
            bytes.map(|(byte, mask)| byte & !mask).collect::<Vec<_>>()
        };
        self.writable == other.writable && fixed(self) == fixed(other)
    }

    /// Back to the state after power-on, in which all that can be written is 0.
    pub fn reset(&mut self) {
        let cells = self.bytes.iter_mut().zip(&self.writable);
        cells.for_each(|(byte, mask)| *byte &= !mask);
    }

    /// Bus Master Enable: whether the driver lets the device reach memory, and send messages. 0 after power-on.
    pub fn is_bus_master(&self) -> bool {
        self.bytes
            .get(COMMAND)
            .is_some_and(|byte| byte & BUS_MASTER != 0)
    }

    /// Whether the driver has enabled MSI-X.
    pub fn msix_enabled(&self) -> bool {
        self.bytes
            .get(MSIX_CONTROL)
            .is_some_and(|byte| byte & MSIX_ENABLE != 0)
    }

    /// Reads from `offset`; what lies outside reads as ones. `pending`: the interrupt status is not 0, which shows in the status register
    /// unless MSI-X is enabled (4.1.4.5.1).
    pub fn read(&self, offset: u64, data: &mut [u8], pending: bool) {
        data.fill(0xff);
        let mut bytes = self.bytes;
        if let (Some(byte), true) = (bytes.get_mut(STATUS), pending && !self.msix_enabled()) {
            *byte |= INTERRUPT_STATUS;
        }
        let from = usize::try_from(offset).unwrap_or(CONFIG_SIZE);
        data.iter_mut()
            .zip(bytes.iter().skip(from))
            .for_each(|(to, from)| *to = *from);
    }

    /// Writes to `offset` what may be written.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(CONFIG_SIZE);
        let cells = self.bytes.iter_mut().zip(&self.writable).skip(at);
        cells
            .zip(data)
            .for_each(|((to, mask), from)| *to = (*to & !mask) | (from & mask));
    }

    /// The access to BAR 0 that an access at `offset` in configuration space stands for, if the driver has set one up.
    pub fn window(&self, offset: u64) -> Option<Window> {
        if offset != WINDOW_DATA as u64 {
            return None;
        }
        let mut header = [0; 12];
        self.read(WINDOW_BAR as u64, &mut header, false);
        let [bar, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let offset = u64::from(u32::from_le_bytes([o0, o1, o2, o3]));
        (bar == 0 && matches!(length, 1 | 2 | 4) && offset % length as u64 == 0)
            .then_some(Window { offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(config: &Config, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        config.read(offset as u64, &mut data, false);
        data
    }

    #[test]
    fn the_capability_list_is_complete_and_does_not_overlap() {
        complete(&Config::new(2, 0x01_0000, 3, SHORT_COMMON), 1);
        complete(&Config::new(2, 0x01_0000, 0, SHORT_COMMON), 0);
    }

    /// The capability list of a device with as many MSI-X capabilities.
    fn complete(config: &Config, msix: usize) {
        let mut others = 0;
        assert_eq!(read::<1>(config, INTERRUPT_PIN), [u8::from(msix == 0)]);
        let mut next = usize::from(read::<1>(config, 0x34)[0]);
        let mut kinds = Vec::new();
        let mut end = 0x40;
        while next != 0 {
            assert!(
                next >= end,
                "capability at {next:#x} overlaps the one before, which ends at {end:#x}"
            );
            let [id, after, size, kind] = read::<4>(config, next);
            end = next + if id == 0x09 { usize::from(size) } else { 12 };
            if id == 0x09 {
                kinds.push(kind);
            } else {
                others += 1;
            }
            next = usize::from(after);
        }
        assert!(end <= CONFIG_SIZE);
        assert_eq!((kinds, others), (vec![1, 2, 3, 4, 5], msix));
    }

    #[test]
    fn bars_are_sized_by_writing_ones() {
        let mut config = Config::new(2, 0x01_0000, 3, SHORT_COMMON);
        config.write(0x10, &[0xff; 16]);
        assert_eq!(
            u32::from_le_bytes(read(&config, 0x10)),
            !(BAR_SIZE as u32 - 1) | 0b100
        );
        assert_eq!(
            u32::from_le_bytes(read(&config, 0x18)),
            !(MSIX_BAR_SIZE as u32 - 1)
        );
        assert_eq!(u32::from_le_bytes(read(&config, 0x1c)), 0);
    }

    #[test]
    fn a_device_is_a_bus_master_when_the_driver_says_so() {
        let mut config = Config::new(2, 0x01_0000, 3, SHORT_COMMON);
        assert!(!config.is_bus_master());
        config.write(COMMAND as u64, &[0x06, 0x00]);
        assert!(config.is_bus_master());
        config.write(COMMAND as u64, &[0x02]);
        assert!(!config.is_bus_master());
        config.write(COMMAND as u64, &[0x06]);
        config.reset();
        assert!(!config.is_bus_master());
    }

    #[test]
    fn identity_can_not_be_written() {
        let mut config = Config::new(2, 0x01_0000, 3, SHORT_COMMON);
        let before: [u8; 4] = read(&config, 0);
        config.write(0, &[0; 4]);
        assert_eq!(read::<4>(&config, 0), before);
        assert_eq!(before, [0xf4, 0x1a, 0x42, 0x10]);
    }

    #[test]
    fn accesses_outside_do_nothing() {
        let mut config = Config::new(2, 0x01_0000, 3, SHORT_COMMON);
        config.write(u64::MAX, &[0; 8]);
        config.write(CONFIG_SIZE as u64 - 1, &[0; 8]);
        assert_eq!(read::<4>(&config, CONFIG_SIZE - 2), [0, 0, 0xff, 0xff]);
        let mut data = [0; 4];
        config.read(u64::MAX, &mut data, false);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn the_window_takes_only_aligned_accesses_to_bar_0() {
        let mut config = Config::new(2, 0x01_0000, 3, SHORT_COMMON);
        assert_eq!(config.window(WINDOW_DATA as u64), None);
        config.write(WINDOW_BAR as u64 + 4, &0x14u32.to_le_bytes());
        config.write(WINDOW_BAR as u64 + 8, &1u32.to_le_bytes());
        assert_eq!(
            config.window(WINDOW_DATA as u64),
            Some(Window {
                offset: 0x14,
                length: 1
            })
        );
        assert_eq!(config.window(0), None);
        config.write(WINDOW_BAR as u64 + 8, &8u32.to_le_bytes());
        assert_eq!(config.window(WINDOW_DATA as u64), None);
    }

    #[test]
    fn structures_lie_where_the_capabilities_say() {
        let at = |offset| Structure::at(offset, SHORT_COMMON);
        assert_eq!(at(20), Structure::Common(20));
        assert_eq!(at(u64::from(SHORT_COMMON)), Structure::None);
        assert_eq!(Structure::at(56, LONG_COMMON), Structure::Common(56));
        assert_eq!(at(0x1000), Structure::Isr);
        assert_eq!(at(0x2014), Structure::Device(0x14));
        assert_eq!(at(0x3004), Structure::Notify(1));
        assert_eq!(at(BAR_SIZE), Structure::None);
        assert_eq!(at(u64::MAX), Structure::None);
    }
}
