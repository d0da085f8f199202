// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the client sends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use arbitrary::Arbitrary;
use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{memfd_create, MemfdFlags};

use crate::guest;

pub(super) const HEADER: usize = 16;
const NO_REPLY: u32 = 1 << 4;

#[derive(Arbitrary, Debug)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) what: What,
    /// How much longer than it is the header says that it is.
    pub(super) longer: i8,
    pub(super) flags: u8,
    pub(super) files: Vec<Kept>,
}

#[derive(Arbitrary, Debug)]
pub(super) enum What {
    Version {
        major: u8,
        text: Vec<u8>,
    },
    DmaMap {
        flags: u8,
        offset: Pages,
        address: Pages,
        size: Pages,
    },
    DmaUnmap {
        flags: u8,
        address: Pages,
        size: Pages,
    },
    GetInfo {
        argsz: u8,
    },
    GetRegionInfo {
        argsz: u8,
        index: u8,
    },
    GetIrqInfo {
        argsz: u8,
        index: u8,
    },
    SetIrqs {
        flags: u8,
        index: u8,
        start: u8,
        count: u8,
    },
    Read {
        region: Region,
        offset: u16,
        count: u16,
    },
    Write {
        region: Region,
        offset: u16,
        data: Vec<u8>,
    },
    Reset,
    /// Messages that bring the device up, with so many requests that read nothing.
    Drive(u8),
    Other {
        command: u16,
        payload: Vec<u8>,
    },
    /// No message at all.
    Raw(Vec<u8>),
}

/// An address or a size: small and whole pages, or anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Pages {
    Some(u8),
    Any(u64),
}

impl Pages {
    pub(super) fn bytes(self) -> [u8; 8] {
        match self {
            Self::Some(pages) => u64::from(pages) * 0x1000,
            Self::Any(bytes) => bytes,
        }
        .to_ne_bytes()
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Region {
    Bar0,
    Config,
    Other(u8),
}

impl Region {
    pub(super) fn bytes(self) -> [u8; 4] {
        match self {
            Self::Bar0 => 0,
            Self::Config => 7,
            Self::Other(index) => u32::from(index),
        }
        .to_ne_bytes()
    }
}

/// A file of the client's.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Kept {
    Memory,
    Unsealed,
    Eventfd,
    Socket,
}

pub(super) struct Files {
    pub(super) memory: OwnedFd,
    unsealed: OwnedFd,
    eventfd: OwnedFd,
    socket: OwnedFd,
}

impl Files {
    pub(super) fn new(socket: &UnixStream) -> Self {
        Self {
            memory: guest::memory_file().into(),
            unsealed: memfd_create("unsealed", MemfdFlags::empty()).expect("a file"),
            eventfd: eventfd(0, EventfdFlags::NONBLOCK).expect("a file"),
            socket: socket.try_clone().expect("a file").into(),
        }
    }

    pub(super) fn get(&self, kept: Kept) -> BorrowedFd<'_> {
        match kept {
            Kept::Memory => self.memory.as_fd(),
            Kept::Unsealed => self.unsealed.as_fd(),
            Kept::Eventfd => self.eventfd.as_fd(),
            Kept::Socket => self.socket.as_fd(),
        }
    }
}

pub(super) fn words(words: &[u8]) -> Vec<u8> {
    let words = words.iter().map(|word| u32::from(*word).to_ne_bytes());
    words.collect::<Vec<_>>().concat()
}

impl What {
    /// The command, and its payload.
    pub(super) fn parts(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Version { major, text } => (1, [&[*major, 0, 0, 0][..], text, &[0]].concat()),
            Self::DmaMap {
                flags,
                offset,
                address,
                size,
            } => {
                let range = [offset, address, size].map(|field| field.bytes()).concat();
                (2, [words(&[32, *flags]), range].concat())
            }
            Self::DmaUnmap {
                flags,
                address,
                size,
            } => {
                let range = [address, size].map(|field| field.bytes()).concat();
                (3, [words(&[24, *flags]), range].concat())
            }
            Self::GetInfo { argsz } => (4, words(&[*argsz, 0, 0, 0])),
            Self::GetRegionInfo { argsz, index } => (5, words(&[*argsz, 0, *index, 0, 0, 0, 0, 0])),
            Self::GetIrqInfo { argsz, index } => (7, words(&[*argsz, 0, *index, 0])),
            Self::SetIrqs {
                flags,
                index,
                start,
                count,
            } => (8, words(&[20, *flags, *index, *start, *count])),
            Self::Read {
                region,
                offset,
                count,
            } => {
                let count = u32::from(*count).to_ne_bytes();
                let offset = u64::from(*offset).to_ne_bytes();
                (9, [&offset[..], &region.bytes(), &count].concat())
            }
            Self::Write {
                region,
                offset,
                data,
            } => {
                let count = (data.len() as u32).to_ne_bytes();
                let offset = u64::from(*offset).to_ne_bytes();
                (10, [&offset[..], &region.bytes(), &count, data].concat())
            }
            Self::Reset => (13, Vec::new()),
            Self::Other { command, payload } => (*command, payload.clone()),
            Self::Drive(_) | Self::Raw(_) => (0, Vec::new()),
        }
    }
}

impl Message {
    /// Its bytes, with the features that the driver accepts; and if it is as long as it says, and wants a reply, its id and command.
    pub(super) fn bytes(&self, features: u64) -> (Vec<u8>, Whole) {
        match &self.what {
            What::Raw(bytes) => return (bytes.clone(), Whole::No),
            What::Drive(_) => return (drive(features), Whole::Unanswered),
            _ => {}
        }
        let (command, payload) = self.what.parts();
        let size = (HEADER + payload.len()) as u32;
        let flags = u32::from(self.flags);
        let bytes = [
            &self.id.to_ne_bytes()[..],
            &command.to_ne_bytes(),
            &size.wrapping_add_signed(self.longer.into()).to_ne_bytes(),
            &flags.to_ne_bytes(),
            &[0; 4],
            &payload,
        ]
        .concat();
        let whole = match (self.longer, flags & NO_REPLY) {
            (0, 0) => Whole::Answered(self.id, command),
            (0, _) => Whole::Unanswered,
            _ => Whole::No,
        };
        (bytes, whole)
    }
}

/// Where a virtqueue has its descriptors, its rings, and a buffer.
pub(super) const RINGS: [u64; 3] = [0, 0x1000, 0x2000];
pub(super) const BUFFER: u64 = 0x3000;

/// Maps the memory, and brings the device up with these features, and three virtqueues in the same place. No message is answered.
pub(super) fn drive(features: u64) -> Vec<u8> {
    let message = |command: u16, payload: Vec<u8>| {
        let size = (HEADER + payload.len()) as u32;
        let header = [size.to_ne_bytes(), NO_REPLY.to_ne_bytes(), [0; 4]].concat();
        [&[0, 0][..], &command.to_ne_bytes(), &header, &payload].concat()
    };
    let write = |offset: u16, data: &[u8]| {
        let (region, data) = (Region::Bar0, data.to_vec());
        let write = What::Write {
            region,
            offset,
            data,
        };
        message(10, write.parts().1)
    };
    let map = [0, 0, guest::MEMORY].map(u64::to_ne_bytes).concat();
    let mut all = vec![message(2, [words(&[32, 3]), map].concat())];
    let command = What::Write {
        region: Region::Config,
        offset: 4,
        data: vec![6, 0],
    };
    all.push(message(10, command.parts().1));
    all.extend([0u8, 1, 3].map(|status| write(0x14, &[status])));
    for select in [0u32, 1] {
        let half = (features >> (32 * select)) as u32;
        all.push(write(0x08, &select.to_le_bytes()));
        all.push(write(0x0c, &half.to_le_bytes()));
    }
    all.push(write(0x14, &[11]));
    for queue in 0..3u16 {
        all.push(write(0x16, &queue.to_le_bytes()));
        all.push(write(0x18, &16u16.to_le_bytes()));
        for (register, at) in [0x20, 0x28, 0x30].into_iter().zip(RINGS) {
            all.push(write(register, &at.to_le_bytes()[..4]));
        }
        all.push(write(0x1c, &1u16.to_le_bytes()));
    }
    all.push(write(0x14, &[15]));
    all.extend([0u16, 1, 2].map(|queue| write(0x3000 + queue * 4, &queue.to_le_bytes())));
    all.concat()
}

/// Makes so many requests available in what `drive` maps.
pub(super) fn fill(memory: BorrowedFd<'_>, requests: u8) {
    let word = |length: u32, flags: u16, next: u16| {
        [
            length.to_le_bytes(),
            (u32::from(flags) | (u32::from(next) << 16)).to_le_bytes(),
        ]
        .concat()
    };
    let chain = [
        BUFFER.to_le_bytes().to_vec(),
        word(51, 1, 1),
        (BUFFER + 0x1000).to_le_bytes().to_vec(),
        word(0x1001, 2, 0),
    ]
    .concat();
    let index = u16::from(requests % 17).to_le_bytes();
    let avail = [&[0, 0][..], &index, &[0; 32]].concat();
    for (at, bytes) in [
        (RINGS[0], &chain[..]),
        (RINGS[1], &avail),
        (RINGS[2], &[0; 4]),
    ] {
        rustix::io::pwrite(memory, bytes, at).expect("memory");
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Whole {
    Answered(u16, u16),
    Unanswered,
    No,
}
