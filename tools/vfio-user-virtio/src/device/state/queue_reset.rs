// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_RING_RESET (virtio 1.4, 2.6.1): the driver resets one virtqueue, and may enable it again, laid out anew.

use virtio_bindings::virtio_config::VIRTIO_F_RING_RESET;

use super::State;
use crate::device::queues::Virtqueue;

impl State {
    /// The driver has written `queue_reset`. Nothing more is given back: what was taken is dropped, also if it waits for memory. Only for
    /// what the worker has in its hands the reset waits, and the worker gives all of that up at once: its own request leaves off at its
    /// next access to memory, but one of another virtqueue goes on, be it that it waits for a file, for memory, or for Bus Master Enable.
    pub(super) fn reset_selected_queue(&mut self) {
        let Some((index, true)) = self
            .parts
            .registers
            .selected()
            .map(|(index, queue)| (index, queue.resetting))
        else {
            return;
        };
        self.work.abandon_queue(index);
        let dropped = self.parts.requests.drop_queue(index);
        self.drop_requests(index, dropped);
        self.finish_queue_reset(index);
    }

    /// So many requests of virtqueue `index` are in nobody's hands any more.
    pub(super) fn drop_requests(&mut self, index: usize, count: u64) {
        self.parts.tally.counters.requests.dropped += count;
        if let Some(virtqueue) = self.parts.queues.get_mut(index) {
            virtqueue.done_with(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    /// Ends the reset of virtqueue `index`, unless requests of it are being carried out.
    pub(super) fn finish_queue_reset(&mut self, index: usize) {
        match self.parts.queues.get(index) {
            Some(virtqueue) if !virtqueue.is_idle() => {}
            _ => {
                self.work.queue_is_reset(index);
                self.of_type.queue_reset(index);
                self.parts.registers.reset_queue(index);
                self.parts.tally.counters.queue_resets += 1;
                self.lay_out(index);
            }
        }
    }

    /// Sets virtqueue `index` of a live device up as its registers have it. Returns whether its addresses are aligned.
    fn lay_out(&mut self, index: usize) -> bool {
        let registers = &self.parts.registers;
        let (Some(virtqueue), Some(laid_out)) = (
            self.parts.queues.get_mut(index),
            registers.queues.get(index),
        ) else {
            return true;
        };
        tracing::info!(index, was = ?*virtqueue, "a virtqueue is laid out anew");
        let (laid_out, valid) = Virtqueue::new(laid_out, registers.accepted());
        *virtqueue = laid_out;
        self.parts
            .lookout
            .starts_anew(index, virtqueue.is_enabled());
        // What was missing for it is wanted no more, and nobody knows what else is missing.
        self.parts.requests.absent.mapped();
        valid
    }

    /// The driver has written `queue_enable`. Only one that may reset a virtqueue may enable it when the device is live already.
    pub(super) fn enable_selected_queue(&mut self) {
        let accepted = self.parts.registers.accepted() & (1 << VIRTIO_F_RING_RESET) != 0;
        let Some(index) = self
            .parts
            .registers
            .selected()
            .filter(|(_, queue)| accepted && queue.enabled && !queue.resetting)
            .map(|(index, _)| index)
        else {
            return;
        };
        // Before DRIVER_OK there is none.
        if self
            .parts
            .queues
            .get(index)
            .is_some_and(|virtqueue| !virtqueue.is_enabled())
        {
            let valid = self.lay_out(index);
            self.laid_out(valid);
        }
    }
}
