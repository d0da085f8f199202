// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of the common configuration (virtio 1.4, 4.1.4.3), but for what a write to the device status sets off.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET};

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;
/// Offset of `driver_feature`.
pub const DRIVER_FEATURE: u64 = 0x0c;
/// Offset of `config_msix_vector`.
pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
/// Offset of `queue_size`. What follows it is the selected virtqueue's too.
pub const QUEUE_SIZE: u64 = 0x18;
/// Offset of `queue_enable`.
pub const QUEUE_ENABLE: u64 = 0x1c;
/// Offset of `queue_reset`.
pub const QUEUE_RESET: u64 = 0x3a;
/// Offset of `device_status`.
pub const DEVICE_STATUS: u64 = 0x14;

/// What the driver has set up of one virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRegisters {
    /// `queue_size`.
    pub size: u16,
    /// `queue_msix_vector`.
    pub vector: u16,
    /// `queue_enable`.
    pub enabled: bool,
    /// `queue_reset`: the driver has reset the virtqueue, and requests of it are still being carried out.
    pub resetting: bool,
    /// `queue_desc`.
    pub desc: u64,
    /// `queue_driver`: the available ring.
    pub driver: u64,
    /// `queue_device`: the used ring.
    pub device: u64,
}

impl QueueRegisters {
    /// After power-on, of a virtqueue of at most `max_size`.
    fn new(max_size: u16) -> Self {
        Self {
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            resetting: false,
            desc: 0,
            driver: 0,
            device: 0,
        }
    }
}

/// The registers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    accepted: u64,
    /// `config_msix_vector`.
    pub config_vector: u16,
    /// `config_generation`.
    pub config_generation: u8,
    queue_select: u16,
    max_queue_size: u16,
    vectors: u16,
    /// The virtqueues.
    pub queues: Vec<QueueRegisters>,
}

impl Registers {
    /// Registers of a device that offers the feature bits `offered`, and has `vectors` MSI-X vectors and `queues` virtqueues of at
    /// most `max_queue_size`.
    pub fn new(offered: u64, queues: u16, max_queue_size: u16, vectors: u16) -> Self {
        Self {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            config_generation: 0,
            queue_select: 0,
            max_queue_size,
            vectors,
            queues: vec![QueueRegisters::new(max_queue_size); usize::from(queues)],
        }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.queues.fill(QueueRegisters::new(self.max_queue_size));
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.accepted = 0;
        self.config_vector = NO_VECTOR;
        self.queue_select = 0;
    }

    /// Whether the driver finds the same here as in `other`, but for what it has written itself, and the features that are offered.
    pub fn is_like(&self, other: &Self) -> bool {
        let layout = |registers: &Self| {
            let queues = registers.queues.len();
            (queues, registers.max_queue_size, registers.vectors)
        };
        layout(self) == layout(other)
    }

    /// Virtqueue `queue` is back in the state after power-on.
    pub fn reset_queue(&mut self, queue: usize) {
        if let Some(queue) = self.queues.get_mut(queue) {
            *queue = QueueRegisters::new(self.max_queue_size);
        }
    }

    /// Whether the driver waits for a reset of virtqueue `queue`.
    pub fn is_resetting(&self, queue: usize) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.resetting)
    }

    /// The virtqueue that the driver has selected, if it is there.
    pub fn selected(&self) -> Option<(usize, &QueueRegisters)> {
        let index = usize::from(self.queue_select);
        self.queues.get(index).map(|queue| (index, queue))
    }

    /// The features that the device offers.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The device offers none but these any more.
    pub fn limit(&mut self, offered: u64) {
        self.offered &= offered;
    }

    /// The features that the driver has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Reads `length` bytes at `offset`; what is not a whole register, or half of a 64-bit one, reads as 0.
    pub fn read(&self, offset: u64, length: usize) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of = |field: fn(&QueueRegisters) -> u64| queue.map_or(0, field);
        match (offset, length) {
            (0x00, 4) => self.device_feature_select.into(),
            (0x04, 4) => half(self.offered, self.device_feature_select),
            (0x08, 4) => self.driver_feature_select.into(),
            (0x0c, 4) => half(self.accepted, self.driver_feature_select),
            (0x10, 2) => self.config_vector.into(),
            (0x12, 2) => self.queues.len() as u64,
            (0x15, 1) => self.config_generation.into(),
            (0x16, 2) => self.queue_select.into(),
            (0x18, 2) => of(|queue| queue.size.into()),
            (0x1a, 2) => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            (QUEUE_ENABLE, 2) => of(|queue| queue.enabled.into()),
            (0x1e, 2) => queue.map_or(0, |_| self.queue_select.into()),
            (0x20, 4 | 8) => of(|queue| queue.desc),
            (0x24, 4) => of(|queue| queue.desc >> 32),
            (0x28, 4 | 8) => of(|queue| queue.driver),
            (0x2c, 4) => of(|queue| queue.driver >> 32),
            (0x30, 4 | 8) => of(|queue| queue.device),
            (0x34, 4) => of(|queue| queue.device >> 32),
            (0x38, 2) => queue.map_or(0, |_| notify_data(self.queue_select).into()),
            (QUEUE_RESET, 2) => of(|queue| queue.resetting.into()),
            _ => 0,
        }
    }

    /// Writes `length` bytes at `offset`. `features_open`: the driver may still negotiate. A queue can't be changed once enabled, but
    /// for its vector, and by a reset of it with VIRTIO_F_RING_RESET.
    pub fn write(&mut self, offset: u64, length: usize, value: u64, features_open: bool) {
        let max_queue_size = self.max_queue_size;
        let packed = self.accepted & (1 << VIRTIO_F_RING_PACKED) != 0;
        let ring_reset = self.accepted & (1 << VIRTIO_F_RING_RESET) != 0;
        let vector = |value: u64| match value as u16 {
            vector if vector < self.vectors => vector,
            // A vector that does not exist reads back as none, which tells the driver so.
            _ => NO_VECTOR,
        };
        match (offset, length) {
            (0x00, 4) => self.device_feature_select = value as u32,
            (0x08, 4) => self.driver_feature_select = value as u32,
            (0x0c, 4) if features_open => match self.driver_feature_select {
                0 => set_half(&mut self.accepted, 0, value),
                1 => set_half(&mut self.accepted, 1, value),
                _ => {}
            },
            (0x10, 2) => self.config_vector = vector(value),
            (0x16, 2) => self.queue_select = value as u16,
            _ => {
                let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
                    return;
                };
                match (offset, length) {
                    _ if queue.resetting => {}
                    (0x1a, 2) => queue.vector = vector(value),
                    (QUEUE_RESET, 2) if ring_reset => queue.resetting = value == 1,
                    _ if queue.enabled => {}
                    (0x18, 2) => {
                        let size = value as u16;
                        // 2.8: that of a packed virtqueue need not be a power of 2.
                        let fits = size.is_power_of_two() || packed && size > 0;
                        if fits && size <= max_queue_size {
                            queue.size = size;
                        }
                    }
                    (QUEUE_ENABLE, 2) => queue.enabled = value == 1,
                    (0x20, 4) => set_half(&mut queue.desc, 0, value),
                    (0x24, 4) => set_half(&mut queue.desc, 1, value),
                    (0x28, 4) => set_half(&mut queue.driver, 0, value),
                    (0x2c, 4) => set_half(&mut queue.driver, 1, value),
                    (0x30, 4) => set_half(&mut queue.device, 0, value),
                    (0x34, 4) => set_half(&mut queue.device, 1, value),
                    (0x20, 8) => queue.desc = value,
                    (0x28, 8) => queue.driver = value,
                    (0x30, 8) => queue.device = value,
                    _ => {}
                }
            }
        }
    }
}

fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, high: u32, half: u64) {
    let half = half & 0xffff_ffff;
    *value = match high {
        0 => (*value & !0xffff_ffff) | half,
        _ => (*value & 0xffff_ffff) | (half << 32),
    };
}

/// `queue_notify_data`: what a driver that has accepted VIRTIO_F_NOTIF_CONFIG_DATA writes to notify this virtqueue. Not its index,
/// so that a driver that writes that is found out.
pub fn notify_data(queue: u16) -> u16 {
    queue ^ 0x5a00
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registers() -> Registers {
        Registers::new((1 << 32) | (1 << 39) | (1 << 6), 2, 256, 3)
    }

    #[test]
    fn features_are_read_and_written_by_halves() {
        let mut registers = registers();
        registers.write(0x00, 4, 1, true);
        assert_eq!(registers.read(0x04, 4), 1 | (1 << 7));
        registers.write(0x00, 4, 2, true);
        assert_eq!(registers.read(0x04, 4), 0);
        registers.write(0x08, 4, 1, true);
        registers.write(0x0c, 4, 1 | (1 << 7), true);
        assert_eq!(registers.accepted(), (1 << 32) | (1 << 39));
        registers.write(0x0c, 4, 0, false);
        assert_eq!(registers.accepted(), (1 << 32) | (1 << 39));
    }

    #[test]
    fn an_enabled_queue_is_not_changed() {
        let mut registers = registers();
        registers.write(0x20, 8, 0x1_0000, true);
        registers.write(0x1c, 2, 1, true);
        registers.write(0x20, 8, 0x2_0000, true);
        registers.write(0x18, 2, 16, true);
        assert_eq!(
            (registers.read(0x20, 8), registers.read(0x18, 2)),
            (0x1_0000, 256)
        );
    }

    #[test]
    fn only_the_size_of_a_packed_queue_need_not_be_a_power_of_2() {
        for (accepted, sizes) in [(0, [16, 256, 256, 256]), (1 << 2, [16, 10, 256, 256])] {
            let mut registers = registers();
            registers.write(0x08, 4, 1, true);
            registers.write(0x0c, 4, accepted, true);
            for (written, expected) in [16, 10, 0, 257].into_iter().zip(sizes) {
                registers.write(0x18, 2, 256, true);
                registers.write(0x18, 2, written, true);
                assert_eq!(registers.read(0x18, 2), expected, "{written}");
            }
        }
    }

    #[test]
    fn a_queue_that_does_not_exist_has_size_0() {
        let mut registers = registers();
        registers.write(0x16, 2, 2, true);
        assert_eq!(registers.read(0x18, 2), 0);
        registers.write(0x1c, 2, 1, true);
        assert!(registers.queues.iter().all(|queue| !queue.enabled));
    }

    proptest! {
        #[test]
        fn no_access_breaks_what_the_device_relies_on(
            writes in prop::collection::vec((0u64..0x40, prop::sample::select(vec![1usize, 2, 4, 8]), any::<u64>(), any::<bool>()), 0..200),
        ) {
            let mut registers = registers();
            for (offset, length, value, open) in writes {
                registers.write(offset, length, value, open);
                registers.read(offset, length);
                prop_assert!(registers.queues.iter().all(|queue| queue.size > 0 && queue.size <= 256));
                prop_assert!(registers.queues.iter().all(|queue| queue.vector < 3 || queue.vector == NO_VECTOR));
                prop_assert_eq!(registers.queues.len(), 2);
            }
        }
    }
}
