// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The judge's look into the virtqueues. It is no access by the device, which may be suspended or no bus master: it only reads, and what it
//! remembers is its own. Where the device is in a virtqueue, and when it wants to be notified, stays as it is.

use serde::{Deserialize, Serialize};

use super::queues::Virtqueue;
use crate::memory::Observed;

/// Up to where there were buffers in each virtqueue at the last look, as far as that could be told.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Lookout(Vec<Option<u16>>);

impl Lookout {
    /// What is there by now is not held against the driver.
    pub(super) fn begin(&mut self, queues: &[Virtqueue], memory: Observed<'_>) {
        let available = |queue: &Virtqueue| queue.available(memory);
        self.0 = queues.iter().map(available).collect();
    }

    /// Virtqueue `index` is another one now, or none, if it is not enabled. It begins without buffers.
    pub(super) fn starts_anew(&mut self, index: usize, is_enabled: bool) {
        if let Some(seen) = self.0.get_mut(index) {
            *seen = is_enabled.then_some(0);
        }
    }

    /// How many buffers the driver has added to each virtqueue since the last look.
    pub(super) fn added(&mut self, queues: &[Virtqueue], memory: Observed<'_>) -> Vec<u16> {
        let watched = queues.iter().zip(&mut self.0);
        let added = watched.map(|(queue, seen)| {
            let Some(available) = queue.available(memory) else {
                return 0;
            };
            let before = seen.replace(available);
            before.map_or(0, |before| queue.added(before, available))
        });
        added.collect()
    }
}
