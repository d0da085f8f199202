// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waits for something while devices stand still. Their leases are renewed meanwhile, whatever
//! else happens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{read, write, Errno};
use rustix::net::{recv, RecvFlags};
use rustix::pipe::PIPE_BUF;

use crate::error::{Error, Result};

/// What is waited for of a file descriptor.
pub(crate) type Interest<'a> = (BorrowedFd<'a>, PollFlags);

/// For as long as devices stand still. Nothing here allocates memory but [`Waiting::new`].
pub(crate) struct Waiting<'a> {
    signals: BorrowedFd<'a>,
    guard: Option<BorrowedFd<'a>>,
    renew: Box<dyn Fn() + 'a>,
    lease: Duration,
    renewed: Instant,
    renews: bool,
    /// Until then the devices may stand still.
    deadline: Option<Instant>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Event {
    /// To the first file descriptor.
    pub(crate) first: bool,
    /// To the second one.
    pub(crate) second: bool,
    /// The lease is over, and was not to be renewed.
    pub(crate) over: bool,
    /// The devices may not stand still any longer. This is told once.
    pub(crate) late: bool,
}

impl<'a> Waiting<'a> {
    /// `signals` can be read once a signal has come, and `guard` once what guards frozen file
    /// systems is dead. `renew` is called for the first time by [`begin`](Self::begin).
    pub(crate) fn new(
        signals: BorrowedFd<'a>,
        guard: Option<BorrowedFd<'a>>,
        lease: Duration,
        renew: Box<dyn Fn() + 'a>,
    ) -> Self {
        Self {
            signals,
            guard,
            renew,
            lease,
            renewed: Instant::now(),
            renews: true,
            deadline: None,
        }
    }

    /// The devices have stopped, and may stand still for `max_time`. The lease of the first one may
    /// have begun some time ago.
    pub(crate) fn begin(&mut self, max_time: Option<Duration>) {
        self.renew();
        self.deadline = max_time.and_then(|time| self.renewed.checked_add(time));
    }

    fn renew(&mut self) {
        (self.renew)();
        self.renewed = Instant::now();
    }

    /// Renews the leases, if it is time for that: after a third of them.
    pub(crate) fn renew_if_due(&mut self) {
        if self.renews && self.until_due().is_zero() {
            self.renew();
        }
    }

    /// The leases are not renewed any more, so that who waits for what stands still is set free
    /// when they are over.
    pub(crate) fn let_go(&mut self) {
        self.renews = false;
    }

    /// Waits until something happens to one of the file descriptors, a signal has come, the devices
    /// may not stand still any longer, or the lease is over.
    ///
    /// # Errors
    ///
    /// [`Error::Unguarded`].
    pub(crate) fn wait(
        &mut self,
        first: Interest<'_>,
        second: Option<Interest<'_>>,
    ) -> Result<Event> {
        loop {
            self.renew_if_due();
            let (left, until_late) = (self.until_due(), self.until_late());
            let (over, late) = (!self.renews && left.is_zero(), until_late.is_zero());
            if over || late {
                if late {
                    self.deadline = None;
                }
                return Ok(Event {
                    over,
                    late,
                    ..Event::default()
                });
            }
            let left = left.min(until_late);
            // Nothing happens to this one.
            let none = (self.signals, PollFlags::empty());
            let fds = [
                first,
                second.unwrap_or(none),
                (self.signals, PollFlags::IN),
                self.guard.map_or(none, |guard| (guard, PollFlags::IN)),
            ];
            let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => {
                    let [first, second, _, guard] = fds.map(|fd| !fd.revents().is_empty());
                    if guard {
                        return Err(Error::Unguarded);
                    }
                    return Ok(Event {
                        first,
                        second,
                        ..Event::default()
                    });
                }
                Err(error) => return Err(Error::Owner(error.into())),
            }
        }
    }

    /// Until the leases have to be renewed, or are over.
    fn until_due(&self) -> Duration {
        let whole = if self.renews {
            (self.lease / 3).max(Duration::from_millis(1))
        } else {
            self.lease
        };
        whole.saturating_sub(self.renewed.elapsed())
    }

    /// Until the devices may not stand still any longer.
    fn until_late(&self) -> Duration {
        let now = Instant::now();
        self.deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(now)
        })
    }
}

/// Writes `line` to `out`, as that takes it, and waits until `is_over`, which is asked whenever
/// something can be read from `end`. `false`: the devices may not stand still any longer.
///
/// # Errors
///
/// [`Error::Interrupted`]; [`Error::Output`] if `line` could not be written, or it was over before;
/// [`Error::Unguarded`]; what `is_over` fails with.
pub(crate) fn until(
    waiting: &mut Waiting<'_>,
    end: BorrowedFd<'_>,
    is_over: impl Fn() -> Result<bool>,
    out: BorrowedFd<'_>,
    line: &[u8],
    interrupted: impl Fn() -> Option<i32>,
) -> Result<bool> {
    let mut rest = line;
    loop {
        let writable = (!rest.is_empty()).then_some((out, PollFlags::OUT));
        let event = waiting.wait((end, PollFlags::IN), writable)?;
        if let Some(signal) = interrupted() {
            return Err(Error::Interrupted(signal));
        }
        if event.late {
            return Ok(false);
        }
        if event.first && is_over()? {
            return match rest {
                [] => Ok(true),
                _ => Err(Error::Output(io::ErrorKind::WriteZero.into())),
            };
        }
        if event.second {
            // So much fits into a pipe that can be written to.
            let part = rest.get(..PIPE_BUF).unwrap_or(rest);
            match write(out, part) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Error::Output(error.into())),
            }
        }
    }
}

/// Whether `end` is closed on its other side already. What was written there is read. It is a
/// socket, or does not block, as somebody else may read it, too.
pub fn is_closed(end: impl AsFd) -> bool {
    // Who writes so much, and does not stop, has not closed it.
    for _ in 0..1024 {
        let mut fds = [PollFd::new(&end, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..)) {
            return false;
        }
        if received(end.as_fd()) == Received::End {
            return true;
        }
    }
    false
}

/// What has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Received {
    /// Nothing: somebody else may have read it meanwhile.
    Nothing,
    /// Something was written there.
    Bytes,
    /// It was closed.
    End,
}

/// Reads what has come.
pub(crate) fn received(end: BorrowedFd<'_>) -> Received {
    let mut bytes = [0; 512];
    let received = recv(end, bytes.as_mut_slice(), RecvFlags::DONTWAIT).map(|(count, _)| count);
    let received = match received {
        Err(Errno::NOTSOCK) => read(end, &mut bytes),
        received => received,
    };
    match received {
        Ok(0) => Received::End,
        Ok(_) => Received::Bytes,
        Err(Errno::INTR | Errno::AGAIN) => Received::Nothing,
        Err(_) => Received::End,
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use rustix::pipe::{fcntl_setpipe_size, pipe};

    use crate::instance::tests::in_time;

    use super::*;

    const LEASE: Duration = Duration::from_millis(60);
    const LONG: Duration = Duration::from_secs(30);

    /// A pair whose one end is never written to, and stays open.
    fn quiet() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn never() -> Option<i32> {
        None
    }

    /// Until `end` is closed on its other side.
    fn until_eof(
        waiting: &mut Waiting<'_>,
        end: BorrowedFd<'_>,
        out: BorrowedFd<'_>,
        line: &[u8],
        interrupted: impl Fn() -> Option<i32>,
    ) -> Result<bool> {
        let over = || Ok(received(end) == Received::End);
        until(waiting, end, over, out, line, interrupted)
    }

    #[test]
    fn what_is_written_is_told_from_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(received(ours.as_fd()), Received::Nothing);
        (&theirs).write_all(b"resume\n").unwrap();
        assert_eq!(received(ours.as_fd()), Received::Bytes);
        assert_eq!(received(ours.as_fd()), Received::Nothing);
        drop(theirs);
        assert_eq!(received(ours.as_fd()), Received::End);
    }

    #[test]
    fn what_can_be_read_all_the_time_does_not_keep_the_leases_from_being_renewed() {
        let (signals, _signals) = quiet();
        let renewals = Cell::new(0);
        let renew = Box::new(|| renewals.set(renewals.get() + 1));
        let begin = Instant::now();
        let mut waiting = Waiting::new(signals.as_fd(), None, LEASE, renew);
        let null = File::open("/dev/null").unwrap();
        while renewals.get() < 3 {
            assert!(begin.elapsed() < LONG, "{} renewals", renewals.get());
            let event = waiting.wait((null.as_fd(), PollFlags::IN), None).unwrap();
            assert!(!event.over);
        }
        // Nor are they renewed more often than that.
        assert!(begin.elapsed() >= LEASE, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_lease_that_is_not_renewed_ends_the_waiting() {
        let (signals, _signals) = quiet();
        let (end, _end) = quiet();
        let renewals = Cell::new(0);
        let renew = Box::new(|| renewals.set(renewals.get() + 1));
        let mut waiting = Waiting::new(signals.as_fd(), None, LEASE, renew);
        waiting.begin(None);
        waiting.let_go();
        let event = waiting.wait((end.as_fd(), PollFlags::IN), None).unwrap();
        assert!(event.over && !event.first);
        assert_eq!(renewals.get(), 1);
        assert!(waiting.renewed.elapsed() >= LEASE);
    }

    #[test]
    fn the_time_that_the_devices_may_stand_still_is_over_once() {
        let (signals, _signals) = quiet();
        let (end, _end) = quiet();
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        let begin = Instant::now();
        waiting.begin(Some(LEASE));
        let event = waiting.wait((end.as_fd(), PollFlags::IN), None).unwrap();
        assert!(event.late && !event.over && !event.first, "{event:?}");
        assert!(begin.elapsed() >= LEASE);
        let null = File::open("/dev/null").unwrap();
        let event = waiting.wait((null.as_fd(), PollFlags::IN), None).unwrap();
        assert!(event.first && !event.late, "{event:?}");
    }

    #[test]
    fn nobody_waits_for_an_end_beyond_that_time() {
        let (signals, _signals) = quiet();
        let (_reader, out) = pipe().unwrap();
        let (end, _end) = quiet();
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        waiting.begin(Some(LEASE));
        let ended = until_eof(&mut waiting, end.as_fd(), out.as_fd(), b"", never);
        assert!(matches!(ended, Ok(false)), "{ended:?}");
    }

    #[test]
    fn without_its_guard_it_does_not_go_on() {
        let (signals, _signals) = quiet();
        let (end, _end) = quiet();
        let (guard, dead) = quiet();
        let guard = Some(guard.as_fd());
        let mut waiting = Waiting::new(signals.as_fd(), guard, LONG, Box::new(|| ()));
        drop(dead);
        let event = waiting.wait((end.as_fd(), PollFlags::IN), None);
        assert!(matches!(event, Err(Error::Unguarded)), "{event:?}");
    }

    #[test]
    fn who_does_not_read_does_not_keep_it_from_renewing_nor_from_ending() {
        let (signals, _signals) = quiet();
        let (_reader, full) = pipe().unwrap();
        let size = fcntl_setpipe_size(&full, PIPE_BUF).unwrap();
        (&File::from(full.try_clone().unwrap()))
            .write_all(&vec![0; size])
            .unwrap();
        let (end, other) = quiet();
        let other = Cell::new(Some(other));
        let renewals = Cell::new(0);
        let renew = Box::new(|| {
            renewals.set(renewals.get() + 1);
            if renewals.get() == 2 {
                other.take();
            }
        });
        let mut waiting = Waiting::new(signals.as_fd(), None, LEASE, renew);
        let ended = until_eof(&mut waiting, end.as_fd(), full.as_fd(), b"stopped\n", never);
        assert!(matches!(ended, Err(Error::Output(_))), "{ended:?}");
        assert!(renewals.get() >= 2);
    }

    #[test]
    fn a_signal_ends_it_though_nobody_reads() {
        let (signals, signal) = quiet();
        (&signal).write_all(b"s").unwrap();
        let (_reader, out) = pipe().unwrap();
        let (end, _end) = quiet();
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        let interrupted = || Some(15);
        let ended = until_eof(&mut waiting, end.as_fd(), out.as_fd(), b"", interrupted);
        assert!(matches!(ended, Err(Error::Interrupted(15))), "{ended:?}");
    }

    #[test]
    fn nobody_to_be_told_is_a_failure() {
        let (signals, _signals) = quiet();
        let (reader, out) = pipe().unwrap();
        drop(reader);
        let (end, _end) = quiet();
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        let ended = until_eof(&mut waiting, end.as_fd(), out.as_fd(), b"x", never);
        assert!(matches!(ended, Err(Error::Output(_))), "{ended:?}");
    }

    #[test]
    fn what_was_said_before_the_line_is_no_answer_to_it() {
        let (signals, _signals) = quiet();
        let (reader, out) = pipe().unwrap();
        let (end, other) = quiet();
        drop(other);
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        let ended = until_eof(&mut waiting, end.as_fd(), out.as_fd(), b"stopped", never);
        assert!(matches!(ended, Err(Error::Output(_))), "{ended:?}");
        drop(out);
        let mut told = Vec::new();
        io::Read::read_to_end(&mut File::from(reader), &mut told).unwrap();
        assert!(told.is_empty());
    }

    #[test]
    fn a_long_line_arrives_before_the_end() {
        let (signals, _signals) = quiet();
        let (reader, out) = pipe().unwrap();
        let (end, other) = quiet();
        let line: Vec<u8> = (0..500_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = line.clone();
        let read = std::thread::spawn(move || {
            let mut read = vec![0; expected.len()];
            io::Read::read_exact(&mut File::from(reader), &mut read).unwrap();
            assert!(read == expected);
            drop(other);
        });
        let mut waiting = Waiting::new(signals.as_fd(), None, LONG, Box::new(|| ()));
        until_eof(&mut waiting, end.as_fd(), out.as_fd(), &line, never).unwrap();
        read.join().unwrap();
    }

    #[test]
    fn what_somebody_else_has_read_meanwhile_is_not_waited_for() {
        let ended = in_time(|| {
            let (end, _other) = quiet();
            received(end.as_fd()) == Received::End
        });
        assert!(!ended);
    }

    #[test]
    fn the_end_is_seen_in_advance() {
        assert!(is_closed(File::open("/dev/null").unwrap()));
        assert!(!is_closed(File::open("/dev/zero").unwrap()));
        let (end, other) = quiet();
        (&other).write_all(b"this is not the end").unwrap();
        assert!(!is_closed(&end));
        drop(other);
        assert!(is_closed(&end));
    }
}
