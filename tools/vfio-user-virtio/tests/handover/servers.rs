// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program, several times.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::Signal;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Servers, each of which may take over from the one before. The device is `x`.
pub(crate) struct Servers {
    folder: tempfile::TempDir,
    pub(crate) children: Vec<Child>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Servers {
    /// None yet, in an empty folder.
    pub(crate) fn none() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            children: Vec::new(),
        }
    }

    pub(crate) fn start() -> Self {
        let mut servers = Self::none();
        fs::write(servers.path("disk"), [0; 4096]).unwrap();
        servers.serve(&[
            "--control",
            "control",
            "--device",
            "blk,name=x,file=disk,socket=device",
        ]);
        servers.wait_until(|servers| servers.try_get("counters.takeovers").is_some());
        servers
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-user-virtio"));
        command.args(args).current_dir(self.folder.path());
        command
    }

    pub(crate) fn serve(&mut self, args: &[&str]) {
        let args = [&["serve"], args].concat();
        let child = self.command(&args).stderr(Stdio::null()).spawn();
        self.children.push(child.unwrap());
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, and returns what it complains of.
    pub(crate) fn complaint(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("control")).unwrap();
        stream.set_read_timeout(Some(MINUTE)).unwrap();
        stream
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<String> {
        let output = self.run(&["get", "control", "x", path]);
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    pub(crate) fn wait_until(&mut self, is_true: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !is_true(self) {
            assert!(start.elapsed() < MINUTE);
            thread::yield_now();
        }
    }

    /// How the server of that number has ended.
    pub(crate) fn end(&mut self, number: usize) -> ExitStatus {
        self.wait_until(|servers| servers.children[number].try_wait().unwrap().is_some());
        self.children[number].wait().unwrap()
    }

    /// Whether the server of that number has a handler for that signal.
    pub(crate) fn catches(&self, number: usize, signal: Signal) -> bool {
        let status = format!("/proc/{}/status", self.children[number].id());
        let status = fs::read_to_string(status).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
        mask & (1 << (signal.as_raw() - 1)) != 0
    }

    /// The numbers of the files that the server of that number has.
    pub(crate) fn open_files(&self, number: usize) -> BTreeSet<u64> {
        let folder = format!("/proc/{}/fd", self.children[number].id());
        let names = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name());
        names
            .map(|name| name.to_str().unwrap().parse().unwrap())
            .collect()
    }
}
