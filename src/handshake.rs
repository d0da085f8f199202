// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! One stop, one resume: write the status, look again, wait, and give up in time.
//!
//! The protocol gives no time limit and no completion notice: the driver polls. It looks at once,
//! then waits for a twenty-fifth of the time that has passed, so that an acknowledgement is seen
//! within 4 % of the time that it took, and seldom is a device asked more than a hundred times.

use super::status::{
    Fault,
    Protocol,
    Status, //
};

/// The shortest wait between two looks, in microseconds.
const MIN_WAIT_US: u64 = 20;
/// The longest.
const MAX_WAIT_US: u64 = 10_000;

/// Why a wait ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The device was reset by somebody else.
    Reset,
    /// The driver is being unbound, or the device is going away.
    Leaving,
    /// A resume calls the stop off.
    CalledOff,
    /// The caller has been killed.
    Killed,
}

/// What a handshake needs of the world: the status field of one device, and a clock.
pub trait Port {
    /// Microseconds since any fixed time.
    fn now_us(&self) -> u64;

    /// Reads the status.
    ///
    /// # Errors
    ///
    /// [`Cut::Reset`] if the device was reset since the handshake began: what it shows then is no
    /// answer.
    fn read(&mut self) -> Result<Status, Cut>;

    /// Reads the status, and writes what `change` makes of it, with no other write in between;
    /// nothing if it makes nothing of it. `stop_wanted`: what the driver wants from then on. Returns
    /// what was read.
    ///
    /// # Errors
    ///
    /// [`Cut::Reset`], as for [`Port::read`].
    fn update(
        &mut self,
        stop_wanted: bool,
        change: impl FnOnce(Status) -> Option<Status>,
    ) -> Result<Status, Cut>;

    /// Waits for about `us` microseconds.
    ///
    /// # Errors
    ///
    /// Why it is of no use to wait any longer.
    fn wait(&mut self, us: u64) -> Result<(), Cut>;
}

/// Why a stop or a resume was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// The device did not answer in time.
    TimedOut,
    /// A resume called the stop off.
    CalledOff,
    /// The caller was killed.
    Killed,
    /// The driver is being unbound, or the device is going away.
    Leaving,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The device has acknowledged it.
    Acknowledged,
    /// The driver is not ready: nothing was written.
    NotReady,
    /// It is not waited for any more.
    GivenUp {
        /// Why.
        why: GaveUp,
        /// What the device is left with.
        left: Left,
    },
    /// The device is in no state to be stopped.
    Fault(Fault),
}

/// What a stop that was given up leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was called off, and the device shows that it runs. That proves nothing: a pending stop looks
    /// the same, and the device may yet show that it has stopped.
    Running,
    /// It was called off, but the device shows that it has stopped.
    Stopped,
    /// It can't be called off: the device will stop, and can be resumed only then.
    Pending,
    /// The device was not asked to stop.
    Untouched,
}

/// How a resume ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The device has acknowledged it.
    Acknowledged,
    /// The device had resumed by itself before it was asked to.
    Dropped,
    /// The device still shows that it has stopped.
    GivenUp(GaveUp),
    /// The device has not even stopped yet: nothing was written.
    Pending(GaveUp),
    /// The device is in no state to be resumed.
    Fault(Fault),
}

/// What a handshake took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// From the first access to the last, in microseconds.
    pub elapsed_us: u64,
    /// Reads of the status.
    pub reads: u32,
}

/// Gets what has to be had before the device is asked to stop: tries again and again for `timeout_us`.
///
/// # Errors
///
/// How the stop ends without it.
pub fn prepare<T>(
    port: &mut impl Port,
    timeout_us: u64,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, Stop> {
    let start = port.now_us();
    loop {
        if let Some(got) = attempt() {
            return Ok(got);
        }
        let elapsed = port.now_us().saturating_sub(start);
        if elapsed >= timeout_us {
            return Err(untouched(GaveUp::TimedOut));
        }
        port.wait(pace(elapsed).min(timeout_us - elapsed))
            .map_err(cut_before_request)?;
    }
}

/// Whether the device is still to be asked to stop.
///
/// # Errors
///
/// How the stop ends if it was called off, or the driver is about to leave.
pub fn is_wanted(port: &mut impl Port) -> Result<(), Stop> {
    port.wait(0).map_err(cut_before_request)
}

/// Stops the device: returns when it has acknowledged, or `timeout_us` after the request.
pub fn stop(port: &mut impl Port, protocol: Protocol, timeout_us: u64) -> (Stop, Cost) {
    metered(port, |port| {
        let change = |status: Status| {
            let ready = status.fault().is_none() && status.is_driver_ok();
            ready.then(|| status.to_stop(protocol))
        };
        let before = match port.update(true, change) {
            Ok(before) => before,
            Err(cut) => return cut_before_request(cut),
        };
        if let Some(fault) = before.fault() {
            return Stop::Fault(fault);
        }
        if !before.is_driver_ok() {
            return Stop::NotReady;
        }
        await_acknowledgement(port, protocol, timeout_us)
    })
}

/// Waits for a stop that was asked for before, and given up.
pub fn adopt(port: &mut impl Port, protocol: Protocol, timeout_us: u64) -> (Stop, Cost) {
    metered(port, |port| {
        await_acknowledgement(port, protocol, timeout_us)
    })
}

fn await_acknowledgement(port: &mut impl Port, protocol: Protocol, timeout_us: u64) -> Stop {
    let why = match poll(port, timeout_us, |status| status.shows_stopped(protocol)) {
        Ok(()) => return Stop::Acknowledged,
        Err(Ended::Fault(fault)) => return Stop::Fault(fault),
        Err(Ended::GaveUp(why)) => why,
    };
    let left = match protocol {
        Protocol::Suspend => Left::Pending,
        Protocol::DeviceStop => match end_late_stop(port, protocol) {
            Ok(true) => Left::Running,
            Ok(false) => Left::Stopped,
            Err(fault) => return Stop::Fault(fault),
        },
    };
    Stop::GivenUp { why, left }
}

/// Resumes the device: returns when it has acknowledged, or `timeout_us` after the request.
///
/// `pending`: the stop is one that was given up, and that the device has not acknowledged yet. It is
/// waited for first.
pub fn resume(
    port: &mut impl Port,
    protocol: Protocol,
    pending: bool,
    timeout_us: u64,
) -> (Resume, Cost) {
    metered(port, |port| {
        if pending {
            match poll(port, timeout_us, |status| status.shows_stopped(protocol)) {
                Ok(()) => {}
                Err(Ended::Fault(fault)) => return Resume::Fault(fault),
                Err(Ended::GaveUp(why)) => return Resume::Pending(why),
            }
        }
        let change = |status: Status| {
            let stopped = status.shows_stopped(protocol) && status.may_resume(protocol);
            (status.fault().is_none() && stopped).then(|| status.to_resume(protocol))
        };
        match port.update(false, change) {
            Err(_) => Resume::Fault(Fault::Reset),
            Ok(before) => match before.fault() {
                Some(fault) => Resume::Fault(fault),
                None if !before.shows_stopped(protocol) => Resume::Dropped,
                None => match poll(port, timeout_us, |status| status.shows_running(protocol)) {
                    Ok(()) => Resume::Acknowledged,
                    Err(Ended::Fault(fault)) => Resume::Fault(fault),
                    Err(Ended::GaveUp(why)) => Resume::GivenUp(why),
                },
            },
        }
    })
}

/// Asks for the end of a stop that nobody wants any more, and looks once. Returns whether the device
/// shows that it runs.
///
/// # Errors
///
/// What is wrong with the device.
pub fn end_late_stop(port: &mut impl Port, protocol: Protocol) -> Result<bool, Fault> {
    let change = |status: Status| {
        let may = status.fault().is_none() && status.may_resume(protocol);
        may.then(|| status.to_resume(protocol))
    };
    let before = port.update(false, change).map_err(|_| Fault::Reset)?;
    if let Some(fault) = before.fault() {
        return Err(fault);
    }
    let after = port.read().map_err(|_| Fault::Reset)?;
    match after.fault() {
        Some(fault) => Err(fault),
        None => Ok(after.shows_running(protocol)),
    }
}

fn cut_before_request(cut: Cut) -> Stop {
    match cut.into() {
        Ended::Fault(fault) => Stop::Fault(fault),
        Ended::GaveUp(why) => untouched(why),
    }
}

const fn untouched(why: GaveUp) -> Stop {
    Stop::GivenUp {
        why,
        left: Left::Untouched,
    }
}

enum Ended {
    Fault(Fault),
    GaveUp(GaveUp),
}

impl From<Cut> for Ended {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Reset => Self::Fault(Fault::Reset),
            Cut::Leaving => Self::GaveUp(GaveUp::Leaving),
            Cut::CalledOff => Self::GaveUp(GaveUp::CalledOff),
            Cut::Killed => Self::GaveUp(GaveUp::Killed),
        }
    }
}

/// Looks at the status until it is `done`: at once, then again and again until `timeout_us` is over,
/// and once more then.
fn poll(port: &mut impl Port, timeout_us: u64, done: impl Fn(Status) -> bool) -> Result<(), Ended> {
    let start = port.now_us();
    loop {
        let status = port.read()?;
        if let Some(fault) = status.fault() {
            return Err(Ended::Fault(fault));
        }
        if done(status) {
            return Ok(());
        }
        let elapsed = port.now_us().saturating_sub(start);
        if elapsed >= timeout_us {
            return Err(Ended::GaveUp(GaveUp::TimedOut));
        }
        port.wait(pace(elapsed).min(timeout_us - elapsed))?;
    }
}

/// How long to wait for the next look when `elapsed_us` have passed since the request.
pub fn pace(elapsed_us: u64) -> u64 {
    (elapsed_us / 25).clamp(MIN_WAIT_US, MAX_WAIT_US)
}

/// A port that counts.
struct Metered<'a, P> {
    port: &'a mut P,
    reads: u32,
}

impl<P: Port> Port for Metered<'_, P> {
    fn now_us(&self) -> u64 {
        self.port.now_us()
    }

    fn read(&mut self) -> Result<Status, Cut> {
        self.reads = self.reads.saturating_add(1);
        self.port.read()
    }

    fn update(
        &mut self,
        stop_wanted: bool,
        change: impl FnOnce(Status) -> Option<Status>,
    ) -> Result<Status, Cut> {
        self.reads = self.reads.saturating_add(1);
        self.port.update(stop_wanted, change)
    }

    fn wait(&mut self, us: u64) -> Result<(), Cut> {
        self.port.wait(us)
    }
}

fn metered<P: Port, R>(port: &mut P, body: impl FnOnce(&mut Metered<'_, P>) -> R) -> (R, Cost) {
    let start = port.now_us();
    let mut metered = Metered { port, reads: 0 };
    let result = body(&mut metered);
    let cost = Cost {
        elapsed_us: metered.now_us().saturating_sub(start),
        reads: metered.reads,
    };
    (result, cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = 15;
    const STOPPED: u8 = READY | Status::DEVICE_STOPPED;
    const SUSPENDED: u8 = READY & !Status::DRIVER_OK | Status::SUSPEND;
    const MS: u64 = 1000;
    const D: Protocol = Protocol::DeviceStop;
    const S: Protocol = Protocol::Suspend;

    /// A device and a clock. `answer` says what the status reads at a time, after what was written
    /// last at which time; `cut` when and why waits end.
    struct Fake<A: FnMut(u64, u8, u64) -> u8> {
        now: u64,
        access_us: u64,
        written: (u8, u64),
        writes: Vec<u8>,
        stop_wanted: bool,
        accesses: u32,
        waits: Vec<u64>,
        answer: A,
        cut: Option<(u64, Cut)>,
    }

    fn fake<A: FnMut(u64, u8, u64) -> u8>(initial: u8, answer: A) -> Fake<A> {
        Fake {
            now: 0,
            access_us: 0,
            written: (initial, 0),
            writes: Vec::new(),
            stop_wanted: false,
            accesses: 0,
            waits: Vec::new(),
            answer,
            cut: None,
        }
    }

    impl<A: FnMut(u64, u8, u64) -> u8> Port for Fake<A> {
        fn now_us(&self) -> u64 {
            self.now
        }

        fn read(&mut self) -> Result<Status, Cut> {
            if let Some((at, Cut::Reset)) = self.cut {
                if self.now >= at {
                    return Err(Cut::Reset);
                }
            }
            self.accesses += 1;
            self.now += self.access_us;
            Ok(Status((self.answer)(
                self.now,
                self.written.0,
                self.written.1,
            )))
        }

        fn update(
            &mut self,
            stop_wanted: bool,
            change: impl FnOnce(Status) -> Option<Status>,
        ) -> Result<Status, Cut> {
            self.stop_wanted = stop_wanted;
            let before = self.read()?;
            if let Some(status) = change(before) {
                self.accesses += 1;
                self.now += self.access_us;
                self.written = (status.0, self.now);
                self.writes.push(status.0);
            }
            Ok(before)
        }

        fn wait(&mut self, us: u64) -> Result<(), Cut> {
            self.waits.push(us);
            self.now += us;
            match self.cut {
                Some((at, cut)) if self.now >= at => Err(cut),
                _ => Ok(()),
            }
        }
    }

    /// A device that acknowledges a stop after `delay`, and a resume at once.
    fn after(delay: u64) -> impl FnMut(u64, u8, u64) -> u8 {
        move |now, written, at| {
            if now < at + delay {
                written & !Status::DEVICE_STOPPED
            } else {
                written
            }
        }
    }

    #[test]
    fn what_has_to_be_had_is_tried_for_as_long_as_a_stop_may_take() {
        let nothing = |_, written, _| written;
        let mut attempts = 0;
        let mut port = fake(READY, nothing);
        let third = || {
            attempts += 1;
            (attempts == 3).then_some("it")
        };
        assert_eq!(prepare(&mut port, 1000 * MS, third), Ok("it"));
        assert_eq!(port.waits, [MIN_WAIT_US, MIN_WAIT_US]);
        assert_eq!(is_wanted(&mut port), Ok(()));

        let mut port = fake(READY, nothing);
        let never = || None::<()>;
        assert_eq!(
            prepare(&mut port, 1000 * MS, never),
            Err(untouched(GaveUp::TimedOut))
        );
        assert_eq!(port.now, 1000 * MS);

        for (cut, ends) in [
            (Cut::Reset, Stop::Fault(Fault::Reset)),
            (Cut::Killed, untouched(GaveUp::Killed)),
            (Cut::CalledOff, untouched(GaveUp::CalledOff)),
            (Cut::Leaving, untouched(GaveUp::Leaving)),
        ] {
            let mut port = fake(READY, nothing);
            port.cut = Some((5 * MS, cut));
            assert_eq!(prepare(&mut port, 1000 * MS, never), Err(ends));
            assert_eq!(is_wanted(&mut port), Err(ends));
            assert_eq!(port.accesses, 0);
        }
    }

    #[test]
    fn a_device_that_answers_at_once_costs_three_accesses() {
        let mut port = fake(READY, after(0));
        let (result, cost) = stop(&mut port, D, 1000 * MS);
        assert_eq!(result, Stop::Acknowledged);
        assert_eq!((port.accesses, cost.reads), (3, 2));
        assert!(port.waits.is_empty());

        port.accesses = 0;
        let (result, cost) = resume(&mut port, D, false, 1000 * MS);
        assert_eq!(result, Resume::Acknowledged);
        assert_eq!((port.accesses, cost.reads), (3, 2));
        assert_eq!(port.writes, [STOPPED, READY]);
    }

    #[test]
    fn an_acknowledgement_is_seen_soon_after_it_comes() {
        for delay in [
            1, 20, 100, 500, 1000, 10_000, 100_000, 1_000_000, 60_000_000,
        ] {
            for access_us in [0, 100] {
                let mut port = fake(READY, after(delay));
                port.access_us = access_us;
                let (result, cost) = stop(&mut port, D, 120_000 * MS);
                assert_eq!(result, Stop::Acknowledged);
                let overshoot = cost.elapsed_us - delay;
                let allowed = (delay / 20).max(200) + 3 * access_us;
                assert!(overshoot <= allowed, "{delay} us: {overshoot} us too late");
            }
        }
    }

    #[test]
    fn the_timeout_is_kept_to_within_one_wait() {
        for timeout in [1, 10, 1000, 600_000].map(|ms| ms * MS) {
            let mut port = fake(READY, |_, written, _| written & !Status::DEVICE_STOPPED);
            let (result, cost) = stop(&mut port, D, timeout);
            assert_eq!(
                result,
                Stop::GivenUp {
                    why: GaveUp::TimedOut,
                    left: Left::Running
                }
            );
            assert!(cost.elapsed_us >= timeout);
            assert!(cost.elapsed_us <= timeout + MAX_WAIT_US);
            assert_eq!(port.writes, [STOPPED, READY], "the stop is called off");
        }
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut port = fake(READY, |_, written, _| written & !Status::DEVICE_STOPPED);
        stop(&mut port, D, 10_000 * MS);
        let mut waits = port.waits.clone();
        waits.pop();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(waits
            .iter()
            .all(|us| (MIN_WAIT_US..=MAX_WAIT_US).contains(us)));
        assert_eq!(pace(u64::MAX), MAX_WAIT_US);
    }

    #[test]
    fn an_acknowledgement_at_the_last_look_counts() {
        let mut port = fake(READY, after(10 * MS));
        assert_eq!(stop(&mut port, D, 10 * MS).0, Stop::Acknowledged);
    }

    #[test]
    fn a_stop_that_timed_out_but_shows_afterwards_is_told_apart() {
        let mut calls_off = 0;
        let mut port = fake(READY, |_, written, _| {
            calls_off += u32::from(written == READY);
            if calls_off > 1 {
                STOPPED
            } else {
                READY
            }
        });
        assert_eq!(
            stop(&mut port, D, MS).0,
            Stop::GivenUp {
                why: GaveUp::TimedOut,
                left: Left::Stopped
            }
        );
    }

    #[test]
    fn every_value_while_waiting_has_its_verdict() {
        for value in 0..=255u8 {
            let mut looks = 0;
            let mut port = fake(READY, |_, _, _| {
                looks += 1;
                if looks == 1 {
                    READY
                } else {
                    value
                }
            });
            let expected = match value {
                0xff => Stop::Fault(Fault::Gone),
                0 => Stop::Fault(Fault::Reset),
                64.. => Stop::Fault(Fault::NeedsReset),
                _ if value & 32 != 0 => Stop::Acknowledged,
                _ => Stop::GivenUp {
                    why: GaveUp::TimedOut,
                    left: Left::Running,
                },
            };
            assert_eq!(stop(&mut port, D, MS).0, expected, "{value:#x}");
        }
    }

    #[test]
    fn every_value_before_a_stop_is_written_only_to_a_ready_device() {
        for value in 0..=255u8 {
            let mut port = fake(value, |_, written, _| written);
            let (result, _) = stop(&mut port, D, MS);
            let ready = value & 4 != 0 && value < 64;
            assert_eq!(port.writes.is_empty(), !ready, "{value:#x}");
            assert_eq!(result == Stop::Acknowledged, ready, "{value:#x}");
            if value != 0 && value < 64 && value & 4 == 0 {
                assert_eq!(result, Stop::NotReady);
            }
        }
    }

    #[test]
    fn every_value_before_a_resume_is_written_only_to_a_stopped_device() {
        for value in 0..=255u8 {
            let mut port = fake(value, |_, written, _| written);
            let (result, _) = resume(&mut port, D, false, MS);
            let expected = match Status(value).fault() {
                Some(fault) => Resume::Fault(fault),
                None if value & 32 == 0 => Resume::Dropped,
                None if value & 4 == 0 => Resume::GivenUp(GaveUp::TimedOut),
                None => Resume::Acknowledged,
            };
            assert_eq!(result, expected, "{value:#x}");
            assert_eq!(port.writes.is_empty(), expected != Resume::Acknowledged);
        }
    }

    #[test]
    fn a_wait_that_is_cut_short_calls_the_stop_off() {
        for (cut, why) in [
            (Cut::Killed, GaveUp::Killed),
            (Cut::CalledOff, GaveUp::CalledOff),
            (Cut::Leaving, GaveUp::Leaving),
        ] {
            let mut port = fake(READY, |_, written, _| written & !Status::DEVICE_STOPPED);
            port.cut = Some((5 * MS, cut));
            let (result, cost) = stop(&mut port, D, 1000 * MS);
            assert_eq!(
                result,
                Stop::GivenUp {
                    why,
                    left: Left::Running
                }
            );
            assert_eq!(port.writes, [STOPPED, READY]);
            assert!(cost.elapsed_us < 6 * MS);
        }
    }

    #[test]
    fn a_reset_between_two_looks_is_no_answer() {
        let mut port = fake(READY, |now, written, _| {
            if now < MS {
                written & !Status::DEVICE_STOPPED
            } else {
                // Reset, brought up again, and stopped by somebody else.
                STOPPED
            }
        });
        port.cut = Some((MS, Cut::Reset));
        assert_eq!(stop(&mut port, D, 1000 * MS).0, Stop::Fault(Fault::Reset));
        assert_eq!(port.writes, [STOPPED], "nothing is written after a reset");
    }

    #[test]
    fn a_resume_that_is_not_answered_times_out() {
        let mut port = fake(STOPPED, |_, _, _| STOPPED);
        let (result, cost) = resume(&mut port, D, false, 100 * MS);
        assert_eq!(result, Resume::GivenUp(GaveUp::TimedOut));
        assert!(cost.elapsed_us >= 100 * MS && cost.elapsed_us <= 110 * MS);
        assert_eq!(port.writes, [READY]);
    }

    #[test]
    fn a_device_that_needs_a_reset_after_the_timeout_is_reported_as_such() {
        let mut port = fake(READY, |now, written, _| {
            if now < MS {
                written & !Status::DEVICE_STOPPED
            } else {
                written | Status::NEEDS_RESET
            }
        });
        assert_eq!(stop(&mut port, D, MS).0, Stop::Fault(Fault::NeedsReset));
    }

    /// A device that can be suspended, and a clock.
    struct Suspendable {
        now: u64,
        value: u8,
        /// When what was asked for last is done, and what the status reads then.
        pending: Option<(u64, u8)>,
        stop_delay: u64,
        resume_delay: u64,
        writes: Vec<u8>,
        stop_wanted: bool,
        accesses: u32,
        cut: Option<(u64, Cut)>,
    }

    const NEVER: u64 = u64::MAX / 2;

    fn suspendable(stop_delay: u64, resume_delay: u64) -> Suspendable {
        Suspendable {
            now: 0,
            value: READY,
            pending: None,
            stop_delay,
            resume_delay,
            writes: Vec::new(),
            stop_wanted: false,
            accesses: 0,
            cut: None,
        }
    }

    impl Port for Suspendable {
        fn now_us(&self) -> u64 {
            self.now
        }

        fn read(&mut self) -> Result<Status, Cut> {
            self.accesses += 1;
            if let Some((_, value)) = self.pending.filter(|(at, _)| self.now >= *at) {
                self.value = value;
                self.pending = None;
            }
            Ok(Status(self.value))
        }

        fn update(
            &mut self,
            stop_wanted: bool,
            change: impl FnOnce(Status) -> Option<Status>,
        ) -> Result<Status, Cut> {
            self.stop_wanted = stop_wanted;
            let before = self.read()?;
            if let Some(Status(written)) = change(before) {
                self.accesses += 1;
                self.writes.push(written);
                assert_eq!(written & Status::SUSPEND, Status::SUSPEND, "never cleared");
                if self.pending.is_none() {
                    let suspended = self.value == SUSPENDED;
                    self.pending = Some(if suspended && written & Status::DRIVER_OK != 0 {
                        (self.now + self.resume_delay, READY)
                    } else {
                        (self.now + self.stop_delay, SUSPENDED)
                    });
                }
            }
            Ok(before)
        }

        fn wait(&mut self, us: u64) -> Result<(), Cut> {
            self.now += us;
            match self.cut {
                Some((at, cut)) if self.now >= at => Err(cut),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn a_suspension_that_is_answered_at_once_costs_three_accesses_each_way() {
        let mut port = suspendable(0, 0);
        let (result, cost) = stop(&mut port, S, 1000 * MS);
        assert_eq!((result, cost.reads), (Stop::Acknowledged, 2));
        assert_eq!((port.accesses, port.stop_wanted), (3, true));
        port.accesses = 0;
        let (result, cost) = resume(&mut port, S, false, 1000 * MS);
        assert_eq!((result, cost.reads), (Resume::Acknowledged, 2));
        assert_eq!((port.accesses, port.stop_wanted), (3, false));
        assert_eq!(port.writes, [READY | Status::SUSPEND; 2]);
    }

    #[test]
    fn a_suspension_is_seen_soon_after_it_comes() {
        for delay in [1, 100, 1000, 100_000, 60_000_000] {
            let (result, cost) = stop(&mut suspendable(delay, 0), S, 120_000 * MS);
            assert_eq!(result, Stop::Acknowledged);
            assert!(cost.elapsed_us - delay <= (delay / 20).max(200));
        }
    }

    #[test]
    fn a_suspension_that_is_given_up_stays_pending_and_nothing_is_written_again() {
        for (cut, why) in [
            (None, GaveUp::TimedOut),
            (Some((MS, Cut::Killed)), GaveUp::Killed),
            (Some((MS, Cut::CalledOff)), GaveUp::CalledOff),
            (Some((MS, Cut::Leaving)), GaveUp::Leaving),
        ] {
            let mut port = suspendable(NEVER, 0);
            port.cut = cut;
            let left = Left::Pending;
            assert_eq!(stop(&mut port, S, 10 * MS).0, Stop::GivenUp { why, left });
            assert_eq!(port.writes.len(), 1);
            assert!(port.stop_wanted, "the status stays as the device needs it");
        }
    }

    #[test]
    fn a_suspension_that_was_given_up_can_be_adopted() {
        let mut port = suspendable(20 * MS, 0);
        stop(&mut port, S, 10 * MS);
        assert_eq!(adopt(&mut port, S, 100 * MS).0, Stop::Acknowledged);
        assert_eq!(port.writes.len(), 1);
    }

    #[test]
    fn a_pending_suspension_is_waited_for_before_it_is_ended() {
        let mut port = suspendable(20 * MS, 5 * MS);
        stop(&mut port, S, 10 * MS);
        assert_eq!(resume(&mut port, S, true, 100 * MS).0, Resume::Acknowledged);
        assert_eq!(port.writes.len(), 2);

        let mut port = suspendable(NEVER, 0);
        stop(&mut port, S, 10 * MS);
        let pending = Resume::Pending(GaveUp::TimedOut);
        assert_eq!(resume(&mut port, S, true, 10 * MS).0, pending);
        assert_eq!(port.writes.len(), 1, "it would be no resume");
        assert!(port.stop_wanted);
    }

    #[test]
    fn a_suspended_device_that_does_not_resume_times_out() {
        let mut port = suspendable(0, NEVER);
        stop(&mut port, S, MS);
        let given_up = Resume::GivenUp(GaveUp::TimedOut);
        assert_eq!(resume(&mut port, S, false, 10 * MS).0, given_up);
    }

    #[test]
    fn a_late_suspension_is_ended_when_it_shows() {
        let mut port = suspendable(20 * MS, 0);
        stop(&mut port, S, 10 * MS);
        port.now = 30 * MS;
        assert_eq!(end_late_stop(&mut port, S), Ok(true));
        assert!(!port.stop_wanted);

        let mut port = suspendable(0, 10 * MS);
        stop(&mut port, S, MS);
        assert_eq!(end_late_stop(&mut port, S), Ok(false));
        port.now = 20 * MS;
        assert_eq!(end_late_stop(&mut port, S), Ok(true));
        assert_eq!(
            port.writes.len(),
            2,
            "nothing is asked of a device that runs"
        );
    }

    #[test]
    fn every_value_of_a_suspending_device_has_its_verdict() {
        for value in 0..=255u8 {
            let mut looks = 0;
            let mut port = fake(READY, |_, _, _| {
                looks += 1;
                if looks == 1 {
                    READY
                } else {
                    value
                }
            });
            let expected = match value {
                0xff => Stop::Fault(Fault::Gone),
                0 => Stop::Fault(Fault::Reset),
                64.. => Stop::Fault(Fault::NeedsReset),
                _ if value & 20 == 16 => Stop::Acknowledged,
                _ => Stop::GivenUp {
                    why: GaveUp::TimedOut,
                    left: Left::Pending,
                },
            };
            assert_eq!(stop(&mut port, S, MS).0, expected, "{value:#x}");
        }
    }
}
