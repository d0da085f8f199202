// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the names that people use to the virtio devices below.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use rustix::fs::{major, minor};

use crate::device::{Device, System};
use crate::error::{Error, Result};
use crate::mounts::mount_of;
use crate::stack::{Node, Stack};

/// The virtio devices that `names` name, each once, by their index. A name is
///
/// - `virtioN`,
/// - that of a block device or a network interface, or what device mapper calls it: all devices
///   below it are meant,
/// - the address of a PCI device, with its domain or without, or the name of another one that a
///   virtio device is the child of,
/// - a path in /dev or /sys,
/// - a mount point.
///
/// # Errors
///
/// [`Error::Unknown`], [`Error::NotVirtio`], [`Error::Ambiguous`], [`Error::NotMountPoint`], or
/// what reading sysfs fails with.
pub fn resolve(system: &System, names: &[String]) -> Result<Vec<Device>> {
    let stack = Stack::read(system)?;
    let mut found = Vec::new();
    for name in names {
        let devices = match name.contains('/') {
            true => by_path(system, &stack, name),
            false => by_name(&stack, name),
        };
        found.extend(devices?);
    }
    found.sort_by_key(|device| device.index);
    found.dedup();
    Ok(found)
}

fn by_name(stack: &Stack, name: &str) -> Result<Vec<Device>> {
    if let Some(device) = stack.devices.iter().find(|device| device.name() == name) {
        return Ok(vec![device.clone()]);
    }
    let mut blocks = stack.blocks.values();
    let block = blocks.find(|block| block.name == name || block.dm_name.as_deref() == Some(name));
    let interface = stack.interfaces.contains_key(name);
    match block {
        Some(_) if interface => Err(Error::Ambiguous(name.into())),
        Some(block) => below(stack, name, &Node::Block(block.name.clone())),
        None if interface => below(stack, name, &Node::Interface(name.into())),
        None => {
            let with_domain = format!("0000:{name}");
            let devices = stack.devices.iter();
            let devices = devices
                .filter(|device| device.parent == name || device.parent == with_domain)
                .cloned()
                .collect::<Vec<_>>();
            match devices.is_empty() {
                true => Err(Error::Unknown(name.into())),
                false => Ok(devices),
            }
        }
    }
}

fn by_path(system: &System, stack: &Stack, name: &str) -> Result<Vec<Device>> {
    let path = absolute(system, name)?;
    let file = match fs::canonicalize(system.absolute(&path)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::Unknown(name.into()))
        }
        Err(error) => return Err(Error::file(path, error)),
    };
    let real = system
        .canonical(&file)
        .map_err(|error| Error::file(&path, error))?;
    if real.starts_with("/sys") {
        return in_sysfs(stack, name, &file);
    }
    if let Some(block) = stack.block_at(&real) {
        return below(stack, name, &Node::Block(block.name.clone()));
    }
    let metadata = fs::metadata(&file).map_err(|error| Error::file(&path, error))?;
    if metadata.file_type().is_char_device() {
        let number = metadata.rdev();
        let link = format!("sys/dev/char/{}:{}", major(number), minor(number));
        let file = fs::canonicalize(system.path(link)).unwrap_or_default();
        return in_sysfs(stack, name, &file);
    }
    match mount_of(&stack.mounts, &real) {
        Some(mount) if mount.point == real => below(stack, name, &Node::FileSystem(mount.number)),
        Some(mount) => Err(Error::NotMountPoint {
            path: name.into(),
            point: mount.point.clone(),
        }),
        None => Err(Error::Unknown(name.into())),
    }
}

/// `vg/root` is short for `/dev/vg/root`, if that is there.
fn absolute(system: &System, name: &str) -> Result<PathBuf> {
    let in_dev = Path::new("/dev").join(name);
    match system.absolute(&in_dev).exists() {
        true => Ok(in_dev),
        false => path::absolute(name).map_err(|error| Error::file(name, error)),
    }
}

fn in_sysfs(stack: &Stack, name: &str, path: &Path) -> Result<Vec<Device>> {
    if let Some(device) = stack.device_at(path) {
        return Ok(vec![device.clone()]);
    }
    if let Some(block) = stack.blocks.values().find(|block| block.path == path) {
        return below(stack, name, &Node::Block(block.name.clone()));
    }
    let mut interfaces = stack.interfaces.values();
    if let Some(interface) = interfaces.find(|interface| interface.path == path) {
        return below(stack, name, &Node::Interface(interface.name.clone()));
    }
    let mut devices = stack.devices.iter();
    match devices.find(|device| device.path.parent() == Some(path)) {
        Some(device) => Ok(vec![device.clone()]),
        None => Err(Error::NotVirtio {
            name: name.into(),
            why: "no virtio device has it".into(),
        }),
    }
}

fn below(stack: &Stack, name: &str, node: &Node) -> Result<Vec<Device>> {
    let below = stack.below(node);
    if !below.devices.is_empty() {
        return Ok(below.devices);
    }
    let others = below.others.iter().map(|node| stack.words(node));
    Err(Error::NotVirtio {
        name: name.into(),
        why: others.collect::<Vec<_>>().join("; "),
    })
}
