// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that stand still while something is done: all that this takes is opened and allocated
//! before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{read, retry_on_intr};
use rustix::pipe::{pipe_with, PipeFlags};

use crate::command::Command;
use crate::error::{Error, Result};
use crate::freeze::FileSystems;
use crate::owner::{Owner, Report, Status};
use crate::sequence::{self, Outcome, Steps};
use crate::signals::Signals;

/// For how long a stop of an owner may stand if nothing else is said.
const LEASE_MS: u32 = 60_000;

/// How long requests may take that a device has still when it has acknowledged the stop, until what
/// it was stopped for begins nevertheless; and how long is waited between two looks.
const DRAIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// How much of the stack a thread gets that does next to nothing. All of it is kept in memory.
const STACK: usize = 128 * 1024;

/// Tells what was seen right after the stop. An error, for example because nobody listens, ends
/// the stop. It must not need what stands still, nor allocate memory.
pub type Tell<'a> = dyn FnMut(&Report) -> io::Result<()> + 'a;

/// What is done while the devices stand still.
pub enum Task<'a> {
    /// A program runs.
    Command(Command),
    /// Whoever has the other end is told, and waited for until he closes it.
    UntilEof {
        /// The end of it.
        end: OwnedFd,
        /// Tells that the devices stand still.
        tell: Box<Tell<'a>>,
    },
}

/// What the task has come to.
#[derive(Debug)]
pub enum End {
    /// The program has ended.
    Exited(ExitStatus),
    /// The program could not be executed.
    NotExecuted(io::Error),
    /// The other end was closed.
    Eof,
}

/// Devices, and what is done while they stand still.
pub struct Session<'a> {
    owner: &'a Owner,
    signals: &'a Signals,
    file_systems: &'a FileSystems,
    timeout_ms: Option<u32>,
    lease_ms: Option<u32>,
    task: Task<'a>,
    first: Report,
    last: Report,
}

/// What was told of the devices.
#[derive(Debug)]
pub struct Looks {
    /// After the stop, when no requests were in flight, or for a second.
    pub first: Report,
    /// Right before the resume.
    pub last: Report,
    /// After the resume.
    pub after: Report,
}

impl<'a> Session<'a> {
    /// All devices of `owner` are to stop. `file_systems` are frozen meanwhile, the first one
    /// first. `timeout_ms`, `lease_ms`: as for [`Owner::stop`]; the lease is renewed as long as
    /// this process works.
    pub fn new(
        owner: &'a Owner,
        signals: &'a Signals,
        file_systems: &'a FileSystems,
        (timeout_ms, lease_ms): (Option<u32>, Option<u32>),
        task: Task<'a>,
    ) -> Self {
        Self {
            owner,
            signals,
            file_systems,
            timeout_ms,
            lease_ms,
            task,
            first: Report::of(owner),
            last: Report::of(owner),
        }
    }

    /// Does it. Call [`memory::lock`](crate::memory::lock) before.
    pub fn run(mut self) -> (Outcome<End>, Looks) {
        let mut after = Report::of(self.owner);
        let outcome = sequence::run(&mut self);
        // For the sake of how long the resume took; nothing depends on it.
        let _ = self.owner.report(&mut after);
        let Self { first, last, .. } = self;
        let looks = Looks { first, last, after };
        (outcome, looks)
    }

    /// Until the lease has to be renewed: a third of it.
    fn renewal(&self) -> Duration {
        Duration::from_millis(u64::from(self.lease_ms.unwrap_or(LEASE_MS)) / 3)
    }
}

impl Steps for Session<'_> {
    type End = End;

    fn file_systems(&self) -> usize {
        self.file_systems.count()
    }

    fn freeze(&mut self, at: usize) -> Result<()> {
        self.file_systems.freeze(at)
    }

    fn thaw(&mut self, at: usize) -> Result<()> {
        self.file_systems.thaw(at)
    }

    fn stop(&mut self) -> Result<()> {
        let (stopped, stopping) = pipe_with(PipeFlags::CLOEXEC).map_err(thread_failed)?;
        let (owner, signals) = (self.owner, self.signals);
        let (timeout_ms, lease_ms) = (self.timeout_ms, self.lease_ms);
        let result = thread::scope(|scope| {
            // The kernel tells the first thread of signals, which must not be the one that can't
            // hear of them while it waits for the devices.
            let stop = move || {
                let result = owner.stop(timeout_ms, lease_ms);
                drop(stopping);
                result
            };
            let waiting = thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, stop);
            let waiting = waiting.map_err(Error::Owner)?;
            call_off_at_signal(owner, signals, &stopped);
            let panicked = |_| Err(Error::Owner(io::ErrorKind::Other.into()));
            waiting.join().unwrap_or_else(panicked)
        });
        match (result, self.signals.last()) {
            (Err(_), Some(signal)) => Err(Error::Interrupted(signal)),
            (result, _) => result,
        }
    }

    /// A device that was stopped by VIRTIO_F_SUSPEND may complete requests still.
    fn look_first(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.owner.report(&mut self.first)?;
            let requests = |status: Status| status.in_flight.unwrap_or(0);
            let is_idle = self.first.statuses().all(|status| requests(status) == 0);
            if is_idle || begin.elapsed() > DRAIN || self.signals.last().is_some() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    fn work(&mut self) -> Result<End> {
        let renewal = self.renewal();
        let (owner, signals) = (self.owner, self.signals);
        match &mut self.task {
            Task::Command(command) => {
                if command.go().is_ok() {
                    let mut renewal = Some(renewal);
                    while !wait(owner, signals, command.as_fd(), renewal)? {
                        if let Some(signal) = signals.take() {
                            command.signal(signal);
                            // It may wait for what stands still, and hear of that only afterwards.
                            renewal = None;
                        }
                    }
                }
                Ok(command.wait().map_or_else(End::NotExecuted, End::Exited))
            }
            Task::UntilEof { end, tell } => {
                if tell(&self.first).is_err() {
                    return Ok(End::Eof);
                }
                loop {
                    if wait(owner, signals, end.as_fd(), Some(renewal))? && has_ended(end) {
                        return Ok(End::Eof);
                    }
                    if let Some(signal) = signals.last() {
                        return Err(Error::Interrupted(signal));
                    }
                }
            }
        }
    }

    fn look_last(&mut self) -> Result<()> {
        self.owner.report(&mut self.last)
    }

    fn resume(&mut self) -> Result<()> {
        self.owner.resume(self.timeout_ms)
    }

    fn interrupted(&self) -> Option<i32> {
        self.signals.last()
    }
}

fn thread_failed(error: rustix::io::Errno) -> Error {
    Error::Owner(error.into())
}

/// Calls off the stop that another thread waits for, if a signal comes. Until `stopped` is closed
/// on the other side.
fn call_off_at_signal(owner: &Owner, signals: &Signals, stopped: &OwnedFd) {
    let mut fds = [
        PollFd::new(stopped, PollFlags::IN),
        PollFd::new(signals, PollFlags::IN),
    ];
    // If this fails, the stop ends with its timeout.
    let _ = retry_on_intr(|| poll(&mut fds, None));
    if signals.last().is_none() {
        return;
    }
    // The other thread may not have begun to wait. That takes it next to no time.
    let pause = timespec(Duration::from_millis(10));
    loop {
        let _ = owner.call_off();
        let mut fds = [PollFd::new(stopped, PollFlags::IN)];
        if matches!(poll(&mut fds, Some(&pause)), Ok(1..)) {
            return;
        }
    }
}

/// Waits until `fd` can be read (true), or a signal has come. Renews the leases meanwhile, so often.
fn wait(
    owner: &Owner,
    signals: &Signals,
    fd: BorrowedFd<'_>,
    renewal: Option<Duration>,
) -> Result<bool> {
    let mut renewed = Instant::now();
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        let left = renewal.map(|renewal| timespec(renewal.saturating_sub(renewed.elapsed())));
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => {
                // If one does not stand any more, the last look tells.
                let _ = owner.renew();
                renewed = Instant::now();
            }
            Ok(_) => {
                let [first, _] = &fds;
                return Ok(!first.revents().is_empty());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Owner(error.into())),
        }
    }
}

/// Reads what has come, and whether it was the end.
fn has_ended(end: &OwnedFd) -> bool {
    let mut bytes = [0; 512];
    match read(end, &mut bytes) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::AGAIN),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

impl End {
    /// With which status a program ends that passes it on, as a shell does.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => (code & 0xff) as u8,
                (None, signal) => (signal.unwrap_or(0) & 0x7f) as u8 | 0x80,
            },
            Self::NotExecuted(_) => 126,
            Self::Eof => 0,
        }
    }
}
