// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connection to a client: one message after another, each whole.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::io::{retry_on_intr, Errno};
use rustix::net::{
    recvmsg, send, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
};

use super::message::{Command, Header, Request, HEADER_SIZE, MAX_FILES};

/// A message that was received whole, be it one that makes sense or not.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) request: Result<Request, Errno>,
    pub(super) files: Vec<OwnedFd>,
}

/// A connection. Between two calls it is at the border of two messages: nothing was read beyond the last one.
#[derive(Debug)]
pub(super) struct Connection(Arc<UnixStream>);

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self(stream)
    }

    /// Its socket.
    pub(super) fn client(&self) -> Arc<UnixStream> {
        Arc::clone(&self.0)
    }

    /// The next message. None: there is none any more. An error: it can't be told where the next one begins.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let (mut bytes, mut files) = ([0; HEADER_SIZE], Files::default());
        match self.fill(&mut bytes, &mut files)? {
            0 => return Ok(None),
            HEADER_SIZE => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let header = Header::parse(&bytes);
        let size = header.payload_size().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no message is that short")
        })?;
        let request = match header.command() {
            Ok(command) => {
                // The command allows for that many bytes.
                let mut payload = vec![0; size];
                self.fill_all(&mut payload, &mut files)?;
                files
                    .allowed(command)
                    .and_then(|()| Request::parse(command, &payload))
            }
            Err(error) => {
                self.skip(size)?;
                Err(error)
            }
        };
        Ok(Some(Message {
            header,
            files: request.is_ok().then_some(files.files).unwrap_or_default(),
            request,
        }))
    }

    /// Sends a reply, as a whole: QEMU does not put the pieces of a header together.
    pub(super) fn reply(&self, reply: &[u8]) -> io::Result<()> {
        let mut rest = reply;
        while !rest.is_empty() {
            let sent = retry_on_intr(|| send(self, rest, SendFlags::NOSIGNAL))?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads on until `bytes` are full or the client sends no more. Returns how many bytes there were.
    fn fill(&self, bytes: &mut [u8], files: &mut Files) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.piece(rest, files)? {
                0 => break,
                length => filled += length,
            }
        }
        Ok(filled)
    }

    fn fill_all(&self, bytes: &mut [u8], files: &mut Files) -> io::Result<()> {
        if self.fill(bytes, files)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads `size` bytes, and does away with them and what comes with them.
    fn skip(&self, size: usize) -> io::Result<()> {
        let (mut buffer, mut rest) = ([0; 4096], size);
        while rest > 0 {
            let length = rest.min(buffer.len());
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.fill_all(piece, &mut Files::default())?;
            rest -= length;
        }
        Ok(())
    }

    fn piece(&self, bytes: &mut [u8], files: &mut Files) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            recvmsg(
                self,
                &mut [IoSliceMut::new(bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.files.extend(descriptors);
            }
        }
        files.lost |= received.flags.contains(ReturnFlags::CTRUNC);
        if files.files.len() > MAX_FILES {
            files.files.clear();
            files.lost = true;
        }
        Ok(received.bytes)
    }
}

/// What has come with a message.
#[derive(Debug, Default)]
struct Files {
    files: Vec<OwnedFd>,
    /// There were more than a message can have, or than this process can have.
    lost: bool,
}

impl Files {
    fn allowed(&self, command: Command) -> Result<(), Errno> {
        if self.files.len() > command.files() {
            return Err(Errno::INVAL);
        }
        if self.lost {
            return Err(Errno::MFILE);
        }
        Ok(())
    }
}
