// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The network device (virtio 1.4, 5.1), with one other host on its wire: see [`peer`].

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use crate::portable;
use crate::types::{
    parse, put, ActionError, Description, Malformed, Outcome, Request, RestoreError, Type, Wants,
};
use peer::Peer;

mod control;
mod frames;
pub mod peer;

/// A frame may have several buffers. The bindings lack it.
const VIRTIO_NET_F_MRG_RXBUF: u32 = 15;
/// Frames that wait for receive buffers; more are lost, as on any wire.
const MOST_WAITING: usize = 1024;

/// What a virtqueue is for, of the pair of that number.
#[derive(Clone, Copy, Debug)]
enum Role {
    Receive(usize),
    Transmit(usize),
    Control,
}

/// A network card.
#[derive(Debug)]
pub struct Net {
    power_on_mac: [u8; 6],
    /// Pairs of virtqueues. If there are several, the driver has to accept VIRTIO_NET_F_MQ: the control virtqueue comes after all of
    /// them.
    pairs: u16,
    /// It offers VIRTIO_NET_F_MRG_RXBUF, although it needs one buffer a frame: a driver prepares for more all the same.
    mergeable: bool,
    state: Mutex<State>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    mac: [u8; 6],
    link: bool,
    promiscuous: bool,
    /// Whose frames the driver wants. The card passes all.
    vlans: BTreeSet<u16>,
    peer: Peer,
    /// Of these many pairs the driver wants to receive.
    active: usize,
    /// For each pair.
    #[serde(with = "portable::frames")]
    waiting: Vec<VecDeque<Vec<u8>>>,
    #[serde(skip, default = "Instant::now")]
    now: Instant,
    /// For each pair.
    traffic: Vec<Traffic>,
    too_long: u64,
    overflowed: u64,
}

/// Frames that have gone by one pair.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Traffic {
    /// From the driver.
    transmitted: u64,
    /// To the driver.
    received: u64,
}

impl State {
    /// The peer has sent `frames`. They come by the pair by which it was asked (virtio 1.4, 5.1.6.5.6.1).
    fn arrive(&mut self, pair: usize, frames: Vec<Vec<u8>>) {
        let pair = pair.checked_rem(self.active).unwrap_or(0);
        let Some(waiting) = self.waiting.get_mut(pair) else {
            return;
        };
        for frame in frames {
            if waiting.len() < MOST_WAITING {
                waiting.push_back(frame);
            } else {
                self.overflowed += 1;
            }
        }
    }
}

impl Net {
    /// A card with this address, and so many pairs of virtqueues.
    pub fn new(mac: [u8; 6], pairs: u16) -> Self {
        Self {
            power_on_mac: mac,
            pairs,
            mergeable: false,
            state: Mutex::new(State {
                mac,
                link: true,
                promiscuous: false,
                vlans: BTreeSet::new(),
                peer: Peer::default(),
                active: 1,
                waiting: vec![VecDeque::new(); usize::from(pairs)],
                now: Instant::now(),
                traffic: vec![Traffic::default(); usize::from(pairs)],
                too_long: 0,
                overflowed: 0,
            }),
        }
    }

    /// The same, whose frames may have several buffers.
    #[must_use]
    pub fn mergeable(self) -> Self {
        Self {
            mergeable: true,
            ..self
        }
    }

    /// The same, on whose wire the other host lets addresses for `lease` seconds (DHCP).
    #[must_use]
    pub fn with_dhcp(self, lease: u32) -> Self {
        {
            let mut state = self.lock();
            state.peer = std::mem::take(&mut state.peer).with_dhcp(lease);
        }
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn role(&self, queue: usize) -> Role {
        match (queue / 2, queue % 2) {
            (pair, _) if pair >= usize::from(self.pairs) => Role::Control,
            (pair, 0) => Role::Receive(pair),
            (pair, _) => Role::Transmit(pair),
        }
    }
}

impl Type for Net {
    fn describe(&self) -> Description {
        let features = [
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_STATUS,
            VIRTIO_NET_F_CTRL_VQ,
            VIRTIO_NET_F_CTRL_RX,
            VIRTIO_NET_F_CTRL_VLAN,
            VIRTIO_NET_F_CTRL_MAC_ADDR,
        ];
        Description {
            name: "net",
            device_id: 1,
            pci_class: 0x02_0000,
            features: features
                .iter()
                .chain((self.pairs > 1).then_some(&VIRTIO_NET_F_MQ))
                .chain(self.mergeable.then_some(&VIRTIO_NET_F_MRG_RXBUF))
                .fold(0, |all, bit| all | (1 << bit)),
            queues: 2 * self.pairs + 1,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        let state = self.lock();
        let status = if state.link { VIRTIO_NET_S_LINK_UP } else { 0 };
        config.fill(0);
        put(config, 0, &state.mac);
        put(config, 6, &(status as u16).to_le_bytes());
        put(config, 8, &self.pairs.to_le_bytes());
    }

    fn next_event(&self) -> Option<Instant> {
        self.lock().peer.due()
    }

    /// What the peer sends of itself. It does not come over a link that is down.
    fn pass(&self, now: Instant) {
        let mut state = self.lock();
        state.now = now;
        let frames = state.peer.pass(now);
        if state.link {
            state.arrive(0, frames);
        }
    }

    fn wants(&self, queue: usize) -> Wants {
        match self.role(queue) {
            Role::Receive(pair) => {
                Wants::Some(self.lock().waiting.get(pair).map_or(0, VecDeque::len))
            }
            Role::Transmit(_) | Role::Control => Wants::All,
        }
    }

    fn execute(&self, request: Request<'_>) -> Result<Outcome, Malformed> {
        match self.role(request.queue) {
            Role::Receive(pair) => self.receive(pair, request),
            Role::Transmit(pair) => self.transmit(pair, request),
            Role::Control => self.control(request),
        }
    }

    /// A frame whose buffer is taken away meanwhile is lost, as on any wire.
    fn given_back(&self, queue: usize, ok: bool) {
        if let Role::Receive(pair) = self.role(queue) {
            if let Some(traffic) = self.lock().traffic.get_mut(pair) {
                traffic.received += u64::from(ok);
            }
        }
    }

    /// `link:up`, `link:down`.
    fn act(&self, action: &str) -> Result<bool, ActionError> {
        let up = match action.split_once(':') {
            Some(("link", "up")) => true,
            Some(("link", "down")) => false,
            Some(("link", _)) => return Err(ActionError::Value("link: expected up or down")),
            _ => return Err(ActionError::Unknown(action.to_owned())),
        };
        Ok(std::mem::replace(&mut self.lock().link, up) != up)
    }

    fn reset(&self) {
        let mut state = self.lock();
        state.mac = self.power_on_mac;
        state.promiscuous = false;
        state.vlans.clear();
        state.active = 1;
        state.waiting.iter_mut().for_each(VecDeque::clear);
    }

    fn report(&self) -> Value {
        let state = self.lock();
        let count = |of: fn(&Traffic) -> u64| state.traffic.iter().map(of).sum::<u64>();
        json!({
            "link": state.link,
            "promiscuous": state.promiscuous,
            "vlans": state.vlans,
            "transmitted": count(|pair| pair.transmitted),
            "received": count(|pair| pair.received),
            "pairs": state.active,
            "by_pair": state.traffic,
            "waiting": state.waiting.iter().map(VecDeque::len).sum::<usize>(),
            "too_long": state.too_long,
            "overflowed": state.overflowed,
            "peer": state.peer.report(),
        })
    }

    fn save(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(&*self.lock())
    }

    fn restore(&mut self, saved: Value) -> Result<(), RestoreError> {
        let saved: State = parse(saved)?;
        let pairs = usize::from(self.pairs);
        if saved.waiting.len() != pairs
            || saved.traffic.len() != pairs
            || !(1..=pairs).contains(&saved.active)
        {
            return Err(RestoreError::Fit("another number of pairs of virtqueues"));
        }
        *self.lock() = saved;
        Ok(())
    }
}
