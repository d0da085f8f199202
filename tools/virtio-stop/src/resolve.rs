// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the names that people use to the virtio devices below.

use crate::device::{Device, System};
use crate::error::{Error, Result};

/// The virtio devices that `names` name, each once, by their index.
///
/// # Errors
///
/// [`Error::Unknown`], [`Error::NotVirtio`], [`Error::Ambiguous`], [`Error::NotMountPoint`], or
/// what reading sysfs fails with.
pub fn resolve(system: &System, names: &[String]) -> Result<Vec<Device>> {
    let all = system.devices()?;
    let mut found = Vec::new();
    for name in names {
        let device = all.iter().find(|device| &device.name() == name);
        found.push(device.cloned().ok_or_else(|| Error::Unknown(name.clone()))?);
    }
    Ok(found)
}
