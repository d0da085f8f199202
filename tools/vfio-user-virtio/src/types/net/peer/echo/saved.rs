// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the echo goes on in another process. A socket of the stack can't be written down. A fresh
//! one is brought to the same state by packets that the guest might have sent: it begins the
//! connection at the first byte that it has not got back, sends what it has sent since, and has no
//! room until then. What the stack answers to that nobody sees. Its own sequence numbers are
//! others, of its choice: from then on they are changed in all packets of the connection. What is
//! on its way to the guest is sent again, as if it were lost.

use std::time::Instant;

use serde::{Deserialize, Serialize, Serializer};
use smoltcp::socket::tcp;

use super::stream::Stream;
use super::{is_for_echo, Echo, CONNECTIONS};
use crate::portable;

#[cfg(test)]
pub(super) mod tests;

/// What a successor has to know of the echo.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// The last look at the time.
    #[serde(with = "portable::instant::option")]
    time: Option<Instant>,
    packets: u64,
    accepted: u64,
    echoed: u64,
    connections: Vec<Connection>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    state: State,
    /// The number of the last packet that it got.
    last: u64,
    stream: Stream,
}

/// The state of a connection. The echo closes it only when the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The guest has not acknowledged it yet.
    SynReceived,
    Established,
    /// The guest has closed its end.
    CloseWait,
}

impl Serialize for Echo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let connection = |connection: &super::Connection| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.socket);
            let stream = connection.stream.clone()?;
            let state = match socket.state() {
                tcp::State::SynReceived => State::SynReceived,
                tcp::State::Established if !stream.holds_fin() => State::Established,
                tcp::State::Established | tcp::State::CloseWait | tcp::State::LastAck => {
                    State::CloseWait
                }
                _ => return None,
            };
            Some(Connection {
                state,
                last: connection.last,
                stream,
            })
        };
        Saved {
            time: self.time.map(|(_, last)| last),
            packets: self.packets,
            accepted: self.accepted,
            echoed: self.echoed,
            connections: self.connections.iter().filter_map(connection).collect(),
        }
        .serialize(serializer)
    }
}

impl From<Saved> for Echo {
    fn from(saved: Saved) -> Self {
        let mut echo = Self {
            // It does not go backwards, and would stand still if it were ahead.
            time: saved
                .time
                .map(|last| last.min(Instant::now()))
                .map(|last| (last, last)),
            ..Self::default()
        };
        let connections = saved.connections.into_iter().take(CONNECTIONS);
        let ends: Vec<_> = connections
            .filter_map(|connection| echo.begin_anew(connection))
            .collect();
        echo.wire.received.extend(ends);
        echo.work(START);
        // The same connections and bytes are not counted again.
        Self {
            packets: saved.packets,
            accepted: saved.accepted,
            echoed: saved.echoed,
            ..echo
        }
    }
}

/// The stack's time.
const START: smoltcp::time::Instant = smoltcp::time::Instant::ZERO;

impl Echo {
    /// A socket has a connection as it was, but for the packet that this returns, if there is one.
    fn begin_anew(&mut self, connection: Connection) -> Option<Vec<u8>> {
        let Connection {
            state,
            last,
            stream,
        } = connection;
        let beginning = stream.beginning();
        if !is_for_echo(&beginning) {
            return None;
        }
        self.wire.received.push_back(beginning);
        self.interface
            .poll(START, &mut self.wire, &mut self.sockets);
        let (guest, here) = stream.ends();
        let first = self.answered(guest, here).map(|number| number + 1);
        self.wire.sent.clear();
        let (first, (new, _)) = (first?, self.find(guest, here)?);
        new.last = last;
        let closed = state == State::CloseWait;
        new.stream = Some(stream.clone().rewound(first, closed));
        if state == State::SynReceived {
            return None;
        }
        for packet in stream.data(first) {
            self.wire.received.push_back(packet);
            self.work(START);
            self.wire.sent.clear();
        }
        Some(stream.end(first, closed))
    }
}
