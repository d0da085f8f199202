// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's part of the benchmarks: what takes microseconds is measured without a shell in between.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};

/// Measure stops in this guest
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stop and resume a device through sysfs
    ///
    /// Prints a line a cycle: what write(2) of stop and of resume took, and what of it was the handshake, in microseconds.
    Cycle {
        /// How often
        count: u32,
        /// The device's folder device_stop
        folder: PathBuf,
    },
    /// Stop and resume a device as a driver does that looks at fixed times
    ///
    /// The accesses are those of a driver, made through PCI configuration space (virtio 1.4, 4.1.4.9).
    Poll {
        /// How long to wait between two looks
        interval_us: u64,
        /// By which protocol
        protocol: Protocol,
        /// The file config of the PCI function
        config: PathBuf,
    },
    /// Count what a disk and an interface do, while both are stopped and resumed
    ///
    /// Prints a line for each interval: when it began, in milliseconds, requests of the disk, frames of the interface; and a line for
    /// each write of a state.
    Sample {
        /// How long an interval is, in milliseconds
        interval: u64,
        /// How long all of it takes
        duration: u64,
        /// When to stop both
        stop: u64,
        /// When to resume both
        resume: u64,
        /// The disk's virtio device
        disk: PathBuf,
        /// The interface's virtio device
        nic: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    #[value(name = "device_stop")]
    DeviceStop,
    #[value(name = "suspend")]
    Suspend,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    File(String, #[source] io::Error),
    #[error("{0}: unexpected contents")]
    Contents(String),
    #[error("no virtio PCI configuration access capability")]
    NoWindow,
    #[error("the device does not answer")]
    NoAnswer,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Cycle { count, folder } => cycle(count, &folder),
        Command::Poll {
            interval_us,
            protocol,
            config,
        } => poll(Duration::from_micros(interval_us), protocol, &config),
        Command::Sample {
            interval,
            duration,
            stop,
            resume,
            disk,
            nic,
        } => sample(
            interval,
            duration,
            [(stop, "stop"), (resume, "resume")],
            &disk,
            &nic,
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("bench-guest: {error}");
            if let Some(source) = std::error::Error::source(&error) {
                eprint!(": {source}");
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// A file whose errors name it.
struct Named {
    file: File,
    name: String,
}

impl Named {
    fn open(path: &Path, write: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        match OpenOptions::new().read(!write).write(write).open(path) {
            Ok(file) => Ok(Self { file, name }),
            Err(error) => Err(Error::File(name, error)),
        }
    }

    fn error(&self, error: io::Error) -> Error {
        Error::File(self.name.clone(), error)
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let written = self.file.write_at(text.as_bytes(), 0);
        written.map(drop).map_err(|error| self.error(error))
    }

    fn text(&self) -> Result<String, Error> {
        let mut text = [0; 512];
        let length = self
            .file
            .read_at(&mut text, 0)
            .map_err(|error| self.error(error))?;
        Ok(String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned())
    }

    /// The number that is the word `index` of what the file holds.
    fn number(&self, index: usize) -> Result<u64, Error> {
        let text = self.text()?;
        let word = text.split_whitespace().nth(index);
        word.and_then(|word| word.parse().ok())
            .ok_or_else(|| Error::Contents(self.name.clone()))
    }
}

fn micros(since: Instant) -> u128 {
    since.elapsed().as_micros()
}

/// Before each stop: what the last resume has set off in the driver is over by then.
const PAUSE: Duration = Duration::from_millis(5);

/// Lets others run, but not the processor go idle: under emulation it would wake more slowly than a device stops.
fn pause() {
    let began = Instant::now();
    while began.elapsed() < PAUSE {
        yield_now();
    }
}

fn cycle(count: u32, folder: &Path) -> Result<(), Error> {
    let state = Named::open(&folder.join("state"), true)?;
    let last_stop = Named::open(&folder.join("../device_stop_stats/last_stop_us"), false)?;
    let last_resume = Named::open(&folder.join("../device_stop_stats/last_resume_us"), false)?;
    let mut lines = String::new();
    for _ in 0..count {
        pause();
        let began = Instant::now();
        state.write("stop")?;
        let stop = micros(began);
        let began = Instant::now();
        state.write("resume")?;
        let resume = micros(began);
        let (of_stop, of_resume) = (last_stop.number(0)?, last_resume.number(0)?);
        let _ = writeln!(lines, "{stop} {resume} {of_stop} {of_resume}");
    }
    // Not sooner: whoever reads them would run at the same time.
    print!("{lines}");
    Ok(())
}

const STATUS_OFFSET: u32 = 20;
const DRIVER_OK: u8 = 4;
const SUSPEND: u8 = 16;
const DEVICE_STOPPED: u8 = 32;
/// A device that has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device status, by way of the PCI configuration access capability.
struct Status {
    config: Named,
    data: u64,
}

impl Status {
    fn open(path: &Path) -> Result<Self, Error> {
        const CAPABILITIES: u64 = 0x34;
        const VENDOR: u8 = 0x09;
        const CONFIGURATION_ACCESS: u8 = 5;
        const MOST: usize = 48;
        let name = path.display().to_string();
        let file = OpenOptions::new().read(true).write(true).open(path);
        let config = Named {
            file: file.map_err(|error| Error::File(name.clone(), error))?,
            name,
        };
        let byte = |at: u64| {
            let mut byte = [0];
            config
                .file
                .read_exact_at(&mut byte, at)
                .map_err(|error| config.error(error))?;
            Ok(u64::from(byte[0]))
        };
        let mut at = byte(CAPABILITIES)?;
        for _ in 0..MOST {
            if at == 0 {
                break;
            }
            if byte(at)? == VENDOR.into() && byte(at + 3)? == CONFIGURATION_ACCESS.into() {
                // cap.bar, cap.offset, cap.length: the status, in BAR 0.
                for (place, value) in [(at + 8, STATUS_OFFSET), (at + 12, 1)] {
                    let written = config.file.write_all_at(&value.to_le_bytes(), place);
                    written.map_err(|error| config.error(error))?;
                }
                return Ok(Self {
                    config,
                    data: at + 16,
                });
            }
            at = byte(at + 1)?;
        }
        Err(Error::NoWindow)
    }

    fn read(&self) -> Result<u8, Error> {
        let mut byte = [0];
        let read = self.config.file.read_exact_at(&mut byte, self.data);
        read.map_err(|error| self.config.error(error))?;
        Ok(byte[0])
    }

    fn write(&self, status: u8) -> Result<(), Error> {
        let written = self.config.file.write_all_at(&[status], self.data);
        written.map_err(|error| self.config.error(error))
    }

    fn wait(&self, interval: Duration, done: impl Fn(u8) -> bool) -> Result<(), Error> {
        let began = Instant::now();
        while !done(self.read()?) {
            if began.elapsed() > PATIENCE {
                return Err(Error::NoAnswer);
            }
            sleep(interval);
        }
        Ok(())
    }
}

fn poll(interval: Duration, protocol: Protocol, config: &Path) -> Result<(), Error> {
    let status = Status::open(config)?;
    let before = status.read()?;
    match protocol {
        Protocol::DeviceStop => {
            status.write(before | DEVICE_STOPPED)?;
            status.wait(interval, |now| now & DEVICE_STOPPED != 0)?;
            status.write(before)?;
            status.wait(interval, |now| now & DEVICE_STOPPED == 0)
        }
        Protocol::Suspend => {
            status.write(before | SUSPEND)?;
            status.wait(interval, |now| now & (SUSPEND | DRIVER_OK) == SUSPEND)?;
            status.write(before | SUSPEND)?;
            status.wait(interval, |now| now & (SUSPEND | DRIVER_OK) == DRIVER_OK)
        }
    }
}

/// The file of that name in the one folder that `folder` has.
fn only(folder: &Path, name: &str) -> Result<Named, Error> {
    let entry = std::fs::read_dir(folder).and_then(|mut entries| entries.next().transpose());
    match entry {
        Ok(Some(entry)) => Named::open(&entry.path().join(name), false),
        Ok(None) => Err(Error::Contents(folder.display().to_string())),
        Err(error) => Err(Error::File(folder.display().to_string(), error)),
    }
}

fn sample(
    interval: u64,
    duration: u64,
    writes: [(u64, &str); 2],
    disk: &Path,
    nic: &Path,
) -> Result<(), Error> {
    let requests = only(&disk.join("block"), "stat")?;
    let frames = only(&nic.join("net"), "statistics/rx_packets")?;
    let states = [disk, nic].map(|device| Named::open(&device.join("device_stop/state"), true));
    let began = Instant::now();
    let wait_until = |ms: u64| sleep(Duration::from_millis(ms).saturating_sub(began.elapsed()));
    let now = || began.elapsed().as_secs_f64() * 1000.0;
    let mut writes = writes.into_iter().peekable();
    // Of the disk's statistics: reads, and writes, that were completed.
    let count = || Ok::<_, Error>((requests.number(0)? + requests.number(4)?, frames.number(0)?));
    let (mut from, mut before) = (now(), count()?);
    for at in (0..duration).step_by(usize::try_from(interval.max(1)).unwrap_or(1)) {
        while let Some((_, text)) = writes.next_if(|(when, _)| *when <= at) {
            for (state, name) in states.iter().zip(["disk", "nic"]) {
                if let Ok(state) = state {
                    let began = now();
                    state.write(text)?;
                    println!("{text} {name} {began:.2} {:.2}", now());
                }
            }
        }
        wait_until(at + interval);
        let (to, after) = (now(), count()?);
        println!(
            "sample {from:.2} {to:.2} {} {}",
            after.0 - before.0,
            after.1 - before.1
        );
        (from, before) = (to, after);
    }
    Ok(())
}
