// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of the calling process sits on the devices.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{route, Subject};
use crate::stack::Node;

pub(super) fn look(subject: &mut Subject<'_>) {
    for (file, code, what) in [
        ("fd/0", "stdin", "standard input: what reads it waits"),
        (
            "fd/1",
            "stdout",
            "standard output: who writes to it may wait",
        ),
        (
            "fd/2",
            "stderr",
            "standard error: who writes to it may wait",
        ),
        (
            "cwd",
            "working_directory",
            "working directory: change to another one, for example /run",
        ),
    ] {
        let below = of_link(subject, file);
        if !below.is_empty() {
            subject.warn(code, below, format!("On it is this process's {what}."));
        }
    }
    let below = of_link(subject, "exe");
    if !below.is_empty() {
        let message = "On it is this process's executable: 'virtio-stop run' keeps it in memory \
                       meanwhile, 'stop' does not.";
        subject.note("executable", below, message.into());
    }
    // A journal that is kept in memory is in /run.
    let log = Path::new("/var/log");
    let below = subject.stack.at(log).map(|node| subject.below(&node));
    if let Some(below) = below.filter(|below| !below.is_empty()) {
        let message = "On it is /var/log: who writes a log may wait.";
        subject.warn("log", below, message.into());
    }
    session(subject);
}

/// Those of the devices that what a link in /proc/self leads to lies on.
fn of_link(subject: &Subject<'_>, file: &str) -> Vec<String> {
    let link = subject.system.path("proc/self").join(file);
    let Ok(target) = fs::read_link(link) else {
        return Vec::new();
    };
    // Others are pipes, sockets and so on.
    if !target.is_absolute() {
        return Vec::new();
    }
    let bytes = target.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let node = subject.stack.at(&path);
    node.map(|node| subject.below(&node)).unwrap_or_default()
}

fn session(subject: &mut Subject<'_>) {
    let Some(client) = client(subject) else {
        return;
    };
    let Some(interface) = route::interface_to(subject.system, &client) else {
        return;
    };
    let below = subject.below(&Node::Interface(interface.clone()));
    if !below.is_empty() {
        let message = format!(
            "The SSH session from {client} goes through {interface}: nothing is seen of it until \
             the resume. Have a command do what is to be done ('virtio-stop run'), or use the \
             console."
        );
        subject.warn("session", below, message);
    }
}

/// Whence this process, or one that it descends from, was logged in by SSH. sudo takes that out of
/// the environment.
fn client(subject: &Subject<'_>) -> Option<String> {
    let mut process = "self".to_owned();
    loop {
        let folder = subject.system.path("proc").join(&process);
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        let connection = variables.find_map(|text| text.strip_prefix(b"SSH_CONNECTION="));
        if let Some(connection) = connection {
            let text = String::from_utf8_lossy(connection);
            return text.split(' ').next().map(str::to_owned);
        }
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        process = parent.trim().to_owned();
        if process == "0" {
            return None;
        }
    }
}
