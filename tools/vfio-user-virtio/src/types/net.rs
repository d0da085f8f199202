// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The network device (virtio 1.4, 5.1), with one other host on its wire: see [`peer`].

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN,
    VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_STATUS, VIRTIO_NET_OK, VIRTIO_NET_S_LINK_UP,
};

use crate::buffers::Reader;
use crate::portable;
use crate::types::{
    parse, put, ActionError, Description, Malformed, Outcome, Request, RestoreError, Type, Wants,
};
use peer::Peer;

pub mod peer;

/// `struct virtio_net_hdr` with `num_buffers`.
const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// A frame may have several buffers. The bindings lack it.
const VIRTIO_NET_F_MRG_RXBUF: u32 = 15;
/// No feature allows for longer ones.
const LONGEST_FRAME: usize = 1514;
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
    transmitted: u64,
    received: u64,
    too_long: u64,
    overflowed: u64,
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
                transmitted: 0,
                received: 0,
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

    /// The peer sees what the driver sends, and answers.
    fn transmit(&self, pair: usize, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let mut header = [0; HEADER];
        request
            .input
            .read_exact(&mut header)
            .map_err(|_| Malformed("no header"))?;
        let length = request.input.available_bytes();
        let fits = length <= LONGEST_FRAME;
        let mut frame = vec![0; if fits { length } else { 0 }];
        request
            .input
            .read_exact(&mut frame)
            .map_err(|_| Malformed("no frame"))?;
        let mut state = self.lock();
        state.too_long += u64::from(!fits);
        let ok = fits && state.link && !request.fail;
        if ok {
            state.transmitted += 1;
            let now = state.now;
            let answers = state.peer.answer(&frame, now);
            state.arrive(pair, answers);
        }
        Ok(Outcome {
            kind: "transmit",
            ok,
            written: 0,
        })
    }

    /// The driver gets what the peer has sent.
    fn receive(&self, pair: usize, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let frame = {
            let mut state = self.lock();
            let waiting = state.waiting.get_mut(pair);
            waiting.and_then(VecDeque::pop_front).unwrap_or_default()
        };
        if request.output.available_bytes() < HEADER + frame.len() {
            return Err(Malformed("a receive buffer is too short"));
        }
        let mut header = [0; HEADER];
        put(&mut header, NUM_BUFFERS, &1u16.to_le_bytes());
        let ok = !request.fail
            && request
                .output
                .write_all(&header)
                .and_then(|()| request.output.write_all(&frame))
                .is_ok();
        self.lock().received += u64::from(ok);
        Ok(Outcome {
            kind: "receive",
            ok,
            written: u32::try_from(request.output.bytes_written()).unwrap_or(u32::MAX),
        })
    }

    fn control(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let mut command = [0; 2];
        request
            .input
            .read_exact(&mut command)
            .map_err(|_| Malformed("no command"))?;
        let [class, command] = command.map(u32::from);
        let ok = !request.fail
            && match (class, command) {
                // The wire has one other host, and the card filters nothing.
                (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC) => {
                    let mut on = [0];
                    let read = request.input.read_exact(&mut on).is_ok();
                    if read {
                        self.lock().promiscuous = on != [0];
                    }
                    read
                }
                (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI) => {
                    request.input.read_exact(&mut [0]).is_ok()
                }
                (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
                    are_tables(&mut request.input)
                }
                (VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD | VIRTIO_NET_CTRL_VLAN_DEL) => {
                    let mut vlan = [0; 2];
                    let read = request.input.read_exact(&mut vlan).is_ok();
                    // Twelve bits.
                    let vlan = u16::from_le_bytes(vlan) & 0xfff;
                    let vlans = &mut self.lock().vlans;
                    // One that is added again, or deleted and not there, is no error: what the driver asks for is so.
                    if read {
                        match command {
                            VIRTIO_NET_CTRL_VLAN_ADD => vlans.insert(vlan),
                            _ => vlans.remove(&vlan),
                        };
                    }
                    read
                }
                (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
                    let mut mac = [0; 6];
                    let read = request.input.read_exact(&mut mac).is_ok();
                    if read {
                        self.lock().mac = mac;
                    }
                    read
                }
                (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
                    let mut pairs = [0; 2];
                    let read = request.input.read_exact(&mut pairs).is_ok();
                    let pairs = u16::from_le_bytes(pairs);
                    let fits = read && (1..=self.pairs).contains(&pairs);
                    if fits {
                        self.lock().active = usize::from(pairs);
                    }
                    fits
                }
                _ => false,
            };
        let answer = if ok { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        request
            .output
            .write_all(&[answer as u8])
            .map_err(|_| Malformed("no room for the answer"))?;
        Ok(Outcome {
            kind: "control",
            ok,
            written: 1,
        })
    }
}

/// Whether this is a table of unicast and one of multicast addresses, each of them with a number before it, and nothing else.
fn are_tables(input: &mut Reader<'_>) -> bool {
    let both = table(input).and_then(|mut rest| table(&mut rest));
    both.is_some_and(|rest| rest.available_bytes() == 0)
}

/// What comes after a table of addresses.
fn table<'a>(input: &mut Reader<'a>) -> Option<Reader<'a>> {
    let mut entries = [0; 4];
    input.read_exact(&mut entries).ok()?;
    let bytes = u32::from_le_bytes(entries).checked_mul(6)?;
    input.split_at(usize::try_from(bytes).ok()?)
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
        json!({
            "link": state.link,
            "promiscuous": state.promiscuous,
            "vlans": state.vlans,
            "transmitted": state.transmitted,
            "received": state.received,
            "pairs": state.active,
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
        if saved.waiting.len() != pairs || !(1..=pairs).contains(&saved.active) {
            return Err(RestoreError::Fit("another number of pairs of virtqueues"));
        }
        *self.lock() = saved;
        Ok(())
    }
}
