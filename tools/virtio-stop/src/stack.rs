// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is stacked on what: file systems, block devices, network interfaces, virtio devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::block::{self, Block};
use crate::device::{Device, System};
use crate::error::Result;
use crate::mounts::{self, Mount, Number};
use crate::network::{self, Interface};
use crate::sysfs::{line, names, number};

/// What can lie on a virtio device, or on something else that does.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Node {
    /// A block device, by its name.
    Block(String),
    /// A network interface, by its name.
    Interface(String),
    /// A mounted file system, by its number.
    FileSystem(Number),
}

/// What something lies on.
#[derive(Clone, Debug, Default)]
pub struct Below {
    /// The virtio devices, each once, by their index.
    pub devices: Vec<Device>,
    /// Everything else at the bottom.
    pub others: Vec<Node>,
}

/// What there was when it was looked at.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The virtio devices, by their index.
    pub devices: Vec<Device>,
    /// The block devices, by their names.
    pub blocks: BTreeMap<String, Block>,
    /// The network interfaces, by their names.
    pub interfaces: BTreeMap<String, Interface>,
    /// The mounts of this process, in the order in which they were made.
    pub mounts: Vec<Mount>,
    system: System,
}

impl Stack {
    /// Looks at `system`.
    ///
    /// # Errors
    ///
    /// What listing the folders of sysfs fails with. Without /sys or /proc nothing is there.
    pub fn read(system: &System) -> Result<Self> {
        Ok(Self {
            devices: system.devices()?,
            blocks: block::blocks(system)?,
            interfaces: network::interfaces(system)?,
            mounts: mounts::mounts(system)?,
            system: system.clone(),
        })
    }

    /// The virtio devices, and what else is at the bottom, below `node`.
    pub fn below(&self, node: &Node) -> Below {
        let mut below = Below::default();
        let mut seen = BTreeSet::new();
        let mut open = vec![node.clone()];
        while let Some(node) = open.pop() {
            if !seen.insert(node.clone()) {
                continue;
            }
            let lower = self.lower(&node);
            match self.device(&node) {
                _ if !lower.is_empty() => open.extend(lower),
                Some(device) => below.devices.push(device.clone()),
                None => below.others.push(node),
            }
        }
        below.devices.sort_by_key(|device| device.index);
        below.devices.dedup();
        below
    }

    /// One of `devices` is below `node`.
    pub fn is_above(&self, node: &Node, devices: &[Device]) -> bool {
        let below = self.below(node).devices;
        below.iter().any(|device| devices.contains(device))
    }

    /// What `node` lies on directly. Nothing for a virtio device's own.
    pub fn lower(&self, node: &Node) -> Vec<Node> {
        match node {
            Node::Block(name) => {
                let block = self.blocks.get(name);
                let lower = block.into_iter().flat_map(|block| &block.lower);
                let file = block.and_then(|block| block.file.as_ref());
                let file = file.and_then(|file| self.at(file));
                lower.cloned().map(Node::Block).chain(file).collect()
            }
            Node::Interface(name) => {
                let lower = self.interfaces.get(name).into_iter();
                let lower = lower.flat_map(|interface| &interface.lower);
                lower.cloned().map(Node::Interface).collect()
            }
            Node::FileSystem(number) => self.below_file_system(*number),
        }
    }

    /// The virtio device whose own `node` is.
    fn device(&self, node: &Node) -> Option<&Device> {
        match node {
            Node::Block(name) => self.device_at(&self.blocks.get(name)?.path),
            Node::Interface(name) => self.device_at(&self.interfaces.get(name)?.path),
            // One that the host serves.
            Node::FileSystem(number) => {
                let mount = self.mounts.iter().find(|mount| mount.number == *number)?;
                let tag = mount.source.to_str()?;
                match mount.kind.as_str() {
                    "virtiofs" => self.device_of_virtiofs(tag),
                    "9p" => self.devices.iter().find(|device| {
                        let shown = line(&device.path.join("mount_tag"));
                        shown.is_some_and(|shown| shown.trim_end_matches('\0') == tag)
                    }),
                    _ => None,
                }
            }
        }
    }

    /// The virtio device that `path` in sysfs, which has no symbolic links in it, belongs to.
    pub fn device_at(&self, path: &Path) -> Option<&Device> {
        let mut devices = self.devices.iter();
        devices.find(|device| path.starts_with(&device.path))
    }

    fn device_of_virtiofs(&self, tag: &str) -> Option<&Device> {
        let mounted = fs::read_dir(self.system.path("sys/fs/virtiofs")).ok()?;
        let mut folders = mounted.flatten().map(|entry| entry.path());
        let folder = folders.find(|folder| line(&folder.join("tag")).as_deref() == Some(tag))?;
        self.device_at(&fs::canonicalize(folder.join("device")).ok()?)
    }

    fn below_file_system(&self, number: Number) -> Vec<Node> {
        if let Some(block) = self.block_of(number) {
            return vec![Node::Block(block.name.clone())];
        }
        let Some(mount) = self.mounts.iter().find(|mount| mount.number == number) else {
            return Vec::new();
        };
        match mount.kind.as_str() {
            "overlay" => self.below_overlay(mount),
            "btrfs" => self.below_btrfs(mount),
            _ if mount.source.starts_with("/dev") => {
                // bcachefs puts a colon between several.
                let sources = mount.source.to_string_lossy();
                let names = sources.split(':').map(Path::new);
                let blocks = names.filter_map(|path| self.block_at(path));
                blocks
                    .map(|block| Node::Block(block.name.clone()))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn below_overlay(&self, mount: &Mount) -> Vec<Node> {
        let options = mount.options.to_string_lossy();
        let options = options
            .split(',')
            .filter_map(|option| option.split_once('='));
        let folders = options
            .filter(|(key, _)| ["lowerdir", "lowerdir+", "datadir+", "upperdir"].contains(key));
        let folders = folders.flat_map(|(_, folders)| folders.split(':'));
        let nodes = folders.filter_map(|folder| self.at(Path::new(folder)));
        nodes
            .filter(|node| node != &Node::FileSystem(mount.number))
            .collect()
    }

    /// mountinfo has one of the block devices of a btrfs, sysfs has all.
    fn below_btrfs(&self, mount: &Mount) -> Vec<Node> {
        let Some(source) = self.block_at(&mount.source) else {
            return Vec::new();
        };
        let mounted = fs::read_dir(self.system.path("sys/fs/btrfs")).into_iter();
        let folders = mounted
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("devices"));
        let mut all = folders.map(|folder| names(&folder));
        let all = all.find(|names| names.contains(&source.name));
        let all = all.unwrap_or_else(|| vec![source.name.clone()]);
        all.into_iter().map(Node::Block).collect()
    }

    /// What the file at `path`, which is absolute and has no symbolic links in it, lies in, or the
    /// block device that it is.
    pub fn at(&self, path: &Path) -> Option<Node> {
        if let Some(block) = self.block_at(path) {
            return Some(Node::Block(block.name.clone()));
        }
        let mount = mounts::mount_of(&self.mounts, path)?;
        Some(Node::FileSystem(mount.number))
    }

    /// The block device at `path`, which may be a symbolic link.
    pub fn block_at(&self, path: &Path) -> Option<&Block> {
        if !path.starts_with("/dev") {
            return None;
        }
        let file = self.system.absolute(path);
        if let Some(number) = block::number_at(&file) {
            return self.block_of(number);
        }
        // There may be no file for it: then the name is the kernel's.
        let real: PathBuf = self.system.canonical(&file).unwrap_or(path.into());
        let name = real.strip_prefix("/dev").ok()?.to_str()?;
        self.blocks.get(&name.replace('/', "!"))
    }

    fn block_of(&self, number: Number) -> Option<&Block> {
        let mut blocks = self.blocks.values();
        blocks.find(|block| block.number == Some(number))
    }

    /// The block devices whose servers are reached by way of the network.
    pub(crate) fn remote_blocks(&self) -> impl Iterator<Item = &Block> {
        let blocks = self.blocks.values();
        blocks.filter(|block| {
            let mut kinds = ["nbd", "rbd", "drbd"].iter();
            // Those of nbd are there before they have a server.
            let size = number::<u64>(&block.path.join("size"));
            kinds.any(|kind| block.name.starts_with(kind)) && size.is_some_and(|size| size > 0)
        })
    }

    /// `node` is one of those, or lies on one, or is a file system with such a server.
    pub(crate) fn is_remote(&self, node: &Node) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![node.clone()];
        while let Some(node) = open.pop() {
            let is_remote = match &node {
                Node::Block(name) => self.remote_blocks().any(|block| block.name == *name),
                Node::FileSystem(number) => {
                    let mut mounts = self.mounts.iter();
                    mounts.any(|mount| mount.number == *number && mount.is_remote())
                }
                Node::Interface(_) => false,
            };
            if is_remote {
                return true;
            }
            if seen.insert(node.clone()) {
                open.extend(self.lower(&node));
            }
        }
        false
    }

    /// What `node` is, in words.
    pub fn words(&self, node: &Node) -> String {
        match node {
            Node::Block(name) => match self.blocks.get(name) {
                Some(block) => {
                    let path = self.system.canonical(&block.path).unwrap_or_default();
                    format!("{name} is {}, {}", block.kind.words(), path.display())
                }
                None => format!("{name} is gone"),
            },
            Node::Interface(name) => format!("{name} is a network interface"),
            Node::FileSystem(number) => {
                let mount = self.mounts.iter().find(|mount| mount.number == *number);
                match mount {
                    Some(mount) => format!("{} is a {}", mount.point.display(), mount.kind),
                    None => format!("file system {number}"),
                }
            }
        }
    }
}
