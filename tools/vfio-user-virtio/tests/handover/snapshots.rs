// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is saved is gone on with.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::{symlink, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use rustix::fs::{mknodat, FileType, CWD};
use serde_json::{json, Value};
use vfio_user_virtio::handover::VERSION;

use crate::driver::Driver;
use crate::servers::Servers;

#[test]
fn what_is_saved_is_shown_and_gone_on_with() {
    let mut servers = Servers::start();
    servers.run(&["set", "control", "x", "io_delay_us=7"]);
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    let shown = servers.run(&["show", "saved"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(
        shown.contains("running, status 0x00") && !shown.contains('?'),
        "{shown}"
    );
    // Somebody listens there.
    let complaint = servers.complaint(&["serve", "--restore", "saved"]);
    assert!(complaint.contains("can't listen"), "{complaint}");
    servers.children[0].kill().unwrap();
    servers.end(0);
    servers.serve(&["--restore", "saved"]);
    servers.wait_until(|servers| servers.try_get("settings.io_delay_us").as_deref() == Some("7"));
    assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
}

/// The names in the servers' folder that begin like this.
fn names(servers: &Servers, begin: &str) -> usize {
    let names = fs::read_dir(servers.path("")).unwrap();
    let names = names.map(|name| name.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().starts_with(begin))
        .count()
}

#[test]
fn only_a_plain_file_is_replaced_and_nothing_beside_it() {
    let servers = Servers::start();
    let save = |to: &str| servers.run(&["save", "control", to]).status.success();
    fs::write(servers.path("kept"), "precious").unwrap();
    symlink(servers.path("kept"), servers.path("link")).unwrap();
    assert!(save("link"));
    assert!(servers.path("link").is_symlink());
    assert!(fs::read(servers.path("kept")).unwrap().starts_with(b"{"));
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(servers.path("kept"), mode).unwrap();
    assert!(save("kept"));
    let permissions = fs::metadata(servers.path("kept")).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    assert_eq!(names(&servers, "kept"), 1);
    // A link to nowhere leads somewhere then.
    symlink(servers.path("new"), servers.path("early")).unwrap();
    assert!(save("early"));
    assert!(fs::read(servers.path("new")).unwrap().starts_with(b"{"));
    // A pipe has to be read from meanwhile.
    mknodat(CWD, servers.path("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let pipe = servers.path("pipe");
    let reader = thread::spawn(move || fs::read(pipe).unwrap());
    assert!(save("pipe"));
    let metadata = fs::metadata(servers.path("pipe")).unwrap();
    assert!(metadata.file_type().is_fifo());
    assert!(reader.join().unwrap().starts_with(b"{"));
}

#[test]
fn what_a_save_has_left_behind_that_was_killed_keeps_no_other_from_saving() {
    let servers = Servers::start();
    let program = servers.command(&["save", "control", "kept"]);
    // It has the number of that process.
    let script = "touch kept kept.$$ kept.$$-0 && exec \"$0\" \"$@\"";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(servers.path(""))
        .status();
    assert!(status.unwrap().success());
    assert!(fs::read(servers.path("kept")).unwrap().starts_with(b"{"));
    assert_eq!(names(&servers, "kept."), 2);
}

#[test]
fn what_was_saved_before_stays_if_there_is_no_room() {
    let servers = Servers::start();
    assert!(servers.run(&["save", "control", "kept"]).status.success());
    symlink(servers.path("kept"), servers.path("link")).unwrap();
    let before = fs::read(servers.path("kept")).unwrap();
    assert!(servers
        .run(&["set", "control", "x", "io_delay_us=7"])
        .status
        .success());
    // No file may grow. The signal that says so is ignored: a file system that is full sends none.
    for to in ["kept", "link"] {
        let program = servers.command(&["save", "control", to]);
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ && ulimit -f 0 && exec \"$0\" \"$@\""])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(servers.path(""))
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        let expected = format!("{to}: can't be read or written");
        assert!(complaint.contains(&expected), "{complaint}");
        assert!(!output.status.success());
        assert!(fs::read(servers.path("kept")).unwrap() == before, "{to}");
        assert_eq!(names(&servers, "kept."), 0);
    }
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let mut servers = Servers::start();
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    let saved = fs::read_to_string(servers.path("saved")).unwrap();
    servers.children[0].kill().unwrap();
    servers.end(0);
    for (from, to, expected) in [
        (
            &format!("\"version\": {VERSION}")[..],
            "\"version\": 0",
            "version 0",
        ),
        ("vfio-user-virtio snapshot", "picture", "no snapshot"),
        (
            "\"boot\": \"",
            "\"boot\": \"no-",
            "before the machine was started",
        ),
        (
            "\"resetting\": false",
            "\"more\": 1, \"resetting\": false",
            "image makes no sense",
        ),
    ] {
        assert!(saved.contains(from), "{from} in {saved}");
        fs::write(servers.path("other"), saved.replace(from, to)).unwrap();
        let complaint = servers.complaint(&["serve", "--restore", "other"]);
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn what_was_due_meanwhile_happens_at_once() {
    let mut servers = Servers::start();
    servers.run(&["set", "control", "x", "drop_stop=after:600000"]);
    let mut driver = Driver::connect(&servers);
    driver.bring_up((1 << 32) | (1 << 39));
    assert_eq!(driver.set_status(15 | 32), 15 | 32);
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    servers.children[0].kill().unwrap();
    servers.end(0);
    let saved = fs::read(servers.path("saved")).unwrap();
    let mut saved: Value = serde_json::from_slice(&saved).unwrap();
    let due = saved.pointer_mut("/devices/0/image/schedule/due").unwrap();
    assert!(due.is_i64());
    // A time before this boot is one of the past, too.
    for past in [1, i64::MIN] {
        *saved.pointer_mut("/devices/0/image/schedule/due").unwrap() = json!(past);
        fs::write(servers.path("past"), saved.to_string()).unwrap();
        servers.serve(&["--restore", "past"]);
        let dropped = |servers: &mut Servers| {
            servers.try_get("counters.stops.dropped").as_deref() == Some("1")
        };
        servers.wait_until(dropped);
        assert_eq!(servers.try_get("stop").unwrap(), "running");
        let last = servers.children.len() - 1;
        servers.children[last].kill().unwrap();
        servers.end(last);
    }
}

#[test]
fn whoever_looks_for_a_server_does_not_end_what_was_restored() {
    let mut servers = Servers::start();
    let mut driver = Driver::connect(&servers);
    driver.bring_up((1 << 32) | (1 << 39));
    assert_eq!(driver.set_status(15 | 32), 15 | 32);
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    servers.children[0].kill().unwrap();
    servers.end(0);
    servers.serve(&["--restore", "saved"]);
    servers.wait_until(|servers| servers.try_get("stop").is_some());
    // The second one is served when the first one is done with.
    for _ in 0..2 {
        let mut client = UnixStream::connect(servers.path("device")).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(servers.try_get("stop").unwrap(), "stopped");
}

/// What makes no sense is refused, or its device goes on; no server dies of it.
#[test]
fn times_of_no_use_in_a_snapshot_do_no_harm() {
    let mut servers = Servers::start();
    servers.run(&["set", "control", "x", "drop_stop=after:600000"]);
    let mut driver = Driver::connect(&servers);
    driver.bring_up((1 << 32) | (1 << 39));
    assert_eq!(driver.set_status(15 | 32), 15 | 32);
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    servers.children[0].kill().unwrap();
    servers.end(0);
    let saved = fs::read(servers.path("saved")).unwrap();
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    for place in ["started", "schedule/due"] {
        let mut saved = saved.clone();
        let time = saved.pointer_mut(&format!("/devices/0/image/{place}"));
        *time.unwrap() = json!(i64::MAX);
        fs::write(servers.path("future"), saved.to_string()).unwrap();
        servers.serve(&["--restore", "future"]);
        servers.wait_until(|servers| servers.try_get("stop").is_some());
        assert_eq!(servers.try_get("stop").unwrap(), "stopped", "{place}");
        let mut driver = Driver::connect(&servers);
        assert_eq!(driver.set_status(15), 15, "{place}");
        assert_eq!(servers.try_get("stop").unwrap(), "running", "{place}");
        let last = servers.children.len() - 1;
        servers.children[last].kill().unwrap();
        servers.end(last);
    }
}

#[test]
fn a_server_that_does_not_begin_leaves_no_socket() {
    let mut servers = Servers::start();
    assert!(servers.run(&["save", "control", "saved"]).status.success());
    servers.children[0].kill().unwrap();
    servers.end(0);
    for socket in ["control", "device"] {
        fs::remove_file(servers.path(socket)).unwrap();
    }
    fs::write(servers.path("scenario"), "[nobody]").unwrap();
    let device = "blk,name=x,file=disk,socket=device";
    let start = ["serve", "--control", "control", "--device", device];
    let complaints = [
        (
            &["serve", "--restore", "saved", "--file", "x=nowhere"][..],
            "can't open",
        ),
        (
            &[&start[..], &["--device", "rng,socket=disk"]].concat(),
            "can't listen",
        ),
        (
            &[&start[..], &["--scenario", "scenario"]].concat(),
            "no device 'nobody'",
        ),
    ];
    for (args, expected) in complaints {
        let complaint = servers.complaint(args);
        assert!(complaint.contains(expected), "{complaint}");
        let left = ["control", "device"].map(|socket| servers.path(socket).exists());
        assert_eq!(left, [false, false], "{expected}");
    }
    assert!(servers.path("disk").is_file());
}
