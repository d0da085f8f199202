// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Network interfaces, and what each lies on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::device::System;
use crate::error::Result;
use crate::sysfs::names;

/// What a network interface is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None of the others.
    Interface,
    /// Several interfaces as one: of the bonding driver.
    Bond,
    /// A switch.
    Bridge,
    /// A virtual LAN.
    Vlan,
}

/// A network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// As the kernel names it, for example `eth0`.
    pub name: String,
    /// Its folder in sysfs, with no symbolic link in its path.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The names of the interfaces that it lies on.
    pub lower: Vec<String>,
}

impl Interface {
    fn read(name: String, path: PathBuf) -> Self {
        let uevent = fs::read_to_string(path.join("uevent")).unwrap_or_default();
        let kind = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVTYPE="));
        let kind = match kind {
            Some("bond") => Kind::Bond,
            Some("bridge") => Kind::Bridge,
            Some("vlan") => Kind::Vlan,
            _ => Kind::Interface,
        };
        let lower = lower(&path);
        Self {
            name,
            path,
            kind,
            lower,
        }
    }
}

/// All network interfaces, by their names.
pub fn interfaces(system: &System) -> Result<BTreeMap<String, Interface>> {
    let entries = system.links("sys/class/net")?.into_iter();
    Ok(entries
        .map(|(name, path)| (name.clone(), Interface::read(name, path)))
        .collect())
}

/// The interfaces below one: bond, bridge, team, VLAN, and others have such symbolic links.
fn lower(path: &Path) -> Vec<String> {
    let names = names(path).into_iter();
    names
        .filter_map(|name| name.strip_prefix("lower_").map(str::to_owned))
        .collect()
}
