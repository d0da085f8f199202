// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! TCP echo (RFC 862): what comes for port 7 of any address is sent back. Knows IPv4 packets, and no frames.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
    TcpPacket, TcpRepr, ETHERNET_HEADER_LEN,
};

/// The port.
pub(super) const PORT: u16 = 7;
/// Connections at a time. One more ends that which was silent for longest.
const CONNECTIONS: usize = 16;
/// Each way. A window of that many bytes needs no scaling.
const BUFFER: usize = 65_535;
/// Bytes of an IPv4 packet.
const LONGEST: usize = 1500;
/// Packets that are made at a time; more are made when there is time again.
const MOST_SENT: usize = 1024;
/// How long after one look at the time the next is at the earliest.
const TICK: Duration = Duration::from_millis(1);
/// A connection ends whose other end acknowledges nothing for so long. A stopped driver may take its time.
const PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(900);
/// The one address that the stack has by name. It answers for all others too.
const OWN: Ipv4Address = Ipv4Address::new(192, 0, 2, 1);

/// All connections.
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

/// One socket, which listens when it has no connection.
#[derive(Debug)]
struct Connection {
    socket: SocketHandle,
    /// The number of the last packet that it got.
    last: u64,
    established: bool,
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
            Connection {
                socket: sockets.add(socket),
                last: 0,
                established: false,
            }
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

/// From whom to whom an IPv4 packet is, if it is one for the echo: the guest's end of the connection, and this one.
fn ends(packet: &[u8]) -> Option<(IpEndpoint, IpEndpoint, bool)> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let unicast = |address: Ipv4Address| {
        !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
    };
    let (guest, here) = (ip.src_addr(), ip.dst_addr());
    if ip.version() != 4 || ip.next_header() != IpProtocol::Tcp || !unicast(guest) || !unicast(here)
    {
        return None;
    }
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    (tcp.dst_port() == PORT && tcp.src_port() != 0).then(|| {
        (
            IpEndpoint::new(guest.into(), tcp.src_port()),
            IpEndpoint::new(here.into(), PORT),
            tcp.syn() && !tcp.ack(),
        )
    })
}

/// Whether an IPv4 packet is for the echo.
pub(super) fn is_for_echo(packet: &[u8]) -> bool {
    ends(packet).is_some()
}

/// The packet without what the stack can do without. With selective acknowledgements it computes sequence numbers in a way that
/// overflows (smoltcp 0.12, `AssemblerIter`).
fn plain(packet: &[u8]) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let mut ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
    let (guest, here) = (ip.src_addr.into(), ip.dst_addr.into());
    let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
    let tcp = TcpRepr {
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        ..TcpRepr::parse(&tcp, &guest, &here, &checksums).ok()?
    };
    ip.payload_len = tcp.buffer_len();
    let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    tcp.emit(
        &mut TcpPacket::new_unchecked(packet.payload_mut()),
        &guest,
        &here,
        &checksums,
    );
    Some(bytes)
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
        let Some((guest, here, begins)) = ends(packet) else {
            return Vec::new();
        };
        let now = self.set_time(now);
        self.packets += 1;
        let known = self.connections.iter_mut().find(|connection| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.socket);
            socket.remote_endpoint() == Some(guest) && socket.local_endpoint() == Some(here)
        });
        match known {
            Some(connection) => {
                connection.last = self.packets;
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
                match socket.state() {
                    // It has its answer, or will have it again. Another socket would take it for a new connection.
                    tcp::State::SynReceived if begins => return Vec::new(),
                    // The other end has forgotten the connection.
                    _ if begins => {
                        socket.abort();
                        self.work(now);
                    }
                    _ => {}
                }
            }
            None if begins => self.make_room(now),
            None => {}
        }
        self.wire.received.extend(plain(packet));
        self.work(now);
        std::mem::take(&mut self.wire.sent)
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
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            let mut moved = false;
            for connection in &mut self.connections {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
                if !socket.is_open() && socket.remote_endpoint().is_none() {
                    connection.established = false;
                    connection.last = self.packets;
                    moved |= socket.listen(PORT).is_ok();
                    continue;
                }
                if socket.may_send() && !connection.established {
                    connection.established = true;
                    self.accepted += 1;
                }
                let bytes = echo(socket);
                self.echoed += bytes as u64;
                moved |= bytes > 0;
                // Where there is nothing to acknowledge, silence may last for ever.
                let idle = socket.state() == tcp::State::Established && socket.send_queue() == 0;
                socket.set_timeout((!idle).then_some(PATIENCE));
                if socket.state() == tcp::State::CloseWait && socket.recv_queue() == 0 {
                    socket.close();
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }
}

fn stack_time(start: Instant, now: Instant) -> smoltcp::time::Instant {
    let passed = now.saturating_duration_since(start).as_micros();
    smoltcp::time::Instant::from_micros(i64::try_from(passed).unwrap_or(i64::MAX))
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

/// Where packets come from, and go to.
#[derive(Debug)]
pub(super) struct Wire {
    medium: Medium,
    pub(super) received: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Vec<u8>>,
}

impl Wire {
    pub(super) fn new(medium: Medium) -> Self {
        Self {
            medium,
            received: VecDeque::new(),
            sent: Vec::new(),
        }
    }
}

pub(super) struct Received(Vec<u8>);

pub(super) struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received, Sent<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sent<'_>> {
        (self.sent.len() < MOST_SENT).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = match self.medium {
            Medium::Ethernet => ETHERNET_HEADER_LEN + LONGEST,
            _ => LONGEST,
        };
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{TcpControl, TcpSeqNumber};

    const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
    const HERE: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);

    fn packet(tcp: &TcpRepr<'_>) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        let ip = Ipv4Repr {
            src_addr: GUEST,
            dst_addr: HERE,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        ip.emit(&mut packet, &checksums);
        tcp.emit(
            &mut TcpPacket::new_unchecked(packet.payload_mut()),
            &GUEST.into(),
            &HERE.into(),
            &checksums,
        );
        bytes
    }

    fn segment(from: u16, control: TcpControl, seq: i32, ack: Option<i32>) -> TcpRepr<'static> {
        TcpRepr {
            src_port: from,
            dst_port: PORT,
            control,
            seq_number: TcpSeqNumber(seq),
            ack_number: ack.map(TcpSeqNumber),
            window_len: 60_000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }

    /// The flags of a packet, its number, and what it acknowledges.
    fn read(packet: &[u8]) -> (TcpControl, i32, Option<i32>) {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (HERE, GUEST));
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        let tcp = TcpRepr::parse(
            &tcp,
            &HERE.into(),
            &GUEST.into(),
            &ChecksumCapabilities::default(),
        )
        .unwrap();
        (
            tcp.control,
            tcp.seq_number.0,
            tcp.ack_number.map(|ack| ack.0),
        )
    }

    fn connect(echo: &mut Echo, from: u16, now: Instant) -> i32 {
        let answers = echo.answer(&packet(&segment(from, TcpControl::Syn, 100, None)), now);
        let (control, seq, ack) = read(&answers[0]);
        assert_eq!(
            (answers.len(), control, ack),
            (1, TcpControl::Syn, Some(101))
        );
        let end = seq.wrapping_add(1);
        let answers = echo.answer(
            &packet(&segment(from, TcpControl::None, 101, Some(end))),
            now,
        );
        assert!(answers.is_empty());
        end
    }

    #[test]
    fn one_connection_more_ends_the_one_that_was_silent_for_longest() {
        let (mut echo, now) = (Echo::default(), Instant::now());
        let first = connect(&mut echo, 1000, now);
        for from in 1001..1000 + CONNECTIONS as u16 {
            connect(&mut echo, from, now);
        }
        let mut data = segment(1000, TcpControl::Psh, 101, Some(first));
        data.payload = b"still here";
        assert!(!echo.answer(&packet(&data), now).is_empty());
        assert_eq!(echo.echoed(), 10);
        let answers = echo.answer(&packet(&segment(5000, TcpControl::Syn, 100, None)), now);
        let controls: Vec<_> = answers.iter().map(|answer| read(answer).0).collect();
        assert_eq!(controls, [TcpControl::Rst, TcpControl::Syn]);
        assert_eq!(echo.accepted(), CONNECTIONS as u64);
        data.seq_number += 10;
        assert!(!echo.answer(&packet(&data), now).is_empty());
        assert_eq!(echo.echoed(), 20, "the first one is still there");
    }

    #[test]
    fn a_connection_can_be_begun_anew_and_is_not_begun_twice() {
        let (mut echo, now) = (Echo::default(), Instant::now());
        let begin = packet(&segment(1000, TcpControl::Syn, 100, None));
        assert_eq!(echo.answer(&begin, now).len(), 1);
        assert!(echo.answer(&begin, now).is_empty());
        let (mut echo, now) = (Echo::default(), Instant::now());
        connect(&mut echo, 1000, now);
        let answers = echo.answer(&begin, now);
        let controls: Vec<_> = answers.iter().map(|answer| read(answer).0).collect();
        assert_eq!(controls, [TcpControl::Rst, TcpControl::Syn]);
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_until_patience_ends() {
        let (mut echo, start) = (Echo::default(), Instant::now());
        assert_eq!(echo.due(), None);
        let end = connect(&mut echo, 1000, start);
        assert_eq!(echo.due(), None, "nothing to do by itself");
        let mut data = segment(1000, TcpControl::Psh, 101, Some(end));
        data.payload = b"data";
        assert!(!echo.answer(&packet(&data), start).is_empty());
        let (mut now, mut again) = (start, 0);
        while let Some(due) = echo.due() {
            assert!(due > now, "time passes between two looks");
            assert!(echo.pass(now).is_empty());
            now = due;
            again += echo.pass(now).len();
        }
        assert!(again > 5);
        let passed = now - start;
        assert!((900..1000).contains(&passed.as_secs()), "{passed:?}");
    }

    #[test]
    fn a_connection_that_is_never_made_ends_too() {
        let (mut echo, start) = (Echo::default(), Instant::now());
        echo.answer(&packet(&segment(1000, TcpControl::Syn, 100, None)), start);
        let (mut now, mut again) = (start, 0);
        while let Some(due) = echo.due() {
            now = due;
            again += echo.pass(now).len();
        }
        assert!(again > 5);
        assert!((now - start).as_secs() < 1000);
        assert_eq!(echo.accepted(), 0);
    }

    #[test]
    fn only_tcp_to_its_port_and_of_a_host_to_a_host_is_for_the_echo() {
        let good = packet(&segment(1000, TcpControl::Syn, 100, None));
        assert!(is_for_echo(&good));
        for (at, byte) in [(9, 17), (12, 224), (16, 239), (23, 8), (0, 0x65)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(!is_for_echo(&bad), "{at}");
        }
        for length in 0..good.len() {
            assert!(!is_for_echo(&good[..length]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Segments close to what would be right, in any state, with any options.
        #[test]
        fn no_segment_breaks_the_echo(
            acts in prop::collection::vec(
                (
                    (0u16..20, 0u8..5, any::<bool>(), any::<bool>()),
                    (prop_oneof![6 => -3i32..4, 1 => any::<i32>()], prop_oneof![6 => -3i32..4, 1 => any::<i32>()]),
                    (any::<u16>(), prop::option::of(any::<u8>()), prop::option::of(any::<u16>())),
                    prop_oneof![6 => 0usize..20, 1 => 0usize..1400],
                    0u64..2000,
                ),
                1..300,
            ),
        ) {
            let (mut echo, mut now) = (Echo::default(), Instant::now());
            // What is next in either direction, by port.
            let mut next = std::collections::BTreeMap::<u16, (i32, i32)>::new();
            for ((from, control, acks, sack), (seq, ack), (window, scale, mss), length, millis) in acts {
                let from = 1000 + from;
                let (ours, theirs) = *next.entry(from).or_insert((0, 0));
                let data = vec![7; length];
                let mut tcp = segment(from, TcpControl::None, ours.wrapping_add(seq), None);
                tcp.control = match control {
                    0 => TcpControl::Syn,
                    1 => TcpControl::Fin,
                    2 => TcpControl::Rst,
                    3 => TcpControl::Psh,
                    _ => TcpControl::None,
                };
                tcp.ack_number = acks.then_some(TcpSeqNumber(theirs.wrapping_add(ack)));
                tcp.window_len = window;
                tcp.window_scale = scale;
                tcp.max_seg_size = mss;
                tcp.sack_permitted = sack;
                tcp.payload = &data;
                let mut answers = echo.answer(&packet(&tcp), now);
                prop_assert!(answers.len() <= MOST_SENT + 2);
                now += Duration::from_millis(millis);
                answers.extend(echo.pass(now));
                for answer in answers {
                    let ip = Ipv4Packet::new_checked(&answer[..]).unwrap();
                    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                    let end = tcp.seq_number() + tcp.segment_len();
                    next.insert(tcp.dst_port(), (tcp.ack_number().0, end.0));
                }
            }
        }
    }
}
