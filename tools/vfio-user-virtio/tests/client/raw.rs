// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client that can send anything.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::served::Served;

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;

pub(crate) const READ_WRITE: u32 = 3;
pub(crate) const NO_REPLY: u32 = 1 << 4;

pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    id: u16,
}

/// A message with a header that fits.
pub(crate) fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    sized(id, command, size, flags, payload)
}

/// A message that claims to be of that size.
pub(crate) fn sized(id: u16, command: u16, size: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [id, command].map(u16::to_ne_bytes).concat();
    bytes.extend([size, flags, 0].map(u32::to_ne_bytes).concat());
    bytes.extend(payload);
    bytes
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let range = [offset, address, size].map(u64::to_ne_bytes).concat();
    [words(&[32, flags]), range].concat()
}

pub(crate) fn unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let range = [address, size].map(u64::to_ne_bytes).concat();
    [words(&[24, flags]), range].concat()
}

pub(crate) fn access(offset: u64, region: u32, count: u32) -> Vec<u8> {
    [offset.to_ne_bytes().to_vec(), words(&[region, count])].concat()
}

impl Raw {
    /// A client that has said nothing yet.
    pub(crate) fn connect(served: &Served) -> Self {
        let stream = UnixStream::connect(served.path()).unwrap();
        // No answer is a failure, not a test that does not end.
        let minute = Some(Duration::from_secs(60));
        stream.set_read_timeout(minute).unwrap();
        stream.set_write_timeout(minute).unwrap();
        Self { stream, id: 0 }
    }

    /// A client that has agreed on a version.
    pub(crate) fn new(served: &Served) -> Self {
        let mut raw = Self::connect(served);
        let version = b"\0\0\0\0{\"capabilities\":{}}\0";
        raw.ask(VERSION, version).unwrap();
        raw
    }

    pub(crate) fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)));
        let bytes = [IoSlice::new(bytes)];
        sendmsg(&self.stream, &bytes, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// Sends a command. Returns its id.
    pub(crate) fn command(
        &mut self,
        command: u16,
        flags: u32,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> u16 {
        self.id += 1;
        self.send(&message(self.id, command, flags, payload), files);
        self.id
    }

    /// The next reply: to what, and its payload or errno.
    pub(crate) fn reply(&mut self) -> (u16, Result<Vec<u8>, u32>) {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let (size, flags, error) = (word(4), word(8), word(12));
        let mut payload = vec![0; size as usize - 16];
        self.stream.read_exact(&mut payload).unwrap();
        let id = u16::from_ne_bytes([header[0], header[1]]);
        match flags {
            1 => {
                assert_eq!(error, 0);
                (id, Ok(payload))
            }
            0x21 => {
                assert!(error != 0 && payload.is_empty());
                (id, Err(error))
            }
            _ => panic!("flags {flags:#x}"),
        }
    }

    pub(crate) fn ask(&mut self, command: u16, payload: &[u8]) -> Result<Vec<u8>, u32> {
        self.ask_with(command, payload, &[])
    }

    pub(crate) fn ask_with(
        &mut self,
        command: u16,
        payload: &[u8],
        files: &[&dyn AsFd],
    ) -> Result<Vec<u8>, u32> {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let id = self.command(command, 0, payload, &files);
        let (replied, result) = self.reply();
        assert_eq!(replied, id);
        result
    }

    /// Whether the server still understands this client.
    pub(crate) fn is_understood(&mut self) -> bool {
        let id = self.ask(REGION_READ, &access(0, 7, 4)).unwrap();
        id[16..] == [0xf4, 0x1a, 0x49, 0x10]
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.stream.flush().unwrap();
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}
