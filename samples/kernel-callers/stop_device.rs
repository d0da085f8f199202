// SPDX-License-Identifier: GPL-2.0-only

//! Stops one virtio device, or two, while this module is loaded. How to run it: Kbuild.

use kernel::prelude::*;
use virtio_device_stop::Stopped;

#[path = "../../src/include/virtio_device_stop.rs"]
mod virtio_device_stop;

module! {
    type: StopDevice,
    name: "stop_device",
    authors: ["The virtio_device_stop developers"],
    description: "Stops one virtio device, or two, while it is loaded",
    license: "GPL v2",
    params: {
        index: u32 {
            default: 0,
            description: "The N of virtioN",
        },
        other: i32 {
            default: -1,
            description: "The N of another one, or -1",
        },
    },
}

struct StopDevice(Stopped);

impl kernel::Module for StopDevice {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let index = module_parameters::index.value();
        let stopped = match u32::try_from(module_parameters::other.value()) {
            Ok(other) => Stopped::by_index(&[index, other], 0),
            Err(_) => Stopped::by_index(&[index], 0),
        }?;
        pr_info!("it has stopped\n");
        Ok(Self(stopped))
    }
}

impl Drop for StopDevice {
    fn drop(&mut self) {
        match self.0.look() {
            Ok(()) => pr_info!("it stands still, and resumes\n"),
            Err(error) => pr_warn!(
                "it did not stand still, or does not tell: {}\n",
                error.to_errno()
            ),
        }
    }
}
