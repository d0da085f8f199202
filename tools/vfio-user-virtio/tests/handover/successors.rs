// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A successor takes over, or does not.

use std::fs;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use rustix::fs::{mknodat, FileType, CWD};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{getrlimit, kill_process, prlimit, Pid, Resource, Rlimit, Signal};

use crate::driver::Driver;
use crate::servers::{Servers, MINUTE};

const HAND_OVER: &[u8] = b"{\"v\":1,\"id\":1,\"do\":\"hand-over\"}\n";

#[test]
fn a_successor_takes_over_and_the_server_ends() {
    let mut servers = Servers::start();
    servers.run(&["set", "control", "x", "io_delay_us=7"]);
    // Who listens, and who connected before, notice nothing.
    let waiting = UnixStream::connect(servers.path("device")).unwrap();
    for number in 1..4 {
        servers.serve(&["--take-over", "control"]);
        assert!(servers.end(number - 1).success());
        let expected = Some(number.to_string());
        servers.wait_until(|servers| servers.try_get("counters.takeovers") == expected);
    }
    assert_eq!(servers.try_get("settings.io_delay_us").unwrap(), "7");
    assert_eq!(servers.try_get("connected").unwrap(), "true");
    drop(waiting);
    servers.wait_until(|servers| servers.try_get("connected").unwrap() == "false");
}

#[test]
fn a_successor_that_goes_or_says_something_else_changes_nothing() {
    let mut servers = Servers::start();
    for says in [&b""[..], b"tak", b"token\n"] {
        let mut successor = servers.connect();
        successor.write_all(HAND_OVER).unwrap();
        let mut answer = String::new();
        BufReader::new(&successor).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"files\":"), "{answer}");
        successor.write_all(says).unwrap();
        drop(successor);
        assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    }
    servers.serve(&["--take-over", "control"]);
    assert!(servers.end(0).success());
}

#[test]
fn a_successor_that_says_nothing_is_not_waited_for() {
    let mut servers = Servers::start();
    let mut successor = servers.connect();
    successor.write_all(HAND_OVER).unwrap();
    // The beginning of the answer: the devices are frozen.
    successor.read_exact(&mut [0]).unwrap();
    // It is answered when the server goes on.
    assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    let error = successor.write_all(b"taken\n").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(servers.children[0].try_wait().unwrap().is_none());
    // The end of what it was sent.
    std::io::copy(&mut successor, &mut std::io::sink()).unwrap();
}

/// A pipe that nobody reads, and that is full: whoever writes to it waits.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    while rustix::io::write(&write, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&write, false).unwrap();
    (read, write)
}

/// What is handed over: the answer to the request, and the files.
fn receive(from: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        (&mut &*from).read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut data, &mut control, RecvFlags::empty()).unwrap();
    let mut files: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    (line, files)
}

/// Passes what `from` hands over on, with the files.
fn pass_on(from: &UnixStream, to: &UnixStream) {
    let (line, files) = receive(from);
    (&mut &*to).write_all(&line).unwrap();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(to, &[IoSlice::new(b"\n")], &mut control, SendFlags::empty()).unwrap();
}

/// The server of that number may have no file of a higher number from now on.
fn limit_files(servers: &Servers, number: usize, files: u64) {
    let limit = Rlimit {
        current: Some(files),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let process = Pid::from_child(&servers.children[number]);
    prlimit(Some(process), Resource::Nofile, limit).unwrap();
}

#[test]
fn connections_that_a_hung_successor_has_end_with_the_server() {
    for told_to in [true, false] {
        let mut servers = Servers::start();
        let mut client = UnixStream::connect(servers.path("device")).unwrap();
        client.set_read_timeout(Some(MINUTE)).unwrap();
        servers.wait_until(|servers| servers.try_get("connected").unwrap() == "true");
        let mut successor = servers.connect();
        successor.write_all(HAND_OVER).unwrap();
        let (_, files) = receive(&successor);
        assert!(files.len() > 3);
        drop(successor);
        // The server goes on.
        let mut asker = servers.connect();
        asker
            .write_all(b"{\"v\":1,\"id\":1,\"get\":\"\"}\n")
            .unwrap();
        let mut answer = String::new();
        BufReader::new(&asker).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"connected\":true"), "{answer}");
        if told_to {
            let process = Pid::from_child(&servers.children[0]);
            kill_process(process, Signal::TERM).unwrap();
        } else {
            // One of its threads can't go on: poll(2) with two files fails. That of the device reads a message meanwhile.
            client.write_all(&[1]).unwrap();
            limit_files(&servers, 0, 1);
            let request = b"{\"v\":1,\"id\":1,\"do\":\"hand-over\",\"wait_ms\":60000}\n";
            asker.write_all(request).unwrap();
        }
        assert_eq!(servers.end(0).success(), told_to);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        for socket in ["control", "device"] {
            assert!(!servers.path(socket).exists(), "{socket}");
        }
        drop(files);
    }
}

#[test]
fn a_successor_that_is_too_late_does_nothing() {
    let mut servers = Servers::start();
    let between = UnixListener::bind(servers.path("between")).unwrap();
    // It takes its time to end: it wants to say why, and can't.
    let (_read, stderr) = full_pipe();
    let successor = servers
        .command(&["serve", "--take-over", "between"])
        .stderr(stderr)
        .spawn();
    servers.children.push(successor.unwrap());
    let (mut late, _) = between.accept().unwrap();
    let mut server = servers.connect();
    let mut request = vec![0; HAND_OVER.len()];
    late.read_exact(&mut request).unwrap();
    server.write_all(&request).unwrap();
    pass_on(&server, &late);
    drop((late, server));
    while servers.children[1].try_wait().unwrap().is_none() {
        assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    }
    assert!(!servers.end(1).success());
}

#[test]
fn a_client_in_the_middle_of_a_message_is_not_handed_over() {
    let mut servers = Servers::start();
    let mut client = UnixStream::connect(servers.path("device")).unwrap();
    client.write_all(&[1]).unwrap();
    servers.wait_until(|servers| servers.try_get("connected").unwrap() == "true");
    let complaint = servers.complaint(&["serve", "--take-over", "control"]);
    assert!(complaint.contains("middle of a message"), "{complaint}");
    drop(client);
    servers.serve(&["--take-over", "control"]);
    assert!(servers.end(0).success());
}

#[test]
fn who_waits_waits_for_the_end_of_a_message_and_others_are_served() {
    let mut servers = Servers::start();
    let mut client = UnixStream::connect(servers.path("device")).unwrap();
    client.write_all(&[1]).unwrap();
    servers.wait_until(|servers| servers.try_get("connected").unwrap() == "true");
    let mut successor = servers.connect();
    let request = b"{\"v\":1,\"id\":1,\"do\":\"hand-over\",\"wait_ms\":600000}\n";
    successor.write_all(request).unwrap();
    // More often than it can be tried while one of them is answered.
    for _ in 0..20 {
        assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    }
    successor.set_nonblocking(true).unwrap();
    let early = successor.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    successor.set_nonblocking(false).unwrap();
    drop(client);
    let (answer, _) = receive(&successor);
    assert!(answer.starts_with(b"{\"id\":1,\"v\":1,\"value\""));
}

#[test]
fn a_server_that_is_told_to_end_at_its_start_leaves_no_socket() {
    // As early as it hears of that.
    for _ in 0..10 {
        let mut servers = Servers::none();
        servers.serve(&[
            "--control",
            "control",
            "--device",
            "rng,name=x,socket=device",
        ]);
        let process = Pid::from_child(&servers.children[0]);
        servers.wait_until(|servers| servers.catches(0, Signal::TERM));
        kill_process(process, Signal::TERM).unwrap();
        servers.end(0);
        for socket in ["control", "device"] {
            assert!(!servers.path(socket).exists(), "{socket}");
        }
    }
}

#[test]
fn nothing_is_waited_for_when_there_are_sockets() {
    let args = ["serve", "--control", "control", "--device"];
    let device = "rng,name=x,socket=device";
    let scenario = [&args[..], &[device, "--scenario", "pipe"]].concat();
    for args in [&scenario[..], &["serve", "--restore", "pipe"]] {
        let mut servers = Servers::none();
        let pipe = servers.path("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        servers.serve(&args[1..]);
        // Somebody reads it.
        let pipe = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        let there = ["control", "device"].map(|socket| servers.path(socket).exists());
        assert_eq!(there, [false; 2]);
        let process = Pid::from_child(&servers.children[0]);
        kill_process(process, Signal::TERM).unwrap();
        assert!(!servers.end(0).success());
        drop(pipe);
    }
}

#[test]
fn data_may_have_moved_but_not_have_shrunk() {
    let mut servers = Servers::start();
    fs::write(servers.path("short"), [0; 512]).unwrap();
    fs::write(servers.path("copy"), [0; 4096]).unwrap();
    let take_over = |file| ["serve", "--take-over", "control", "--file", file];
    for (file, expected) in [
        ("x=short", "too short"),
        ("x=nowhere", "can't open"),
        ("y=copy", "no device 'y'"),
    ] {
        let complaint = servers.complaint(&take_over(file));
        assert!(complaint.contains(expected), "{complaint}");
        assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    }
    servers.serve(&take_over("x=copy")[1..]);
    assert!(servers.end(0).success());
}

#[test]
fn a_server_that_does_not_hand_over_is_no_predecessor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    for (answer, expected) in [
        ("{\"v\":1,\"id\":1,\"error\":\"no\"}\n", "refused: no"),
        ("{\"v\":1,\"id\":1,\"value\":null}\n", "how many files"),
        ("{", "no end"),
    ] {
        let successor = Command::new(env!("CARGO_BIN_EXE_vfio-user-virtio"))
            .args(["serve", "--take-over"])
            .arg(&path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut request = vec![0; HAND_OVER.len()];
        server.read_exact(&mut request).unwrap();
        server.write_all(answer.as_bytes()).unwrap();
        drop(server);
        let output = successor.wait_with_output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && complaint.contains(expected),
            "{complaint}"
        );
    }
}

#[test]
fn a_successor_waits_until_the_devices_have_stopped() {
    let mut servers = Servers::start();
    let mut driver = Driver::connect(&servers);
    driver.bring_up((1 << 32) | (1 << 39));
    let complaint = servers.complaint(&["serve", "--take-over", "control"]);
    assert!(complaint.contains("it has not stopped"), "{complaint}");
    let complaint = servers.complaint(&["serve", "--take-over", "control", "--wait", "1"]);
    assert!(complaint.contains("it has not stopped"), "{complaint}");
    servers.serve(&["--take-over", "control", "--wait", "60"]);
    // Others are served meanwhile, until the devices have stopped.
    assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
    assert!(servers.children[0].try_wait().unwrap().is_none());
    assert_eq!(driver.set_status(15 | 32), 15 | 32);
    assert!(servers.end(0).success());
    assert_eq!(driver.set_status(15), 15);
    assert_eq!(servers.try_get("counters.takeovers").unwrap(), "1");
}

#[test]
fn a_successor_that_goes_is_not_waited_for() {
    let servers = Servers::start();
    let mut driver = Driver::connect(&servers);
    driver.bring_up((1 << 32) | (1 << 39));
    let mut successor = servers.connect();
    let request = b"{\"v\":1,\"id\":1,\"do\":\"hand-over\",\"wait_ms\":600000}\n";
    successor.write_all(request).unwrap();
    successor.shutdown(Shutdown::Write).unwrap();
    // The server hangs up, too, and that without an answer.
    assert_eq!(
        std::io::copy(&mut successor, &mut std::io::sink()).unwrap(),
        0
    );
    assert_eq!(driver.set_status(15 | 32), 15 | 32);
    assert_eq!(servers.try_get("counters.takeovers").unwrap(), "0");
}

#[test]
fn a_server_at_its_limit_of_files_is_exchanged() {
    let mut servers = Servers::start();
    let mut driver = Driver::connect(&servers);
    for part in 0..100 {
        driver.map(part);
    }
    let open = servers.open_files(0);
    let room = (0..).filter(|number| !open.contains(number)).nth(2);
    // For the successor's connection and for the snapshot.
    limit_files(&servers, 0, room.unwrap());
    servers.serve(&["--take-over", "control"]);
    assert!(servers.end(0).success());
    assert_eq!(driver.set_status(1), 1);
}
