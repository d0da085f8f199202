// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is found before a stop.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic
)]

mod tree;

use tree::{virtio_path, Tree};
use virtio_stop::check::{check, Check, Finding, Severity, Verdict};
use virtio_stop::resolve;

fn looked(tree: &Tree, names: &[&str]) -> Check {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let system = tree.system();
    check(&system, &resolve(&system, &names).unwrap()).unwrap()
}

fn codes(tree: &Tree, names: &[&str]) -> Vec<(Severity, String)> {
    let findings = looked(tree, names).findings.into_iter();
    findings
        .map(|finding| (finding.severity, finding.code))
        .collect()
}

fn found(tree: &Tree, names: &[&str], code: &str) -> Finding {
    let findings = looked(tree, names).findings;
    let mut with_code = findings.iter().filter(|finding| finding.code == code);
    let finding = with_code
        .next()
        .unwrap_or_else(|| panic!("no {code} in {findings:#?}"))
        .clone();
    assert_eq!(with_code.next(), None);
    finding
}

fn one(severity: Severity, code: &str) -> Vec<(Severity, String)> {
    vec![(severity, code.into())]
}

use Severity::{Error, Note, Warning};

/// A disk with nothing on it, that can be stopped, and one that all is on.
fn ready() -> Tree {
    Tree::new()
        .disk(1, "vda", "254:0")
        .partition("vda", "vda1", "254:1")
        .partition("vda", "vda2", "254:2")
        .disk(2, "vdb", "254:16")
        .partition("vdb", "vdb1", "254:17")
        .module(1, "running", "none")
        .module(2, "running", "none")
}

#[test]
fn nothing_is_in_the_way_of_a_disk_that_nobody_uses() {
    let tree = ready().mount("254:1", "/", "ext4", "/dev/vda1");
    let check = looked(&tree, &["vdb"]);
    assert_eq!(check.findings, []);
    assert_eq!(check.verdict, Verdict::Yes);
    assert_eq!(check.devices, ["virtio2"]);
}

#[test]
fn as_json() {
    let tree = Tree::new().disk(1, "vda", "254:0");
    let json = serde_json::to_value(looked(&tree, &["vda"])).unwrap();
    assert_eq!(json.pointer("/version").unwrap(), 1);
    assert_eq!(json.pointer("/verdict").unwrap(), "no");
    assert_eq!(json.pointer("/findings/0/code").unwrap(), "not_loaded");
    assert_eq!(json.pointer("/findings/0/severity").unwrap(), "error");
}

#[test]
fn what_can_not_be_stopped() {
    let state = |state, reason| ready().module(2, state, reason);
    for (tree, code) in [
        (state("unavailable", "bound_before"), "bound_before"),
        (state("unavailable", "not_offered"), "not_offered"),
        (state("unavailable", "type_refused"), "type_refused"),
        (state("failed", "needs_reset"), "failed"),
        (state("stopped", "none"), "busy"),
        (state("aborting", "stop_timeout"), "busy"),
        (
            ready().remove(&format!("{}/device_stop", virtio_path(2))),
            "gone",
        ),
        (ready().remove("sys/module"), "not_loaded"),
    ] {
        assert_eq!(codes(&tree, &["vdb"]), one(Error, code));
        assert_eq!(looked(&tree, &["vdb"]).verdict, Verdict::No);
    }
    let owned = state("stopped", "none").stop_file(2, "holder", "417 agent");
    assert!(found(&owned, &["vdb"], "busy")
        .message
        .contains("by 417 agent"));
}

#[test]
fn what_is_good_to_know_of_one_that_can() {
    let tree = ready().module(2, "running", "lease_expired");
    assert_eq!(codes(&tree, &["vdb"]), one(Note, "lease_expired"));
    let tree = ready().stop_file(2, "protocol", "suspend");
    assert_eq!(codes(&tree, &["vdb"]), one(Note, "suspend"));
    let tree = ready().stop_file(2, "force", "1");
    assert_eq!(codes(&tree, &["vdb"]), one(Warning, "forced"));
}

#[test]
fn mounts() {
    let tree = ready()
        .mount("254:1", "/", "ext4", "/dev/vda1")
        .mount("254:2", "/home", "ext4", "/dev/vda2")
        .mount("254:2", "/srv", "ext4", "/dev/vda2")
        .mount("254:17", "/usr", "xfs", "/dev/vdb1");
    assert_eq!(found(&tree, &["vda"], "root").severity, Warning);
    let home = found(&tree, &["vda"], "mounted");
    assert_eq!(home.severity, Note);
    assert!(
        home.message
            .contains("ext4 at /home (and at 1 other places)"),
        "{}",
        home.message
    );
    assert_eq!(codes(&tree, &["vdb"]), one(Warning, "usr"));
    assert_eq!(looked(&tree, &["vdb"]).verdict, Verdict::WithWarnings);
}

#[test]
fn what_can_not_be_frozen() {
    let tree = ready().mount("254:17", "/boot/efi", "vfat", "/dev/vdb1");
    let finding = found(&tree, &["vdb"], "not_freezable");
    assert_eq!(finding.severity, Note);
    assert!(finding.message.starts_with("vfat at /boot/efi can't"));
    let tree = ready().mount_with("254:17", "/image", "squashfs", "/dev/vdb1", "ro,errors=x");
    assert_eq!(codes(&tree, &["vdb"]), one(Note, "mounted"));
}

#[test]
fn swap_on_a_partition_and_on_a_file() {
    let swaps = |path: &str| format!("Filename Type Size Used Priority\n{path} x 1 0 -2\n");
    let tree = ready()
        .mount("254:17", "/data", "ext4", "/dev/vdb1")
        .raw("proc/swaps", swaps("/dev/vda2").as_bytes());
    assert_eq!(codes(&tree, &["vda"]), one(Warning, "swap"));
    assert_eq!(codes(&tree, &["vdb"]), one(Note, "mounted"));
    let tree = tree.raw("proc/swaps", swaps("/data/swap\\040file").as_bytes());
    assert_eq!(codes(&tree, &["vda"]), []);
    assert!(found(&tree, &["vdb"], "swap")
        .message
        .contains("swapoff /data/swap file"));
}

#[test]
fn what_a_disk_is_below_of() {
    let tree = ready()
        .dm("dm-0", "253:0", ("vg-a", "LVM-a"), &["vdb1"])
        .dm("dm-1", "253:1", ("secret", "CRYPT-LUKS2-a"), &["dm-0"])
        .dm("dm-2", "253:2", ("linear", ""), &["vdb1"])
        .md("md0", "9:0", &["vdb1"])
        .loop_device("loop0", "7:0", "/dev/vdb1");
    let mut codes = codes(&tree, &["vdb"]);
    codes.sort();
    let wanted = [
        "below_crypt",
        "below_dm",
        "below_loop",
        "below_lvm",
        "below_md",
    ];
    assert_eq!(codes, wanted.map(|code| (Note, code.to_owned())));
    assert!(found(&tree, &["vdb"], "below_lvm")
        .message
        .starts_with("vg-a, an LVM volume,"));
}

#[test]
fn a_part_of_what_something_lies_on() {
    let tree = ready()
        .mount("0:50", "/run", "tmpfs", "tmpfs")
        .loop_device("loop0", "7:0", "/run/image")
        .dm(
            "dm-0",
            "253:0",
            ("vg-a", "LVM-a"),
            &["vda1", "vdb1", "loop0"],
        );
    let partly = found(&tree, &["vdb"], "partly");
    assert_eq!(partly.severity, Warning);
    assert!(
        partly.message.contains("(virtio1; /run is a tmpfs)"),
        "{}",
        partly.message
    );
    assert!(found(&tree, &["vda", "vdb"], "partly")
        .message
        .contains("(/run is a tmpfs)"));
    let whole = ready().md("md0", "9:0", &["vda1", "vdb1"]);
    assert_eq!(codes(&whole, &["md0"]), one(Note, "below_md"));
    assert_eq!(
        found(&whole, &["md0"], "below_md").devices,
        ["virtio1", "virtio2"]
    );
}

#[test]
fn multipath_fails_unless_it_queues() {
    let tree = || ready().dm("dm-0", "253:0", ("mpatha", "mpath-36"), &["vda", "vdb"]);
    let both = &["mpatha"];
    assert_eq!(codes(&tree(), both), one(Warning, "below_multipath"));
    let configured = |value: &str| {
        let text = format!("defaults {{\n\tno_path_retry {value}\n}}\n");
        tree().raw("etc/multipath/conf.d/a.conf", text.as_bytes())
    };
    assert_eq!(
        codes(&configured("queue"), both),
        one(Note, "below_multipath")
    );
    assert_eq!(
        codes(&configured("\"queue\""), both),
        one(Note, "below_multipath")
    );
    assert_eq!(
        codes(&configured("12"), both),
        one(Warning, "below_multipath")
    );
    let one_of_them = configured("queue").raw("etc/multipath.conf", b"no_path_retry fail\n");
    assert_eq!(codes(&one_of_them, both), one(Warning, "below_multipath"));
}

fn cards() -> Tree {
    let tree = Tree::new().card(1, "eth0").card(2, "eth1");
    tree.module(1, "running", "none")
        .module(2, "running", "none")
}

#[test]
fn what_an_interface_is_below_of() {
    let tree = cards()
        .virtual_interface("bond0", "bond", &["eth0", "eth1"])
        .virtual_interface("bond0.7", "vlan", &["bond0"])
        .virtual_interface("br0", "bridge", &["bond0.7"])
        .virtual_interface("macvlan0", "", &["eth0"]);
    let mut codes = codes(&tree, &["eth0"]);
    codes.sort();
    let wanted = [
        "below_bond",
        "below_bridge",
        "below_interface",
        "below_vlan",
        "network",
    ];
    assert_eq!(codes, wanted.map(|code| (Note, code.to_owned())));
    let bonding = "sys/devices/virtual/net/bond0/bonding";
    let tree = tree.file(&format!("{bonding}/arp_interval"), "200");
    assert_eq!(found(&tree, &["eth1"], "bond_arp").severity, Warning);
    let tree = tree.file(&format!("{bonding}/mode"), "802.3ad 4");
    assert_eq!(found(&tree, &["eth1"], "bond_lacp").severity, Warning);
}

#[test]
fn storage_behind_the_network() {
    let tree = cards()
        .mount("0:60", "/nfs", "nfs4", "server:/")
        .mount("0:61", "/t", "tmpfs", "t");
    assert!(found(&tree, &["eth0"], "network_storage")
        .message
        .ends_with("errors: /nfs."));
    let nbd = "sys/devices/virtual/block/nbd0/size";
    let tree = cards().virtual_block("nbd0", "43:0", &[]).file(nbd, "0");
    assert_eq!(codes(&tree, &["eth0"]), one(Note, "network"));
    let tree = tree.file(nbd, "2048");
    assert!(found(&tree, &["eth0"], "network_storage")
        .message
        .ends_with("errors: nbd0."));
}

#[test]
fn the_lease_against_what_does_not_wait() {
    let tree = ready()
        .file("proc/sys/kernel/hung_task_timeout_secs", "120")
        .file("proc/sys/kernel/hung_task_panic", "0")
        .file("sys/class/watchdog/watchdog0/state", "active")
        .file("sys/class/watchdog/watchdog0/timeout", "60")
        .file("sys/class/watchdog/watchdog1/state", "inactive")
        .file("sys/class/watchdog/watchdog1/timeout", "1");
    // `run` renews the lease: whatever ends the guest counts.
    assert_eq!(codes(&tree, &["vdb"]), one(Warning, "watchdog"));
    let tree = tree.file("proc/sys/kernel/hung_task_panic", "1");
    for code in ["watchdog", "hung_task_panic"] {
        let message = found(&tree, &["vdb"], code).message;
        assert!(message.contains("--max-time"), "{message}");
    }
    let tree = tree
        .file("proc/sys/kernel/hung_task_panic", "0")
        .stop_file(2, "lease_ms", "120001");
    let message = found(&tree, &["vdb"], "hung_task").message;
    assert!(
        message.contains("for 121 s") && message.contains("for 120 s"),
        "{message}"
    );
    assert!(found(&tree, &["vdb"], "watchdog")
        .message
        .contains("watchdog0"));
    let tree = tree.file("proc/sys/kernel/hung_task_panic", "1");
    assert!(found(&tree, &["vdb"], "hung_task_panic")
        .message
        .contains("kernel panics"));
    let tree = tree.stop_file(2, "lease_ms", "0");
    assert_eq!(found(&tree, &["vdb"], "no_lease").severity, Warning);
    assert!(found(&tree, &["vdb"], "hung_task_panic")
        .message
        .contains("for ever"));
    let tree = tree.file("proc/sys/kernel/hung_task_timeout_secs", "0");
    let codes = codes(&tree, &["vdb"]);
    assert!(
        !codes.iter().any(|(_, code)| code.starts_with("hung")),
        "{codes:?}"
    );
}

#[test]
fn what_of_this_process_sits_on_it() {
    let tree = || ready().mount("254:17", "/data", "ext4", "/dev/vdb1");
    let link = |file: &str, to: &str| tree().text_link(&format!("proc/self/{file}"), to);
    for (file, code, severity) in [
        ("fd/0", "stdin", Warning),
        ("fd/1", "stdout", Warning),
        ("fd/2", "stderr", Warning),
        ("cwd", "working_directory", Warning),
        ("exe", "executable", Note),
    ] {
        let on_it = link(file, "/data/a b (deleted)");
        assert_eq!(found(&on_it, &["vdb"], code).severity, severity, "{code}");
        for elsewhere in ["/database", "pipe:[417]", "/"] {
            assert_eq!(
                codes(&link(file, elsewhere), &["vdb"]),
                one(Note, "mounted"),
                "{code}"
            );
        }
    }
    let log = tree().mount("254:17", "/var", "ext4", "/dev/vdb1");
    assert_eq!(found(&log, &["vdb"], "log").severity, Warning);
}

const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
    eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
    eth1\t0000000A\t00000000\t0001\t0\t0\t200\t000000FF\t0\t0\t0\n\
    eth0\t0000000A\t00000000\t0001\t0\t0\t300\t000000FF\t0\t0\t0\n\
    lo\t0000010A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

const ROUTES_6: &str = "\
    20010db8000000000000000000000000 20 00000000000000000000000000000000 00 \
    00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1\n\
    00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
    fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
    00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
    00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

/// Little-endian, as the routes above.
#[cfg(target_endian = "little")]
#[test]
fn the_session_by_which_one_has_come() {
    // sudo has taken it out of the environment of this process.
    let from = |client: &str| {
        let environment = format!("A=b\0SSH_CONNECTION={client} 5 1.2.3.4 22\0");
        cards()
            .raw("proc/self/environ", b"A=b\0")
            .raw("proc/self/status", b"Name:\tx\nPPid:\t41\n")
            .raw("proc/41/environ", environment.as_bytes())
            .raw("proc/net/route", ROUTES.as_bytes())
            .raw("proc/net/ipv6_route", ROUTES_6.as_bytes())
    };
    for (client, through) in [
        ("192.168.2.9", "eth0"),
        ("10.1.2.3", "eth1"),
        ("2001:db8::9", "eth1"),
        ("2001:db9::9", "eth0"),
        ("fe80::9%eth1", "eth1"),
        ("::ffff:10.1.2.3", "eth1"),
    ] {
        let other = if through == "eth0" { "eth1" } else { "eth0" };
        let session = found(&from(client), &[through], "session");
        assert_eq!(session.severity, Warning);
        assert!(
            session.message.contains(through),
            "{client}: {}",
            session.message
        );
        assert_eq!(
            codes(&from(client), &[other]),
            one(Note, "network"),
            "{client}"
        );
    }
    let without = cards()
        .raw("proc/self/environ", b"A=b\0")
        .raw("proc/self/status", b"PPid:\t0\n")
        .raw("proc/net/route", ROUTES.as_bytes());
    assert_eq!(codes(&without, &["eth0"]), one(Note, "network"));
}

#[test]
fn a_session_through_a_bridge() {
    let tree = cards()
        .virtual_interface("br0", "bridge", &["eth1"])
        .raw(
            "proc/self/environ",
            b"SSH_CONNECTION=10.1.2.3 5 1.2.3.4 22\0",
        )
        .raw("proc/net/route", ROUTES.replace("eth1", "br0").as_bytes());
    let session = found(&tree, &["virtio2"], "session");
    assert!(
        session.message.contains("through br0"),
        "{}",
        session.message
    );
}
