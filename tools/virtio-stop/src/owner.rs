// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/virtio_device_stop`: stops that have an owner.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device::{Device, System};
use crate::error::{Error, Result};
use crate::ioctl::{self, Command};
use crate::overview::is_loaded;
use crate::refusal::{reason, Refusal, Request};

/// The owner of the devices that are added to it. It stops all of them, or none. When it is
/// dropped, at the latest when the process dies, what it has stopped resumes.
///
/// Nothing but [`Owner::open`], [`Owner::add`] and [`Report::of`] allocates memory, as long as
/// nothing fails.
#[derive(Debug)]
pub struct Owner {
    file: File,
    members: Vec<Member>,
    /// The kernel refuses a call during another one, but for a stop that is called off.
    call: Mutex<()>,
}

#[derive(Debug)]
struct Member {
    cookie: u64,
    device: Device,
}

/// What is told of the devices of an owner at once, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Report {
    statuses: Vec<ioctl::Status>,
}

/// What is told of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// This owner has stopped it, and the stop stands.
    pub own: bool,
    /// What the device shows can be an answer: without this the generation proves nothing.
    pub answers: bool,
    /// The same twice, and it stood still in between.
    pub generation: u64,
    /// Why it does not stand, or can't: a word of a fixed list, as in the file `reason`.
    pub reason: &'static str,
    /// How many requests its driver has with the stopped device; `None`: that can't be known.
    pub in_flight: Option<u64>,
    /// How long its last stop took, in microseconds.
    pub stop_us: u64,
    /// How long its last resume took, in microseconds.
    pub resume_us: u64,
}

impl Report {
    /// Room for what is told of the devices of `owner`.
    pub fn of(owner: &Owner) -> Self {
        Self {
            statuses: vec![ioctl::Status::default(); owner.members.len()],
        }
    }

    /// The devices.
    pub fn statuses(&self) -> impl Iterator<Item = Status> + '_ {
        self.statuses.iter().map(|status| Status {
            own: status.flags & ioctl::STATUS_OWN != 0,
            answers: status.flags & ioctl::STATUS_ANSWERS != 0,
            generation: status.generation,
            reason: reason(status.reason),
            in_flight: (status.in_flight != u64::MAX).then_some(status.in_flight),
            stop_us: status.stop_us,
            resume_us: status.resume_us,
        })
    }
}

impl Owner {
    /// Opens the file. No program that is started later inherits it.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`], [`Error::NoNode`]; [`Error::File`] if this process has not got
    /// `CAP_SYS_ADMIN`;
    /// [`Error::Interface`] if the module is of another time.
    pub fn open(system: &System) -> Result<Self> {
        let path = system.path("dev/virtio_device_stop");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // In a container, /dev can be without it.
                return Err(match is_loaded(system) {
                    true => Error::NoNode,
                    false => Error::NotLoaded,
                });
            }
            Err(error) => return Err(Error::file(path, error)),
        };
        match ioctl::version(&file) {
            Ok(ioctl::ABI) => Ok(Self {
                file,
                members: Vec::new(),
                call: Mutex::new(()),
            }),
            Ok(other) => Err(Error::Interface(other)),
            Err(error) => Err(Error::file(path, error)),
        }
    }

    /// Adds a device.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: the device has gone, or another one has its index now; it was added
    /// before; or there are 1024 already.
    pub fn add(&mut self, device: &Device) -> Result<()> {
        match ioctl::add(&self.file, device.index, &device.parent) {
            Ok(cookie) => {
                let device = device.clone();
                self.members.push(Member { cookie, device });
                Ok(())
            }
            Err(error) => Err(Error::Refused(Refusal {
                device: device.name(),
                request: Request::Add,
                errno: error.raw_os_error().unwrap_or_default(),
                reason: reason(0).to_owned(),
            })),
        }
    }

    /// The devices, in the order in which they were added.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.members.iter().map(|member| &member.device)
    }

    /// Stops all devices, or none: if one fails, the others resume. Waits for that. Those that
    /// stand already get the new lease, if it is longer.
    ///
    /// `timeout_ms`: how long each may take, 1 to 600000; `None`: what its file says. `lease_ms`:
    /// after which time the stops end by themselves, 1 to 86400000; `None`: 60000.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] names the first device that has failed, and why.
    pub fn stop(&self, timeout_ms: Option<u32>, lease_ms: Option<u32>) -> Result<()> {
        self.ask(Request::Stop, timeout_ms, lease_ms)
    }

    /// Resumes what this owner has stopped, all of it, whatever fails.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] names the first device that has failed, and why.
    pub fn resume(&self, timeout_ms: Option<u32>) -> Result<()> {
        self.ask(Request::Resume, timeout_ms, None)
    }

    /// The leases of the stops begin anew, of those that stand.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] names the first device that has failed, and why.
    pub fn renew(&self) -> Result<()> {
        self.ask(Request::Renew, None, None)
    }

    /// Calls off the [`stop`](Self::stop) that another thread waits for. It fails then, with
    /// [`Cause::CalledOff`](crate::refusal::Cause::CalledOff). If nobody waits, nothing happens: a
    /// stop that begins later is not called off.
    ///
    /// # Errors
    ///
    /// [`Error::Owner`], never, as far as is known.
    pub fn call_off(&self) -> Result<()> {
        ioctl::call_off(&self.file).map_err(Error::Owner)
    }

    /// Looks at all devices.
    ///
    /// # Errors
    ///
    /// [`Error::Owner`], if the kernel has no memory.
    pub fn report(&self, report: &mut Report) -> Result<()> {
        let _call = self.begin();
        ioctl::report(&self.file, &mut report.statuses).map_err(Error::Owner)?;
        Ok(())
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that could be left half done.
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, request: Request, timeout_ms: Option<u32>, lease_ms: Option<u32>) -> Result<()> {
        let command = match request {
            Request::Add | Request::Stop => Command::Stop,
            Request::Resume => Command::Resume,
            Request::Renew => Command::Renew,
        };
        let mut asked = ioctl::Request {
            timeout_ms: timeout_ms.unwrap_or(0),
            lease_ms: lease_ms.unwrap_or(0),
            ..ioctl::Request::default()
        };
        let answer = {
            let _call = self.begin();
            ioctl::ask(&self.file, command, &mut asked)
        };
        let Err(error) = answer else { return Ok(()) };
        if asked.error == 0 {
            return Err(Error::Owner(error));
        }
        let mut members = self.members.iter();
        let failed = members.find(|member| member.cookie == asked.cookie);
        Err(Error::Refused(Refusal {
            device: failed.map_or_else(String::new, |member| member.device.name()),
            request,
            errno: asked.error.saturating_neg(),
            reason: reason(asked.reason).to_owned(),
        }))
    }
}
