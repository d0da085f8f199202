// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other host on the wire. It owns every IPv4 address that it is asked for, answers pings, and sends numbered frames back.
//!
//! A numbered frame has the EtherType 0x88b5 (IEEE 802, for local experiments) and begins with its number, 8 bytes, big-endian. The
//! numbers count from 0; a frame of number 0 begins anew. The peer counts which of them come twice, late, or not at all, and sends
//! each back, so that its sender can do the same for the other direction.

use std::collections::BTreeSet;

use serde::Serialize;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
};

/// The peer's address.
const MAC: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0x01]);
/// EtherType of numbered frames.
pub const NUMBERED: u16 = 0x88b5;
/// A number that is this far ahead begins a new count rather than a gap.
const MOST_MISSING: u64 = 65_536;

/// The other host.
#[derive(Debug, Default)]
pub struct Peer {
    report: Report,
    next: u64,
    missing: BTreeSet<u64>,
}

/// What the peer has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
}

impl Peer {
    /// What the peer has seen.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What the peer sends when it sees `frame`.
    pub fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let answer = self.answer_to(frame);
        self.report.ignored += u64::from(answer.is_none());
        answer
    }

    fn answer_to(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let payload = match frame.ethertype() {
            EthernetProtocol::Arp => {
                let payload = arp(frame.payload())?;
                self.report.arp += 1;
                payload
            }
            EthernetProtocol::Ipv4 => {
                let payload = echo(frame.payload())?;
                self.report.echo += 1;
                payload
            }
            EthernetProtocol::Unknown(NUMBERED) => {
                let number = frame.payload().first_chunk().copied()?;
                self.count(u64::from_be_bytes(number));
                frame.payload().to_vec()
            }
            _ => return None,
        };
        let mut bytes = vec![0; EthernetFrame::<&[u8]>::buffer_len(payload.len())];
        let mut answer = EthernetFrame::new_unchecked(&mut bytes);
        answer.set_dst_addr(frame.src_addr());
        answer.set_src_addr(MAC);
        answer.set_ethertype(frame.ethertype());
        answer.payload_mut().copy_from_slice(&payload);
        Some(bytes)
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

fn echo(payload: &[u8]) -> Option<Vec<u8>> {
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
    use proptest::prelude::*;
    use smoltcp::wire::Ipv4Address;

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

    fn count(numbers: &[u64]) -> Report {
        let mut peer = Peer::default();
        for number in numbers {
            assert!(peer.answer(&numbered(*number)).is_some());
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
        let answer = Peer::default()
            .answer(&frame(EthernetProtocol::Arp, &bytes))
            .unwrap();
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
        let answer = Peer::default()
            .answer(&frame(EthernetProtocol::Ipv4, &bytes))
            .unwrap();
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

    #[test]
    fn a_numbered_frame_comes_back() {
        let answer = Peer::default().answer(&numbered(0)).unwrap();
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
            assert_eq!(peer.answer(&frame), None);
        }
        assert_eq!(peer.report().ignored, 4);
    }

    proptest! {
        #[test]
        fn no_frame_breaks_the_peer(
            head in prop::sample::select(vec![0x0800u16, 0x0806, NUMBERED, 0x86dd]),
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let mut peer = Peer::default();
            for payload in payloads {
                peer.answer(&frame(EthernetProtocol::from(head), &payload));
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
