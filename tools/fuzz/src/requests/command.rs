// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a disk is asked for.

use arbitrary::Arbitrary;

/// How long the response to a SCSI command is that has the sense data of a host after power-on.
const SCSI_RESPONSE: u64 = 12 + 96;

#[derive(Arbitrary, Debug)]
pub(super) enum Command {
    Blk {
        kind: BlkKind,
        sector: Number,
        data: Vec<u8>,
        layout: Layout,
    },
    Ranges {
        zeroes: bool,
        ranges: Vec<(Number, Number, u8)>,
        layout: Layout,
    },
    Scsi {
        unit: u8,
        operation: Operation,
        rest: [u8; 15],
        block: Number,
        blocks: u8,
        data: Vec<u8>,
        layout: Layout,
    },
    Event(Layout),
    Raw {
        queue: u8,
        data: Vec<u8>,
        layout: Layout,
    },
    Configuration {
        offset: u8,
        value: u32,
    },
    Negotiated(u64),
    Resize {
        unit: u8,
        sectors: u8,
    },
    Reset,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum BlkKind {
    In,
    Out,
    Flush,
    GetId,
    ZoneReport,
    Other(u32),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Operation {
    TestUnitReady,
    RequestSense,
    Inquiry,
    ModeSense6,
    ReadCapacity10,
    Read10,
    Write10,
    Synchronize10,
    ModeSense10,
    Read16,
    Write16,
    Synchronize16,
    ServiceActionIn,
    ReportLuns,
    Other(u8),
}

/// Small, or any.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Number {
    Small(u8),
    Any(u64),
}

impl Number {
    pub(super) fn value(self) -> u64 {
        match self {
            Self::Small(number) => number.into(),
            Self::Any(number) => number,
        }
    }
}

/// How long the buffers are, in which the request lies, and those for the answer.
#[derive(Arbitrary, Debug)]
pub(super) struct Layout {
    pub(super) input: Vec<u16>,
    pub(super) output: Vec<u16>,
    /// Room for the answer in one more buffer.
    pub(super) room: u16,
    pub(super) fail: bool,
}

impl BlkKind {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::In => 0,
            Self::Out => 1,
            Self::Flush => 4,
            Self::GetId => 8,
            Self::ZoneReport => 16,
            Self::Other(number) => number,
        }
    }
}

impl Operation {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::TestUnitReady => 0x00,
            Self::RequestSense => 0x03,
            Self::Inquiry => 0x12,
            Self::ModeSense6 => 0x1a,
            Self::ReadCapacity10 => 0x25,
            Self::Read10 => 0x28,
            Self::Write10 => 0x2a,
            Self::Synchronize10 => 0x35,
            Self::ModeSense10 => 0x5a,
            Self::Read16 => 0x88,
            Self::Write16 => 0x8a,
            Self::Synchronize16 => 0x91,
            Self::ServiceActionIn => 0x9e,
            Self::ReportLuns => 0xa0,
            Self::Other(code) => code,
        }
    }
}

pub(super) fn blk_header(kind: u32, sector: u64) -> Vec<u8> {
    let words = [kind.to_le_bytes(), [0; 4]].concat();
    [words, sector.to_le_bytes().to_vec()].concat()
}

/// A command for that unit, with the CDB that a request has after power-on.
pub(super) fn scsi_request(
    unit: u8,
    operation: Operation,
    rest: [u8; 15],
    block: u64,
    blocks: u8,
) -> Vec<u8> {
    let mut cdb = [&[operation.code()][..], &rest, &[0; 16]].concat();
    match operation {
        Operation::Read10 | Operation::Write10 => {
            cdb[2..6].copy_from_slice(&(block as u32).to_be_bytes());
            cdb[7..9].copy_from_slice(&u16::from(blocks).to_be_bytes());
        }
        Operation::Read16 | Operation::Write16 => {
            cdb[2..10].copy_from_slice(&block.to_be_bytes());
            cdb[10..14].copy_from_slice(&u32::from(blocks).to_be_bytes());
        }
        _ => {}
    }
    [&[1, 0, 0x40, unit, 0, 0, 0, 0][..], &[0; 11], &cdb].concat()
}

impl Layout {
    /// The buffers are as long as what is asked for, mostly.
    fn fits(&self) -> bool {
        self.room % 8 != 7
    }
}

impl Command {
    /// How much room there is altogether for the answer, if it is not as the layout says: for whole sectors and the status, mostly.
    pub(super) fn room(&self) -> Option<u64> {
        match self {
            Self::Blk {
                kind: BlkKind::In,
                layout,
                ..
            } if layout.fits() => Some(u64::from(layout.room % 8) * 512 + 1),
            Self::Scsi {
                operation,
                blocks,
                layout,
                ..
            } if layout.fits() => match operation {
                Operation::Read10 | Operation::Read16 => {
                    Some(SCSI_RESPONSE + u64::from(*blocks) * 512)
                }
                Operation::Write10 | Operation::Write16 => Some(SCSI_RESPONSE),
                _ => None,
            },
            _ => None,
        }
    }

    /// Virtqueue, what the device is to read, and where that lies.
    pub(super) fn request(&self) -> Option<(usize, Vec<u8>, &Layout)> {
        Some(match self {
            Self::Blk {
                kind,
                sector,
                data,
                layout,
            } => {
                let header = blk_header(kind.number(), sector.value());
                // Whole sectors, mostly.
                let length = match data.len() {
                    length if matches!(kind, BlkKind::Out) && length % 8 != 7 => {
                        length.next_multiple_of(512)
                    }
                    length => length,
                };
                let data = data.iter().copied().cycle().take(length).collect();
                (0, [header, data].concat(), layout)
            }
            Self::Ranges {
                zeroes,
                ranges,
                layout,
            } => {
                let mut bytes = blk_header(if *zeroes { 13 } else { 11 }, 0);
                for (sector, sectors, flags) in ranges {
                    bytes.extend(sector.value().to_le_bytes());
                    bytes.extend((sectors.value() as u32).to_le_bytes());
                    bytes.extend(u32::from(*flags).to_le_bytes());
                }
                // The last one is cut off now and then.
                let cut = usize::from(layout.room % 64).saturating_sub(48);
                bytes.truncate(bytes.len() - cut);
                (0, bytes, layout)
            }
            Self::Scsi {
                unit,
                operation,
                rest,
                block,
                blocks,
                data,
                layout,
            } => {
                let request = scsi_request(*unit, *operation, *rest, block.value(), *blocks);
                let length = match operation {
                    Operation::Read10 | Operation::Read16 if layout.fits() => 0,
                    Operation::Write10 | Operation::Write16 if layout.fits() => {
                        usize::from(*blocks) * 512
                    }
                    _ => data.len(),
                };
                let data = data.iter().copied().cycle().take(length).collect();
                (2, [request, data].concat(), layout)
            }
            Self::Event(layout) => (1, Vec::new(), layout),
            Self::Raw {
                queue,
                data,
                layout,
            } => (usize::from(queue % 3), data.clone(), layout),
            _ => return None,
        })
    }
}
