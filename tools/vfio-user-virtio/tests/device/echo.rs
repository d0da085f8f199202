// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! TCP over the network device, to the echo of its peer and back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::Type;

use crate::driver::{Driver, D, READY, S};
use crate::types::{make_room, transmit, MAC, RECEIVE};

/// A TCP connection of the guest, over the card.
struct Connection {
    net: Arc<Net>,
    driver: Driver,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    card: Card,
    start: Instant,
    /// The receive buffers that the device has, and how many it has given back.
    room: VecDeque<u64>,
    received: u16,
}

/// Frames between the guest's TCP and its driver.
#[derive(Default)]
struct Card {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        self.0.push(vec![0; length]);
        write(self.0.last_mut().unwrap())
    }
}

impl phy::Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl Connection {
    fn new(offer: Offer) -> Self {
        let net = Arc::new(Net::new(MAC, 1));
        let driver = Driver::of(Arc::clone(&net) as _, offer);
        let mut card = Card::default();
        let config = Config::new(EthernetAddress(MAC).into());
        let mut interface = Interface::new(config, &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24))
                .unwrap();
        });
        // So little that buffers of the test's driver do not come round too soon.
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let peer = (IpAddress::v4(10, 0, 0, 1), 7);
        socket.connect(interface.context(), peer, 50_000).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        let start = driver.now;
        let mut connection = Self {
            net,
            driver,
            interface,
            sockets,
            socket,
            card,
            start,
            room: VecDeque::new(),
            received: 0,
        };
        connection.fill();
        connection
    }

    fn fill(&mut self) {
        while self.room.len() < 8 {
            self.room.push_back(make_room(&mut self.driver));
        }
    }

    fn step(&mut self) {
        self.driver.advance(Duration::from_millis(1));
        let passed = (self.driver.now - self.start).as_micros() as i64;
        let time = smoltcp::time::Instant::from_micros(passed);
        self.interface.poll(time, &mut self.card, &mut self.sockets);
        for frame in std::mem::take(&mut self.card.sent) {
            transmit(&mut self.driver, &frame);
        }
        while self.driver.used(RECEIVE) != self.received {
            let (_, length) = self.driver.used_element(RECEIVE, self.received);
            let at = self.room.pop_front().unwrap();
            let frame = self.driver.bytes(at + 12, length as usize - 12);
            self.card.received.push_back(frame);
            self.received = self.received.wrapping_add(1);
        }
        self.fill();
    }
}

/// TCP comes back from the echo of a device that is stopped again and again: what is done `meanwhile` is not noticed.
fn comes_back(meanwhile: impl Fn(&mut Driver, Offer)) {
    for offer in [D, S] {
        let mut connection = Connection::new(offer);
        let data: Vec<u8> = (0..200_000u32).map(|at| (at * 31 / 7) as u8).collect();
        let (mut sent, mut back) = (0, Vec::new());
        let mut buffer = [0; 4096];
        for step in 0.. {
            assert!(step < 20_000, "{sent} sent, {} came back", back.len());
            connection.step();
            let socket: &mut tcp::Socket<'_> = connection.sockets.get_mut(connection.socket);
            if socket.can_send() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            if socket.can_recv() {
                let received = socket.recv_slice(&mut buffer).unwrap();
                back.extend_from_slice(&buffer[..received]);
            }
            if back.len() >= data.len() {
                break;
            }
            if step % 20 == 19 {
                let driver = &mut connection.driver;
                assert_ne!(driver.stop(), READY);
                let used = driver.used(RECEIVE);
                driver.advance(Duration::from_millis(700));
                assert_eq!(driver.used(RECEIVE), used);
                meanwhile(driver, offer);
                assert_eq!(driver.resume(), READY);
            }
        }
        assert!(back == data);
        let report = connection.driver.report();
        assert!(report.counters.stops.resumed > 1);
        assert_eq!(report.breach_count, 0, "{:?}", report.breaches);
        assert_eq!(report.of_type["peer"]["tcp_connections"], 1);
        assert_eq!(report.of_type["peer"]["tcp_echoed"], data.len());
        assert_eq!(report.of_type["overflowed"], 0);
    }
}

#[test]
fn tcp_comes_back_from_the_echo_over_stops_and_resumes() {
    comes_back(|_, _| ());
}

#[test]
fn tcp_comes_back_from_the_echo_of_a_device_that_is_handed_over() {
    comes_back(|driver, offer| driver.hand_over(Box::new(Net::new(MAC, 1)), offer));
}

#[test]
fn the_peer_sends_again_what_was_lost_without_being_asked() {
    let mut connection = Connection::new(D);
    for _ in 0..10 {
        connection.step();
    }
    assert_eq!(connection.net.next_event(), None);
    let socket: &mut tcp::Socket<'_> = connection.sockets.get_mut(connection.socket);
    assert_eq!(socket.send_slice(b"data").unwrap(), 4);
    let passed = (connection.driver.now - connection.start).as_micros() as i64;
    let time = smoltcp::time::Instant::from_micros(passed);
    let (card, sockets) = (&mut connection.card, &mut connection.sockets);
    connection.interface.poll(time, card, sockets);
    for frame in std::mem::take(&mut card.sent) {
        transmit(&mut connection.driver, &frame);
    }
    let next = connection.net.next_event().unwrap();
    let driver = &connection.driver;
    assert!((driver.now..driver.now + Duration::from_secs(10)).contains(&next));
    let received = |driver: &Driver| driver.report().of_type["received"].as_u64().unwrap();
    let before = received(&connection.driver);
    connection.driver.advance(Duration::from_secs(10));
    assert!(received(&connection.driver) > before);
}
