// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The machine as it is shipped, checked by exhaustion.

#![allow(missing_docs, unreachable_pub, clippy::indexing_slicing)]

mod lifecycle;
mod module {
    pub use core_on_host::*;
}

use lifecycle::{
    check,
    Bounds, //
};
use module::status::Protocol::{
    self,
    DeviceStop,
    Suspend, //
};

/// `states`: a model that has shrunk is one that checks less.
fn holds(protocol: Protocol, bounds: Bounds, states: usize) {
    let start = std::time::Instant::now();
    let result = check(protocol, bounds);
    let seconds = start.elapsed().as_secs_f32();
    println!(
        "{protocol:?} {bounds:?}: {} states, depth {}, {seconds:.1} s",
        result.states, result.depth
    );
    for (what, path) in &result.violated {
        println!("{what}:\n{path}");
    }
    assert!(result.violated.is_empty());
    assert_eq!(result.states, states);
}

#[test]
fn against_core() {
    let bounds = Bounds {
        core: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 314_524);
    holds(Suspend, bounds, 1_535_028);
}

#[test]
fn with_drivers_that_come_and_go() {
    let bounds = Bounds {
        drivers: true,
        core: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 403_132);
    holds(Suspend, bounds, 1_678_544);
}

#[test]
fn with_values_that_are_no_answers() {
    let bounds = Bounds {
        nonsense: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 313_616);
    holds(Suspend, bounds, 989_192);
}

#[test]
fn with_a_holder_that_may_die() {
    let bounds = Bounds {
        holder: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 15_841);
    holds(Suspend, bounds, 103_424);
}

#[test]
fn with_a_driver_above_that_is_busy() {
    let bounds = Bounds {
        busy: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 33_964);
    holds(Suspend, bounds, 127_588);
}

#[test]
fn with_sleep_and_force() {
    let bounds = Bounds {
        sleep_and_force: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 36_396);
    holds(Suspend, bounds, 196_552);
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn with_everything() {
    holds(DeviceStop, Bounds::ALL, 0);
    let bounds = Bounds {
        busy: false,
        sleep_and_force: false,
        ..Bounds::ALL
    };
    holds(Suspend, bounds, 0);
}
