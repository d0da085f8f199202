// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! File systems, swap, and what disks are below of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Subject;
use crate::block::{Block, Kind};
use crate::device::Device;
use crate::error::Result;
use crate::freezing::prevents_freeze;
use crate::mounts::swaps;
use crate::stack::Node;
use crate::sysfs::names;

/// Where programs are, with the word for a finding.
const PROGRAMS: [(&str, &str); 2] = [("root", "/"), ("usr", "/usr")];

pub(super) fn look(subject: &mut Subject<'_>) -> Result<()> {
    mounted(subject);
    for path in swaps(subject.system)? {
        let below = subject.stack.at(&path).map(|node| subject.below(&node));
        let below = below.unwrap_or_default();
        if !below.is_empty() {
            let message = format!(
                "The swap {} lies on it: whatever needs memory may wait, and not only what uses \
                 the device. 'swapoff {0}' before.",
                path.display()
            );
            subject.warn("swap", below, message);
        }
    }
    let blocks: Vec<_> = subject.stack.blocks.values().cloned().collect();
    for block in blocks {
        stacked(subject, &block);
    }
    Ok(())
}

fn mounted(subject: &mut Subject<'_>) {
    let mut seen = BTreeSet::new();
    for mount in subject.stack.mounts.clone() {
        let below = subject.below(&Node::FileSystem(mount.number));
        if below.is_empty() || !seen.insert(mount.number) {
            continue;
        }
        if prevents_freeze(&mount) {
            let message = format!(
                "{} at {} can't be frozen: 'virtio-stop run --freeze' would fail. Unmount it \
                 before, or do without --freeze.",
                mount.kind,
                mount.point.display()
            );
            subject.note("not_freezable", below.clone(), message);
        }
        let points = subject.stack.mounts.iter();
        let mut points = points.filter(|other| other.number == mount.number);
        let programs = PROGRAMS.iter().find(|(_, program)| {
            points
                .clone()
                .any(|mount| mount.point == Path::new(program))
        });
        if let Some((code, point)) = programs {
            let message = format!(
                "The {} at {point} lies on it: every program waits that needs a part of itself \
                 that is not in memory. 'virtio-stop run' keeps itself there; what else has to run \
                 meanwhile must, too.",
                mount.kind
            );
            subject.warn(code, below, message);
            continue;
        }
        let point = points.next().map(|mount| mount.point.display().to_string());
        let more = match points.count() {
            0 => String::new(),
            more => format!(" (and at {more} other places)"),
        };
        let message = format!(
            "{} at {}{more} lies on it: who uses it waits until the resume.",
            mount.kind,
            point.unwrap_or_default()
        );
        subject.note("mounted", below, message);
    }
}

fn stacked(subject: &mut Subject<'_>, block: &Block) {
    let node = Node::Block(block.name.clone());
    let below = subject.below(&node);
    let code = match block.kind {
        _ if below.is_empty() => return,
        Kind::Disk | Kind::Partition => return,
        Kind::Lvm => "below_lvm",
        Kind::Multipath => "below_multipath",
        Kind::Crypt => "below_crypt",
        Kind::Dm => "below_dm",
        Kind::Md => "below_md",
        Kind::Loop => "below_loop",
    };
    let name = block.dm_name.as_ref().unwrap_or(&block.name);
    let what = format!("{name}, {}, lies on it", block.kind.words());
    match block.kind {
        Kind::Multipath => multipath(subject, name, what, below.clone()),
        _ => {
            let message = format!("{what}: who uses that waits, too.");
            subject.note(code, below.clone(), message);
        }
    }
    partly(subject, name, &node, below);
}

/// A stop of some of the disks that something lies on stops the whole of it, sooner or later.
fn partly(subject: &mut Subject<'_>, name: &str, node: &Node, below: Vec<String>) {
    let all = subject.stack.below(node);
    let others = all
        .devices
        .iter()
        .filter(|device| !subject.devices.contains(device));
    let mut others: Vec<_> = others.map(Device::name).collect();
    others.extend(all.others.iter().map(|node| subject.stack.words(node)));
    if !others.is_empty() {
        let message = format!(
            "{name} lies on what is not to be stopped, too ({}): that goes on until it needs the \
             stopped part. Stop all of it by naming {name} instead.",
            others.join("; ")
        );
        subject.warn("partly", below, message);
    }
}

fn multipath(subject: &mut Subject<'_>, name: &str, what: String, below: Vec<String>) {
    let retries = no_path_retry(subject);
    if !retries.is_empty() && retries.iter().all(|retry| retry == "queue") {
        let message = format!("{what}: what uses it waits, since no_path_retry is 'queue'.");
        subject.note("below_multipath", below, message);
        return;
    }
    let message = format!(
        "{what}: multipathd takes a path that does not answer for a failed one, and goes on by \
         others. When all have failed, and no_path_retry is not 'queue', I/O ends with errors. \
         'dmsetup table {name}' says queue_if_no_path if it is."
    );
    subject.warn("below_multipath", below, message);
}

/// What multipath's configuration says, for whichever devices.
fn no_path_retry(subject: &Subject<'_>) -> Vec<String> {
    let folder = subject.system.path("etc/multipath/conf.d");
    let more = names(&folder).into_iter().map(|name| folder.join(name));
    let files = more.chain([subject.system.path("etc/multipath.conf")]);
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    let mut values = Vec::new();
    for text in texts {
        values.extend(text.lines().filter_map(|line| {
            let value = line.trim().strip_prefix("no_path_retry")?;
            Some(value.trim().trim_matches('"').to_owned())
        }));
    }
    values
}
