// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DHCP server (RFC 2131). It remembers nothing: each network card has the address that the end of its MAC address stands for, for
//! as long as it asks. Knows IPv4 packets, and no frames.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, UDP_HEADER_LEN,
};

#[cfg(test)]
mod tests;

/// The server's address.
pub(super) const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
/// That of the network which it and its clients are in.
const MASK: Ipv4Address = Ipv4Address::new(255, 0, 0, 0);
/// The option "client identifier". A server that is sent one sends it back (RFC 6842).
const CLIENT_IDENTIFIER: u8 = 61;

/// What the server sends.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: DhcpMessageType,
    pub(super) to: EthernetAddress,
    /// With its IPv4 header.
    pub(super) packet: Vec<u8>,
}

/// The address of the card that has this MAC address: one in 10.128.0.0/10.
fn address(card: EthernetAddress) -> Ipv4Address {
    let [_, _, _, high, middle, low] = card.0;
    Ipv4Address::new(10, 0x80 | high & 0x3f, middle, low)
}

/// What the server answers to an IPv4 packet, if it is a client's. The address is let for `lease` seconds.
pub(super) fn answer(packet: &[u8], lease: u32) -> Option<Answer> {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
    if ip.next_header != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    let ports = UdpRepr::parse(&udp, &from, &to, &checksums).ok()?;
    if ports.dst_port != DHCP_SERVER_PORT {
        return None;
    }
    let message = DhcpPacket::new_checked(udp.payload()).ok()?;
    let asked = DhcpRepr::parse(&message).ok()?;
    let kind = kind_of_answer(&asked)?;
    let identifier: Vec<DhcpOption<'_>> = message
        .options()
        .filter(|option| option.kind == CLIENT_IDENTIFIER)
        .take(1)
        .collect();
    let granted = kind != DhcpMessageType::Nak;
    let card = asked.client_hardware_address;
    let answer = DhcpRepr {
        broadcast: asked.broadcast,
        additional_options: &identifier,
        ..blank(kind, asked.transaction_id, card)
    };
    // Where the client can be reached (RFC 2131, 4.1).
    let (to, to_address) = if granted && !asked.client_ip.is_unspecified() {
        (card, asked.client_ip)
    } else if granted && !asked.broadcast {
        (card, address(card))
    } else {
        (EthernetAddress::BROADCAST, Ipv4Address::BROADCAST)
    };
    let answer = if granted {
        DhcpRepr {
            client_ip: asked.client_ip,
            your_ip: address(card),
            subnet_mask: Some(MASK),
            lease_duration: Some(lease),
            ..answer
        }
    } else {
        answer
    };
    Some(Answer {
        kind,
        to,
        packet: to_packet(&answer, to_address)?,
    })
}

/// What is to be answered, if anything (RFC 2131, 4.3).
fn kind_of_answer(asked: &DhcpRepr<'_>) -> Option<DhcpMessageType> {
    // There are no relays on this wire.
    if !asked.relay_agent_ip.is_unspecified() {
        return None;
    }
    match asked.message_type {
        DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
        // The client has taken another server's offer.
        DhcpMessageType::Request if asked.server_identifier.is_some_and(|id| id != SERVER) => None,
        DhcpMessageType::Request => {
            let wanted = asked.requested_ip.unwrap_or(asked.client_ip);
            Some(if wanted == address(asked.client_hardware_address) {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            })
        }
        _ => None,
    }
}

/// A message without an address.
fn blank(kind: DhcpMessageType, transaction_id: u32, card: EthernetAddress) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: kind,
        transaction_id,
        secs: 0,
        client_hardware_address: card,
        client_ip: Ipv4Address::UNSPECIFIED,
        your_ip: Ipv4Address::UNSPECIFIED,
        server_ip: Ipv4Address::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn to_packet(message: &DhcpRepr<'_>, to: Ipv4Address) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; message.buffer_len()];
    message
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .ok()?;
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + bytes.len(),
        hop_limit: 64,
    };
    let ports = UdpRepr {
        src_port: DHCP_SERVER_PORT,
        dst_port: DHCP_CLIENT_PORT,
    };
    let mut packet = vec![0; ip.buffer_len() + ip.payload_len];
    let mut datagram = Ipv4Packet::new_unchecked(&mut packet);
    ip.emit(&mut datagram, &checksums);
    ports.emit(
        &mut UdpPacket::new_unchecked(datagram.payload_mut()),
        &SERVER.into(),
        &to.into(),
        bytes.len(),
        |payload| payload.copy_from_slice(&bytes),
        &checksums,
    );
    Some(packet)
}
