// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops by the files in sysfs: what is written to them, and what is not. These are files that keep
//! all of it, or /dev/full, which refuses it.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

mod tree;

use std::fs;

use tree::{virtio_path, Tree};
use virtio_stop::switch::{stop, undo, Switch};
use virtio_stop::{Error, Owner};

/// Two devices that run, with the generations 11 and 12.
fn two() -> Tree {
    let mut tree = Tree::new();
    for index in [1, 2] {
        tree = tree
            .virtio(index, 2)
            .module(index, "running", "none")
            .stop_file(index, "generation", &(index + 10).to_string())
            .raw(&file(index, "renew"), b"");
    }
    tree
}

fn file(index: u32, name: &str) -> String {
    format!("{}/device_stop/{name}", virtio_path(index))
}

fn refuses(tree: Tree, index: u32, name: &str) -> Tree {
    tree.text_link(&file(index, name), "/dev/full")
}

fn open(tree: &Tree) -> Vec<Switch> {
    let devices = tree.system().devices().unwrap();
    devices
        .iter()
        .map(|device| Switch::open(device).unwrap())
        .collect()
}

fn read(tree: &Tree, index: u32, name: &str) -> String {
    fs::read_to_string(tree.system().path(file(index, name))).unwrap()
}

#[test]
fn all_stop_and_each_is_renewed_by_its_generation() {
    let tree = two();
    assert_eq!(stop(&mut open(&tree), || None).unwrap(), [11, 12]);
    for (index, generation) in [(1, "11"), (2, "12")] {
        assert_eq!(read(&tree, index, "state"), "running\nstop");
        assert_eq!(read(&tree, index, "renew"), generation);
    }
}

#[test]
fn what_was_stopped_is_resumed_by_its_generation_and_nothing_else_is() {
    let tree = refuses(two(), 2, "state");
    let mut switches = open(&tree);
    let failed = stop(&mut switches, || None).unwrap_err();
    assert!(matches!(failed, Error::Refused(refusal) if refusal.device == "virtio2"));
    // The second one would refuse to resume.
    assert!(undo(&mut switches).is_empty());
    assert_eq!(read(&tree, 1, "state"), "running\nstopresume 11");
    // Once is enough.
    assert!(undo(&mut switches).is_empty());
    assert_eq!(read(&tree, 1, "state"), "running\nstopresume 11");
}

#[test]
fn what_had_stopped_before_is_not_resumed() {
    let tree = two().stop_file(1, "state", "stopped");
    let mut switches = open(&tree);
    stop(&mut switches, || None).unwrap();
    assert!(undo(&mut switches).is_empty());
    assert_eq!(read(&tree, 1, "state"), "stopped\nstop");
    assert_eq!(read(&tree, 2, "state"), "running\nstopresume 12");
}

#[test]
fn a_stop_that_does_not_stand_any_more_is_told() {
    let tree = refuses(two(), 1, "renew");
    let mut switches = open(&tree);
    let failed = stop(&mut switches, || None).unwrap_err();
    assert!(matches!(failed, Error::Refused(refusal) if refusal.device == "virtio1"));
    assert!(undo(&mut switches).is_empty());
    for (index, generation) in [(1, "11"), (2, "12")] {
        let undone = format!("running\nstopresume {generation}");
        assert_eq!(read(&tree, index, "state"), undone);
    }
}

#[test]
fn what_stopped_without_a_generation_is_resumed() {
    let tree = two().stop_file(1, "generation", "?");
    let mut switches = open(&tree);
    assert!(stop(&mut switches, || None).is_err());
    assert!(undo(&mut switches).is_empty());
    assert_eq!(read(&tree, 1, "state"), "running\nstopresume");
    assert_eq!(read(&tree, 2, "state"), "running\n");
}

#[test]
fn a_signal_ends_it_between_two_devices() {
    let tree = two();
    let mut switches = open(&tree);
    let state = tree.system().path(file(1, "state"));
    let stopped = || fs::read(&state).unwrap().ends_with(b"stop");
    let failed = stop(&mut switches, || stopped().then_some(15)).unwrap_err();
    assert!(matches!(failed, Error::Interrupted(15)));
    assert_eq!(read(&tree, 2, "state"), "running\n");
    assert!(undo(&mut switches).is_empty());
    assert_eq!(read(&tree, 1, "state"), "running\nstopresume 11");
}

#[test]
fn a_container_may_have_the_module_but_not_its_file() {
    let opened = |tree: &Tree| Owner::open(&tree.system()).unwrap_err();
    assert!(matches!(opened(&two()), Error::NoNode));
    assert!(matches!(opened(&Tree::new()), Error::NotLoaded));
}
