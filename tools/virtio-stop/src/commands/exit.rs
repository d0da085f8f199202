// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! With which status `run` ends, of all that may have failed.

use virtio_stop::{Error, Exit};

/// The status of the gravest error, the first of those: that a device may still be stopped, or was
/// lost, is more than that it did not stand still, and that is more than all else. That a signal
/// has come, or the time was over, is the least.
pub(crate) fn exit(errors: &[Error], status: Option<u8>) -> u8 {
    let rank = |error: &&Error| match error.exit() {
        _ if error.is_grave() => 0,
        Exit::NotStill => 1,
        Exit::Interrupted => 3,
        _ => 2,
    };
    match errors.iter().min_by_key(rank) {
        Some(error) => error.exit() as u8,
        None => status.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use virtio_stop::proof::Unstill;
    use virtio_stop::refusal::{Refusal, Request};

    use super::*;

    #[test]
    fn a_signal_hides_nothing_else() {
        assert_eq!(exit(&[], None), 0);
        assert_eq!(exit(&[], Some(7)), 7);
        let interrupted = || Error::Interrupted(15);
        assert_eq!(exit(&[interrupted()], Some(143)), 9);
        assert_eq!(exit(&[Error::TooLong(1)], Some(143)), 9);
        assert_eq!(exit(&[Error::TooLong(1), Error::Unguarded], None), 1);
        assert_eq!(exit(&[interrupted(), Error::Unguarded], None), 1);
        let device = String::new();
        let why = Unstill::Again;
        let unstill = || Error::NotStill {
            device: device.clone(),
            why,
        };
        assert_eq!(exit(&[unstill(), interrupted()], None), 4);
        assert_eq!(exit(&[Error::Unguarded, unstill()], Some(143)), 4);
    }

    #[test]
    fn that_a_device_may_be_stopped_still_comes_first() {
        let device = "virtio0".to_owned();
        let why = Unstill::Again;
        let unstill = || Error::NotStill {
            device: device.clone(),
            why,
        };
        let refused = |request, errno: Errno| {
            Error::Refused(Refusal {
                device: device.clone(),
                request,
                errno: errno.raw_os_error(),
                reason: "none".into(),
            })
        };
        let resume = |errno| refused(Request::Resume, errno);
        for (errno, status) in [
            (Errno::TIMEDOUT, 6),
            (Errno::NODEV, 7),
            (Errno::IO, 7),
            (Errno::BUSY, 5),
            (Errno::NOMEM, 1),
        ] {
            let errors = [
                Error::Unguarded,
                unstill(),
                resume(errno),
                Error::Interrupted(15),
            ];
            assert_eq!(exit(&errors, Some(143)), status, "{errno}");
        }
        assert_eq!(exit(&[Error::Unguarded, resume(Errno::STALE)], None), 4);
        // The first one of the gravest.
        let errors = [resume(Errno::BUSY), resume(Errno::TIMEDOUT)];
        assert_eq!(exit(&errors, None), 5);
        let stop = refused(Request::Stop, Errno::BUSY);
        assert_eq!(exit(&[stop, unstill()], None), 4);
    }
}
