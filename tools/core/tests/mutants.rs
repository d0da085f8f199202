// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The model checker finds each fault that is planted (see `build.rs`), and says what is wrong.

// What is planted need not be good style.
#![allow(
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    clippy::indexing_slicing
)]

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));

/// Within which bounds a fault shows, by which protocol, and as what.
macro_rules! finds {
    ($($fault:ident: $protocol:ident, [$($bound:ident),*], $what:expr;)*) => { $(
        #[test]
        fn $fault() {
            use $fault::{
                lifecycle::{
                    check,
                    Bounds, //
                },
                module::status::Protocol, //
            };
            let bounds = Bounds {
                $($bound: true,)*
                ..Bounds::default()
            };
            let result = check(Protocol::$protocol, bounds);
            let found: Vec<_> = result.violated.iter().map(|(what, _)| what.as_str()).collect();
            println!("{found:?}");
            assert!(found.iter().any(|what| $what.contains(what)), "{found:?}");
        }
    )* };
}

finds! {
    nobody_looks_at_rest: DeviceStop, [], ["somebody looks"];
    a_late_stop_is_forgotten_with_the_driver: Suspend, [drivers], ["somebody looks", "ends well"];
    a_resume_without_notifications: DeviceStop, [], ["ends well"];
    let_go_while_the_stop_is_pending: Suspend, [], ["let go before it runs"];
    let_go_twice: DeviceStop, [drivers], ["let go twice"];
    both_bits_are_taken_for_running: Suspend, [], ["notified while it is suspended, or about to be"];
    garbage_is_an_answer: DeviceStop, [nonsense], ["a bit cleared", "the bit changed before DRIVER_OK", "a value that can't be an answer has changed something"];
    ones_are_a_verdict: DeviceStop, [nonsense], ["a value that can't be an answer has changed something"];
    nobody_asks_in_the_other_form: Suspend, [wants_cleared, drivers], ["ends well"];
    a_stopper_that_is_not_answered: DeviceStop, [busy], ["answered in time", "ends well"];
    a_stop_without_a_time_limit: DeviceStop, [], ["answered in time", "ends well"];
    a_generation_that_stays: DeviceStop, [], ["the same generation, but it has moved"];
    a_reset_that_is_not_noticed: Suspend, [core], [
        "the same generation, but it has moved",
        "notified of virtqueues that are gone",
        "ends well",
        "answered in time",
    ];
    a_resume_that_is_written_twice: Suspend, [], ["asked for what nobody wants"];
    core_writes_what_adds_nothing: Suspend, [core], ["asked for what nobody wants"];
    asked_to_suspend_during_a_write: Suspend, [writer], ["asked to suspend during a write to the configuration space"];
    what_was_meant_for_virtqueues_that_are_gone: DeviceStop, [core], ["notified of virtqueues that are gone"];
    sleep_while_the_driver_above_is_being_quiesced: DeviceStop, [busy, sleep_and_force], ["nothing is held while the system sleeps"];
}
