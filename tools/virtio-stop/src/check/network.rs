// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What network interfaces are below of.

use super::Subject;
use crate::network::{Interface, Kind};
use crate::stack::Node;
use crate::sysfs::{line, number};

pub(super) fn look(subject: &mut Subject<'_>) {
    let interfaces: Vec<_> = subject.stack.interfaces.values().cloned().collect();
    let mut all = Vec::new();
    for interface in interfaces {
        let below = subject.below(&Node::Interface(interface.name.clone()));
        if !below.is_empty() {
            all.extend(below.clone());
            interface_above(subject, &interface, below);
        }
    }
    all.sort();
    all.dedup();
    if !all.is_empty() {
        reached(subject, all);
    }
}

fn interface_above(subject: &mut Subject<'_>, interface: &Interface, below: Vec<String>) {
    let name = &interface.name;
    let bonding = interface.path.join("bonding");
    let mode = line(&bonding.join("mode")).unwrap_or_default();
    let arp = number::<u64>(&bonding.join("arp_interval")).unwrap_or(0);
    if mode.starts_with("802.3ad") {
        let message = format!(
            "The bond {name} uses LACP: the switch takes a port out that does not answer, after 3 \
             or 90 seconds.",
        );
        subject.warn("bond_lacp", below, message);
        return;
    }
    if arp > 0 {
        let message = format!(
            "The bond {name} sends ARP requests each {arp} ms: it takes an interface out that gets \
             no answer.",
        );
        subject.warn("bond_arp", below, message);
        return;
    }
    let (code, message) = match interface.kind {
        Kind::Bond => (
            "below_bond",
            format!(
                "The bond {name} lies on it, and takes it for working meanwhile: what it sends \
                 that way waits."
            ),
        ),
        Kind::Bridge => (
            "below_bridge",
            format!("It is a port of the bridge {name}."),
        ),
        Kind::Vlan => ("below_vlan", format!("The VLAN {name} lies on it.")),
        Kind::Interface if !interface.lower.is_empty() => (
            "below_interface",
            format!("The interface {name} lies on it."),
        ),
        Kind::Interface => (
            "network",
            format!(
                "What {name} sends waits, and what is sent to it can be lost: peers try again."
            ),
        ),
    };
    subject.note(code, below, message);
}

fn reached(subject: &mut Subject<'_>, below: Vec<String>) {
    let mounts = subject.stack.mounts.iter();
    let remote = mounts.filter(|mount| mount.is_remote());
    let mut remote: Vec<_> = remote
        .map(|mount| mount.point.display().to_string())
        .collect();
    let blocks = subject.stack.remote_blocks();
    remote.extend(blocks.map(|block| block.name.clone()));
    if !remote.is_empty() {
        let message = format!(
            "Servers may be reached through it, and who needs them waits, or gets errors: {}.",
            remote.join(", ")
        );
        subject.warn("network_storage", below, message);
    }
}
