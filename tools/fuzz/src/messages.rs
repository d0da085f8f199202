// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client: vfio-user messages, with file descriptors.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use arbitrary::Arbitrary;
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use vfio_user_virtio::boundary::Boundary;
use vfio_user_virtio::vfio_user::serve;

use crate::guest::{self, Kind, Offers};
use message::{fill, Files, Kept, Message, What, Whole, HEADER};

mod message;

/// More than the server takes with a message.
const MOST_FILES: usize = 9;

/// What a client does.
#[derive(Arbitrary, Debug)]
pub struct Input {
    kind: Kind,
    offers: Offers,
    intx: bool,
    /// It begins with the version, as it should.
    greets: bool,
    messages: Vec<Message>,
}

/// Has a device serve the client.
///
/// # Panics
///
/// If a message is answered wrongly, or not at all, or something is left of the client when it is gone.
pub fn run(mut input: Input) {
    input.messages.truncate(48);
    if input.greets {
        let greeting = Message {
            id: 0,
            what: What::Version {
                major: 0,
                text: b"{}".to_vec(),
            },
            longer: 0,
            flags: 0,
            files: Vec::new(),
        };
        input.messages.insert(0, greeting);
    }
    let device = guest::device(input.kind.make(), input.offers.offer(input.intx));
    // Not VIRTIO_F_EVENT_IDX, with which the driver would have more to say.
    let features = device.report().offered & !(1 << 29);
    let (client, server) = UnixStream::pair().expect("sockets");
    let server = Arc::new(server);
    let boundary = Boundary::new().expect("a file");
    let files = Files::new(&client);
    let mut expected = Vec::new();
    let mut framed = true;
    let replies = thread::scope(|scope| {
        scope.spawn(|| serve(&device, &server, None, &boundary));
        let replies = scope.spawn(|| {
            let mut replies = Vec::new();
            (&client).read_to_end(&mut replies).map(|_| replies)
        });
        for message in &input.messages {
            let (bytes, whole) = message.bytes(features);
            framed &= whole != Whole::No;
            if let (true, Whole::Answered(id, command)) = (framed, whole) {
                expected.push((id, command));
            }
            if let What::Drive(requests) = message.what {
                fill(files.memory.as_fd(), requests);
                send(&client, &bytes, &[Kept::Memory], &files);
            } else {
                send(&client, &bytes, &message.files, &files);
            }
            device.serve(Instant::now());
        }
        // The server has gone if it is an error.
        let _ = client.shutdown(Shutdown::Write);
        replies.join().expect("no panic")
    });
    if let Ok(replies) = replies {
        check_replies(&replies, &expected, framed);
    }
    assert_eq!(device.memory().maps(), 0);
    guest::check_reset(&device, Instant::now());
}

fn send(client: &UnixStream, bytes: &[u8], kept: &[Kept], files: &Files) {
    let descriptors: Vec<BorrowedFd<'_>> = kept
        .iter()
        .take(MOST_FILES)
        .map(|kept| files.get(*kept))
        .collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    // The server has gone if it is an error.
    let _ = sendmsg(
        client,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
}

/// Each message that is whole has one answer, in their order, as long as nobody has lost track.
fn check_replies(mut replies: &[u8], expected: &[(u16, u16)], framed: bool) {
    let mut answered = Vec::new();
    while let Some((header, _)) = replies.split_first_chunk::<HEADER>() {
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let size = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]) as usize;
        assert!(size >= HEADER, "a reply is longer than its header");
        answered.push((field(0), field(2)));
        replies = replies.get(size..).expect("a reply is as long as it says");
    }
    assert!(replies.is_empty(), "a part of a reply");
    assert!(answered.starts_with(expected), "{answered:?} {expected:?}");
    assert!(!framed || answered.len() == expected.len());
}
