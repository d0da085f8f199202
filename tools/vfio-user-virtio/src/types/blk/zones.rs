// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Zones of a block device (virtio 1.4, 5.2.6). All are conventional but the last, which would have to be written in order, and can only
//! be read: there is a zoned disk, and nothing to keep of its zones.

use std::io::{self, Write};

use crate::buffers::Writer;
use crate::types::put;
use crate::types::store::SECTOR;

/// Sectors in a zone, but for the last one.
const SECTORS: u32 = 32_768;
/// Where the zones are in the configuration space.
const AT: usize = 72;
const MAX_APPEND_SECTORS: u32 = 2048;
const WRITE_GRANULARITY: u32 = 512;
const HOST_MANAGED: u8 = 1;

/// A report's header, and what it has for each zone.
const HEADER: usize = 64;
const DESCRIPTOR: usize = 64;
/// Type and state.
const CONVENTIONAL: [u8; 2] = [1, 0];
const SEQUENTIAL_READ_ONLY: [u8; 2] = [2, 0xd];

/// The zones.
#[derive(Debug)]
pub struct Zones;

impl Zones {
    /// Adds them to the configuration space.
    pub fn configuration(&self, config: &mut [u8]) {
        put(config, AT, &SECTORS.to_le_bytes());
        put(config, AT + 12, &MAX_APPEND_SECTORS.to_le_bytes());
        put(config, AT + 16, &WRITE_GRANULARITY.to_le_bytes());
        put(config, AT + 20, &[HOST_MANAGED]);
    }

    /// Whether `length` bytes from `sector` on can be written.
    pub fn can_be_written(&self, sector: u64, length: usize, sectors: u64) -> bool {
        sector.saturating_add(length as u64 / SECTOR) <= last(sectors)
    }

    /// Reports as many zones as there is room for, from the one that `sector` is in, of a disk of that many sectors.
    pub fn report(&self, sector: u64, sectors: u64, output: &mut Writer<'_>) -> io::Result<()> {
        let zone = u64::from(SECTORS);
        let room = output
            .available_bytes()
            .checked_sub(HEADER)
            .ok_or(io::ErrorKind::InvalidInput)?
            / DESCRIPTOR;
        let first = sector - sector % zone;
        let most = if sector < sectors { room } else { 0 };
        let starts = (first..sectors).step_by(SECTORS as usize).take(most);
        let starts: Vec<u64> = starts.collect();
        let mut header = [0; HEADER];
        put(&mut header, 0, &(starts.len() as u64).to_le_bytes());
        output.write_all(&header)?;
        for start in starts {
            let mut descriptor = [0; DESCRIPTOR];
            put(&mut descriptor, 0, &zone.min(sectors - start).to_le_bytes());
            put(&mut descriptor, 8, &start.to_le_bytes());
            let is_last = start == last(sectors);
            let zone = if is_last {
                SEQUENTIAL_READ_ONLY
            } else {
                CONVENTIONAL
            };
            put(&mut descriptor, 24, &zone);
            output.write_all(&descriptor)?;
        }
        Ok(())
    }
}

/// Where the last zone begins.
fn last(sectors: u64) -> u64 {
    let last = sectors.saturating_sub(1);
    last - last % u64::from(SECTORS)
}
