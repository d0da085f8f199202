// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one socket of the echo does.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::stream::Stream;
use super::{PATIENCE, PORT};

/// One socket, which listens when it has no connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    /// The number of the last packet that it got.
    pub(super) last: u64,
    established: bool,
    /// There is one from the first answer on, until the end.
    pub(super) stream: Option<Stream>,
}

/// What a connection has done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// There is something to do for the stack.
    pub(super) moved: bool,
    /// The connection was made.
    pub(super) accepted: bool,
    /// Bytes that were sent back.
    pub(super) echoed: usize,
}

impl Connection {
    pub(super) fn new(socket: SocketHandle) -> Self {
        Self {
            socket,
            last: 0,
            established: false,
            stream: None,
        }
    }

    /// Does with its `socket` what there is to do after that number of `packets`.
    pub(super) fn work(&mut self, socket: &mut tcp::Socket<'_>, packets: u64) -> Progress {
        if socket.remote_endpoint().is_none() {
            self.stream = None;
        }
        if !socket.is_open() && socket.remote_endpoint().is_none() {
            self.established = false;
            self.last = packets;
            return Progress {
                moved: socket.listen(PORT).is_ok(),
                ..Progress::default()
            };
        }
        let accepted = socket.may_send() && !self.established;
        self.established |= accepted;
        if let Some(stream) = &mut self.stream {
            stream.follow(socket);
        }
        let echoed = echo(socket);
        if let Some(stream) = &mut self.stream {
            stream.echoed(echoed);
        }
        // Where there is nothing to acknowledge, silence may last for ever.
        let idle = socket.state() == tcp::State::Established && socket.send_queue() == 0;
        socket.set_timeout((!idle).then_some(PATIENCE));
        let ends = socket.state() == tcp::State::CloseWait && socket.recv_queue() == 0;
        if ends {
            socket.close();
        }
        Progress {
            moved: echoed > 0 || ends,
            accepted,
            echoed,
        }
    }
}

/// Sends back what has come, as far as there is room. Returns how many bytes.
fn echo(socket: &mut tcp::Socket<'_>) -> usize {
    let mut echoed = 0;
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity().saturating_sub(socket.send_queue());
        let mut data = vec![0; room.min(socket.recv_queue())];
        let Ok(received) = socket.recv_slice(&mut data) else {
            break;
        };
        data.truncate(received);
        match socket.send_slice(&data) {
            Ok(sent) if sent > 0 => echoed += sent,
            _ => break,
        }
    }
    echoed
}
