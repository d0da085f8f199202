// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host tells of itself (virtio 1.4, 5.6.6.3), in buffers that the driver has made available for that.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::types::put;

/// Bytes in an event.
pub const SIZE: usize = 16;

/// Events that wait for buffers; more are lost, which the next one tells.
const MOST_PENDING: usize = 32;

const T_PARAM_CHANGE: u32 = 3;
const T_EVENTS_MISSED: u32 = 1 << 31;
/// CAPACITY DATA HAS CHANGED (SPC-4): the additional sense code, and its qualifier in the byte above.
const CAPACITY_CHANGED: u32 = 0x092a;

/// The events that wait.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    listened_to: bool,
    /// The units whose size has changed.
    resized: VecDeque<u16>,
    /// Others have, too.
    missed: bool,
    /// So many of the first of them are in buffers that the driver has not been given back, and one of these tells that others were
    /// missed.
    in_buffers: usize,
    missed_in_buffers: bool,
}

impl Events {
    /// The driver is ready, and wants to be told of changes, or not.
    pub fn start(&mut self, listened_to: bool) {
        self.listened_to = listened_to;
    }

    /// Unit `lun` has another size now.
    pub fn resized(&mut self, lun: u16) {
        if !self.listened_to {
            return;
        }
        if self.resized.len() < MOST_PENDING {
            self.resized.push_back(lun);
        } else {
            self.missed = true;
        }
    }

    /// How many there are that the driver does not have.
    pub fn pending(&self) -> usize {
        self.resized.len()
    }

    /// The next one, for a buffer. VIRTIO_SCSI_T_NO_EVENT if there is none.
    pub fn tell(&mut self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let Some(&lun) = self.resized.get(self.in_buffers) else {
            return bytes;
        };
        self.in_buffers += 1;
        self.missed_in_buffers |= self.missed;
        let kind = match std::mem::take(&mut self.missed) {
            true => T_PARAM_CHANGE | T_EVENTS_MISSED,
            false => T_PARAM_CHANGE,
        };
        put(&mut bytes, 0, &kind.to_le_bytes());
        // The target, and the unit as REPORT LUNS names it.
        put(&mut bytes, 4, &[1, 0]);
        put(&mut bytes, 6, &lun.to_be_bytes());
        put(&mut bytes, 12, &CAPACITY_CHANGED.to_le_bytes());
        bytes
    }

    /// The driver has the first of those in buffers.
    pub fn given_back(&mut self) {
        if self.in_buffers == 0 {
            // VIRTIO_SCSI_T_NO_EVENT.
            return;
        }
        self.in_buffers -= 1;
        self.missed_in_buffers &= self.in_buffers > 0;
        self.resized.pop_front();
    }

    /// The driver will have none of those in buffers: it is told again.
    pub fn buffers_are_lost(&mut self) {
        self.in_buffers = 0;
        self.missed |= std::mem::take(&mut self.missed_in_buffers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next one, which the driver is given.
    fn give(events: &mut Events) -> [u8; SIZE] {
        let bytes = events.tell();
        events.given_back();
        bytes
    }

    #[test]
    fn what_was_lost_with_its_buffers_is_told_again() {
        let mut events = Events::default();
        events.start(true);
        for lun in 0..MOST_PENDING as u16 + 1 {
            events.resized(lun);
        }
        let first = [events.tell(), events.tell()];
        assert_eq!((first[0][3], first[1][3]), (0x80, 0));
        events.buffers_are_lost();
        assert_eq!([events.tell(), events.tell()], first);
        events.given_back();
        events.given_back();
        assert_eq!(events.pending(), MOST_PENDING - 2);
        events.tell();
        events.buffers_are_lost();
        assert_eq!(give(&mut events)[..8], [3, 0, 0, 0, 1, 0, 0, 2]);
    }

    #[test]
    fn what_is_too_much_is_lost_and_the_next_event_tells() {
        let mut events = Events::default();
        events.start(true);
        for lun in 0..MOST_PENDING as u16 + 2 {
            events.resized(lun);
        }
        assert_eq!(events.pending(), MOST_PENDING);
        let kinds: Vec<[u8; 4]> = (0..MOST_PENDING as u8)
            .map(|lun| {
                let [k0, k1, k2, k3, 1, 0, 0, of, 0, 0, 0, 0, 0x2a, 9, 0, 0] = give(&mut events)
                else {
                    panic!("another event");
                };
                assert_eq!(of, lun);
                [k0, k1, k2, k3]
            })
            .collect();
        assert_eq!(kinds[..2], [[3, 0, 0, 0x80], [3, 0, 0, 0]]);
        assert!(kinds[1..].iter().all(|kind| *kind == [3, 0, 0, 0]));
        assert_eq!((events.pending(), give(&mut events)), (0, [0; SIZE]));
        events.resized(7);
        assert_eq!(give(&mut events)[..8], [3, 0, 0, 0, 1, 0, 0, 7]);
    }

    #[test]
    fn who_does_not_listen_is_told_nothing() {
        let mut events = Events::default();
        events.resized(0);
        events.start(false);
        events.resized(0);
        assert_eq!(events.pending(), 0);
        events.start(true);
        events.resized(0);
        assert_eq!(events.pending(), 1);
    }
}
