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
    holds(DeviceStop, bounds, 335_238);
    holds(Suspend, bounds, 1_535_568);
}

#[test]
fn with_drivers_that_come_and_go() {
    let bounds = Bounds {
        drivers: true,
        core: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 424_614);
    holds(Suspend, bounds, 1_679_084);
}

#[test]
fn with_values_that_are_no_answers() {
    let bounds = Bounds {
        nonsense: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 324_896);
    holds(Suspend, bounds, 989_336);
}

#[test]
fn with_a_holder_that_may_die() {
    let bounds = Bounds {
        holder: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 17_548);
    holds(Suspend, bounds, 103_496);
}

#[test]
fn with_a_driver_above_that_is_busy() {
    let bounds = Bounds {
        busy: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 35_671);
    holds(Suspend, bounds, 127_660);
}

#[test]
fn with_sleep_and_force() {
    let bounds = Bounds {
        sleep_and_force: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 38_106);
    holds(Suspend, bounds, 196_624);
}

#[test]
#[ignore = "takes minutes: make test-all"]
fn with_everything() {
    holds(DeviceStop, Bounds::ALL, 0);
    let bounds = Bounds {
        core: true,
        drivers: true,
        nonsense: true,
        ..Bounds::default()
    };
    holds(Suspend, bounds, 0);
}
