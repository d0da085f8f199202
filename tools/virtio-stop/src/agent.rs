// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that freezes and thaws file systems when somebody outside of the guest asks for it:
//! QEMU's guest agent. Linux tells nobody that a file system is frozen, nor that it is about to be
//! thawed. What the process does tells both.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{open, statat, AtFlags, Mode, OFlags};
use rustix::io::{read, Errno};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags,
};

use crate::device::System;
use crate::error::{Error, Result};
use crate::ioctl::THAW;
use crate::waiting::timespec;

/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// For how long it may freeze: file systems are written to their disks first.
const PATIENCE: Duration = Duration::from_secs(120);

/// The system calls by which it waits for its next request. While nobody is connected to the other
/// end of its port it sleeps in between.
const WAITS: &[i64] = &[
    libc::SYS_ppoll,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// The process. All that is looked at is opened before, and needs no disk.
#[derive(Debug)]
pub struct Agent {
    pid: i32,
    process: OwnedFd,
    /// What its first thread asks of the kernel.
    call: File,
    /// The file that is there while it has anything frozen.
    folder: OwnedFd,
    name: OsString,
    /// Readable when it is time to look again.
    ticks: OwnedFd,
}

/// What the process does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Doing {
    /// It waits for its next request.
    Waits,
    /// It thaws, and may have to wait for a disk that is stopped.
    Thaws,
    /// Anything else.
    Other,
}

impl Agent {
    /// Opens what tells of the process `pid`, which has `file` as long as it has file systems
    /// frozen: before it freezes the first one, until it has thawed the last one.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; [`Error::AgentGone`].
    pub fn open(system: &System, pid: i32, file: &Path) -> Result<Self> {
        let process = Pid::from_raw(pid)
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let process = process.map_err(|_| Error::AgentGone(pid))?;
        let call = system.path(format!("proc/{pid}/syscall"));
        let call = File::open(&call).map_err(|error| Error::file(call, error))?;
        let name = file.file_name().unwrap_or_default().to_owned();
        let folder = file.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(folder, flags, Mode::empty())
            .map_err(|error| Error::file(folder, error.into()))?;
        let agent = Self {
            pid,
            process,
            call,
            folder,
            name,
            ticks: ticks().map_err(|error| Error::Wait(error.into()))?,
        };
        agent.doing()?;
        Ok(agent)
    }

    /// Waits until it has frozen what it was asked to freeze, and does nothing more than to wait for
    /// its next request.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; [`Error::AgentGone`]; [`Error::NothingFrozen`].
    pub fn frozen(&self, interrupted: impl Fn() -> Option<i32>) -> Result<()> {
        let begin = Instant::now();
        let mut has_begun = false;
        while begin.elapsed() < PATIENCE {
            if let Some(signal) = interrupted() {
                return Err(Error::Interrupted(signal));
            }
            // In this order: it makes the file, freezes, and waits again.
            let has_file = self.has_file()?;
            if has_file && self.doing()? == Doing::Waits {
                return Ok(());
            }
            if has_begun && !has_file {
                break;
            }
            has_begun = has_file;
            self.lives()?;
            thread::sleep(PAUSE);
        }
        Err(Error::NothingFrozen(self.pid))
    }

    /// Readable whenever it is time to look again.
    pub(crate) fn ticks(&self) -> BorrowedFd<'_> {
        self.ticks.as_fd()
    }

    /// Whether it thaws, or has thawed.
    ///
    /// # Errors
    ///
    /// [`Error::AgentGone`].
    pub(crate) fn thaws(&self) -> Result<bool> {
        // If it has not ticked, there is nothing to read.
        let _ = read(&self.ticks, &mut [0; 8]);
        self.lives()?;
        Ok(!self.has_file()? || self.doing()? == Doing::Thaws)
    }

    fn lives(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(1..) => Err(Error::AgentGone(self.pid)),
            _ => Ok(()),
        }
    }

    fn has_file(&self) -> Result<bool> {
        match statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::file(&self.name, error.into())),
        }
    }

    fn doing(&self) -> Result<Doing> {
        let mut text = [0; 256];
        // It fails if the process has gone.
        let read = self.call.read_at(&mut text, 0);
        let count = read.map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Error::AgentGone(self.pid),
            _ => Error::file(format!("/proc/{}/syscall", self.pid), error),
        })?;
        Ok(doing(text.get(..count).unwrap_or_default()))
    }
}

fn ticks() -> rustix::io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let ticks = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let pause = timespec(PAUSE);
    let each = Itimerspec {
        it_interval: pause,
        it_value: pause,
    };
    timerfd_settime(&ticks, TimerfdTimerFlags::empty(), &each)?;
    Ok(ticks)
}

/// By the contents of /proc/PID/syscall: a number, and arguments. A process that is at work has
/// neither.
fn doing(text: &[u8]) -> Doing {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let call = words.next().and_then(|word| word.parse::<i64>().ok());
    let Some(call) = call else {
        return Doing::Other;
    };
    if WAITS.contains(&call) {
        return Doing::Waits;
    }
    let request = words.nth(1).and_then(|word| word.strip_prefix("0x"));
    let request = request.and_then(|word| u64::from_str_radix(word, 16).ok());
    // Some C libraries extend its sign.
    let request = request.and_then(|request| u32::try_from(request & 0xffff_ffff).ok());
    if call == libc::SYS_ioctl && request == Some(THAW) {
        return Doing::Thaws;
    }
    Doing::Other
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits as the agent does, and its folder.
    struct Fake {
        folder: tempfile::TempDir,
        child: Child,
        agent: Agent,
    }

    impl Fake {
        /// What it does is what is written to its file `syscall`.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new("cat");
            let child = command.stdin(Stdio::piped()).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let process = folder.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&process).unwrap();
            fs::write(process.join("syscall"), "running\n").unwrap();
            let system = System::new(folder.path());
            let agent = Agent::open(&system, pid, &folder.path().join("frozen")).unwrap();
            let fake = Self {
                folder,
                child,
                agent,
            };
            fake.does("running");
            fake
        }

        fn does(&self, what: &str) {
            let path = format!("proc/{}/syscall", self.child.id());
            fs::write(self.folder.path().join(path), what).unwrap();
        }

        fn has_file(&self, has: bool) {
            let file = self.folder.path().join("frozen");
            match has {
                true => fs::write(file, "").unwrap(),
                false => fs::remove_file(file).unwrap(),
            }
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    const FREEZES: &str = "16 0x5 0xc0045877 0x0 0x0 0x0 0x0 0x7ffd 0x7f8b\n";
    const THAWS: &str = "16 0x5 0xc0045878 0x0 0x0 0x0 0x0 0x7ffd 0x7f8b\n";

    fn waits() -> String {
        format!("{} 0x5 0x3 0x0 0x0 0x0 0x0 0x7ffd 0x7f8b\n", WAITS[0])
    }

    fn by(text: &str) -> Doing {
        let ioctl = format!("{} ", libc::SYS_ioctl);
        doing(text.replacen("16 ", &ioctl, 1).as_bytes())
    }

    #[test]
    fn what_it_does_is_told_by_its_system_call() {
        for waits in WAITS {
            let text = format!("{waits} 0x0 0x0 0x7ffd 0x7ffd 0x0 0x0 0x7ffd 0x7f8b\n");
            assert_eq!(doing(text.as_bytes()), Doing::Waits, "{waits}");
        }
        assert_eq!(by(THAWS), Doing::Thaws);
        for other in [FREEZES, "running\n", "-1 0x7ffd 0x7f8b\n", "", "0"] {
            assert_eq!(by(other), Doing::Other, "{other}");
        }
        // An argument of another call is no request.
        assert_eq!(doing(b"0 0x5 0xc0045878 0x0"), Doing::Other);
    }

    #[test]
    fn a_process_of_this_machine_is_seen_to_wait() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let agent = Agent::open(&System::default(), pid, Path::new("/proc/no-such-file"));
        // Reading it takes privileges over the process, which tests have.
        assert!(!agent.unwrap().has_file().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = Agent::open(&System::default(), pid, Path::new("/proc/no-such-file"));
        assert!(matches!(gone, Err(Error::AgentGone(_))), "{gone:?}");
    }

    #[test]
    fn all_is_frozen_once_it_has_the_file_and_waits_again() {
        let fake = Fake::new();
        // Before, it waits for its requests, too.
        let looks = std::cell::Cell::new(0);
        fake.does(&waits());
        let frozen = fake.agent.frozen(|| {
            looks.set(looks.get() + 1);
            match looks.get() {
                2 => fake.does(FREEZES),
                3 => fake.has_file(true),
                5 => fake.does(&waits()),
                _ => {}
            }
            None
        });
        frozen.unwrap();
        assert_eq!(looks.get(), 5);
    }

    #[test]
    fn a_freeze_that_fails_is_not_waited_for() {
        let fake = Fake::new();
        fake.has_file(true);
        let looks = std::cell::Cell::new(0);
        let frozen = fake.agent.frozen(|| {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                fake.has_file(false);
            }
            None
        });
        assert!(matches!(frozen, Err(Error::NothingFrozen(_))), "{frozen:?}");
    }

    #[test]
    fn neither_a_signal_nor_its_death_is_slept_through() {
        let mut fake = Fake::new();
        let frozen = fake.agent.frozen(|| Some(15));
        assert!(matches!(frozen, Err(Error::Interrupted(15))), "{frozen:?}");
        fake.child.kill().unwrap();
        fake.child.wait().unwrap();
        let frozen = fake.agent.frozen(|| None);
        assert!(matches!(frozen, Err(Error::AgentGone(_))), "{frozen:?}");
        fake.child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    }

    #[test]
    fn a_thaw_is_seen_when_it_begins_or_has_ended() {
        let fake = Fake::new();
        fake.has_file(true);
        for does in [&waits(), "running", FREEZES] {
            fake.does(does);
            assert!(!fake.agent.thaws().unwrap(), "{does}");
        }
        fake.does(THAWS);
        assert!(fake.agent.thaws().unwrap());
        fake.does(&waits());
        fake.has_file(false);
        assert!(fake.agent.thaws().unwrap());
    }
}
