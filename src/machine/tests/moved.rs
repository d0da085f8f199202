// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! What the model checker builds on: that time and counts make no difference.

use super::*;
use std::hash::{
    BuildHasher,
    RandomState, //
};

const THEN: u64 = 100_000 * SECOND;

fn benches() -> Vec<Bench> {
    let mut benches = Vec::new();
    for protocol in BOTH {
        benches.push(bench(protocol));
        benches.push(stopped(protocol));
        benches.push(given_up(protocol));
        let mut stopping = bench(protocol);
        stopping.device.stops_after = NEVER;
        assert!(stopping.machine.ask_stop(0, ALL, false).is_ok());
        stopping.pass(SECOND / 2);
        benches.push(stopping);
        let mut resuming = stopped(protocol);
        resuming.device.resumes_after = NEVER;
        assert!(resuming.machine.ask_resume(0, ALL, None).is_ok());
        resuming.pass(SECOND / 2);
        benches.push(resuming);
        let mut nonsense = stopped(protocol);
        nonsense.device.shows = Some(0xff);
        nonsense.look();
        nonsense.pass(SECOND);
        benches.push(nonsense);
    }
    benches
}

#[test]
fn a_machine_does_the_same_at_another_time() {
    for mut bench in benches() {
        let mut moved = bench.machine.moved(bench.now, THEN);
        for _ in 0..100 {
            assert_eq!(moved.state(), bench.machine.state());
            let after = |deadline: Option<u64>, now| deadline.map(|at| at - now);
            let (begin, deadline) = (bench.now, bench.machine.deadline());
            let at = after(moved.deadline(), THEN);
            assert_eq!(at, after(deadline, begin), "{:?}", bench.machine);
            let Some(after) = at else {
                break;
            };
            bench.pass(after);
            moved = bench.machine.moved(bench.now, THEN);
        }
    }
}

#[test]
fn machines_that_do_the_same_are_the_same() {
    let hasher = RandomState::new();
    let all: Vec<_> = benches()
        .iter()
        .map(|bench| bench.machine.moved(bench.now, THEN))
        .collect();
    for (n, one) in all.iter().enumerate() {
        for other in &all[n + 1..] {
            assert_ne!(one, other);
            assert_ne!(hasher.hash_one(one), hasher.hash_one(other));
        }
        let again = one.moved(THEN, THEN + 1).moved(THEN + 1, THEN);
        assert_eq!(one, &again);
        assert_eq!(hasher.hash_one(one), hasher.hash_one(&again));
        assert_eq!((one.generation(), one.stats()), (0, &Stats::NONE));
    }
    let mut one = stopped(D);
    let before = one.machine.moved(one.now, THEN);
    one.resume().unwrap();
    one.stop().unwrap();
    assert_eq!(one.machine.moved(one.now, THEN), before);
}

/// Else there were no end to the states of a device that nobody waits for.
#[test]
fn what_happened_long_ago_happened_at_the_same_time() {
    let at_a_look = |seconds| {
        let mut bench = given_up(S);
        bench.pass(seconds * SECOND);
        bench.pass(bench.machine.deadline().unwrap() - bench.now);
        bench.machine.moved(bench.now, THEN)
    };
    assert_eq!(at_a_look(600), at_a_look(700));
    assert_ne!(at_a_look(400), at_a_look(300));
}
