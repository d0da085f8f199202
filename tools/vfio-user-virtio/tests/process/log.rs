// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server goes on whatever becomes of what it logs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vfio-user-virtio"))
}

/// Whether the program has ended well by the time that patience ends.
fn ends_well(child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::yield_now();
    }
    child.kill().unwrap();
    false
}

fn goes_on(folder: &Path, stderr: Stdio) {
    let control = folder.join("control");
    let socket = folder.join("socket");
    let mut server = program()
        .arg("serve")
        .arg("--control")
        .arg(&control)
        .arg("--device")
        .arg(format!("null,name=it,id=9,socket={}", socket.display()))
        .stderr(stderr)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while UnixStream::connect(&control).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let act = |what: [&str; 2]| {
        let mut command = program();
        let mut child = command
            .arg(what[0])
            .arg(&control)
            .args(["it", what[1]])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        ends_well(&mut child)
    };
    // It logs a warning.
    let results = [
        act(["do", "needs-reset"]),
        act(["do", "needs-reset"]),
        act(["get", "status"]),
    ];
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(results, [true; 3]);
}

#[test]
fn a_server_whose_lines_can_not_be_written_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    goes_on(folder.path(), full.into());
}

#[test]
fn a_server_whose_lines_nobody_reads_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_unread, mut full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[0; 4096]).is_ok() {}
    while full.write(&[0]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    goes_on(folder.path(), OwnedFd::from(full).into());
}
