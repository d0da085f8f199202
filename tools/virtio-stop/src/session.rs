// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that stand still while something is done: all that this takes is opened and allocated
//! before.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::pipe::{pipe_with, PipeFlags};

use crate::error::{Error, Result};
use crate::freeze::FileSystems;
use crate::memory::STACK;
use crate::owner::{Owner, Report, Status};
use crate::proof::stands;
use crate::sequence::{self, Outcome, Steps};
use crate::signals::Signals;
use crate::task::{End, Task};
use crate::waiting::{timespec, Waiting};

/// For how long a stop of an owner may stand if nothing else is said.
const LEASE_MS: u32 = 60_000;

/// How long requests may take that a device has still when it has acknowledged the stop, until what
/// it was stopped for begins nevertheless; and how long is waited between two looks.
const DRAIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// How much longer than the lease frozen file systems stay frozen when this process does not go on,
/// so that it is the first one to thaw them if it does.
const GRACE: Duration = Duration::from_secs(5);

/// How long a device may take at most, if nothing else is known.
const LONGEST_MS: u32 = 600_000;

/// How long things may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Each stop and resume; `None`: what the device has.
    pub timeout_ms: Option<u32>,
    /// The lease of the stops, which is renewed as long as this process works; `None`: a minute.
    pub lease_ms: Option<u32>,
    /// From the stop on, what the devices are stopped for; `None`: as long as it likes.
    pub max_time_ms: Option<u32>,
    /// Requests may be in flight meanwhile: they are not waited for.
    pub allow_in_flight: bool,
}

impl Limits {
    fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.unwrap_or(LEASE_MS).into())
    }

    /// For how long a freeze, a stop, a resume or a thaw may keep a process that works: a stop that
    /// fails waits for the devices to resume, too. If it does not work, the lease is over by then.
    fn patience(&self) -> Duration {
        let timeout = Duration::from_millis(self.timeout_ms.unwrap_or(LONGEST_MS).into());
        2 * timeout + self.lease() + GRACE
    }

    /// For how long requests in flight are waited for.
    fn drain(&self) -> Duration {
        if self.allow_in_flight {
            Duration::ZERO
        } else {
            DRAIN
        }
    }
}

/// Devices, and what is done while they stand still.
pub struct Session<'a> {
    owner: &'a Owner,
    signals: &'a Signals,
    file_systems: &'a FileSystems,
    limits: Limits,
    task: Task<'a>,
    complain: &'a dyn Fn(&Error),
    waiting: Waiting<'a>,
    late: bool,
    first: Report,
    last: Report,
}

/// What was told of the devices.
#[derive(Debug)]
pub struct Looks {
    /// After the stop, when no requests were in flight, or for a second. At once if they may be.
    pub first: Report,
    /// Right before the resume.
    pub last: Report,
    /// After the resume.
    pub after: Report,
}

impl<'a> Session<'a> {
    /// All devices of `owner` are to stop. `file_systems` are frozen meanwhile, the first one
    /// first. `complain` says what has failed when it may take long until this returns.
    pub fn new(
        owner: &'a Owner,
        signals: &'a Signals,
        file_systems: &'a FileSystems,
        limits: Limits,
        task: Task<'a>,
        complain: &'a dyn Fn(&Error),
    ) -> Self {
        let lease = limits.lease();
        let renew = Box::new(move || {
            // If one does not stand any more, the last look tells.
            let _ = owner.renew();
            file_systems.is_alive(lease + GRACE);
        });
        let waiting = Waiting::new(signals.as_fd(), file_systems.guard(), lease, renew);
        Self {
            owner,
            signals,
            file_systems,
            limits,
            task,
            complain,
            waiting,
            late: false,
            first: Report::of(owner),
            last: Report::of(owner),
        }
    }

    /// Does it. Call [`memory::lock`](crate::memory::lock) before.
    pub fn run(mut self) -> (Outcome<End>, Looks) {
        let mut after = Report::of(self.owner);
        let mut outcome = sequence::run(&mut self);
        if let Some(max_time_ms) = self.limits.max_time_ms.filter(|_| self.late) {
            outcome.errors.push(Error::TooLong(max_time_ms));
        }
        // For the sake of how long the resume took; nothing depends on it.
        let _ = self.owner.report(&mut after);
        let Self { first, last, .. } = self;
        let looks = Looks { first, last, after };
        (outcome, looks)
    }

    /// This process is not heard of for some time.
    fn expect_long(&self) {
        self.file_systems.is_alive(self.limits.patience());
    }
}

impl Steps for Session<'_> {
    type End = End;

    fn file_systems(&self) -> usize {
        self.file_systems.count()
    }

    fn freeze(&mut self, at: usize) -> Result<()> {
        self.expect_long();
        self.file_systems.freeze(at)
    }

    fn begin_thaw(&mut self, at: usize) {
        self.expect_long();
        self.file_systems.begin_thaw(at);
    }

    fn thawed(&mut self) -> Result<()> {
        self.file_systems.thawed()
    }

    fn complain(&self, error: &Error) {
        (self.complain)(error);
    }

    fn stop(&mut self) -> Result<()> {
        let (stopped, stopping) = pipe_with(PipeFlags::CLOEXEC).map_err(thread_failed)?;
        let (owner, signals) = (self.owner, self.signals);
        let (timeout_ms, lease_ms) = (self.limits.timeout_ms, self.limits.lease_ms);
        self.expect_long();
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
        // After a signal, too: a device that can't be called off has not resumed.
        result
    }

    /// A device that was stopped by VIRTIO_F_SUSPEND may complete requests still.
    fn look_first(&mut self) -> Result<()> {
        let max_time = self.limits.max_time_ms;
        let max_time = max_time.map(|time| Duration::from_millis(time.into()));
        self.waiting.begin(max_time);
        let begin = Instant::now();
        loop {
            self.owner.report(&mut self.first)?;
            for (device, status) in self.owner.devices().zip(self.first.statuses()) {
                let device = device.name();
                stands(status).map_err(|why| Error::NotStill { device, why })?;
            }
            let requests = |status: Status| status.in_flight.unwrap_or(0);
            let is_idle = self.first.statuses().all(|status| requests(status) == 0);
            if is_idle || begin.elapsed() >= self.limits.drain() || self.signals.last().is_some() {
                return Ok(());
            }
            self.waiting.renew_if_due();
            thread::sleep(PAUSE);
        }
    }

    fn work(&mut self) -> Result<Option<End>> {
        let (waiting, first) = (&mut self.waiting, &self.first);
        self.task.work(waiting, self.signals, first, &mut self.late)
    }

    fn finish(&mut self) -> Result<Option<End>> {
        self.task.finish(self.signals)
    }

    fn look_last(&mut self) -> Result<()> {
        self.owner.report(&mut self.last)
    }

    fn devices(&self) -> usize {
        self.owner.devices().count()
    }

    fn resume(&mut self) -> Result<()> {
        self.expect_long();
        self.owner.resume(self.limits.timeout_ms)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_waits_for_as_long_as_the_devices_may_take() {
        let patience = |timeout_ms, lease_ms| {
            let limits = Limits {
                timeout_ms,
                lease_ms,
                ..Limits::default()
            };
            limits.patience().as_secs()
        };
        assert_eq!(patience(Some(1000), Some(2000)), 9);
        assert_eq!(patience(Some(600_000), None), 1265);
        assert_eq!(patience(None, None), 1265);
    }

    #[test]
    fn requests_that_may_be_in_flight_are_not_waited_for() {
        let drain = |allow_in_flight| {
            let limits = Limits {
                allow_in_flight,
                ..Limits::default()
            };
            limits.drain()
        };
        assert_eq!(drain(true), Duration::ZERO);
        assert_eq!(drain(false), DRAIN);
    }
}
