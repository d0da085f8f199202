// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is told of each device, with the module and without.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

mod tree;

use serde_json::{json, Value};
use tree::{virtio_path, Tree};
use virtio_stop::overview::overview;
use virtio_stop::status::status;

fn listed(tree: &Tree) -> Value {
    serde_json::to_value(overview(&tree.system()).unwrap()).unwrap()
}

fn told(tree: &Tree) -> Value {
    let system = tree.system();
    serde_json::to_value(status(&system, &system.devices().unwrap()).unwrap()).unwrap()
}

fn some() -> Tree {
    Tree::new()
        .card(10, "eth0")
        .disk(2, "vda", "254:0")
        .partition("vda", "vda1", "254:1")
        .virtio(3, 8)
        .scsi_disk(3, 0, "sda", "8:0")
        .scsi_disk(3, 1, "sdb", "8:16")
        .virtio(4, 99)
}

#[test]
fn a_module_that_is_coming_or_going_is_not_loaded() {
    for (state, loaded) in [("coming", false), ("live", true), ("going", false)] {
        let tree = some().file("sys/module/virtio_device_stop/initstate", state);
        assert_eq!(listed(&tree)["loaded"], loaded, "{state}");
    }
    let built_in = some().file("sys/module/virtio_device_stop/parameters/x", "0");
    assert_eq!(listed(&built_in)["loaded"], true);
}

#[test]
fn without_the_module() {
    let list = listed(&some());
    assert_eq!(list["version"], 1);
    assert_eq!(list["loaded"], false);
    let devices = list["devices"].as_array().unwrap();
    let names: Vec<_> = devices.iter().map(|device| &device["device"]).collect();
    assert_eq!(names, ["virtio2", "virtio3", "virtio4", "virtio10"]);
    assert_eq!(
        devices[0],
        json!({
            "device": "virtio2",
            "parent": "0000:00:02.0",
            "type": "block",
            "driver": "virtio_blk",
            "above": ["vda"],
            "access": "absent",
            "protocol": null,
            "state": null,
            "reason": null,
        })
    );
    assert_eq!(devices[1]["type"], "scsi");
    assert_eq!(devices[1]["above"], json!(["sda", "sdb"]));
    assert_eq!(devices[1]["driver"], Value::Null);
    assert_eq!(devices[2]["type"], "type-99");
    assert_eq!(devices[3]["above"], json!(["eth0"]));
    assert_eq!(told(&some())["devices"][0]["details"], Value::Null);
}

#[test]
fn with_the_module() {
    let tree = some()
        .module(2, "running", "none")
        .module(10, "unavailable", "bound_before");
    let list = listed(&tree);
    assert_eq!(list["loaded"], true);
    assert_eq!(list["devices"][0]["access"], "readable");
    assert_eq!(list["devices"][0]["protocol"], "device_stop");
    assert_eq!(list["devices"][0]["state"], "running");
    assert_eq!(list["devices"][3]["reason"], "bound_before");
    // It has just come, or is about to go.
    assert_eq!(list["devices"][1]["access"], "absent");
}

#[test]
fn all_that_the_module_tells() {
    let tree = some()
        .module(2, "stopped", "none")
        .stop_file(2, "in_flight", "2")
        .stop_file(2, "holder", "417 agent")
        .stop_file(2, "force", "1")
        .module(3, "running", "none");
    let report = told(&tree);
    assert_eq!(report["version"], 1);
    assert_eq!(
        report["devices"][0]["details"],
        json!({
            "timeout_ms": 1000,
            "lease_ms": 60000,
            "generation": u64::MAX,
            "in_flight": 2,
            "holder": "417 agent",
            "force": true,
            "accept_bit39": false,
            "statistics": { "stops": 3, "last_stop_us": 417 },
        })
    );
    assert_eq!(report["devices"][0]["state"], "stopped");
    assert_eq!(report["devices"][1]["details"]["in_flight"], "unknown");
    assert_eq!(report["devices"][1]["details"]["holder"], Value::Null);
}

#[test]
fn what_goes_meanwhile_is_not_known() {
    let tree = some()
        .module(2, "running", "none")
        .remove(&format!("{}/device_stop/generation", virtio_path(2)));
    assert_eq!(
        told(&tree)["devices"][0]["details"]["generation"],
        Value::Null
    );
}

#[test]
fn without_virtio_there_is_nothing() {
    assert_eq!(listed(&Tree::new())["devices"], json!([]));
}
