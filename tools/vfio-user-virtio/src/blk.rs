// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The block device (virtio 1.4, 5.2): requests on a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::{Reader, Writer};

/// Virtio device type.
pub const DEVICE_ID: u16 = 2;
/// PCI class: mass storage, SCSI.
pub const PCI_CLASS: u32 = 0x01_0000;
/// The features of a block device that this one offers.
pub const FEATURES: u64 =
    (1 << VIRTIO_BLK_F_SEG_MAX) | (1 << VIRTIO_BLK_F_BLK_SIZE) | (1 << VIRTIO_BLK_F_FLUSH);

const SECTOR: u64 = 512;
const SEG_MAX: u32 = 126;
const HEADER: usize = 16;
/// Data is copied by way of a buffer of this size, whatever the size of the request.
const CHUNK: usize = 64 * 1024;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
}

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// VIRTIO_BLK_T_IN
    Read,
    /// VIRTIO_BLK_T_OUT
    Write,
    /// VIRTIO_BLK_T_FLUSH
    Flush,
    /// VIRTIO_BLK_T_GET_ID
    GetId,
    /// Any other.
    Unsupported,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it was.
    pub kind: Kind,
    /// Whether it ended with VIRTIO_BLK_S_OK.
    pub ok: bool,
    /// Bytes written to the driver's buffers.
    pub written: u32,
}

/// The buffers are not those of a block request, so that not even an error can be reported in them.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub struct Malformed(&'static str);

impl Disk {
    /// The disk whose contents are `path`. Its size is rounded down to whole sectors.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let sectors = file.metadata()?.len() / SECTOR;
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        id.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        Ok(Self { file, sectors, id })
    }

    /// Reads from the device configuration space; what this disk does not offer reads as 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 24];
        let fields: [(usize, &[u8]); 3] = [
            (0, &self.sectors.to_le_bytes()),
            (12, &SEG_MAX.to_le_bytes()),
            (20, &(SECTOR as u32).to_le_bytes()),
        ];
        for (at, bytes) in fields {
            config
                .iter_mut()
                .skip(at)
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
        }
        data.fill(0);
        let from = usize::try_from(offset).unwrap_or(config.len());
        data.iter_mut()
            .zip(config.iter().skip(from))
            .for_each(|(to, from)| *to = *from);
    }

    /// Carries out the request in these buffers.
    pub fn execute(
        &self,
        mut input: Reader<'_>,
        mut output: Writer<'_>,
    ) -> Result<Outcome, Malformed> {
        let mut header = [0; HEADER];
        input
            .read_exact(&mut header)
            .map_err(|_| Malformed("no header"))?;
        let data_in = output
            .available_bytes()
            .checked_sub(1)
            .ok_or(Malformed("no room for the status"))?;
        let mut status = output
            .split_at(data_in)
            .map_err(|_| Malformed("no room for the status"))?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let (kind, result) = match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => (Kind::Read, self.read(sector, data_in, &mut output)),
            VIRTIO_BLK_T_OUT => (Kind::Write, self.write(sector, &mut input)),
            VIRTIO_BLK_T_FLUSH => (Kind::Flush, self.file.sync_data()),
            VIRTIO_BLK_T_GET_ID => {
                let id = self
                    .id
                    .get(..data_in.min(self.id.len()))
                    .unwrap_or_default();
                (Kind::GetId, output.write_all(id))
            }
            _ => (Kind::Unsupported, Err(io::ErrorKind::Unsupported.into())),
        };
        let byte = match (&result, kind) {
            (Ok(()), _) => VIRTIO_BLK_S_OK,
            (Err(_), Kind::Unsupported) => VIRTIO_BLK_S_UNSUPP,
            (Err(error), _) => {
                tracing::info!(?kind, sector, %error, "request failed");
                VIRTIO_BLK_S_IOERR
            }
        };
        status
            .write_all(&[byte as u8])
            .map_err(|_| Malformed("no room for the status"))?;
        let written = u32::try_from(output.bytes_written())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        Ok(Outcome {
            kind,
            ok: result.is_ok(),
            written,
        })
    }

    /// The offset in the file at which `length` bytes from `sector` on lie, if they do.
    fn offset(&self, sector: u64, length: usize) -> io::Result<u64> {
        let length = length as u64;
        let end = sector.checked_add(length / SECTOR);
        if length % SECTOR != 0 || end.is_none_or(|end| end > self.sectors) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(sector * SECTOR)
    }

    fn read(&self, sector: u64, length: usize, output: &mut Writer<'_>) -> io::Result<()> {
        let mut offset = self.offset(sector, length)?;
        let mut buffer = vec![0; CHUNK.min(length)];
        let mut left = length;
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            self.file.read_exact_at(chunk, offset)?;
            output.write_all(chunk)?;
            offset += chunk.len() as u64;
            left -= chunk.len();
        }
        Ok(())
    }

    fn write(&self, sector: u64, input: &mut Reader<'_>) -> io::Result<()> {
        let length = input.available_bytes();
        let mut offset = self.offset(sector, length)?;
        let mut buffer = vec![0; CHUNK.min(length)];
        let mut left = length;
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            input.read_exact(chunk)?;
            self.file.write_all_at(chunk, offset)?;
            offset += chunk.len() as u64;
            left -= chunk.len();
        }
        Ok(())
    }
}
