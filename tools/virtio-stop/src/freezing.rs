// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which file systems stand still, which have to be frozen, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use crate::device::{Device, System};
use crate::error::Result;
use crate::mounts::{mount_of, Mount, Number};
use crate::stack::{Node, Stack};
use crate::sysfs::names;

/// Those that have nothing of their own that could be frozen: what they show is another file
/// system's, or the host's.
const WITHOUT: [&str; 3] = ["overlay", "virtiofs", "9p"];

/// Those that can be frozen, as far as is known: the others have nothing that FIFREEZE calls.
const FREEZABLE: [&str; 11] = [
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2", "reiserfs", "xfs",
];

/// What lies on block devices that nothing tells.
const UNKNOWN: [&str; 1] = ["zfs"];

/// All mounts of the file systems that stand still when `devices` do, in the order in which they
/// were made: those that can't be frozen, too. One that does not tell on which disks it lies counts
/// if one of the devices is a disk's, and one that is, or lies on what is, reached by way of the
/// network if one is a network interface's: nobody can tell which way.
///
/// # Errors
///
/// What listing the folders of sysfs fails with.
pub fn standing(system: &System, devices: &[Device]) -> Result<Vec<Mount>> {
    let stack = Stack::read(system)?;
    let mut blocks = stack.blocks.keys().cloned().map(Node::Block);
    let is_disk = blocks.any(|block| stack.is_above(&block, devices));
    let mut interfaces = stack.interfaces.keys().cloned().map(Node::Interface);
    let is_network = interfaces.any(|interface| stack.is_above(&interface, devices));
    let stands = |mount: &&Mount| {
        stack.is_above(&Node::FileSystem(mount.number), devices)
            || (is_disk && UNKNOWN.contains(&mount.kind.as_str()))
            || (is_network && stack.is_remote(&Node::FileSystem(mount.number)))
    };
    Ok(stack.mounts.iter().filter(stands).cloned().collect())
}

/// The file systems that lie on `devices`, one mount of each, in the order in which they have to be
/// frozen: one on a loop device whose file lies in another one comes before that one. Else the one
/// that was mounted last is the first.
///
/// Some can't be frozen: FIFREEZE fails with EOPNOTSUPP, for example for vfat. One that is
/// read-only has nothing to be frozen, and is not here. Neither is one that is mounted in other
/// mount namespaces only, or hidden by another mount wherever it is mounted: see [`unfrozen`].
///
/// # Errors
///
/// What listing the folders of sysfs fails with.
pub fn mounted_above(system: &System, devices: &[Device]) -> Result<Vec<Mount>> {
    let stack = Stack::read(system)?;
    Ok(in_order(&stack, devices).into_iter().cloned().collect())
}

/// A freeze of what it lies on would fail because of it, as far as is known.
pub(crate) fn prevents_freeze(mount: &Mount) -> bool {
    has_own(mount) && !FREEZABLE.contains(&mount.kind.as_str())
}

/// It writes something of its own.
fn has_own(mount: &Mount) -> bool {
    let options = mount.options.as_bytes();
    let is_read_only = options.split(|&byte| byte == b',').next() == Some(b"ro");
    !is_read_only && !WITHOUT.contains(&mount.kind.as_str())
}

/// Sentences on what is not frozen although it may have to be: a file system on `devices` that the
/// kernel has, but that is not among [`mounted_above`]; and if nothing is.
///
/// # Errors
///
/// What listing the folders of sysfs fails with.
pub fn unfrozen(system: &System, devices: &[Device]) -> Result<Vec<String>> {
    let stack = Stack::read(system)?;
    let seen = in_order(&stack, devices);
    if seen.is_empty() {
        return Ok(vec![
            "no file system is frozen: none that can be written to is mounted above the devices, \
             where this process sees it"
                .to_owned(),
        ]);
    }
    let mut hidden = mounted_anywhere(system);
    hidden.retain(|name| {
        let node = Node::Block(name.clone());
        let is_mounted = stack.mounts.iter().any(|mount| {
            let here = stack.lower(&Node::FileSystem(mount.number)).contains(&node);
            here && (!has_own(mount) || seen.iter().any(|seen| seen.number == mount.number))
        });
        !is_mounted && stack.is_above(&node, devices)
    });
    let hidden = hidden.iter().map(|name| {
        format!(
            "the file system on {name} is not frozen: it is mounted, but in another mount \
             namespace, or hidden by another mount"
        )
    });
    Ok(hidden.collect())
}

/// The names of the block devices that are mounted, by whomever, as far as their file systems tell.
fn mounted_anywhere(system: &System) -> Vec<String> {
    let folders = ["ext4", "xfs", "f2fs"].map(|kind| system.path("sys/fs").join(kind));
    let mut names: Vec<_> = folders.iter().flat_map(|folder| names(folder)).collect();
    // Others are of the type of the file system: `features`, for example.
    names.retain(|name| system.path("sys/class/block").join(name).exists());
    names
}

fn in_order<'a>(stack: &'a Stack, devices: &[Device]) -> Vec<&'a Mount> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<_> = stack.mounts.iter().rev().collect();
    // With the whole file system, if there is such a mount.
    found.sort_by_key(|mount| mount.root.as_os_str() != "/");
    found.retain(|mount| {
        let visible = mount_of(&stack.mounts, &mount.point);
        visible.is_some_and(|visible| std::ptr::eq(visible, *mount))
            && has_own(mount)
            && stack.is_above(&Node::FileSystem(mount.number), devices)
            && seen.insert(mount.number)
    });
    let order = |mount: &Mount| {
        let last = stack
            .mounts
            .iter()
            .rposition(|other| other.number == mount.number);
        (height(stack, mount.number), last)
    };
    found.sort_by_cached_key(|mount| Reverse(order(mount)));
    found
}

/// On how many file systems a file system lies, one on the other.
fn height(stack: &Stack, number: Number) -> usize {
    fn highest(stack: &Stack, node: &Node, path: &mut Vec<Node>) -> usize {
        if path.contains(node) {
            // The kernel allows no circle; names that have changed while we looked could be one.
            return 0;
        }
        path.push(node.clone());
        let lower = stack.lower(node);
        let heights = lower.iter().map(|lower| {
            highest(stack, lower, path) + usize::from(matches!(lower, Node::FileSystem(_)))
        });
        let height = heights.max().unwrap_or(0);
        path.pop();
        height
    }
    highest(stack, &Node::FileSystem(number), &mut Vec::new())
}
