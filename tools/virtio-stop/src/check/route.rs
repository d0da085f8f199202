// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! By which interface an address is reached: the main routing table. Rules are not looked at.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::device::System;

/// From linux/route.h: packets are thrown away.
const RTF_REJECT: u32 = 0x200;

/// A route: how many bits of the address have to be the same, and how dear it is.
type Match = (u32, std::cmp::Reverse<u32>);

/// The name of the interface; `None` if it is not known.
pub(super) fn interface_to(system: &System, address: &str) -> Option<String> {
    // Of an address that is only valid at one link, the interface is a part.
    if let Some((_, interface)) = address.split_once('%') {
        return Some(interface.to_owned());
    }
    let address: IpAddr = address.parse().ok()?;
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let text = fs::read_to_string(system.path("proc/net/route")).ok()?;
            best(
                text.lines()
                    .skip(1)
                    .filter_map(|line| route_4(line, address)),
            )
        }
        IpAddr::V6(address) => {
            let text = fs::read_to_string(system.path("proc/net/ipv6_route")).ok()?;
            best(text.lines().filter_map(|line| route_6(line, address)))
        }
    }
}

fn best<'a>(routes: impl Iterator<Item = (Match, &'a str)>) -> Option<String> {
    let (_, name) = routes.max_by_key(|(order, _)| *order)?;
    Some(name.to_owned())
}

/// Interface, destination, gateway, flags, references, use, metric, mask.
fn route_4(line: &str, address: Ipv4Addr) -> Option<(Match, &str)> {
    let mut fields = line.split_whitespace();
    let name = fields.next()?;
    let destination = number(fields.next()?)?;
    let flags = number(fields.nth(1)?)?;
    let metric = fields.nth(2)?.parse().ok()?;
    let mask = number(fields.next()?)?;
    // They are shown as numbers of this machine that have the bytes of the network.
    let address = u32::from_ne_bytes(address.octets());
    let fits = flags & RTF_REJECT == 0 && address & mask == destination;
    fits.then_some(((mask.count_ones(), std::cmp::Reverse(metric)), name))
}

/// Destination, its length, source, its length, next hop, metric, references, use, flags, and the
/// interface.
fn route_6(line: &str, address: Ipv6Addr) -> Option<(Match, &str)> {
    let mut fields = line.split_whitespace();
    let destination = u128::from_str_radix(fields.next()?, 16).ok()?;
    let length = number(fields.next()?)?;
    let metric = number(fields.nth(3)?)?;
    let flags = number(fields.nth(2)?)?;
    let name = fields.next()?;
    let mask = u128::MAX
        .checked_shl(128u32.checked_sub(length)?)
        .unwrap_or(0);
    let fits = flags & RTF_REJECT == 0 && address.to_bits() & mask == destination & mask;
    fits.then_some(((length, std::cmp::Reverse(metric)), name))
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}
