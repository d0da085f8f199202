// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The block device (virtio 1.4, 5.2): requests on a file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_F_ZONED, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_ZONE_REPORT,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use self::zones::Zones;
use crate::buffers::{Reader, Writer};
use crate::types::store::{Place, Store, SECTOR};
use crate::types::{
    parse, put, ActionError, Description, Malformed, Outcome, Request, RestoreError, Type,
};

pub mod zones;

const SEG_MAX: u32 = 126;
const HEADER: usize = 16;
/// Ranges in one discard or write-zeroes request, and sectors in one range.
const MAX_RANGES: u32 = 16;
const MAX_RANGE_SECTORS: u32 = 1 << 22;
const RANGE: usize = 16;
/// Where `writeback` is in the configuration space.
const WRITEBACK: usize = 32;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    queues: u16,
    read_only: bool,
    /// What was written may be lost until it is flushed.
    writeback: AtomicBool,
    /// That is the driver's to choose (VIRTIO_BLK_F_CONFIG_WCE).
    writeback_open: AtomicBool,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    zones: Option<Zones>,
}

/// What a successor has to know.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    store: Place,
    writeback: bool,
    writeback_open: bool,
}

impl Disk {
    /// A disk with these contents. Its serial number is `id`, cut to 20 bytes.
    pub fn new(store: Store, id: &str, queues: u16, read_only: bool) -> Self {
        let mut bytes = [0; VIRTIO_BLK_ID_BYTES as usize];
        put(&mut bytes, 0, id.as_bytes());
        Self {
            store,
            queues,
            read_only,
            writeback: AtomicBool::new(true),
            writeback_open: AtomicBool::new(false),
            id: bytes,
            zones: None,
        }
    }

    /// It is in zones, the last of which can only be read.
    pub fn zoned(self) -> Self {
        Self {
            zones: Some(Zones),
            ..self
        }
    }

    fn resize(&self, sectors: u64) -> Result<bool, ActionError> {
        if !self.store.can_have(sectors) {
            return Err(ActionError::Value("resize: SECTORS is out of range"));
        }
        if self.read_only {
            return Err(ActionError::Value("resize: the disk is read-only"));
        }
        Ok(self.store.resize(sectors)?)
    }

    fn perform(
        &self,
        kind: u32,
        sector: u64,
        input: &mut Reader<'_>,
        output: &mut Writer<'_>,
    ) -> io::Result<()> {
        let writeback = self.writeback.load(Ordering::Relaxed);
        match kind {
            VIRTIO_BLK_T_ZONE_REPORT => match &self.zones {
                Some(zones) => zones.report(sector, self.store.sectors(), output),
                None => Err(io::ErrorKind::Unsupported.into()),
            },
            VIRTIO_BLK_T_IN => self.store.read(sector, output),
            VIRTIO_BLK_T_FLUSH => self.store.flush(input.guest()),
            VIRTIO_BLK_T_GET_ID => {
                let length = output.available_bytes().min(self.id.len());
                output.write_all(self.id.get(..length).unwrap_or_default())
            }
            VIRTIO_BLK_T_OUT
                if self.zones.as_ref().is_some_and(|zones| {
                    !zones.can_be_written(sector, input.available_bytes(), self.store.sectors())
                }) =>
            {
                Err(io::ErrorKind::ReadOnlyFilesystem.into())
            }
            _ if self.read_only => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            VIRTIO_BLK_T_OUT => self.store.write(sector, input),
            // Zones are not offered with these, and the last one could not be kept.
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if self.zones.is_none() => {
                self.ranges(kind, input)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }?;
        match kind {
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_WRITE_ZEROES if !writeback => {
                self.store.flush(input.guest())
            }
            _ => Ok(()),
        }
    }

    /// Discards or zeroes ranges: all of them, or, if one of them makes no sense, none.
    fn ranges(&self, kind: u32, input: &mut Reader<'_>) -> io::Result<()> {
        let bytes = input.available_bytes();
        if bytes == 0 || bytes % RANGE != 0 || bytes / RANGE > MAX_RANGES as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut ranges = Vec::new();
        for _ in 0..bytes / RANGE {
            let mut range = [0; RANGE];
            input.read_exact(&mut range)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = range;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let unmap = match (kind, u32::from_le_bytes([f0, f1, f2, f3])) {
                (_, 0) => kind == VIRTIO_BLK_T_DISCARD,
                (VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => true,
                // 5.2.6.2: a device must refuse flags that it does not know, and any for a discard.
                _ => return Err(io::ErrorKind::Unsupported.into()),
            };
            if sectors > MAX_RANGE_SECTORS {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let length = u64::from(sectors) * SECTOR;
            ranges.push((self.store.offset(sector, length)?, length, unmap));
        }
        for (offset, length, unmap) in ranges.into_iter().filter(|(_, length, _)| *length > 0) {
            self.store.zero(offset, length, unmap, input.guest())?;
        }
        Ok(())
    }
}

impl Type for Disk {
    fn describe(&self) -> Description {
        let mut features = (1 << VIRTIO_BLK_F_SEG_MAX)
            | (1 << VIRTIO_BLK_F_BLK_SIZE)
            | (1 << VIRTIO_BLK_F_FLUSH)
            | (1 << VIRTIO_BLK_F_CONFIG_WCE);
        if self.queues > 1 {
            features |= 1 << VIRTIO_BLK_F_MQ;
        }
        features |= match (self.read_only, &self.zones) {
            (true, _) => 1 << VIRTIO_BLK_F_RO,
            (false, None) => (1 << VIRTIO_BLK_F_DISCARD) | (1 << VIRTIO_BLK_F_WRITE_ZEROES),
            (false, Some(_)) => 0,
        };
        if self.zones.is_some() {
            features |= 1 << VIRTIO_BLK_F_ZONED;
        }
        Description {
            name: "blk",
            device_id: 2,
            pci_class: 0x01_0000,
            features,
            queues: self.queues,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        let writeback = u8::from(self.writeback.load(Ordering::Relaxed));
        let fields: [(usize, &[u8]); 11] = [
            (0, &self.store.sectors().to_le_bytes()),
            (12, &SEG_MAX.to_le_bytes()),
            (20, &(SECTOR as u32).to_le_bytes()),
            (WRITEBACK, &[writeback]),
            (34, &self.queues.to_le_bytes()),
            (36, &MAX_RANGE_SECTORS.to_le_bytes()),
            (40, &MAX_RANGES.to_le_bytes()),
            (44, &1u32.to_le_bytes()), // discard_sector_alignment
            (48, &MAX_RANGE_SECTORS.to_le_bytes()),
            (52, &MAX_RANGES.to_le_bytes()),
            (56, &[1]), // write_zeroes_may_unmap
        ];
        config.fill(0);
        for (at, bytes) in fields {
            put(config, at, bytes);
        }
        if let Some(zones) = &self.zones {
            zones.configuration(config);
        }
    }

    fn write_configuration(&self, offset: u64, data: &[u8]) {
        let open = self.writeback_open.load(Ordering::Relaxed);
        if let (true, [writeback]) = (open && offset == WRITEBACK as u64, data) {
            self.writeback.store(*writeback != 0, Ordering::Relaxed);
        }
    }

    /// A driver that has not accepted VIRTIO_BLK_F_ZONED would write where it must not (5.2.5.2).
    fn can_do_with(&self, features: u64) -> bool {
        self.zones.is_none() || features & (1 << VIRTIO_BLK_F_ZONED) != 0
    }

    /// A driver that can't flush relies on what was completed (5.2.5.2, 5.2.6.2).
    fn negotiated(&self, features: u64) {
        let accepted = |bit: u32| features & (1 << bit) != 0;
        self.writeback
            .store(accepted(VIRTIO_BLK_F_FLUSH), Ordering::Relaxed);
        self.writeback_open
            .store(accepted(VIRTIO_BLK_F_CONFIG_WCE), Ordering::Relaxed);
    }

    fn reset(&self) {
        self.writeback.store(true, Ordering::Relaxed);
        self.writeback_open.store(false, Ordering::Relaxed);
    }

    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let mut header = [0; HEADER];
        request
            .input
            .read_exact(&mut header)
            .map_err(|_| Malformed("no header"))?;
        let mut status = request
            .output
            .available_bytes()
            .checked_sub(1)
            .and_then(|data| request.output.split_at(data))
            .ok_or(Malformed("no room for the status"))?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let number = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes(sector);
        let kind = match number {
            VIRTIO_BLK_T_IN => "read",
            VIRTIO_BLK_T_OUT => "write",
            VIRTIO_BLK_T_FLUSH => "flush",
            VIRTIO_BLK_T_GET_ID => "get_id",
            VIRTIO_BLK_T_ZONE_REPORT => "zone_report",
            VIRTIO_BLK_T_DISCARD => "discard",
            VIRTIO_BLK_T_WRITE_ZEROES => "write_zeroes",
            _ => "unsupported",
        };
        let result = if request.fail {
            Err(io::Error::other("asked to"))
        } else {
            self.perform(number, sector, &mut request.input, &mut request.output)
        };
        let byte = match &result {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) => {
                tracing::info!(kind, sector, %error, "request failed");
                match error.kind() {
                    io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
                    _ => VIRTIO_BLK_S_IOERR,
                }
            }
        };
        status
            .write_all(&[byte as u8])
            .map_err(|_| Malformed("no room for the status"))?;
        Ok(Outcome {
            kind,
            ok: result.is_ok(),
            // 2.7.8.2: from the first byte on. The status comes after all of the data.
            written: u32::try_from(request.output.bytes_written())
                .unwrap_or(u32::MAX)
                .saturating_add(u32::from(request.output.available_bytes() == 0)),
        })
    }

    /// `resize:SECTORS`.
    fn act(&self, action: &str) -> Result<bool, ActionError> {
        match action.split_once(':') {
            Some(("resize", sectors)) => self.resize(
                sectors
                    .parse()
                    .map_err(|_| ActionError::Value("resize: SECTORS is a number"))?,
            ),
            _ => Err(ActionError::Unknown(action.to_owned())),
        }
    }

    fn report(&self) -> Value {
        json!({
            "sectors": self.store.sectors(),
            "read_only": self.read_only,
            "writeback": self.writeback.load(Ordering::Relaxed),
        })
    }

    fn file(&self) -> Option<Arc<File>> {
        Some(self.store.file())
    }

    fn save(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(Saved {
            store: self.store.save(),
            writeback: self.writeback.load(Ordering::Relaxed),
            writeback_open: self.writeback_open.load(Ordering::Relaxed),
        })
    }

    fn restore(&mut self, saved: Value) -> Result<(), RestoreError> {
        let saved: Saved = parse(saved)?;
        self.store.restore(&saved.store)?;
        *self.writeback.get_mut() = saved.writeback;
        *self.writeback_open.get_mut() = saved.writeback_open;
        Ok(())
    }
}
