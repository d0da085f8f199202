// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Devices that answer anything: whatever a device shows, stops and resumes end in time and in a
//! state that is documented, nothing is said to have stopped that has not said so itself, and
//! nothing is left stopped.
//!
//! What is shown and asked is random. A case that fails says its seed, and the variable
//! `ANSWERS_SEED` has it run alone.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod case;
mod device;

use case::{
    Case,
    HOLDER,
    SECOND, //
};
use core_on_host::machine::{
    Asker,
    Leaver,
    LIMITS, //
};
use core_on_host::state::State;
use device::{
    Device,
    Shows,
    READY, //
};

impl Case {
    fn take(&mut self) {
        let asker = [Asker::Anybody, HOLDER][self.random.usize(..2)];
        match self.random.u32(..10) {
            0..=3 => {
                let _ = self.stop(asker);
            }
            4 | 5 => {
                let _ = self.resume(asker);
            }
            6 => {
                let _ = self.resume(Asker::Root);
            }
            7 => {
                self.machine.look(self.now);
                self.run();
            }
            8 => {
                let us = 1 << self.random.u32(..28);
                self.pass(us);
            }
            _ => {
                self.machine.closed(self.now, 7);
                self.run();
            }
        }
    }

    /// The driver goes, whatever the device shows, and another one comes to a device that does not
    /// pretend any more.
    fn binds_anew(&mut self) {
        let since = self.now;
        self.machine.leaves(self.now, Leaver::Driver);
        self.run();
        while !self.machine.has_left() {
            let deadline = self.machine.deadline().expect("it leaves");
            self.now = deadline.max(self.now);
            assert!(self.now - since <= LIMITS.leave, "leaves too late");
            self.run();
        }
        self.field.reset_begins();
        self.field.reset_ends();
        self.machine.sync(self.field.known());
        self.machine.unbound();
        self.run();
        assert!(!self.held && !self.machine.is_busy());
        let protocol = self.device.protocol;
        self.device = Device {
            reads: self.device.reads,
            ..Device::new(protocol, Shows::Truth, self.random.u64(..))
        };
        self.machine.binding();
        self.field.negotiate(Ok(protocol));
        self.field.found_ready();
        self.machine.bound();
        self.machine.sync(self.field.known());
        self.kills = false;
        assert_eq!(self.stop(Asker::Anybody), Ok(()));
        assert!(self.device.has_stopped());
        assert_eq!(self.resume(Asker::Anybody), Ok(()));
        assert_eq!((self.device.status, self.held), (READY, false));
    }

    /// The device does not pretend any more. What it has made the module believe may be anything
    /// that a stop and a resume get right, or that only another driver does.
    fn comes_to_its_senses(&mut self) {
        self.device.shows = Shows::Truth;
        self.device.slowness = 0;
        self.kills = false;
        self.pass(300 * SECOND);
        let (state, _) = self.machine.state();
        if !self.device.lied && state != State::Stopped {
            assert_eq!(self.device.status, READY, "left stopped: {state:?}");
        }
        for _ in 0..3 {
            let _ = self.resume(Asker::Root);
            if self.stop(Asker::Anybody).is_ok() {
                assert!(self.device.has_stopped());
                assert_eq!(self.resume(Asker::Anybody), Ok(()));
                assert_eq!((self.device.status, self.held), (READY, false));
                return;
            }
            self.pass(10 * SECOND);
        }
        let (state, _) = self.machine.state();
        let says_so = matches!(state, State::Failed | State::Unavailable | State::Aborting);
        assert!(says_so, "{:?}", self.machine.state());
        assert!(self.device.lied || self.machine.is_lost());
        self.binds_anew();
    }
}

/// Says how the case is had again, if it fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "this case alone, in tools: vm/enter --setenv ANSWERS_SEED {} -- \
                 cargo test -p core-on-host --test answers",
                self.0
            );
        }
    }
}

/// Returns how many bytes were shown.
fn try_out(seed: u64) -> u64 {
    let seed = Seed(seed);
    let mut case = Case::new(seed.0);
    for _ in 0..case.random.u32(1..8) {
        case.take();
    }
    if case.random.bool() {
        case.binds_anew();
    } else {
        case.comes_to_its_senses();
    }
    case.device.reads
}

fn try_out_many(bytes: u64, mut seed: u64) {
    if let Ok(alone) = std::env::var("ANSWERS_SEED") {
        try_out(alone.parse().expect("a number"));
        return;
    }
    let (mut shown, first) = (0, seed);
    while shown < bytes {
        shown += try_out(seed);
        seed = seed.wrapping_add(1);
    }
    println!("{shown} bytes by {} devices", seed.wrapping_sub(first));
}

#[test]
fn a_million_bytes() {
    try_out_many(1_000_000, 0);
}

#[test]
#[ignore = "takes long: make test-all"]
fn ten_million_others() {
    try_out_many(10_000_000, fastrand::u64(..));
}
