// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a disk should have: what it had at first, and what was written since. A request that fails has written nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::guest;

const SECTOR: usize = 512;
const BLK_HEADER: usize = 16;
const SCSI_HEADER: usize = 19;
/// Of the response, without sense data.
const SCSI_RESPONSE: usize = 12;
/// Where the sizes of sense data and CDB are in the configuration space.
const SENSE_SIZE: usize = 20;
const CDB_SIZE: usize = 24;

pub(super) struct Model {
    file: Vec<u8>,
    units: Vec<Unit>,
}

/// A part of the file, of whole sectors.
struct Unit {
    start: usize,
    length: usize,
}

fn number_le(bytes: &[u8]) -> usize {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |all, byte| (all << 8) | usize::from(*byte))
}

fn number_be(bytes: &[u8]) -> usize {
    let bytes = bytes.iter();
    bytes.fold(0, |all, byte| (all << 8) | usize::from(*byte))
}

impl Model {
    /// A file in so many units of the same size.
    pub(super) fn new(units: usize) -> Self {
        let file = guest::contents();
        let length = file.len() / units;
        let unit = |nth| Unit {
            start: nth * length,
            length,
        };
        Self {
            units: (0..units).map(unit).collect(),
            file,
        }
    }

    /// The unit is that large now. The file ends where the last one ends.
    pub(super) fn resize(&mut self, unit: usize, sectors: usize) {
        let length = sectors * SECTOR;
        self.units[unit].length = length;
        if unit + 1 == self.units.len() {
            self.file.resize(self.units[unit].start + length, 0);
        }
    }

    /// That many bytes of the unit, from a sector on.
    fn place(&mut self, unit: usize, sector: usize, length: usize) -> &mut [u8] {
        let Unit {
            start,
            length: size,
        } = self.units[unit];
        let contents = &mut self.file[start..][..size];
        &mut contents[sector * SECTOR..][..length]
    }

    /// A request to a block device was carried out, with `read` in its buffers then.
    pub(super) fn blk(&mut self, kind: &str, request: &[u8], read: &[u8]) {
        let (header, data) = request.split_at(BLK_HEADER);
        let sector = number_le(&header[8..]);
        match kind {
            "write" => self.place(0, sector, data.len()).copy_from_slice(data),
            "read" => assert!(self.place(0, sector, read.len()) == read, "what was read"),
            "discard" | "write_zeroes" => {
                for range in data.chunks_exact(16) {
                    let (sector, sectors) = (number_le(&range[..8]), number_le(&range[8..12]));
                    self.place(0, sector, sectors * SECTOR).fill(0);
                }
            }
            _ => {}
        }
    }

    /// A request to a SCSI host with that configuration was carried out, with `answer` in its buffers then.
    pub(super) fn scsi(&mut self, kind: &str, request: &[u8], answer: &[u8], config: &[u8]) {
        let size = |at: usize| number_le(&config[at..at + 4]);
        if !matches!(kind, "read" | "write") {
            return;
        }
        let unit = number_be(&[request[2] & 0x3f, request[3]]);
        let (header, data) = request.split_at(SCSI_HEADER + size(CDB_SIZE));
        // What is not there reads as 0.
        let cdb = [&header[SCSI_HEADER..], &[0; 16]].concat();
        let (block, blocks) = match cdb[0] {
            0x28 | 0x2a => (number_be(&cdb[2..6]), number_be(&cdb[7..9])),
            _ => (number_be(&cdb[2..10]), number_be(&cdb[10..14])),
        };
        let place = self.place(unit, block, blocks * SECTOR);
        match kind {
            "write" => place.copy_from_slice(&data[..place.len()]),
            _ => {
                let read = &answer[SCSI_RESPONSE + size(SENSE_SIZE)..];
                assert!(place == &read[..place.len()], "what was read");
            }
        }
    }

    /// The disk's file has this, and nothing else.
    pub(super) fn check(&self, file: &File) {
        let length = file.metadata().expect("its size").len() as usize;
        assert_eq!(length, self.file.len(), "the size of the disk's file");
        let mut contents = vec![0; length];
        file.read_exact_at(&mut contents, 0).expect("its contents");
        assert!(contents == self.file, "what the disk has");
    }
}
