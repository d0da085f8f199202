// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control virtqueue (virtio 1.4, 5.1.6.5): what the driver asks the card for.

use std::io::{Read, Write};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN,
    VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::Net;
use crate::buffers::Reader;
use crate::types::{Malformed, Outcome, Request};

impl Net {
    /// Carries a command out, or refuses it.
    pub(super) fn control(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
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
