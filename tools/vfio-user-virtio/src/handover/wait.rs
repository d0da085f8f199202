// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A successor may wait for the devices to stop.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;

use crate::service::Service;

/// Between two looks whether the successor is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until all devices can be handed over, but not beyond `deadline`. An error: nobody is at the other end of `stream` any more.
pub(super) fn wait(service: &Service, stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    for endpoint in service.endpoints() {
        let device = endpoint.device();
        while !device.wait_until_still(deadline.min(Instant::now() + LOOK)) {
            is_there(stream)?;
            if Instant::now() >= deadline {
                return Ok(());
            }
        }
    }
    is_there(stream)
}

/// Has everybody do something for a while, before the next attempt.
pub(super) fn pause(stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    let rest = deadline.saturating_duration_since(Instant::now());
    std::thread::sleep(PAUSE.min(rest));
    is_there(stream)
}

/// It says nothing before it is answered: what can be read is its end.
fn is_there(stream: &UnixStream) -> io::Result<()> {
    let mut files = [PollFd::new(stream, PollFlags::IN)];
    retry_on_intr(|| poll(&mut files, Some(&Timespec::default())))?;
    let [file] = files;
    if file.revents().is_empty() {
        Ok(())
    } else {
        Err(io::Error::other("a successor that has not waited"))
    }
}
