// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest: register accesses, virtqueues, memory that comes and goes.

use arbitrary::Arbitrary;

use crate::guest::{Kind, Offers};
use acts::Act;
use driver::Driver;

mod acts;
mod checks;
mod driver;

/// A device, and what its guest does.
#[derive(Arbitrary, Debug)]
pub struct Input {
    kind: Kind,
    offers: Offers,
    intx: bool,
    acts: Vec<Act>,
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
