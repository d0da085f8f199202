// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A disk as SCSI sees it: the commands (SPC-4, SBC-3) without which Linux does not use one.

use std::io::{self, Write};

use crate::buffers::{Reader, Writer};
use crate::types::store::{Store, SECTOR};
use crate::types::{put, ActionError};

/// The status of a command that has sense data (SAM-5, 5.3.1).
pub const CHECK_CONDITION: u8 = 2;

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const REPORT_LUNS: u8 = 0xa0;

/// The service action of SERVICE ACTION IN(16).
const READ_CAPACITY_16: u8 = 0x10;
/// In the second byte of WRITE: the data is to be on the medium before the answer.
const FORCE_UNIT_ACCESS: u8 = 0x08;
/// In the second byte of INQUIRY: a page of vital product data.
const EVPD: u8 = 0x01;
/// The caching mode page, and in its third byte: data may be lost until the cache is synchronized.
const CACHING: u8 = 0x08;
const WRITE_CACHE: u8 = 0x04;
const ALL_PAGES: u8 = 0x3f;
/// The type of a unit that is not there.
const NO_UNIT: u8 = 0x7f;

/// A logical unit.
#[derive(Debug)]
pub struct Unit {
    store: Store,
    serial: String,
}

/// A command, and what else there is to know.
#[derive(Debug)]
pub struct Command<'a> {
    /// What is to be done.
    pub cdb: &'a [u8],
    /// It is to fail.
    pub fail: bool,
    /// How many units the target has.
    pub units: usize,
}

/// How a command has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well.
    Good,
    /// It needs more data than there are buffers.
    Overrun,
    /// The host can't carry it out.
    Failure,
    /// Not.
    Check(Sense),
}

/// Why not (SPC-4, 4.5): sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense(u8, u8, u8);

impl Sense {
    const NONE: Self = Self(0, 0, 0);
    const WRITE_ERROR: Self = Self(3, 0x0c, 0);
    const READ_ERROR: Self = Self(3, 0x11, 0);
    const INTERNAL_FAILURE: Self = Self(4, 0x44, 0);
    const UNKNOWN_COMMAND: Self = Self(5, 0x20, 0);
    const OUT_OF_RANGE: Self = Self(5, 0x21, 0);
    const INVALID_FIELD: Self = Self(5, 0x24, 0);
    const NO_SUCH_UNIT: Self = Self(5, 0x25, 0);

    /// In fixed format.
    pub fn bytes(self) -> [u8; 18] {
        let Self(key, code, qualifier) = self;
        [
            0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0,
        ]
    }
}

impl Command<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.cdb.get(at).copied().unwrap_or_default()
    }

    /// The big-endian number in the bytes from `at` on.
    fn number(&self, at: usize, bytes: usize) -> u64 {
        (at..at + bytes).fold(0, |number, at| (number << 8) | u64::from(self.byte(at)))
    }

    /// For the counters.
    pub fn name(&self) -> &'static str {
        match self.byte(0) {
            TEST_UNIT_READY => "test_unit_ready",
            REQUEST_SENSE => "request_sense",
            INQUIRY => "inquiry",
            MODE_SENSE_6 | MODE_SENSE_10 => "mode_sense",
            READ_CAPACITY_10 | SERVICE_ACTION_IN_16 => "read_capacity",
            READ_10 | READ_16 => "read",
            WRITE_10 | WRITE_16 => "write",
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => "synchronize_cache",
            REPORT_LUNS => "report_luns",
            _ => "unsupported",
        }
    }

    /// First block, and number of blocks.
    fn blocks(&self) -> (u64, u64) {
        match self.byte(0) {
            READ_10 | WRITE_10 => (self.number(2, 4), self.number(7, 2)),
            _ => (self.number(2, 8), self.number(10, 4)),
        }
    }
}

/// Answers with as much of `bytes` as the driver has asked for, and has room for; without room for all of that it is an overrun.
fn tell(bytes: &[u8], allocated: u64, data: &mut Writer<'_>) -> Answer {
    let allocated = usize::try_from(allocated).unwrap_or(usize::MAX);
    let asked = bytes.len().min(allocated);
    let length = asked.min(data.available_bytes());
    match data.write_all(bytes.get(..length).unwrap_or_default()) {
        Ok(()) if length < asked => Answer::Overrun,
        Ok(()) => Answer::Good,
        Err(_) => Answer::Check(Sense::INTERNAL_FAILURE),
    }
}

fn report_luns(command: &Command<'_>, data: &mut Writer<'_>) -> Answer {
    let mut bytes = vec![0; 8 + command.units * 8];
    put(&mut bytes, 0, &((command.units * 8) as u32).to_be_bytes());
    for lun in 0..command.units {
        put(&mut bytes, 8 + lun * 8, &(lun as u16).to_be_bytes());
    }
    tell(&bytes, command.number(6, 4), data)
}

fn standard_inquiry(device_type: u8) -> [u8; 36] {
    let mut bytes = [b' '; 36];
    // SPC-4, this format of what follows, of that length, with command queueing.
    put(&mut bytes, 0, &[device_type, 0, 6, 2, 31, 0, 0, 2]);
    put(&mut bytes, 8, b"virtio");
    put(&mut bytes, 16, b"vfio-user-virtio");
    put(&mut bytes, 32, b"1");
    bytes
}

/// Carries out a command for a unit that is not there.
pub fn execute_without_unit(command: &Command<'_>, data: &mut Writer<'_>) -> Answer {
    match command.byte(0) {
        INQUIRY if command.byte(1) & EVPD == 0 => {
            tell(&standard_inquiry(NO_UNIT), command.number(3, 2), data)
        }
        REPORT_LUNS => report_luns(command, data),
        REQUEST_SENSE => tell(&Sense::NO_SUCH_UNIT.bytes(), command.number(4, 1), data),
        _ => Answer::Check(Sense::NO_SUCH_UNIT),
    }
}

impl Unit {
    /// A disk with these contents.
    pub fn new(store: Store, serial: String) -> Self {
        Self { store, serial }
    }

    /// What it keeps its data in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// That, to be changed.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// How large it is.
    pub fn sectors(&self) -> u64 {
        self.store.sectors()
    }

    /// Changes its size. Returns whether it is another now.
    pub fn resize(&self, sectors: u64) -> Result<bool, ActionError> {
        if !self.store.can_have(sectors) {
            return Err(ActionError::Value("resize: SECTORS is out of range"));
        }
        Ok(self.store.resize(sectors)?)
    }

    /// Carries out a command, with `input` the data from the driver and `data` the room for data for it.
    pub fn execute(
        &self,
        command: &Command<'_>,
        input: &mut Reader<'_>,
        data: &mut Writer<'_>,
    ) -> Answer {
        if command.fail {
            return Answer::Check(Sense::INTERNAL_FAILURE);
        }
        match command.byte(0) {
            TEST_UNIT_READY => Answer::Good,
            REQUEST_SENSE => tell(&Sense::NONE.bytes(), command.number(4, 1), data),
            INQUIRY => self.inquiry(command, data),
            MODE_SENSE_6 => mode_sense(command, 4, command.number(4, 1), data),
            MODE_SENSE_10 => mode_sense(command, 8, command.number(7, 2), data),
            READ_CAPACITY_10 => {
                let last = u32::try_from(self.last()).unwrap_or(u32::MAX);
                let bytes = [last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat();
                tell(&bytes, u64::MAX, data)
            }
            SERVICE_ACTION_IN_16 if command.byte(1) & 0x1f == READ_CAPACITY_16 => {
                let mut bytes = [0; 32];
                put(&mut bytes, 0, &self.last().to_be_bytes());
                put(&mut bytes, 8, &(SECTOR as u32).to_be_bytes());
                tell(&bytes, command.number(10, 4), data)
            }
            READ_10 | READ_16 => self.transfer(command, data.available_bytes(), |block, length| {
                // What is behind it stays as it is.
                let _ = data.split_at(length);
                let read = self.store.read(block, data);
                read.map_err(|error| (error, Sense::READ_ERROR))
            }),
            WRITE_10 | WRITE_16 => {
                self.transfer(command, input.available_bytes(), |block, length| {
                    let _ = input.split_at(length);
                    let mut written = self.store.write(block, input);
                    if command.byte(1) & FORCE_UNIT_ACCESS != 0 {
                        written = written.and_then(|()| self.store.flush(input.guest()));
                    }
                    written.map_err(|error| (error, Sense::WRITE_ERROR))
                })
            }
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => match self.store.flush(input.guest()) {
                Ok(()) => Answer::Good,
                Err(error) => failed(&error, Sense::WRITE_ERROR),
            },
            REPORT_LUNS => report_luns(command, data),
            _ => Answer::Check(Sense::UNKNOWN_COMMAND),
        }
    }

    /// The last block.
    fn last(&self) -> u64 {
        self.store.sectors().saturating_sub(1)
    }

    fn inquiry(&self, command: &Command<'_>, data: &mut Writer<'_>) -> Answer {
        let page = command.byte(2);
        let body = match (command.byte(1) & EVPD, page) {
            (0, 0) => return tell(&standard_inquiry(0), command.number(3, 2), data),
            (EVPD, 0x00) => vec![0x00, 0x80, 0x83],
            (EVPD, 0x80) => self.serial.clone().into_bytes(),
            // One designator of the unit, in ASCII, that begins with the vendor.
            (EVPD, 0x83) => {
                let name = format!("virtio  {}", self.serial);
                let mut body = vec![2, 1, 0, u8::try_from(name.len()).unwrap_or(u8::MAX)];
                body.extend(name.bytes().take(usize::from(u8::MAX)));
                body
            }
            _ => return Answer::Check(Sense::INVALID_FIELD),
        };
        let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
        let bytes = [&[0, page, high, low], &body[..]].concat();
        tell(&bytes, command.number(3, 2), data)
    }

    /// Has `copy` move the blocks of a read or a write, of which there is `room`: it is told the first of them, and how many bytes they
    /// are.
    fn transfer(
        &self,
        command: &Command<'_>,
        room: usize,
        copy: impl FnOnce(u64, usize) -> Result<(), (io::Error, Sense)>,
    ) -> Answer {
        let (block, blocks) = command.blocks();
        let length = blocks * SECTOR;
        if self.store.offset(block, length).is_err() {
            return Answer::Check(Sense::OUT_OF_RANGE);
        }
        match usize::try_from(length) {
            Ok(length) if length <= room => match copy(block, length) {
                Ok(()) => Answer::Good,
                Err((error, sense)) => failed(&error, sense),
            },
            _ => Answer::Overrun,
        }
    }
}

fn failed(error: &io::Error, sense: Sense) -> Answer {
    tracing::info!(%error, "command failed");
    Answer::Check(sense)
}

/// The mode parameters, which begin with a header of that size.
fn mode_sense(
    command: &Command<'_>,
    header: usize,
    allocated: u64,
    data: &mut Writer<'_>,
) -> Answer {
    if !matches!(command.byte(2) & 0x3f, CACHING | ALL_PAGES) {
        return Answer::Check(Sense::INVALID_FIELD);
    }
    let mut bytes = vec![0; header + 20];
    // How long what comes after it is.
    match header {
        4 => put(&mut bytes, 0, &[3 + 20]),
        _ => put(&mut bytes, 0, &[0, 6 + 20]),
    }
    put(&mut bytes, header, &[CACHING, 18, WRITE_CACHE]);
    tell(&bytes, allocated, data)
}
