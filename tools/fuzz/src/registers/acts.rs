// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest does.

use arbitrary::Arbitrary;
use vfio_user_virtio::pci::BAR_SIZE;

use super::driver::{Driver, BUFFERS, INDIRECT, RINGS};
use crate::guest::MEMORY;

/// What the user can choose that a guest would notice.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("acknowledge", "at-once"),
    ("acknowledge", "after:1-20"),
    ("acknowledge", "never"),
    ("acknowledge", "given-up:5"),
    ("acknowledge", "needs-reset"),
    ("resume", "at-once"),
    ("resume", "after:3"),
    ("resume", "never"),
    ("resume", "needs-reset"),
    ("resume_form", "strict"),
    ("resume_form", "any"),
    ("resume_form", "cleared"),
    ("drop_stop", "never"),
    ("drop_stop", "after:7"),
    ("show_status", "as-is"),
    ("show_status", "always:0xff"),
    ("show_status", "stopping:0x00"),
    ("show_status", "resuming:0x80"),
    ("show_status", "random:1"),
    ("refuse_features", "true"),
    ("refuse_features", "false"),
    ("refuse_to_stop", "true"),
    ("take_while_stopped", "true"),
    ("take_while_stopped", "false"),
    ("change_while_stopped", "true"),
    ("notify_when_stopped", "true"),
    ("leave_requests", "true"),
    ("leave_requests", "false"),
    ("forget_notifications", "true"),
    ("io_delay_us", "0"),
    ("io_delay_us", "5000"),
    ("io_hold", "no"),
    ("io_hold", "always"),
    ("io_hold", "until-stop"),
    ("io_depth", "1"),
    ("io_depth", "128"),
    ("io_order", "reversed"),
    ("io_order", "shuffled"),
    ("io_error_every", "0"),
    ("io_error_every", "2"),
    ("hang_up", "on-stop"),
];
pub(super) const ACTIONS: &[&str] = &[
    "behave",
    "needs-reset",
    "forget-breaches",
    "hang-up",
    "resize:32",
    "resize:64",
    "resize:0:16",
    "resize:1:32",
    "link:down",
    "link:up",
];

#[derive(Arbitrary, Debug)]
pub(super) enum Act {
    Read(Place, u8),
    Write(Place, u64, u8),
    Status(u8),
    BringUp(Layout),
    Fill {
        at: u16,
        bytes: Vec<u8>,
    },
    Descriptor {
        queue: u8,
        index: u8,
        indirect: bool,
        address: Address,
        length: u32,
        flags: u8,
        next: u16,
    },
    /// A head in the available ring, and the index moved on. In a packed virtqueue flags of the next descriptor, and on to another.
    Publish {
        queue: u8,
        head: u16,
        by: i8,
    },
    Chain {
        queue: u8,
        indirect: bool,
        request: [u8; 16],
        data: Vec<u8>,
        outputs: Vec<(Address, u16)>,
        room: u16,
    },
    Notify(u8),
    /// And it is laid out anew, perhaps.
    ResetQueue(u8, Option<Layout>),
    Serve(u8),
    Map(u8, u8),
    Unmap(u8, u8),
    MapAll,
    Set(u8),
    Do(u8),
    FunctionReset,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Place {
    Common(u8),
    Bar(u16),
    Config(u8),
}

/// A place in BAR 0.
pub(super) fn in_bar(at: u16) -> u64 {
    u64::from(at) % BAR_SIZE
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Address {
    Memory(u16),
    Indirect(u8),
    Any(u64),
}

impl Address {
    pub(super) fn value(self) -> u64 {
        match self {
            Self::Memory(at) => BUFFERS + u64::from(at) % (MEMORY - BUFFERS),
            Self::Indirect(queue) => u64::from(queue % 5) * RINGS + INDIRECT,
            Self::Any(address) => address,
        }
    }
}

/// How a driver sets the device up.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Those that it does not accept.
    pub(super) refused: u64,
    /// A virtqueue has two to that power of entries, a packed one one more than that.
    pub(super) size: u8,
    /// One register of one virtqueue, and what is wrong with it.
    pub(super) odd: Option<(u8, u8, i16)>,
}

pub(super) const PLAIN: Layout = Layout {
    refused: 0,
    size: 13,
    odd: None,
};

impl Driver {
    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Read(place, length) => {
                let data = &mut [0; 8][..usize::from(length % 9)];
                match place {
                    Place::Common(at) => self.device.read_bar((*at).into(), data, self.now),
                    Place::Bar(at) => self.device.read_bar(in_bar(*at), data, self.now),
                    Place::Config(at) => self.device.read_config((*at).into(), data, self.now),
                }
            }
            Act::Write(place, value, length) => {
                let data = &value.to_le_bytes()[..usize::from(length % 9)];
                match place {
                    Place::Common(at) => self.write((*at).into(), data),
                    Place::Bar(at) => self.write(in_bar(*at), data),
                    Place::Config(at) => self.device.write_config((*at).into(), data, self.now),
                }
            }
            Act::Status(status) => {
                self.write(0x14, &[*status]);
                self.status();
            }
            Act::BringUp(layout) => self.bring_up(*layout),
            Act::Fill { at, bytes } => self.fill(u64::from(*at) * 2, bytes),
            Act::Descriptor {
                queue,
                index,
                indirect,
                address,
                length,
                flags,
                next,
            } => {
                let table = u64::from(queue % 5) * RINGS + if *indirect { INDIRECT } else { 0 };
                let (at, flags) = (address.value(), u16::from(*flags));
                self.descriptor(table, (*index).into(), at, *length, flags, *next);
            }
            Act::Publish { queue, head, by } => self.publish(*queue, *head, *by),
            Act::Chain {
                queue,
                indirect,
                request,
                data,
                outputs,
                room,
            } => {
                let inputs = [&request[..], data].concat();
                let mut outputs: Vec<(u64, u32)> = outputs
                    .iter()
                    .take(8)
                    .map(|(address, length)| (address.value(), u32::from(*length)))
                    .collect();
                outputs.push((BUFFERS + 0x1000, u32::from(*room % 0x2000)));
                self.request(*queue, *indirect, &inputs, &outputs);
                self.notify(*queue);
            }
            Act::Notify(queue) => self.notify(*queue),
            Act::ResetQueue(queue, layout) => {
                let queue = u16::from(*queue) % self.queues;
                self.reset_queue(queue);
                if let Some(layout) = layout {
                    self.lay_out(queue, *layout);
                }
            }
            Act::Serve(milliseconds) => self.serve(u64::from(*milliseconds) * 10),
            Act::Map(page, pages) => {
                self.map(
                    u64::from(page % 32) * 0x1000,
                    u64::from(pages % 32) * 0x1000,
                );
            }
            Act::Unmap(page, pages) => {
                let (page, pages) = (u64::from(page % 32), u64::from(pages % 64));
                // A part of a map is refused.
                let _ = self.device.memory().unmap(page * 0x1000, pages * 0x1000);
            }
            Act::MapAll => self.map_all(),
            Act::Set(which) => {
                let (name, value) = SETTINGS[usize::from(*which) % SETTINGS.len()];
                self.set(name, value);
            }
            Act::Do(which) => {
                // Another type's is refused.
                let _ = self
                    .device
                    .act(ACTIONS[usize::from(*which) % ACTIONS.len()]);
            }
            Act::FunctionReset => self.device.reset(),
        }
    }
}
