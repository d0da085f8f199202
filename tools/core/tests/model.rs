// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The machine, checked by exhaustion.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod lifecycle;
mod module {
    pub use core_on_host::*;
}

use lifecycle::{
    Bounds,
    Lifecycle, //
};
use module::status::Protocol;
use stateright::{
    Checker,
    Model, //
};

fn check(protocol: Protocol, bounds: Bounds) {
    let start = std::time::Instant::now();
    let checker = Lifecycle { protocol, bounds }
        .checker()
        .threads(2)
        .spawn_bfs()
        .join();
    println!(
        "{protocol:?} {bounds:?}: {} states, depth {}, {:.1?}",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    checker.assert_properties();
}

const PROTOCOLS: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

#[test]
fn plain() {
    for protocol in PROTOCOLS {
        check(protocol, Bounds::default());
    }
}

#[test]
fn each() {
    for protocol in PROTOCOLS {
        check(
            protocol,
            Bounds {
                core: true,
                ..Bounds::default()
            },
        );
        check(
            protocol,
            Bounds {
                drivers: true,
                ..Bounds::default()
            },
        );
        check(
            protocol,
            Bounds {
                nonsense: true,
                ..Bounds::default()
            },
        );
        check(
            protocol,
            Bounds {
                holder: true,
                ..Bounds::default()
            },
        );
        check(
            protocol,
            Bounds {
                sleep_and_force: true,
                ..Bounds::default()
            },
        );
    }
}

#[test]
fn all() {
    for protocol in PROTOCOLS {
        check(
            protocol,
            Bounds {
                core: true,
                drivers: true,
                nonsense: true,
                holder: true,
                sleep_and_force: true,
            },
        );
    }
}
