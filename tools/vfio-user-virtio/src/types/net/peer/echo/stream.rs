// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is known of a connection beside the stack, so that another process can go on with it.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpEndpoint, Ipv4Address, TcpControl, TcpRepr, TcpSeqNumber};

use super::segment::{shifted, Segment};
use super::{BUFFER, CHUNK, PORT};

/// The bytes of a connection that the guest has sent and has not got back. It is an echo: they are
/// both what the stack has received and what it sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    /// The guest's end.
    guest: SocketAddrV4,
    /// The echo's address.
    here: Ipv4Address,
    /// What the guest has said when it began the connection.
    max_seg_size: Option<u16>,
    window_scale: Option<u8>,
    /// What the guest has said last, before scaling.
    window: u16,
    /// The sequence number of the first of `bytes`, as the guest has sent it.
    received_at: i32,
    /// That of the same byte on its way back, as the guest sees it.
    sent_at: i32,
    /// At first those that the stack has to send until they are acknowledged, then those that wait
    /// for room there: no more than two buffers.
    #[serde(with = "digits")]
    bytes: VecDeque<u8>,
    /// How many of them the stack has to send.
    #[serde(skip)]
    sending: usize,
    /// How far the guest's sequence numbers of what the echo sends are ahead of the stack's.
    #[serde(skip)]
    pub(super) ahead: i32,
    /// The sequence number of the guest's FIN, which the stack has not got yet.
    #[serde(skip)]
    fin: Option<TcpSeqNumber>,
}

impl Stream {
    /// That of a connection that `begin` begins, and that the stack has answered with this sequence
    /// number.
    pub(super) fn new(begin: &Segment<'_>, answered: TcpSeqNumber) -> Self {
        let (guest, here) = begin.addresses();
        Self {
            guest: SocketAddrV4::new(guest, begin.tcp.src_port),
            here,
            max_seg_size: begin.tcp.max_seg_size,
            window_scale: begin.tcp.window_scale,
            window: begin.tcp.window_len,
            received_at: shifted(begin.tcp.seq_number, 1).0,
            sent_at: shifted(answered, 1).0,
            bytes: VecDeque::new(),
            sending: 0,
            ahead: 0,
            fin: None,
        }
    }

    /// Both ends, the guest's first.
    pub(super) fn ends(&self) -> (IpEndpoint, IpEndpoint) {
        (self.guest.into(), IpEndpoint::new(self.here.into(), PORT))
    }

    /// The guest has sent `segment`, for a socket in that `state`. It acknowledges what the stack has sent, and says how much room
    /// there is. Returns whether the stack gets it.
    ///
    /// In CLOSE-WAIT and LAST-ACK each acknowledgement ends the stack's retransmission, even if it is not one of all that was sent
    /// (smoltcp 0.12, `Socket::process`). So the stack gets the guest's FIN only with the acknowledgement of the last byte, and after
    /// that only the acknowledgement of its own.
    pub(super) fn receive(&mut self, segment: &mut TcpRepr<'_>, state: tcp::State) -> bool {
        let acknowledged = segment.ack_number;
        let all = shifted(TcpSeqNumber(self.sent_at), self.bytes.len() as i32);
        let tells = matches!(
            segment.control,
            TcpControl::None | TcpControl::Psh | TcpControl::Fin
        );
        if tells && acknowledged.is_some() {
            self.window = segment.window_len;
            match state {
                tcp::State::SynReceived | tcp::State::Established => {
                    self.hold_fin(segment, acknowledged == Some(all));
                }
                tcp::State::LastAck
                    if acknowledged == Some(all) && segment.control != TcpControl::Fin =>
                {
                    return false;
                }
                _ => {}
            }
        }
        segment.ack_number = acknowledged.map(|number| shifted(number, self.ahead.wrapping_neg()));
        true
    }

    /// `segment` becomes what the guest would have sent if it had not closed its end, until it acknowledges `all`.
    fn hold_fin(&mut self, segment: &mut TcpRepr<'_>, all: bool) {
        if segment.control == TcpControl::Fin {
            let fin = shifted(segment.seq_number, segment.payload.len() as i32);
            let ahead = fin.0.wrapping_sub(self.received_to().0);
            if !(0..=BUFFER as i32).contains(&ahead) {
                // The stack refuses it.
                return;
            }
            self.fin = Some(fin);
            segment.control = TcpControl::None;
        }
        let Some(fin) = self.fin.filter(|_| segment.payload.is_empty()) else {
            return;
        };
        if segment.seq_number == shifted(fin, 1) {
            segment.seq_number = fin;
        }
        if segment.seq_number == fin && all {
            segment.control = TcpControl::Fin;
        }
    }

    /// The stack sends `segment` to the guest.
    pub(super) fn send(&self, segment: &mut TcpRepr<'_>) {
        segment.seq_number = shifted(segment.seq_number, self.ahead);
    }

    /// The stack has received something, or the guest has acknowledged something.
    pub(super) fn follow(&mut self, socket: &mut tcp::Socket<'_>) {
        let acknowledged = self.sending.saturating_sub(socket.send_queue());
        self.bytes.drain(..acknowledged.min(self.bytes.len()));
        self.received_at = (TcpSeqNumber(self.received_at) + acknowledged).0;
        self.sent_at = (TcpSeqNumber(self.sent_at) + acknowledged).0;
        self.sending -= acknowledged;
        let known = self.bytes.len().saturating_sub(self.sending);
        if socket.recv_queue() > known {
            let mut received = vec![0; socket.recv_queue()];
            if socket.peek_slice(&mut received).is_ok() {
                self.bytes.extend(received.get(known..).unwrap_or_default());
            }
        }
    }

    /// The stack has to send that many more of the bytes.
    pub(super) fn echoed(&mut self, bytes: usize) {
        self.sending += bytes;
    }

    /// What the guest would begin the connection with if it began now.
    pub(super) fn beginning(&self) -> Vec<u8> {
        let begin = TcpRepr {
            max_seg_size: self.max_seg_size,
            window_scale: self.window_scale,
            ..self.segment(TcpControl::Syn, -1)
        };
        self.packet(begin)
    }

    /// What the guest would send then, with no room for an answer. The stack numbers what it sends
    /// from `first`.
    pub(super) fn data(&self, first: TcpSeqNumber) -> Vec<Vec<u8>> {
        let (bytes, mut at) = (Vec::from(self.bytes.clone()), 0);
        let packet = |bytes: &[u8]| {
            let data = TcpRepr {
                ack_number: Some(first),
                window_len: 0,
                payload: bytes,
                ..self.segment(TcpControl::Psh, at)
            };
            at += bytes.len() as i32;
            self.packet(data)
        };
        bytes.chunks(CHUNK).map(packet).collect()
    }

    /// What it would send in the end, as things are: it has `closed` its end and got everything back, or just tells its window. It
    /// tells of some, lest both ends wait for each other: where there is none the guest says so.
    pub(super) fn end(&self, first: TcpSeqNumber, closed: bool) -> Vec<u8> {
        let control = if closed && self.bytes.is_empty() {
            TcpControl::Fin
        } else {
            TcpControl::None
        };
        let end = TcpRepr {
            ack_number: Some(first),
            window_len: self.window.max(1),
            ..self.segment(control, self.bytes.len() as i32)
        };
        self.packet(end)
    }

    /// The stream begins anew, before its first byte, in a stack that numbers what it sends from
    /// `first`. The guest may have `closed` its end.
    pub(super) fn rewound(self, first: TcpSeqNumber, closed: bool) -> Self {
        Self {
            ahead: self.sent_at.wrapping_sub(first.0),
            fin: closed.then(|| self.received_to()),
            bytes: VecDeque::new(),
            ..self
        }
    }

    /// Whether the guest has sent all and closed its end, and the stack has not been told.
    pub(super) fn holds_fin(&self) -> bool {
        self.fin == Some(self.received_to())
    }

    /// The sequence number of what the guest sends next.
    fn received_to(&self) -> TcpSeqNumber {
        shifted(TcpSeqNumber(self.received_at), self.bytes.len() as i32)
    }

    fn segment(&self, control: TcpControl, at: i32) -> TcpRepr<'static> {
        TcpRepr {
            src_port: self.guest.port(),
            dst_port: PORT,
            control,
            seq_number: shifted(TcpSeqNumber(self.received_at), at),
            ack_number: None,
            window_len: self.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }

    fn packet(&self, tcp: TcpRepr<'_>) -> Vec<u8> {
        Segment::new(*self.guest.ip(), self.here, tcp).to_bytes()
    }
}

/// Bytes as hexadecimal digits: there may be many.
mod digits {
    use std::collections::VecDeque;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::portable::hex;

    pub(super) fn serialize<S: Serializer>(
        bytes: &VecDeque<u8>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (front, back) = bytes.as_slices();
        serializer.serialize_str(&(hex::digits(front) + &hex::digits(back)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<u8>, D::Error> {
        let bytes = hex::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("not two digits for each byte"))?;
        if bytes.len() > 2 * super::BUFFER {
            return Err(D::Error::custom("more bytes than there is room for"));
        }
        Ok(bytes.into())
    }
}
