// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages: a header of 16 bytes, and a payload by the command. All in the host's byte order.

use std::ops::RangeInclusive;

use rustix::io::Errno;

/// The length of a header.
pub(super) const HEADER_SIZE: usize = 16;
/// The most data of a region access: more than any register, and all of configuration space.
pub(super) const MAX_DATA: u32 = 4096;
/// The most file descriptors that come with a message. QEMU takes no more than 16 from a server.
pub(super) const MAX_FILES: usize = 8;
/// The longest text of capabilities.
const MAX_CAPABILITIES: usize = 4096;

const TYPE: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// The beginning of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    id: u16,
    command: u16,
    size: u32,
    flags: u32,
}

impl Header {
    /// A header as it comes. Its last field means something in replies only.
    pub(super) fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = *bytes;
        Self {
            id: u16::from_ne_bytes([i0, i1]),
            command: u16::from_ne_bytes([c0, c1]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        }
    }

    /// How many bytes follow. None: nobody knows.
    pub(super) fn payload_size(&self) -> Option<usize> {
        usize::try_from(self.size).ok()?.checked_sub(HEADER_SIZE)
    }

    /// The command, if its payload may be as long as this one says.
    pub(super) fn command(&self) -> Result<Command, Errno> {
        if self.flags & TYPE != TYPE_COMMAND {
            return Err(Errno::INVAL);
        }
        let command = Command::numbered(self.command).ok_or(Errno::OPNOTSUPP)?;
        let fits = |size| command.payload().contains(&size);
        let fits = self.payload_size().is_some_and(fits);
        fits.then_some(command).ok_or(Errno::INVAL)
    }

    /// Whether the client waits for a reply.
    pub(super) fn wants_reply(&self) -> bool {
        self.flags & NO_REPLY == 0
    }

    /// The reply to the message with this header.
    pub(super) fn reply(&self, result: Result<&[u8], Errno>) -> Vec<u8> {
        let (payload, flags, error) = match result {
            Ok(payload) => (payload, TYPE_REPLY, 0),
            Err(error) => (&[][..], TYPE_REPLY | ERROR, error.raw_os_error()),
        };
        let size = (HEADER_SIZE + payload.len()) as u32;
        [
            &self.id.to_ne_bytes()[..],
            &self.command.to_ne_bytes(),
            &size.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &error.to_ne_bytes(),
            payload,
        ]
        .concat()
    }
}

/// The commands that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Version,
    DmaMap,
    DmaUnmap,
    DeviceGetInfo,
    DeviceGetRegionInfo,
    DeviceGetIrqInfo,
    DeviceSetIrqs,
    RegionRead,
    RegionWrite,
    DeviceReset,
}

impl Command {
    fn numbered(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::DeviceGetInfo,
            5 => Self::DeviceGetRegionInfo,
            7 => Self::DeviceGetIrqInfo,
            8 => Self::DeviceSetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            13 => Self::DeviceReset,
            _ => return None,
        })
    }

    /// How long its payload can be.
    pub(super) fn payload(self) -> RangeInclusive<usize> {
        match self {
            Self::Version => 4..=4 + MAX_CAPABILITIES,
            Self::DmaMap | Self::DeviceGetRegionInfo => 32..=32,
            Self::DmaUnmap => 24..=24,
            Self::DeviceGetInfo | Self::DeviceGetIrqInfo | Self::RegionRead => 16..=16,
            Self::DeviceSetIrqs => 20..=20,
            Self::RegionWrite => 16..=16 + MAX_DATA as usize,
            Self::DeviceReset => 0..=0,
        }
    }

    /// How many file descriptors can come with it.
    pub(super) fn files(self) -> usize {
        match self {
            Self::DmaMap => 1,
            Self::DeviceSetIrqs => MAX_FILES,
            _ => 0,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Version {
        major: u16,
        capabilities: Vec<u8>,
    },
    DmaMap {
        flags: u32,
        offset: u64,
        address: u64,
        size: u64,
    },
    DmaUnmap {
        argsz: u32,
        flags: u32,
        address: u64,
        size: u64,
    },
    DeviceGetInfo,
    DeviceGetRegionInfo {
        index: u32,
    },
    DeviceGetIrqInfo {
        index: u32,
    },
    DeviceSetIrqs {
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
    },
    RegionRead {
        offset: u64,
        region: u32,
        count: u32,
    },
    RegionWrite {
        offset: u64,
        region: u32,
        data: Vec<u8>,
    },
    DeviceReset,
}

impl Request {
    /// The payload of a command. `argsz` is, where there is a reply, how long its payload may be.
    pub(super) fn parse(command: Command, payload: &[u8]) -> Result<Self, Errno> {
        let mut fields = Fields(payload);
        Ok(match command {
            Command::Version => {
                let major = fields.u16()?;
                // The minor version: 0 is all that there is, and no more than any other.
                fields.u16()?;
                Self::Version {
                    major,
                    capabilities: fields.0.to_vec(),
                }
            }
            Command::DmaMap => {
                fields.u32()?;
                Self::DmaMap {
                    flags: fields.u32()?,
                    offset: fields.u64()?,
                    address: fields.u64()?,
                    size: fields.u64()?,
                }
            }
            Command::DmaUnmap => Self::DmaUnmap {
                argsz: fields.u32()?,
                flags: fields.u32()?,
                address: fields.u64()?,
                size: fields.u64()?,
            },
            Command::DeviceGetInfo => {
                fields.room_for(16)?;
                Self::DeviceGetInfo
            }
            Command::DeviceGetRegionInfo => {
                fields.room_for(32)?;
                fields.u32()?;
                Self::DeviceGetRegionInfo {
                    index: fields.u32()?,
                }
            }
            Command::DeviceGetIrqInfo => {
                fields.room_for(16)?;
                fields.u32()?;
                Self::DeviceGetIrqInfo {
                    index: fields.u32()?,
                }
            }
            Command::DeviceSetIrqs => {
                fields.u32()?;
                Self::DeviceSetIrqs {
                    flags: fields.u32()?,
                    index: fields.u32()?,
                    start: fields.u32()?,
                    count: fields.u32()?,
                }
            }
            Command::RegionRead => Self::RegionRead {
                offset: fields.u64()?,
                region: fields.u32()?,
                count: fields.u32()?,
            },
            Command::RegionWrite => {
                let (offset, region, count) = (fields.u64()?, fields.u32()?, fields.u32()?);
                if usize::try_from(count) != Ok(fields.0.len()) {
                    return Err(Errno::INVAL);
                }
                Self::RegionWrite {
                    offset,
                    region,
                    data: fields.0.to_vec(),
                }
            }
            Command::DeviceReset => Self::DeviceReset,
        })
    }
}

/// What of a payload is still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_ne_bytes)
    }

    /// `argsz` has to leave room for a reply of `size` bytes.
    fn room_for(&mut self, size: u32) -> Result<(), Errno> {
        let room = self.u32()? >= size;
        room.then_some(()).ok_or(Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMANDS: [u16; 10] = [1, 2, 3, 4, 5, 7, 8, 9, 10, 13];

    #[test]
    fn a_reply_is_sent_unless_the_client_wants_none() {
        for (flags, wants) in [(0, true), (1 << 4, false), (1 << 5, true)] {
            let mut header = Header::parse(&[0; HEADER_SIZE]);
            header.flags = flags;
            assert_eq!(header.wants_reply(), wants, "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn no_header_asks_for_more_than_its_command_allows(
            bytes in any::<[u8; HEADER_SIZE]>(),
            known in prop::option::of(prop::sample::select(&COMMANDS[..])),
            flags in prop::option::of(Just(0u32)),
        ) {
            let mut header = Header::parse(&bytes);
            header.command = known.unwrap_or(header.command);
            header.flags = flags.unwrap_or(header.flags);
            if let Ok(command) = header.command() {
                let size = header.payload_size().unwrap();
                prop_assert!(command.payload().contains(&size) && size <= 4 + 16 + 4096);
                prop_assert!(COMMANDS.contains(&header.command));
                prop_assert_eq!(header.flags & TYPE, 0);
            }
        }

        #[test]
        fn any_payload_is_read(
            number in prop::sample::select(&COMMANDS[..]),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let command = Command::numbered(number).unwrap();
            // By the header's checks it is never shorter. None of them relies on that.
            let _ = Request::parse(command, &payload);
        }

        #[test]
        fn a_reply_is_as_long_as_it_says(
            bytes in any::<[u8; HEADER_SIZE]>(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            errno in prop::option::of(1i32..4000),
        ) {
            let header = Header::parse(&bytes);
            let result = match errno {
                None => Ok(&payload[..]),
                Some(errno) => Err(Errno::from_raw_os_error(errno)),
            };
            let reply = header.reply(result);
            let read = Header::parse(reply.first_chunk().unwrap());
            prop_assert_eq!((read.id, read.command), (header.id, header.command));
            prop_assert_eq!(read.size as usize, reply.len());
            let error = i32::from_ne_bytes(reply[12..16].try_into().unwrap());
            let expected = match errno {
                None => (1, 0, payload),
                Some(errno) => (1 | (1 << 5), errno, vec![]),
            };
            prop_assert_eq!((read.flags, error, reply[16..].to_vec()), expected);
        }
    }
}
