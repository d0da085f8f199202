// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files, from one process to another.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// SCM_MAX_FD: the most that the kernel lets one message have.
const AT_ONCE: usize = 253;
/// With each of those, since a message without data is none.
const BYTE: [u8; 1] = [b'\n'];

/// Sends them, in order.
pub(super) fn send(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for files in files.chunks(AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        retry_on_intr(|| {
            sendmsg(
                stream,
                &[IoSlice::new(&BYTE)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
    }
    Ok(())
}

/// Receives so many.
pub(super) fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    while files.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = retry_on_intr(|| {
            recvmsg(
                stream,
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "files were lost: is there room for that many (ulimit -n)?",
            ));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn more_files_than_a_message_has_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let files: Vec<OwnedFd> = (0..300u16)
            .map(|number| {
                let file = tempfile::tempfile().unwrap();
                file.write_all_at(&number.to_ne_bytes(), 0).unwrap();
                file.into()
            })
            .collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&one, &borrowed).unwrap();
        let received = receive(&other, files.len()).unwrap();
        assert_eq!(received.len(), 300);
        for (number, file) in (0..300u16).zip(received) {
            let mut bytes = [0; 2];
            File::from(file).read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(u16::from_ne_bytes(bytes), number);
        }
        drop(one);
        let error = receive(&other, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
