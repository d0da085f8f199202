// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The wire of a TCP/IP stack, in memory.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::ETHERNET_HEADER_LEN;

use super::{LONGEST, MOST_SENT};

/// Where packets come from, and go to.
#[derive(Debug)]
pub(in crate::types::net::peer) struct Wire {
    medium: Medium,
    pub(in crate::types::net::peer) received: VecDeque<Vec<u8>>,
    pub(in crate::types::net::peer) sent: Vec<Vec<u8>>,
}

impl Wire {
    pub(in crate::types::net::peer) fn new(medium: Medium) -> Self {
        Self {
            medium,
            received: VecDeque::new(),
            sent: Vec::new(),
        }
    }
}

pub(in crate::types::net::peer) struct Received(Vec<u8>);

pub(in crate::types::net::peer) struct Sent<'a>(&'a mut Vec<Vec<u8>>);

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
