// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests, with the devices that they are to have.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long servers may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file can't be made.
    #[error("can't write {0}")]
    Write(String, #[source] io::Error),
    /// A program can't be run.
    #[error("can't run {0}")]
    Run(&'static str, #[source] io::Error),
    /// The devices have ended, or do not listen.
    #[error("the devices do not start")]
    Devices,
    /// The guest has ended otherwise than it should.
    #[error("the guest has failed: {0}")]
    Guest(String),
    /// A picture of what it has said can't be drawn.
    #[error("can't draw a picture")]
    Draw(#[from] benchmarks::picture::Error),
    /// It does not say what it should.
    #[error("the guest says nothing of '{0}'")]
    NoFigures(String),
}

/// What all benchmarks have.
#[derive(Debug)]
pub(crate) struct Place {
    /// The project's folder.
    pub(crate) top: PathBuf,
    /// For sockets and disks.
    pub(crate) work: tempfile::TempDir,
}

/// Devices that are served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Devices {
    server: Child,
    folder: PathBuf,
    sockets: Vec<PathBuf>,
}

/// What a guest is.
#[derive(Debug, Default)]
pub(crate) struct Machine<'a> {
    /// Processors; 0: one.
    pub(crate) processors: u32,
    /// More options of tools/vm/boot.
    pub(crate) options: Vec<OsString>,
    /// More programs of the build root.
    pub(crate) programs: &'a [&'a str],
}

/// What a guest has said: lines of words.
#[derive(Debug)]
pub(crate) struct Lines(Vec<Vec<String>>);

impl Lines {
    /// The lines that begin with these words, without them.
    pub(crate) fn of<'a>(
        &'a self,
        words: &'a [&'a str],
    ) -> impl Iterator<Item = &'a [String]> + 'a {
        self.0.iter().filter_map(move |line| {
            let (head, rest) = line.split_at_checked(words.len())?;
            head.iter()
                .map(String::as_str)
                .eq(words.iter().copied())
                .then_some(rest)
        })
    }

    /// The numbers at that place of these lines.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn numbers(&self, words: &[&str], at: usize) -> Result<Vec<f64>, Error> {
        let numbers: Vec<f64> = self
            .of(words)
            .filter_map(|line| line.get(at)?.parse().ok())
            .collect();
        if numbers.is_empty() {
            return Err(Error::NoFigures(words.join(" ")));
        }
        Ok(numbers)
    }
}

impl Place {
    fn program(&self, name: &str) -> PathBuf {
        self.top.join("build/bin").join(name)
    }

    /// Starts devices, each of which is a TYPE,KEY=VALUE,... with a name. A blk or scsi gets a file of 64 MiB unless it has one.
    ///
    /// # Errors
    ///
    /// They do not start.
    pub(crate) fn devices(&self, specs: &[String]) -> Result<Devices, Error> {
        let folder = self.work.path().to_owned();
        let mut command = Command::new(self.program("vfio-user-virtio"));
        command
            .arg("serve")
            .arg("--control")
            .arg(folder.join("control"));
        let mut sockets = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            let socket = folder.join(format!("{number}.vfio"));
            let mut spec = format!("{spec},socket={}", socket.display());
            let stores = spec.starts_with("blk,") || spec.starts_with("scsi,");
            if stores && !spec.contains(",file=") {
                let file = folder.join(format!("{number}.disk"));
                let made = fs::File::create(&file).and_then(|file| file.set_len(64 << 20));
                made.map_err(|error| Error::Write(file.display().to_string(), error))?;
                spec += &format!(",file={}", file.display());
            }
            command.arg("--device").arg(spec);
            sockets.push(socket);
        }
        let server = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error::Run("vfio-user-virtio", error))?;
        let mut devices = Devices {
            server,
            folder,
            sockets,
        };
        devices.wait_until_they_listen()?;
        Ok(devices)
    }

    /// Boots a guest with these devices, which runs `script` with `arguments`; and what it says.
    ///
    /// # Errors
    ///
    /// It does not end well.
    pub(crate) fn run(
        &self,
        devices: &Devices,
        machine: &Machine<'_>,
        script: &str,
        arguments: &[&str],
    ) -> Result<Lines, Error> {
        let file = self.work.path().join("measure");
        fs::write(&file, script)
            .map_err(|error| Error::Write(file.display().to_string(), error))?;
        let copy = |from: &Path, to: &str| {
            let mut copy = from.as_os_str().to_owned();
            copy.push(":");
            copy.push(to);
            ["--copy".into(), copy]
        };
        let selftests = self.top.join("tools/testing/selftests");
        let mut command = Command::new(self.top.join("tools/vm/boot"));
        command.args([
            "--cpus",
            &machine.processors.max(1).to_string(),
            "--timeout",
            "1800",
        ]);
        for socket in &devices.sockets {
            command.arg("--vfio-user").arg(socket);
        }
        let mut control = OsString::from("device=");
        control.push(devices.folder.join("control"));
        command.arg("--serial").arg(control);
        command.args(copy(&selftests, "/selftests"));
        command.args(copy(&self.kselftest()?, "/selftests/kselftest"));
        command.args(copy(
            &self.top.join("virtio_device_stop.ko"),
            "/vds/modules/",
        ));
        for program in ["bench-guest", "frames"] {
            command.args(copy(&self.program(program), "/bin/"));
        }
        command.args(copy(&self.top.join("build/selftests/at_once"), "/bin/"));
        if !machine.programs.is_empty() {
            command.args(copy(&self.tool("bundle", machine.programs)?, "/"));
        }
        command.args(copy(&file, "/"));
        command.args(&machine.options);
        command.args(["--", "sh", "/measure"]).args(arguments);
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::Run("tools/vm/boot", error))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(Error::Guest(format!(
                "{}\n{}",
                output.status,
                String::from_utf8_lossy(&said)
            )));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        Ok(Lines(text.lines().map(words).collect()))
    }

    /// What a script of tools/vm prints: a path.
    fn tool(&self, name: &'static str, arguments: &[&str]) -> Result<PathBuf, Error> {
        let output = Command::new(self.top.join("tools/vm").join(name))
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| Error::Run(name, error))?;
        Ok(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ))
    }

    fn kselftest(&self) -> Result<PathBuf, Error> {
        let kernel = self.tool("kernel", &["stock"])?;
        Ok(kernel.join("source/tools/testing/selftests/kselftest"))
    }

    /// The release of the guests' kernel.
    ///
    /// # Errors
    ///
    /// It can't be found out.
    pub(crate) fn release(&self) -> Result<String, Error> {
        let file = self.tool("kernel", &["stock"])?.join("release");
        let text = fs::read_to_string(&file);
        let text = text.map_err(|error| Error::Write(file.display().to_string(), error))?;
        Ok(text.trim().to_owned())
    }
}

impl Devices {
    fn wait_until_they_listen(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        while !self.sockets.iter().all(|socket| socket.exists()) {
            let ended = self
                .server
                .try_wait()
                .map_or(true, |status| status.is_some());
            if ended || began.elapsed() > PATIENCE {
                return Err(Error::Devices);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Memory that the server has resident, in KiB: added up, since the kernel's own count lags behind.
    pub(crate) fn resident(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.server.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
