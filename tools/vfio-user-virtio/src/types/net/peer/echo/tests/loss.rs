// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A wire that loses packets, between the echo and another TCP/IP stack.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::super::saved::tests::handed_over;
use super::super::{stack_time, Echo, Wire, BUFFER, PORT};
use super::{GUEST, HERE};

/// For so long a session may last, by the time of the test. It is much more than the longest retransmission takes.
const PATIENCE: Duration = Duration::from_secs(600);
/// So many looks at either end it may take.
const MOST_TURNS: usize = 20_000;
/// How long a packet takes.
const ON_THE_WIRE: Duration = Duration::from_millis(1);

/// A client that sends all it has, closes its end, and reads until the echo has closed the other. It has room for all that the echo
/// sends at a time: this stack does not ask whether there is room again (smoltcp 0.12).
struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    data: Vec<u8>,
    sent: usize,
    back: Vec<u8>,
}

impl Client {
    fn new(data: Vec<u8>) -> Self {
        let mut wire = Wire::new(Medium::Ip);
        let start = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, start);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(IpAddress::Ipv4(GUEST), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; BUFFER]),
            tcp::SocketBuffer::new(vec![0; BUFFER]),
        ));
        sockets
            .get_mut::<tcp::Socket<'_>>(socket)
            .connect(interface.context(), (HERE, PORT), 1000)
            .unwrap();
        Self {
            interface,
            sockets,
            socket,
            wire,
            data,
            sent: 0,
            back: Vec::new(),
        }
    }

    /// Sends what there is room for, and reads what has come. Returns the packets that go out.
    fn work(&mut self, now: smoltcp::time::Instant) -> Vec<Vec<u8>> {
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if self.sent < self.data.len() && socket.can_send() {
            self.sent += socket.send_slice(&self.data[self.sent..]).unwrap();
        }
        if self.sent == self.data.len() {
            socket.close();
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    self.back.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        std::mem::take(&mut self.wire.sent)
    }

    /// When it does something if nothing comes until then.
    fn due(&mut self, start: Instant, now: Instant) -> Option<Instant> {
        let at = self
            .interface
            .poll_at(stack_time(start, now), &self.sockets)?;
        Some(start + Duration::from_micros(at.total_micros() as u64))
    }

    fn state(&self) -> tcp::State {
        self.sockets.get::<tcp::Socket<'_>>(self.socket).state()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is lost, of either direction, is sent again: the session ends as it should, all has come back, and the echo has nothing
    /// left of it.
    #[test]
    fn what_is_lost_is_sent_again(
        length in 1usize..60_000,
        mut lost in prop::collection::vec(any::<bool>(), 0..400),
        handed_over_at in prop::option::of(0usize..400),
    ) {
        let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let (mut client, mut echo) = (Client::new(data), Echo::default());
        let start = Instant::now();
        let (mut now, mut ended) = (start, false);
        let mut is_lost = || lost.pop().unwrap_or(false);
        for turn in 0.. {
            prop_assert!(turn < MOST_TURNS, "no end of packets: {} bytes sent, {} back", client.sent, client.back.len());
            if Some(turn) == handed_over_at {
                echo = handed_over(&echo);
            }
            let sent = client.work(stack_time(start, now));
            let mut back = echo.pass(now);
            for packet in sent.into_iter().filter(|_| !is_lost()) {
                back.extend(echo.answer(&packet, now));
            }
            client.wire.received.extend(back.into_iter().filter(|_| !is_lost()));
            prop_assert!(ended || client.state() != tcp::State::Closed, "reset");
            ended |= client.state() == tcp::State::TimeWait;
            if ended && serde_json::to_value(&echo).unwrap()["connections"] == json!([]) {
                break;
            }
            if !client.wire.received.is_empty() {
                now += ON_THE_WIRE;
                continue;
            }
            let next = client.due(start, now).into_iter().chain(echo.due()).min();
            let Some(next) = next else {
                return Err(TestCaseError::fail(format!("both wait for ever: {} bytes sent, {} back", client.sent, client.back.len())));
            };
            now = next.max(now + ON_THE_WIRE);
            prop_assert!(now - start < PATIENCE, "{} bytes sent, {} back", client.sent, client.back.len());
        }
        prop_assert!(client.back == client.data, "{} bytes sent, {} back", client.sent, client.back.len());
    }
}
