// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is told when states change. That poll(2) wakes is for a guest to show.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

mod tree;

use tree::{virtio_path, Tree};
use virtio_stop::watch::{Event, Happened, Watch};
use virtio_stop::{resolve, Error};

fn watch(tree: &Tree, names: &[&str]) -> Result<Watch, Error> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let system = tree.system();
    Watch::these(&system, resolve(&system, &names).unwrap())
}

fn two() -> Tree {
    Tree::new()
        .disk(1, "vda", "254:0")
        .disk(2, "vdb", "254:16")
        .module(1, "running", "none")
        .module(2, "running", "none")
}

fn short(events: &[Event]) -> Vec<(&str, Happened, Option<&str>)> {
    let short = events.iter();
    short
        .map(|event| (event.device.as_str(), event.event, event.state.as_deref()))
        .collect()
}

#[test]
fn first_what_is_then_what_changes() {
    let tree = two();
    let mut watch = watch(&tree, &["vda", "vdb"]).unwrap();
    let first = watch.look().unwrap();
    assert_eq!(
        short(&first),
        [
            ("virtio1", Happened::Found, Some("running")),
            ("virtio2", Happened::Found, Some("running")),
        ]
    );
    assert_eq!(watch.look().unwrap(), []);
    let tree = tree
        .stop_file(2, "state", "stopped")
        .stop_file(2, "generation", "9");
    let event = watch.look().unwrap();
    assert_eq!(
        short(&event),
        [("virtio2", Happened::Changed, Some("stopped"))]
    );
    assert_eq!(event.first().unwrap().generation, Some(9));
    // The same state again: it has resumed and stopped in between.
    let tree = tree.stop_file(2, "generation", "13");
    assert_eq!(
        short(&watch.look().unwrap()),
        [("virtio2", Happened::Changed, Some("stopped"))]
    );
    drop(tree);
}

#[test]
fn what_has_gone_is_told_once_and_ends_it() {
    let tree = two();
    let mut watch = watch(&tree, &["vda", "vdb"]).unwrap();
    watch.look().unwrap();
    let tree = tree.remove(&format!("{}/device_stop", virtio_path(1)));
    assert_eq!(
        short(&watch.look().unwrap()),
        [("virtio1", Happened::Gone, None)]
    );
    assert_eq!(watch.look().unwrap(), []);
    assert!(!watch.is_over());
    let _tree = tree.remove(&format!("{}/device_stop", virtio_path(2)));
    assert_eq!(
        short(&watch.look().unwrap()),
        [("virtio2", Happened::Gone, None)]
    );
    assert!(watch.is_over());
}

#[test]
fn without_the_module_there_is_nothing_to_watch() {
    let tree = Tree::new().disk(1, "vda", "254:0");
    assert!(matches!(watch(&tree, &["vda"]), Err(Error::NotLoaded)));
    assert!(matches!(Watch::all(&tree.system()), Err(Error::NotLoaded)));
}
