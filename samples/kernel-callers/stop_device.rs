// SPDX-License-Identifier: GPL-2.0-only

//! Stops a virtio device while this module is loaded. How to run it: Kbuild.

use kernel::prelude::*;
use virtio_device_stop::Stopped;

#[path = "../../src/include/virtio_device_stop.rs"]
mod virtio_device_stop;

module! {
    type: StopDevice,
    name: "stop_device",
    authors: ["The virtio_device_stop developers"],
    description: "Stops a virtio device while it is loaded",
    license: "GPL v2",
    params: {
        index: u32 {
            default: 0,
            description: "The N of virtioN",
        },
    },
}

struct StopDevice(Stopped);

impl kernel::Module for StopDevice {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let stopped = Stopped::by_index(&[module_parameters::index.value()], 0)?;
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
