// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: register accesses, virtqueues, memory that comes and goes.

use arbitrary::Arbitrary;
use vfio_user_virtio::device::Offer;

use crate::guest::{Kind, Offers, Rings};
use acts::Act;
use driver::Driver;

mod acts;
mod checks;
mod driver;
mod ring;

/// A device, and what its guest does.
#[derive(Arbitrary, Debug)]
pub struct Input {
    kind: Kind,
    offers: Offers,
    intx: bool,
    rings: Rings,
    acts: Vec<Act>,
}

impl Input {
    fn offer(&self) -> Offer {
        self.rings.offer(self.offers.offer(self.intx))
    }
}

/// Has the guest do all of it.
///
/// # Panics
///
/// If the device forgets a request, is not as after power-on after a reset, or can't be used then.
pub fn run(mut input: Input) {
    input.acts.truncate(64);
    let mut driver = Driver::new(&input);
    driver.map_all();
    for act in &input.acts {
        driver.act(act);
    }
    driver.serve(0);
    driver.check_use(&input);
}
