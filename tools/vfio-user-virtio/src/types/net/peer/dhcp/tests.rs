// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::{Duration, Instant};

use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::dhcpv4;

use super::super::echo::Wire;
use super::super::{Peer, Report};
use super::*;

const CARD: EthernetAddress = EthernetAddress([0x02, 0, 0, 0xc1, 2, 3]);
const ADDRESS: Ipv4Address = Ipv4Address::new(10, 0x81, 2, 3);
const LEASE: u32 = 90;

/// What a client begins with.
fn asked(kind: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        server_identifier: None,
        ..blank(kind, 7, CARD)
    }
}

fn to_server(message: &DhcpRepr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .unwrap();
    datagram(DHCP_SERVER_PORT, &bytes)
}

fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: Ipv4Address::UNSPECIFIED,
        dst_addr: Ipv4Address::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + payload.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len() + ip.payload_len];
    let mut inner = Ipv4Packet::new_unchecked(&mut packet);
    ip.emit(&mut inner, &checksums);
    let ports = UdpRepr {
        src_port: DHCP_CLIENT_PORT,
        dst_port: port,
    };
    ports.emit(
        &mut UdpPacket::new_unchecked(inner.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        payload.len(),
        |bytes| bytes.copy_from_slice(payload),
        &checksums,
    );
    packet
}

/// What the answer says, and to which address it goes.
fn said<T>(
    packet: &[u8],
    read: impl FnOnce(&DhcpRepr<'_>, &[DhcpOption<'_>]) -> T,
) -> (Ipv4Address, T) {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    let ports = UdpRepr::parse(&udp, &ip.src_addr.into(), &ip.dst_addr.into(), &checksums).unwrap();
    assert_eq!((ip.src_addr, ports.src_port), (SERVER, DHCP_SERVER_PORT));
    assert_eq!(ports.dst_port, DHCP_CLIENT_PORT);
    let message = DhcpPacket::new_checked(udp.payload()).unwrap();
    let options: Vec<_> = message.options().collect();
    (
        ip.dst_addr,
        read(&DhcpRepr::parse(&message).unwrap(), &options),
    )
}

fn answer_to(message: &DhcpRepr<'_>) -> Option<Answer> {
    answer(&to_server(message), LEASE)
}

#[test]
fn who_looks_for_a_server_is_offered_its_address() {
    let answer = answer_to(&asked(DhcpMessageType::Discover)).unwrap();
    assert_eq!((answer.kind, answer.to), (DhcpMessageType::Offer, CARD));
    let (to, ()) = said(&answer.packet, |offer, _| {
        assert_eq!(offer.message_type, DhcpMessageType::Offer);
        assert_eq!((offer.transaction_id, offer.your_ip), (7, ADDRESS));
        assert_eq!(offer.client_hardware_address, CARD);
        assert_eq!(offer.server_identifier, Some(SERVER));
        assert_eq!(
            (offer.subnet_mask, offer.lease_duration),
            (Some(MASK), Some(LEASE))
        );
    });
    assert_eq!(to, ADDRESS);
}

#[test]
fn who_can_get_broadcasts_only_gets_one() {
    let answer = answer_to(&DhcpRepr {
        broadcast: true,
        ..asked(DhcpMessageType::Discover)
    });
    let answer = answer.unwrap();
    assert_eq!(answer.to, EthernetAddress::BROADCAST);
    assert_eq!(said(&answer.packet, |_, _| ()).0, Ipv4Address::BROADCAST);
}

#[test]
fn a_request_is_granted_in_every_state_of_a_client() {
    let request = asked(DhcpMessageType::Request);
    for (state, request) in [
        (
            "selecting",
            DhcpRepr {
                server_identifier: Some(SERVER),
                requested_ip: Some(ADDRESS),
                ..request.clone()
            },
        ),
        (
            "booted again",
            DhcpRepr {
                requested_ip: Some(ADDRESS),
                ..request.clone()
            },
        ),
        (
            "renewing, rebinding",
            DhcpRepr {
                client_ip: ADDRESS,
                ..request
            },
        ),
    ] {
        let answer = answer_to(&request).unwrap();
        assert_eq!(
            (answer.kind, answer.to),
            (DhcpMessageType::Ack, CARD),
            "{state}"
        );
        let (to, ()) = said(&answer.packet, |granted, _| {
            assert_eq!(granted.message_type, DhcpMessageType::Ack, "{state}");
            assert_eq!(granted.client_ip, request.client_ip, "{state}");
            assert_eq!(
                (granted.your_ip, granted.lease_duration),
                (ADDRESS, Some(LEASE)),
                "{state}"
            );
        });
        assert_eq!(to, ADDRESS, "{state}");
    }
}

#[test]
fn who_wants_another_address_is_refused() {
    let wrong = Ipv4Address::new(192, 168, 0, 9);
    let request = asked(DhcpMessageType::Request);
    for (requested_ip, client_ip) in [(Some(wrong), Ipv4Address::UNSPECIFIED), (None, wrong)] {
        let request = DhcpRepr {
            requested_ip,
            client_ip,
            ..request.clone()
        };
        let answer = answer_to(&request).unwrap();
        assert_eq!(answer.kind, DhcpMessageType::Nak);
        assert_eq!(answer.to, EthernetAddress::BROADCAST);
        let (to, ()) = said(&answer.packet, |refusal, _| {
            assert_eq!(refusal.message_type, DhcpMessageType::Nak);
            assert_eq!(refusal.server_identifier, Some(SERVER));
            assert_eq!(
                (refusal.your_ip, refusal.lease_duration),
                (Ipv4Address::UNSPECIFIED, None)
            );
        });
        assert_eq!(to, Ipv4Address::BROADCAST);
    }
}

#[test]
fn a_client_identifier_comes_back() {
    let identifier = DhcpOption {
        kind: CLIENT_IDENTIFIER,
        data: b"\xff0123456789abcdef",
    };
    let answer = answer_to(&DhcpRepr {
        additional_options: &[identifier],
        ..asked(DhcpMessageType::Discover)
    });
    said(&answer.unwrap().packet, |_, options| {
        assert!(options.contains(&identifier), "{options:?}");
    });
}

#[test]
fn what_is_for_nobody_or_for_another_has_no_answer() {
    let request = asked(DhcpMessageType::Request);
    let relayed = DhcpRepr {
        relay_agent_ip: ADDRESS,
        ..asked(DhcpMessageType::Discover)
    };
    let elsewhere = DhcpRepr {
        server_identifier: Some(Ipv4Address::new(10, 0, 0, 2)),
        requested_ip: Some(ADDRESS),
        ..request
    };
    for message in [
        &relayed,
        &elsewhere,
        &asked(DhcpMessageType::Release),
        &asked(DhcpMessageType::Decline),
        &asked(DhcpMessageType::Inform),
        &asked(DhcpMessageType::Offer),
    ] {
        assert!(answer_to(message).is_none(), "{message:?}");
    }
    let discover = to_server(&asked(DhcpMessageType::Discover));
    let mut broken = discover.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert!(answer(&broken, LEASE).is_none(), "the checksum is wrong");
    let payload = &discover[28..];
    assert!(answer(&datagram(DHCP_SERVER_PORT, payload), LEASE).is_some());
    assert!(
        answer(&datagram(68, payload), LEASE).is_none(),
        "another port"
    );
    assert!(answer(&datagram(DHCP_SERVER_PORT, b"short"), LEASE).is_none());
}

/// What the peer has seen of a client that has asked for so many seconds, and whether it has an address at the end. The peer is handed
/// over all the time.
fn client_of(mut peer: Peer, seconds: u32) -> (Report, Option<Ipv4Address>) {
    let mut wire = Wire::new(Medium::Ethernet);
    let zero = smoltcp::time::Instant::ZERO;
    let mut interface = Interface::new(Config::new(CARD.into()), &mut wire, zero);
    let mut sockets = SocketSet::new(Vec::new());
    let client = sockets.add(dhcpv4::Socket::new());
    let (start, mut held) = (Instant::now(), None);
    for passed in (0..seconds * 1000).step_by(100) {
        let time = smoltcp::time::Instant::from_millis(passed);
        interface.poll(time, &mut wire, &mut sockets);
        match sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                held = Some(config.address.address());
                interface.update_ip_addrs(|all| {
                    all.clear();
                    all.push(config.address.into()).unwrap();
                });
            }
            Some(dhcpv4::Event::Deconfigured) => held = None,
            None => {}
        }
        peer = serde_json::from_str(&serde_json::to_string(&peer).unwrap()).unwrap();
        let now = start + Duration::from_millis(passed.into());
        for frame in std::mem::take(&mut wire.sent) {
            wire.received.extend(peer.answer(&frame, now));
        }
    }
    (peer.report().clone(), held)
}

#[test]
fn a_client_gets_a_lease_and_renews_it() {
    let (report, held) = client_of(Peer::default().with_dhcp(60), 200);
    assert_eq!(held, Some(ADDRESS));
    assert_eq!((report.dhcp_offered, report.dhcp_refused), (1, 0));
    // One lease, and a renewal after half of it each time.
    assert_eq!((report.dhcp_granted, report.ignored), (1 + 6, 0));
}

#[test]
fn without_a_server_nobody_answers() {
    let (report, held) = client_of(Peer::default(), 20);
    assert_eq!((report.dhcp_offered, report.dhcp_granted), (0, 0));
    assert_eq!(held, None);
    assert!(report.ignored > 0);
}

proptest! {
    #[test]
    fn no_message_breaks_the_server(
        begin in prop::collection::vec(any::<u8>(), 236),
        options in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0u8..9,
        plain in any::<bool>(),
    ) {
        let mut payload = begin;
        if plain {
            payload[..3].copy_from_slice(&[1, 1, 6]);
        }
        payload.extend([99, 130, 83, 99, 53, 1, kind]);
        payload.extend(options);
        if let Some(answer) = answer(&datagram(DHCP_SERVER_PORT, &payload), LEASE) {
            said(&answer.packet, |_, _| ());
        }
    }
}
