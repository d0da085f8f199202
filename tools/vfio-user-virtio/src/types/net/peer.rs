// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other host on the wire. It owns every IPv4 address that it is asked for, answers pings, has TCP echo at port 7 of each, sends
//! numbered frames back, and is a DHCP server if it is to be one.
//!
//! A numbered frame has the EtherType 0x88b5 (IEEE 802, for local experiments) and begins with its number, 8 bytes, big-endian. The
//! numbers count from 0; a frame of number 0 begins anew. The peer counts which of them come twice, late, or not at all, and sends
//! each back, so that its sender can do the same for the other direction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, EthernetAddress, EthernetFrame,
    EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
};

use echo::Echo;

mod dhcp;
mod echo;

/// The peer's address.
const MAC: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0x01]);
/// EtherType of numbered frames.
pub const NUMBERED: u16 = 0x88b5;
/// A number that is this far ahead begins a new count rather than a gap.
const MOST_MISSING: u64 = 65_536;
/// Hosts that the peer knows by their IPv4 address; more than have connections.
const MOST_HOSTS: usize = 256;

/// The other host.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    report: Report,
    next: u64,
    missing: BTreeSet<u64>,
    tcp: Echo,
    /// By whose address those are reached that have sent something to the echo.
    hosts: BTreeMap<Ipv4Address, [u8; 6]>,
    /// For how many seconds the DHCP server lets an address, if there is one.
    lease: Option<u32>,
}

/// What the peer has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// ARP requests that it has answered.
    pub arp: u64,
    /// Pings that it has answered.
    pub echo: u64,
    /// Frames that meant nothing to it.
    pub ignored: u64,
    /// Numbered frames that have come, whatever their number.
    pub numbered: u64,
    /// Numbers before the highest that have not come.
    pub lost: u64,
    /// Frames whose number had come before.
    pub duplicated: u64,
    /// Frames that came after one with a higher number.
    pub reordered: u64,
    /// Connections to the echo that were made.
    pub tcp_connections: u64,
    /// Bytes that it has sent back.
    pub tcp_echoed: u64,
    /// Addresses that the DHCP server has offered.
    pub dhcp_offered: u64,
    /// Requests that it has granted: leases and their renewals.
    pub dhcp_granted: u64,
    /// Requests that it has refused.
    pub dhcp_refused: u64,
}

impl Report {
    fn count_dhcp(&mut self, answer: DhcpMessageType) {
        match answer {
            DhcpMessageType::Offer => self.dhcp_offered += 1,
            DhcpMessageType::Ack => self.dhcp_granted += 1,
            _ => self.dhcp_refused += 1,
        }
    }
}

impl Peer {
    /// The same, with a DHCP server that lets addresses for `lease` seconds.
    #[must_use]
    pub fn with_dhcp(self, lease: u32) -> Self {
        Self {
            lease: Some(lease),
            ..self
        }
    }

    /// What the peer has seen.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What the peer sends when it sees `frame` at `now`.
    pub fn answer(&mut self, frame: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let answer = self.answer_to(frame, now);
        self.report.ignored += u64::from(answer.is_none());
        answer.unwrap_or_default()
    }

    /// What the peer sends because it is `now`.
    pub fn pass(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let packets = self.tcp.pass(now);
        self.address(packets)
    }

    /// When the peer has something to send if it sees nothing until then.
    pub fn due(&mut self) -> Option<Instant> {
        self.tcp.due()
    }

    fn answer_to(&mut self, frame: &[u8], now: Instant) -> Option<Vec<Vec<u8>>> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let payload = match frame.ethertype() {
            EthernetProtocol::Arp => {
                let payload = arp(frame.payload())?;
                self.report.arp += 1;
                payload
            }
            EthernetProtocol::Ipv4 if echo::is_for_echo(frame.payload()) => {
                let host = Ipv4Packet::new_checked(frame.payload()).ok()?.src_addr();
                if !self.hosts.contains_key(&host) && self.hosts.len() >= MOST_HOSTS {
                    self.hosts.clear();
                }
                self.hosts.insert(host, frame.src_addr().0);
                let packets = self.tcp.answer(frame.payload(), now);
                return Some(self.address(packets));
            }
            EthernetProtocol::Ipv4 => {
                if let Some(answer) = ping(frame.payload()) {
                    self.report.echo += 1;
                    answer
                } else {
                    let answer = dhcp::answer(frame.payload(), self.lease?)?;
                    self.report.count_dhcp(answer.kind);
                    return Some(vec![wrap(answer.to, frame.ethertype(), &answer.packet)]);
                }
            }
            EthernetProtocol::Unknown(NUMBERED) => {
                let number = frame.payload().first_chunk().copied()?;
                self.count(u64::from_be_bytes(number));
                frame.payload().to_vec()
            }
            _ => return None,
        };
        Some(vec![wrap(frame.src_addr(), frame.ethertype(), &payload)])
    }

    /// Frames for the echo's packets. A host that is not known any more will say something again.
    fn address(&mut self, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.report.tcp_connections = self.tcp.accepted();
        self.report.tcp_echoed = self.tcp.echoed();
        let frame = |packet: Vec<u8>| {
            let host = Ipv4Packet::new_checked(&packet[..]).ok()?.dst_addr();
            let address = EthernetAddress(*self.hosts.get(&host)?);
            Some(wrap(address, EthernetProtocol::Ipv4, &packet))
        };
        packets.into_iter().filter_map(frame).collect()
    }

    fn count(&mut self, number: u64) {
        self.report.numbered += 1;
        if number == 0 || number >= self.next.saturating_add(MOST_MISSING) {
            self.missing.clear();
            self.next = number.saturating_add(1);
        } else if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.report.reordered += 1;
        } else {
            self.report.duplicated += 1;
        }
        while self.missing.len() as u64 > MOST_MISSING {
            self.missing.pop_first();
        }
        self.report.lost = self.missing.len() as u64;
    }
}

fn wrap(to: EthernetAddress, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; EthernetFrame::<&[u8]>::buffer_len(payload.len())];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_dst_addr(to);
    frame.set_src_addr(MAC);
    frame.set_ethertype(ethertype);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

fn arp(payload: &[u8]) -> Option<Vec<u8>> {
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?
    else {
        return None;
    };
    // A host that announces or probes its own address asks for nobody else.
    if source_protocol_addr == target_protocol_addr || source_protocol_addr.is_unspecified() {
        return None;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: MAC,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut bytes = vec![0; answer.buffer_len()];
    answer.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    Some(bytes)
}

fn ping(payload: &[u8]) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
    if ip.next_header != IpProtocol::Icmp {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    let Icmpv4Repr::EchoRequest {
        ident,
        seq_no,
        data,
    } = Icmpv4Repr::parse(&icmp, &checksums).ok()?
    else {
        return None;
    };
    let icmp = Icmpv4Repr::EchoReply {
        ident,
        seq_no,
        data,
    };
    let ip = Ipv4Repr {
        src_addr: ip.dst_addr,
        dst_addr: ip.src_addr,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + icmp.buffer_len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    icmp.emit(
        &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
        &checksums,
    );
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo::Wire;
    use proptest::prelude::*;
    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::phy::Medium;
    use smoltcp::socket::tcp;
    use smoltcp::wire::IpCidr;
    use std::time::Duration;

    const GUEST: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 7]);
    const GUEST_IP: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
    const PEER_IP: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);

    fn frame(ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 14 + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_dst_addr(EthernetAddress::BROADCAST);
        frame.set_src_addr(GUEST);
        frame.set_ethertype(ethertype);
        frame.payload_mut().copy_from_slice(payload);
        bytes
    }

    fn numbered(number: u64) -> Vec<u8> {
        frame(EthernetProtocol::Unknown(NUMBERED), &number.to_be_bytes())
    }

    /// The one frame that the peer answers with.
    fn answer(peer: &mut Peer, frame: &[u8]) -> Option<Vec<u8>> {
        let mut frames = peer.answer(frame, Instant::now());
        assert!(frames.len() <= 1);
        frames.pop()
    }

    fn count(numbers: &[u64]) -> Report {
        let mut peer = Peer::default();
        for number in numbers {
            assert!(answer(&mut peer, &numbered(*number)).is_some());
        }
        peer.report().clone()
    }

    #[test]
    fn an_arp_request_is_answered() {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: GUEST,
            source_protocol_addr: GUEST_IP,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: PEER_IP,
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        let answer = answer(&mut Peer::default(), &frame(EthernetProtocol::Arp, &bytes)).unwrap();
        let answer = EthernetFrame::new_checked(&answer[..]).unwrap();
        assert_eq!((answer.dst_addr(), answer.src_addr()), (GUEST, MAC));
        assert_eq!(
            ArpRepr::parse(&ArpPacket::new_checked(answer.payload()).unwrap()).unwrap(),
            ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: MAC,
                source_protocol_addr: PEER_IP,
                target_hardware_addr: GUEST,
                target_protocol_addr: GUEST_IP,
            }
        );
    }

    #[test]
    fn a_ping_is_answered_with_its_data() {
        let checksums = ChecksumCapabilities::default();
        let icmp = Icmpv4Repr::EchoRequest {
            ident: 3,
            seq_no: 4,
            data: b"data",
        };
        let ip = Ipv4Repr {
            src_addr: GUEST_IP,
            dst_addr: PEER_IP,
            next_header: IpProtocol::Icmp,
            payload_len: icmp.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; ip.buffer_len() + icmp.buffer_len()];
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &checksums);
        icmp.emit(
            &mut Icmpv4Packet::new_unchecked(&mut bytes[ip.buffer_len()..]),
            &checksums,
        );
        let answer = answer(&mut Peer::default(), &frame(EthernetProtocol::Ipv4, &bytes)).unwrap();
        let answer = EthernetFrame::new_checked(&answer[..]).unwrap();
        let packet = Ipv4Packet::new_checked(answer.payload()).unwrap();
        let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
        assert_eq!((ip.src_addr, ip.dst_addr), (PEER_IP, GUEST_IP));
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!(
            Icmpv4Repr::parse(&icmp, &checksums).unwrap(),
            Icmpv4Repr::EchoReply {
                ident: 3,
                seq_no: 4,
                data: b"data"
            }
        );
    }

    /// A host with a connection to the peer's echo, over a wire that loses one frame of that many.
    struct Guest {
        interface: Interface,
        sockets: SocketSet<'static>,
        socket: SocketHandle,
        wire: Wire,
        start: Instant,
        now: Instant,
        one_lost_of: u64,
        random: fastrand::Rng,
    }

    impl Guest {
        fn new(one_lost_of: u64) -> Self {
            let mut wire = Wire::new(Medium::Ethernet);
            let zero = smoltcp::time::Instant::ZERO;
            let mut interface = Interface::new(Config::new(GUEST.into()), &mut wire, zero);
            interface.update_ip_addrs(|all| {
                all.push(IpCidr::new(GUEST_IP.into(), 24)).unwrap();
            });
            let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
            let mut sockets = SocketSet::new(Vec::new());
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket
                .connect(interface.context(), (PEER_IP, echo::PORT), 49_152)
                .unwrap();
            let socket = sockets.add(socket);
            let now = Instant::now();
            Self {
                interface,
                sockets,
                socket,
                wire,
                start: now,
                now,
                one_lost_of,
                random: fastrand::Rng::with_seed(1),
            }
        }

        fn socket(&mut self) -> &mut tcp::Socket<'static> {
            self.sockets.get_mut(self.socket)
        }

        fn arrives(&mut self) -> bool {
            self.one_lost_of == 0 || self.random.u64(..self.one_lost_of) != 0
        }

        /// Both ends do what they have to do, and a little time passes.
        fn step(&mut self, peer: &mut Peer) {
            let passed = (self.now - self.start).as_micros() as i64;
            let time = smoltcp::time::Instant::from_micros(passed);
            self.interface.poll(time, &mut self.wire, &mut self.sockets);
            let mut answers = peer.pass(self.now);
            for frame in std::mem::take(&mut self.wire.sent) {
                if self.arrives() {
                    answers.extend(peer.answer(&frame, self.now));
                }
            }
            for frame in answers {
                if self.arrives() {
                    self.wire.received.push_back(frame);
                }
            }
            self.now += Duration::from_millis(1);
        }
    }

    /// The peer, as another process goes on with it.
    fn handed_over(peer: &Peer) -> Peer {
        serde_json::from_str(&serde_json::to_string(peer).unwrap()).unwrap()
    }

    /// The peer, after a host has sent so many bytes to the echo, has got them back, and has
    /// closed. It is handed over every so many steps.
    fn echoed(bytes: usize, one_lost_of: u64, handed_over_every: usize) -> Peer {
        let (mut peer, mut guest) = (Peer::default(), Guest::new(one_lost_of));
        let data: Vec<u8> = (0..bytes).map(|at| (at * 31 / 7) as u8).collect();
        let (mut sent, mut back) = (0, Vec::new());
        let mut buffer = vec![0; 65_535];
        for step in 0.. {
            assert!(step < 1_000_000, "{sent} sent, {} came back", back.len());
            guest.step(&mut peer);
            if step % handed_over_every == handed_over_every - 1 {
                peer = handed_over(&peer);
            }
            let socket = guest.socket();
            if socket.can_send() && sent < bytes {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            if sent == bytes && socket.may_send() {
                socket.close();
            }
            if socket.can_recv() {
                let received = socket.recv_slice(&mut buffer).unwrap();
                back.extend_from_slice(&buffer[..received]);
            }
            if matches!(socket.state(), tcp::State::TimeWait | tcp::State::Closed) {
                break;
            }
        }
        assert_eq!(back.len(), bytes);
        assert!(back == data);
        peer
    }

    #[test]
    fn tcp_comes_back_from_the_echo() {
        for bytes in [0, 1, 1000, 500_000] {
            let report = echoed(bytes, 0, usize::MAX).report().clone();
            assert_eq!(
                (report.tcp_connections, report.tcp_echoed),
                (1, bytes as u64)
            );
            assert_eq!((report.arp, report.ignored), (1, 0));
        }
    }

    #[test]
    fn tcp_comes_back_from_the_echo_although_frames_are_lost() {
        for one_lost_of in [10, 30, 100] {
            let report = echoed(300_000, one_lost_of, usize::MAX).report().clone();
            assert_eq!((report.tcp_connections, report.tcp_echoed), (1, 300_000));
        }
    }

    #[test]
    fn tcp_comes_back_from_a_peer_that_is_handed_over() {
        for (one_lost_of, every) in [(0, 1), (0, 7), (30, 10), (10, 100)] {
            let report = echoed(100_000, one_lost_of, every).report().clone();
            assert_eq!((report.tcp_connections, report.tcp_echoed), (1, 100_000));
            assert_eq!(report.ignored, 0);
        }
    }

    #[test]
    fn a_numbered_frame_comes_back() {
        let answer = answer(&mut Peer::default(), &numbered(0)).unwrap();
        let answer = EthernetFrame::new_checked(&answer[..]).unwrap();
        assert_eq!((answer.dst_addr(), answer.payload()), (GUEST, &[0; 8][..]));
    }

    #[test]
    fn loss_order_and_duplication_are_counted() {
        let expected = |numbered, lost, duplicated, reordered| Report {
            numbered,
            lost,
            duplicated,
            reordered,
            ..Report::default()
        };
        assert_eq!(count(&[0, 1, 2, 3]), expected(4, 0, 0, 0));
        assert_eq!(count(&[0, 1, 4]), expected(3, 2, 0, 0));
        assert_eq!(count(&[0, 2, 1, 3]), expected(4, 0, 0, 1));
        assert_eq!(count(&[0, 1, 1, 2]), expected(4, 0, 1, 0));
        assert_eq!(count(&[0, 5, 0, 1]), expected(4, 0, 0, 0));
    }

    #[test]
    fn what_means_nothing_is_ignored() {
        let mut peer = Peer::default();
        for frame in [
            vec![],
            frame(EthernetProtocol::Ipv6, &[0; 40]),
            frame(EthernetProtocol::Unknown(NUMBERED), &[0; 7]),
            frame(EthernetProtocol::Arp, &[0; 3]),
        ] {
            assert_eq!(answer(&mut peer, &frame), None);
        }
        assert_eq!(peer.report().ignored, 4);
    }

    proptest! {
        #[test]
        fn no_frame_breaks_the_peer(
            head in prop::sample::select(vec![0x0800u16, 0x0806, NUMBERED, 0x86dd]),
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let mut peer = Peer::default().with_dhcp(60);
            for payload in payloads {
                peer.answer(&frame(EthernetProtocol::from(head), &payload), Instant::now());
                prop_assert!(peer.missing.len() as u64 <= MOST_MISSING);
            }
        }

        #[test]
        fn every_number_that_came_is_accounted_for(numbers in prop::collection::vec(1u64..50, 1..200)) {
            let mut all = vec![0];
            all.extend(&numbers);
            let report = count(&all);
            let distinct: BTreeSet<u64> = all.iter().copied().collect();
            let highest = all.iter().max().copied().unwrap_or_default();
            prop_assert_eq!(report.duplicated, (all.len() - distinct.len()) as u64);
            prop_assert_eq!(report.lost, highest + 1 - distinct.len() as u64);
        }
    }
}
