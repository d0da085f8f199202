// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! IPv4 packets with TCP in them.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpEndpoint, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

use super::PORT;

/// A packet that is whole.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    ip: Ipv4Repr,
    pub(super) tcp: TcpRepr<'a>,
}

/// Whether an IPv4 packet is for the echo: of a host, to a host, by TCP, to its port.
pub(in crate::types::net::peer) fn is_for_echo(packet: &[u8]) -> bool {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else {
        return false;
    };
    let unicast = |address: Ipv4Address| {
        !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
    };
    ip.version() == 4
        && ip.next_header() == IpProtocol::Tcp
        && unicast(ip.src_addr())
        && unicast(ip.dst_addr())
        && TcpPacket::new_checked(ip.payload())
            .is_ok_and(|tcp| tcp.dst_port() == PORT && tcp.src_port() != 0)
}

impl<'a> Segment<'a> {
    pub(super) fn new(from: Ipv4Address, to: Ipv4Address, tcp: TcpRepr<'a>) -> Self {
        let ip = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        Self { ip, tcp }
    }

    /// What is in a packet whose checksums are right.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let checksums = ChecksumCapabilities::default();
        let packet = Ipv4Packet::new_checked(packet).ok()?;
        let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
        let tcp = TcpRepr::parse(&tcp, &from, &to, &checksums).ok()?;
        Some(Self { ip, tcp })
    }

    /// Who has sent it.
    pub(super) fn from(&self) -> IpEndpoint {
        IpEndpoint::new(self.ip.src_addr.into(), self.tcp.src_port)
    }

    /// Who is to get it.
    pub(super) fn to(&self) -> IpEndpoint {
        IpEndpoint::new(self.ip.dst_addr.into(), self.tcp.dst_port)
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> (Ipv4Address, Ipv4Address) {
        (self.ip.src_addr, self.ip.dst_addr)
    }

    /// Whether it begins a connection.
    pub(super) fn begins(&self) -> bool {
        self.tcp.control == TcpControl::Syn && self.tcp.ack_number.is_none()
    }

    /// The same without what the stack can do without. With selective acknowledgements it computes
    /// sequence numbers in a way that overflows (smoltcp 0.12, `AssemblerIter`).
    pub(super) fn make_plain(&mut self) {
        self.tcp.sack_permitted = false;
        self.tcp.sack_ranges = [None; 3];
        self.tcp.timestamp = None;
        self.ip.payload_len = self.tcp.buffer_len();
    }

    /// The packet.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; self.ip.buffer_len() + self.tcp.buffer_len()];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        self.ip.emit(&mut packet, &checksums);
        self.tcp.emit(
            &mut TcpPacket::new_unchecked(packet.payload_mut()),
            &self.ip.src_addr.into(),
            &self.ip.dst_addr.into(),
            &checksums,
        );
        bytes
    }
}

/// Adds `distance` to a sequence number.
pub(super) fn shifted(number: TcpSeqNumber, distance: i32) -> TcpSeqNumber {
    TcpSeqNumber(number.0.wrapping_add(distance))
}
