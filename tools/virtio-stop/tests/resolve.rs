// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which devices a name means.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic
)]

mod tree;

use tree::Tree;
use virtio_stop::{resolve, Error, Exit};

fn indexes(tree: &Tree, names: &[&str]) -> Vec<u32> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let devices = resolve(&tree.system(), &names).unwrap();
    devices.iter().map(|device| device.index).collect()
}

fn error(tree: &Tree, name: &str) -> Error {
    resolve(&tree.system(), &[name.to_owned()]).unwrap_err()
}

fn two_disks() -> Tree {
    Tree::new()
        .disk(1, "vda", "254:0")
        .disk(2, "vdb", "254:16")
        .partition("vda", "vda1", "254:1")
        .partition("vdb", "vdb1", "254:17")
}

#[test]
fn by_its_own_name_and_by_what_is_above() {
    let tree = two_disks();
    for name in [
        "virtio1",
        "vda",
        "vda1",
        "/dev/vda",
        "/dev/vda1",
        "/sys/class/block/vda1",
    ] {
        assert_eq!(indexes(&tree, &[name]), [1], "{name}");
    }
}

#[test]
fn by_pci_address() {
    let tree = two_disks().virtio(26, 4);
    for name in [
        "0000:00:1a.0",
        "00:1a.0",
        "/sys/bus/pci/devices/0000:00:1a.0",
    ] {
        let tree = Tree::new().virtio(26, 4).link(
            "sys/bus/pci/devices/0000:00:1a.0",
            "sys/devices/pci0000:00/0000:00:1a.0",
        );
        assert_eq!(indexes(&tree, &[name]), [26], "{name}");
    }
    assert!(matches!(error(&tree, "00:1b.0"), Error::Unknown(_)));
}

#[test]
fn each_once_by_index() {
    let tree = two_disks();
    assert_eq!(indexes(&tree, &["vdb1", "virtio1", "vda", "vdb"]), [1, 2]);
}

#[test]
fn scsi_disks_are_above_their_host() {
    let tree = Tree::new()
        .virtio(3, 8)
        .scsi_disk(3, 0, "sda", "8:0")
        .scsi_disk(3, 1, "sdb", "8:16");
    assert_eq!(indexes(&tree, &["sda"]), [3]);
    assert_eq!(indexes(&tree, &["sdb", "sda"]), [3]);
}

#[test]
fn by_symbolic_links_of_udev() {
    let tree = two_disks()
        .link("dev/disk/by-uuid/5e1f", "dev/vda1")
        .link("dev/disk/by-path/pci-0000:00:02.0", "dev/vdb");
    assert_eq!(indexes(&tree, &["/dev/disk/by-uuid/5e1f"]), [1]);
    assert_eq!(indexes(&tree, &["/dev/disk/by-path/pci-0000:00:02.0"]), [2]);
}

#[test]
fn a_logical_volume_over_two_disks() {
    let tree = two_disks()
        .dm("dm-0", "253:0", ("vg-data", "LVM-xyz"), &["vda1", "vdb1"])
        .link("dev/vg/data", "dev/dm-0");
    for name in [
        "dm-0",
        "vg-data",
        "/dev/mapper/vg-data",
        "/dev/vg/data",
        "vg/data",
    ] {
        assert_eq!(indexes(&tree, &[name]), [1, 2], "{name}");
    }
}

#[test]
fn md_over_partitions_and_a_partition_of_it() {
    let tree = two_disks()
        .md("md0", "9:0", &["vda1", "vdb1"])
        .partition("md0", "md0p1", "259:0");
    assert_eq!(indexes(&tree, &["md0"]), [1, 2]);
    assert_eq!(indexes(&tree, &["md0p1"]), [1, 2]);
}

#[test]
fn multipath_over_two_hosts() {
    let tree = Tree::new()
        .virtio(3, 8)
        .virtio(4, 8)
        .scsi_disk(3, 0, "sda", "8:0")
        .scsi_disk(4, 0, "sdb", "8:16")
        .dm("dm-0", "253:0", ("mpatha", "mpath-36"), &["sda", "sdb"])
        .dm(
            "dm-1",
            "253:1",
            ("mpatha-part1", "part1-mpath-36"),
            &["dm-0"],
        );
    assert_eq!(indexes(&tree, &["/dev/mapper/mpatha-part1"]), [3, 4]);
}

#[test]
fn a_loop_device_on_a_file_and_its_mount_point() {
    let tree = two_disks()
        .mount("254:1", "/", "ext4", "/dev/vda1")
        .mount("254:17", "/srv/images", "ext4", "/dev/vdb1")
        .loop_device("loop0", "7:0", "/srv/images/a b.img")
        .loop_device("loop1", "7:1", "/srv/imagesque (deleted)")
        .loop_device("loop2", "7:2", "/dev/vdb")
        .mount("7:0", "/mnt", "ext4", "/dev/loop0");
    assert_eq!(indexes(&tree, &["loop0"]), [2]);
    assert_eq!(indexes(&tree, &["loop1"]), [1]);
    assert_eq!(indexes(&tree, &["loop2"]), [2]);
    assert_eq!(indexes(&tree, &["/mnt"]), [2]);
    assert_eq!(indexes(&tree, &["/"]), [1]);
}

#[test]
fn btrfs_is_on_all_of_its_devices() {
    let tree = two_disks()
        .mount("0:40", "/data", "btrfs", "/dev/vdb")
        .link("sys/fs/btrfs/3af0/devices/vda1", "sys/class/block/vda1")
        .link("sys/fs/btrfs/3af0/devices/vdb", "sys/class/block/vdb")
        .raw("sys/fs/btrfs/features/raid56", b"0\n");
    assert_eq!(indexes(&tree, &["/data"]), [1, 2]);
    let tree = two_disks().mount("0:40", "/data", "btrfs", "/dev/vdb");
    assert_eq!(indexes(&tree, &["/data"]), [2]);
}

#[test]
fn other_file_systems_with_anonymous_devices() {
    let tree = two_disks()
        .virtio(5, 26)
        .virtio(6, 9)
        .mount("254:1", "/", "ext4", "/dev/vda1")
        .mount("0:41", "/bch", "bcachefs", "/dev/vda1:/dev/vdb1")
        .mount_with(
            "0:42",
            "/ov",
            "overlay",
            "overlay",
            "rw,lowerdir=/l:/m,upperdir=/u,workdir=/w",
        )
        .mount("0:43", "/share", "virtiofs", "tag")
        .file("sys/fs/virtiofs/0/tag", "tag")
        .link("sys/fs/virtiofs/0/device", &tree::virtio_path(5))
        .mount("0:44", "/host", "9p", "hostshare")
        .raw(
            &format!("{}/mount_tag", tree::virtio_path(6)),
            b"hostshare\0",
        );
    assert_eq!(indexes(&tree, &["/bch"]), [1, 2]);
    assert_eq!(indexes(&tree, &["/ov"]), [1]);
    assert_eq!(indexes(&tree, &["/share"]), [5]);
    assert_eq!(indexes(&tree, &["/host"]), [6]);
}

#[test]
fn of_two_mounts_at_a_place_the_later_one_counts() {
    let tree = two_disks()
        .mount("254:1", "/mnt", "ext4", "/dev/vda1")
        .mount("254:17", "/mnt", "ext4", "/dev/vdb1");
    assert_eq!(indexes(&tree, &["/mnt"]), [2]);
}

#[test]
fn network_interfaces() {
    let tree = Tree::new()
        .card(1, "eth0")
        .card(2, "eth1")
        .card(3, "eth2")
        .virtual_interface("bond0", "bond", &["eth0", "eth1"])
        .virtual_interface("bond0.7", "vlan", &["bond0"])
        .virtual_interface("br0", "bridge", &["bond0.7", "eth2"])
        .raw("sys/class/net/bonding_masters", b"bond0\n");
    assert_eq!(indexes(&tree, &["eth0"]), [1]);
    assert_eq!(indexes(&tree, &["bond0"]), [1, 2]);
    assert_eq!(indexes(&tree, &["bond0.7"]), [1, 2]);
    assert_eq!(indexes(&tree, &["br0"]), [1, 2, 3]);
    assert_eq!(indexes(&tree, &["/sys/class/net/br0"]), [1, 2, 3]);
}

#[test]
fn one_name_of_two_things_is_refused_with_how_to_write_it() {
    let tree = two_disks().card(3, "vda");
    let error = error(&tree, "vda");
    assert!(matches!(error, Error::Ambiguous(_)));
    let text = error.to_string();
    for way in ["/dev/vda", "/sys/class/net/vda"] {
        assert!(text.contains(way), "{text}");
    }
    assert_eq!(indexes(&tree, &["/dev/vda"]), [1]);
    assert_eq!(indexes(&tree, &["/sys/class/net/vda"]), [3]);
}

#[test]
fn what_is_not_above_virtio_is_told() {
    let nvme = "sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme0/nvme0n1";
    let tree = two_disks()
        .file(&format!("{nvme}/dev"), "259:0")
        .link("sys/class/block/nvme0n1", nvme)
        .virtual_interface("lo", "", &[])
        .mount("0:50", "/run", "tmpfs", "tmpfs")
        .loop_device("loop0", "7:0", "/run/image")
        .md("md0", "9:0", &["nvme0n1", "vda1"]);
    for (name, what) in [
        ("nvme0n1", "/sys/devices/pci0000:00/0000:00:1f.0/nvme"),
        ("lo", "network interface"),
        ("/run", "tmpfs"),
        ("loop0", "/run is a tmpfs"),
    ] {
        let error = error(&tree, name);
        assert!(matches!(error, Error::NotVirtio { .. }), "{name}: {error}");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains(what), "{error}");
    }
    // A part of it is.
    assert_eq!(indexes(&tree, &["md0"]), [1]);
}

#[test]
fn what_is_not_there_is_told() {
    let tree = two_disks()
        .mount("254:1", "/srv", "ext4", "/dev/vda1")
        .file("srv/a/b", "");
    for name in ["virtio9", "vdz", "/dev/vdz", "/nowhere", ""] {
        assert!(matches!(error(&tree, name), Error::Unknown(_)), "{name}");
    }
    let error = error(&tree, "/srv/a");
    assert!(matches!(&error, Error::NotMountPoint { .. }));
    assert!(
        error.to_string().ends_with("file system at /srv"),
        "{error}"
    );
}
