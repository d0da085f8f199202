// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! TCP echo (RFC 862): what comes for port 7 of any address is sent back. Knows IPv4 packets, and no frames.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address, TcpControl, TcpSeqNumber,
    IPV4_HEADER_LEN, TCP_HEADER_LEN,
};

use connection::Connection;
use saved::Saved;
pub(super) use segment::is_for_echo;
use segment::Segment;
use stream::Stream;
pub(super) use wire::Wire;

mod connection;
mod saved;
mod segment;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

/// The port.
pub(super) const PORT: u16 = 7;
/// Connections at a time. One more ends that which was silent for longest.
const CONNECTIONS: usize = 16;
/// Each way. A window of that many bytes needs no scaling.
const BUFFER: usize = 65_535;
/// Bytes of an IPv4 packet.
const LONGEST: usize = 1500;
/// Bytes of data in one.
const CHUNK: usize = LONGEST - IPV4_HEADER_LEN - TCP_HEADER_LEN;
/// Packets that are made at a time; more are made when there is time again.
const MOST_SENT: usize = 1024;
/// How long after one look at the time the next is at the earliest.
const TICK: Duration = Duration::from_millis(1);
/// A connection ends whose other end acknowledges nothing for so long. A stopped driver may take its time.
const PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(900);
/// The one address that the stack has by name. It answers for all others too.
const OWN: Ipv4Address = Ipv4Address::new(192, 0, 2, 1);

/// All connections. Another process can go on with them.
#[derive(Deserialize)]
#[serde(from = "Saved")]
pub(super) struct Echo {
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    wire: Wire,
    /// What the stack's time counts from, and the last look at it.
    time: Option<(Instant, Instant)>,
    packets: u64,
    accepted: u64,
    echoed: u64,
}

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo")
            .field("accepted", &self.accepted)
            .field("echoed", &self.echoed)
            .finish_non_exhaustive()
    }
}

impl Default for Echo {
    fn default() -> Self {
        let mut wire = Wire::new(Medium::Ip);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = fastrand::u64(..);
        let start = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut wire, start);
        // There is room for both.
        interface.update_ip_addrs(|all| {
            let _ = all.push(IpCidr::new(IpAddress::Ipv4(OWN), 32));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(OWN);
        interface.set_any_ip(true);
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..CONNECTIONS).map(|_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_ack_delay(None);
            Connection::new(sockets.add(socket))
        });
        let connections = connections.collect();
        let mut echo = Self {
            interface,
            sockets,
            connections,
            wire,
            time: None,
            packets: 0,
            accepted: 0,
            echoed: 0,
        };
        echo.work(start);
        echo
    }
}

impl Echo {
    /// Connections that were made.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Bytes that were sent back.
    pub(super) fn echoed(&self) -> u64 {
        self.echoed
    }

    /// What is sent when this packet comes at `now`.
    pub(super) fn answer(&mut self, packet: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let Some(mut segment) = Segment::read(packet) else {
            return Vec::new();
        };
        segment.make_plain();
        let begins = segment.begins();
        let now = self.set_time(now);
        self.packets += 1;
        let last = self.packets;
        // Nothing is in the way of the answer.
        let mut answers = std::mem::take(&mut self.wire.sent);
        match self.find(segment.from(), segment.to()) {
            Some((connection, state)) => {
                connection.last = last;
                let handle = connection.socket;
                let mut streams = connection.stream.iter_mut();
                if !streams.all(|stream| stream.receive(&mut segment.tcp, state)) {
                    return answers;
                }
                match state {
                    // It has its answer, or will have it again. Another socket would take it for a new connection.
                    tcp::State::SynReceived if begins => return answers,
                    // The other end has forgotten the connection.
                    _ if begins => {
                        self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
                        self.work(now);
                    }
                    _ => {}
                }
            }
            None if begins => self.make_room(now),
            None => {}
        }
        self.wire.received.push_back(segment.to_bytes());
        self.work(now);
        if begins {
            self.begin(&segment);
        }
        answers.append(&mut self.wire.sent);
        answers
    }

    /// The connection that has these ends, and the state of its socket.
    fn find(
        &mut self,
        guest: IpEndpoint,
        here: IpEndpoint,
    ) -> Option<(&mut Connection, tcp::State)> {
        self.connections.iter_mut().find_map(|connection| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.socket);
            let ends = (socket.remote_endpoint(), socket.local_endpoint());
            (ends == (Some(guest), Some(here))).then(|| (connection, socket.state()))
        })
    }

    /// With which sequence number a connection between these ends has just been accepted.
    fn answered(&self, guest: IpEndpoint, here: IpEndpoint) -> Option<TcpSeqNumber> {
        self.wire.sent.iter().find_map(|packet| {
            let segment = Segment::read(packet)?;
            let accepts = segment.tcp.control == TcpControl::Syn
                && (segment.to(), segment.from()) == (guest, here);
            accepts.then_some(segment.tcp.seq_number)
        })
    }

    /// `segment` has begun a connection, if it was accepted.
    fn begin(&mut self, segment: &Segment<'_>) {
        let (guest, here) = (segment.from(), segment.to());
        let Some(answered) = self.answered(guest, here) else {
            return;
        };
        if let Some((connection, _)) = self.find(guest, here) {
            connection.stream = Some(Stream::new(segment, answered));
        }
    }

    /// What is sent because it is `now`: retransmissions.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.due().is_some_and(|due| due <= now) {
            let now = self.set_time(now);
            self.work(now);
        }
        std::mem::take(&mut self.wire.sent)
    }

    /// When something is to be sent if nothing comes until then.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let (start, last) = self.time?;
        // The connections of another process have something to send from the beginning.
        if !self.wire.sent.is_empty() {
            return Some(last + TICK);
        }
        let now = stack_time(start, last);
        let at = self.interface.poll_at(now, &self.sockets)?;
        let after = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
        Some((start + after).max(last + TICK))
    }

    fn set_time(&mut self, now: Instant) -> smoltcp::time::Instant {
        let (start, last) = self.time.get_or_insert((now, now));
        // A time that has passed does not come again.
        *last = now.max(*last);
        stack_time(*start, *last)
    }

    /// If all sockets have connections, the one that was silent for longest ends.
    fn make_room(&mut self, now: smoltcp::time::Instant) {
        let listens = |connection: &Connection| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.socket);
            socket.is_listening()
        };
        if self.connections.iter().any(listens) {
            return;
        }
        let oldest = self
            .connections
            .iter()
            .min_by_key(|connection| connection.last);
        if let Some(connection) = oldest {
            self.sockets
                .get_mut::<tcp::Socket<'_>>(connection.socket)
                .abort();
            self.work(now);
        }
    }

    /// Lets the stack work until there is nothing to do.
    fn work(&mut self, now: smoltcp::time::Instant) {
        loop {
            let before = self.wire.sent.len();
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            for packet in self.wire.sent.iter_mut().skip(before) {
                number(packet, &self.connections);
            }
            let mut moved = false;
            for connection in &mut self.connections {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
                let progress = connection.work(socket, self.packets);
                self.accepted += u64::from(progress.accepted);
                self.echoed += progress.echoed as u64;
                moved |= progress.moved;
            }
            if !moved {
                return;
            }
        }
    }
}

/// If the packet is of one of `connections` that the stack numbers in another way than the guest,
/// it gets the guest's numbers.
fn number(packet: &mut Vec<u8>, connections: &[Connection]) {
    let mut streams = connections.iter().filter_map(|one| one.stream.as_ref());
    if streams.all(|stream| stream.ahead == 0) {
        return;
    }
    let Some(mut segment) = Segment::read(packet) else {
        return;
    };
    let ends = (segment.to(), segment.from());
    let mut streams = connections.iter().filter_map(|one| one.stream.as_ref());
    if let Some(stream) = streams.find(|stream| stream.ends() == ends) {
        stream.send(&mut segment.tcp);
        *packet = segment.to_bytes();
    }
}

fn stack_time(start: Instant, now: Instant) -> smoltcp::time::Instant {
    let passed = now.saturating_duration_since(start).as_micros();
    smoltcp::time::Instant::from_micros(i64::try_from(passed).unwrap_or(i64::MAX))
}
