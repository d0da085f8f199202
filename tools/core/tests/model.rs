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
    assert_eq!(holding(protocol, bounds), states);
}

/// Returns how many states there are, all of which are as they have to be.
fn holding(protocol: Protocol, bounds: Bounds) -> usize {
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
    result.states
}

#[test]
fn against_core() {
    let bounds = Bounds {
        core: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 296_989);
    holds(Suspend, bounds, 1_547_042);
}

#[test]
fn with_drivers_that_come_and_go() {
    let bounds = Bounds {
        drivers: true,
        core: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 378_729);
    holds(Suspend, bounds, 1_701_206);
}

#[test]
fn with_values_that_are_no_answers() {
    let bounds = Bounds {
        nonsense: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 292_592);
    holds(Suspend, bounds, 1_013_416);
}

#[test]
fn with_a_holder_that_may_die() {
    let bounds = Bounds {
        holder: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 11_958);
    holds(Suspend, bounds, 100_355);
}

#[test]
fn with_another_module_that_holds() {
    let bounds = Bounds {
        holder: true,
        holder_has_no_lease: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 11_922);
    holds(Suspend, bounds, 100_301);
}

#[test]
fn with_a_driver_above_that_is_busy() {
    let bounds = Bounds {
        busy: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 28_194);
    holds(Suspend, bounds, 126_231);
}

#[test]
fn with_sleep_and_force() {
    let bounds = Bounds {
        sleep_and_force: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 24_836);
    holds(Suspend, bounds, 176_258);
}

#[test]
fn with_a_driver_that_configures() {
    let bounds = Bounds {
        writer: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(DeviceStop, bounds, 18_048);
    holds(Suspend, bounds, 114_051);
}

#[test]
fn with_a_device_that_does_not_resume_by_the_text() {
    let bounds = Bounds {
        wants_cleared: true,
        drivers: true,
        ..Bounds::default()
    };
    holds(Suspend, bounds, 77_687);
}

#[test]
#[ignore = "takes long: make test-all"]
fn with_everything() {
    // More than everything that is checked above, together.
    assert!(holding(DeviceStop, Bounds::ALL) > 10_000_000);
    let bounds = Bounds {
        core: true,
        drivers: true,
        nonsense: true,
        ..Bounds::default()
    };
    assert!(holding(Suspend, bounds) > 5_000_000);
}
