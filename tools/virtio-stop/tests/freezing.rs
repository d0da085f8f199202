// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which file systems have to be frozen, and in which order.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

mod tree;

use tree::{virtio_path, Tree};
use virtio_stop::freezing::{standing, unfrozen};
use virtio_stop::{mounted_above, resolve, Mount};

fn points(tree: &Tree, names: &[&str]) -> Vec<String> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let devices = resolve(&tree.system(), &names).unwrap();
    let mounts = mounted_above(&tree.system(), &devices).unwrap();
    names_of(&mounts)
}

fn still(tree: &Tree, name: &str) -> Vec<String> {
    let devices = resolve(&tree.system(), &[name.to_owned()]).unwrap();
    names_of(&standing(&tree.system(), &devices).unwrap())
}

fn names_of(mounts: &[Mount]) -> Vec<String> {
    let points = mounts
        .iter()
        .map(|mount| mount.point.to_str().unwrap().to_owned());
    points.collect()
}

fn two_disks() -> Tree {
    Tree::new()
        .disk(1, "vda", "254:0")
        .disk(2, "vdb", "254:16")
        .partition("vda", "vda1", "254:1")
        .partition("vda", "vda2", "254:2")
        .mount("254:1", "/", "ext4", "/dev/vda1")
        .mount("254:2", "/home", "ext4", "/dev/vda2")
        .mount("254:16", "/srv", "xfs", "/dev/vdb")
}

#[test]
fn only_those_on_the_devices_the_last_one_first() {
    let tree = two_disks().mount("0:50", "/run", "tmpfs", "tmpfs");
    assert_eq!(points(&tree, &["vda"]), ["/home", "/"]);
    assert_eq!(points(&tree, &["vdb"]), ["/srv"]);
    assert_eq!(points(&tree, &["vda", "vdb"]), ["/srv", "/home", "/"]);
}

#[test]
fn what_is_on_a_loop_device_comes_before_what_its_file_is_in() {
    // Mounted before what they lie on was mounted again: order of mounting is no help.
    let tree = Tree::new()
        .disk(1, "vda", "254:0")
        .disk(2, "vdb", "254:16")
        .loop_device("loop0", "7:0", "/images/a")
        .loop_device("loop1", "7:1", "/a/b")
        .mount("7:1", "/b", "ext4", "/dev/loop1")
        .mount("7:0", "/a", "ext4", "/dev/loop0")
        .mount("254:0", "/images", "ext4", "/dev/vda")
        .mount("254:16", "/other", "ext4", "/dev/vdb");
    assert_eq!(points(&tree, &["vda"]), ["/b", "/a", "/images"]);
    assert_eq!(points(&tree, &["vdb"]), ["/other"]);
    assert_eq!(
        points(&tree, &["vda", "vdb"]),
        ["/b", "/a", "/other", "/images"]
    );
}

#[test]
fn a_loop_device_through_lvm_through_an_overlay() {
    let tree = two_disks()
        .mount_with(
            "0:60",
            "/ov",
            "overlay",
            "overlay",
            "rw,lowerdir=/usr,upperdir=/srv/up",
        )
        .loop_device("loop0", "7:0", "/ov/image")
        .dm("dm-0", "253:0", ("vg-a", "LVM-a"), &["loop0"])
        .mount("253:0", "/deep", "ext4", "/dev/mapper/vg-a");
    // The overlay has nothing of its own to be frozen, but stands still.
    assert_eq!(points(&tree, &["vdb"]), ["/deep", "/srv"]);
    assert_eq!(points(&tree, &["vda"]), ["/deep", "/home", "/"]);
    assert_eq!(still(&tree, "vdb"), ["/srv", "/ov", "/deep"]);
}

#[test]
fn what_can_not_be_frozen_stands_still() {
    let tree = two_disks()
        .mount("0:62", "/pool", "zfs", "pool")
        .virtio(3, 26)
        .file("sys/fs/virtiofs/0/tag", "shared")
        .link("sys/fs/virtiofs/0/device", &virtio_path(3))
        .mount("0:63", "/shared", "virtiofs", "shared");
    assert_eq!(points(&tree, &["vdb"]), ["/srv"]);
    assert_eq!(still(&tree, "vdb"), ["/srv", "/pool"]);
    assert_eq!(points(&tree, &["virtio3"]), [""; 0]);
    assert_eq!(still(&tree, "virtio3"), ["/shared"]);
}

#[test]
fn each_once_where_it_can_be_seen() {
    let bind = |point: &str| format!("90 1 254:16 /in/side {point} rw - xfs /dev/vdb rw\n");
    let hidden = "91 1 254:2 / /proc/x rw - ext4 /dev/vda2 rw\n92 1 0:9 / /proc/x rw - proc p rw\n";
    let lines = "20 1 254:1 / / rw - ext4 /dev/vda1 rw\n".to_owned()
        + &bind("/first")
        + "21 1 254:16 / /whole rw - xfs /dev/vdb rw\n"
        + &bind("/last")
        + hidden;
    let tree = two_disks().raw("proc/self/mountinfo", lines.as_bytes());
    assert_eq!(points(&tree, &["vdb"]), ["/whole"]);
    assert_eq!(points(&tree, &["vda"]), ["/"]);
}

#[test]
fn an_lvm_over_both_disks_and_btrfs_are_on_either() {
    let tree = two_disks()
        .dm("dm-0", "253:0", ("vg-a", "LVM-a"), &["vda2", "vdb"])
        .mount("253:0", "/lv", "ext4", "/dev/mapper/vg-a")
        .mount("0:61", "/sub\\040volume", "btrfs", "/dev/vdb")
        .link("sys/fs/btrfs/3af0/devices/vdb", "sys/class/block/vdb");
    assert_eq!(points(&tree, &["vda"]), ["/lv", "/home", "/"]);
    assert_eq!(points(&tree, &["vdb"]), ["/sub volume", "/lv", "/srv"]);
}

#[test]
fn a_circle_ends() {
    let tree = Tree::new()
        .disk(1, "vda", "254:0")
        .loop_device("loop0", "7:0", "/a/image")
        .dm("dm-0", "253:0", ("x", "LVM-x"), &["loop0", "vda"])
        .mount("253:0", "/a", "ext4", "/dev/mapper/x");
    assert_eq!(points(&tree, &["vda"]), ["/a"]);
}

#[test]
fn what_is_read_only_is_not_frozen() {
    let tree = two_disks().partition("vdb", "vdb1", "254:17").mount_with(
        "254:17",
        "/image",
        "squashfs",
        "/dev/vdb1",
        "ro,a",
    );
    assert_eq!(still(&tree, "vdb"), ["/srv", "/image"]);
    assert_eq!(points(&tree, &["vdb"]), ["/srv"]);
}

#[test]
fn what_is_mounted_elsewhere_is_told() {
    let told = |tree: &Tree, name: &str| {
        let devices = resolve(&tree.system(), &[name.to_owned()]).unwrap();
        unfrozen(&tree.system(), &devices).unwrap()
    };
    let tree = two_disks()
        .partition("vda", "vda3", "254:3")
        .file("sys/fs/ext4/features/lazy", "supported")
        .file("sys/fs/ext4/vda1/errors", "0")
        .file("sys/fs/xfs/vdb/log", "0");
    assert_eq!(told(&tree, "vda"), [""; 0]);
    assert_eq!(told(&tree, "vdb"), [""; 0]);
    let tree = tree.file("sys/fs/ext4/vda3/errors", "0");
    let remarks = told(&tree, "vda");
    assert_eq!(remarks.len(), 1);
    assert!(remarks[0].starts_with("the file system on vda3 is not frozen"));
    assert_eq!(told(&tree, "vdb"), [""; 0]);
    let none = Tree::new().disk(1, "vda", "254:0");
    assert!(told(&none, "vda")[0].starts_with("no file system is frozen"));
}

#[test]
fn what_is_reached_through_the_network_stands_with_an_interface() {
    let tree = two_disks()
        .card(3, "eth0")
        .mount("0:60", "/nfs", "nfs4", "server:/")
        .mount("0:61", "/t", "tmpfs", "t")
        .mount("0:62", "/lustre", "lustre", "server:/x")
        .mount_with("0:63", "/9", "9p", "10.0.0.1", "rw,access=user,trans=tcp")
        .mount_with("0:64", "/host", "9p", "tag", "rw,trans=virtio")
        .mount_with("0:65", "/ov", "overlay", "o", "rw,lowerdir=/nfs/a")
        .virtual_block("nbd0", "43:0", &[])
        .file("sys/devices/virtual/block/nbd0/size", "2048")
        .dm("dm-0", "253:0", ("vg-a", "LVM-a"), &["nbd0"])
        .mount("253:0", "/lv", "ext4", "/dev/mapper/vg-a")
        .virtual_block("nbd1", "43:1", &[])
        .file("sys/devices/virtual/block/nbd1/size", "0")
        .mount("43:1", "/nothing", "ext4", "/dev/nbd1");
    assert_eq!(
        still(&tree, "eth0"),
        ["/nfs", "/lustre", "/9", "/ov", "/lv"]
    );
    assert_eq!(still(&tree, "vdb"), ["/srv"]);
    assert_eq!(points(&tree, &["eth0"]), [""; 0]);
}
