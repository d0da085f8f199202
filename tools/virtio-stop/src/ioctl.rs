// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel is asked for that has no safe function elsewhere: the ioctls of
//! `/dev/virtio_device_stop` (src/uapi/virtio_device_stop.h) and of file systems, file
//! descriptors that have come from the process before, and signals that are ignored. All unsafe
//! code of this crate is here.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{fcntl_dupfd_cloexec, fcntl_setfd, FdFlags};
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, NoArg, Opcode, Updater};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

/// The interface that this crate was written for.
pub(crate) const ABI: i32 = 1;

const MAGIC: u8 = 0xdc;
const VERSION: Opcode = opcode::none(MAGIC, 0);
const ADD: Opcode = opcode::none(MAGIC, 1);
const STOP: Opcode = opcode::none(MAGIC, 3);
const RESUME: Opcode = opcode::none(MAGIC, 4);
const RENEW: Opcode = opcode::none(MAGIC, 5);
const REPORT: Opcode = opcode::none(MAGIC, 6);
const CALL_OFF: Opcode = opcode::none(MAGIC, 7);

const FIFREEZE: Opcode = opcode::read_write::<i32>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<i32>(b'X', 120);

/// The number by which a file system is thawed, as /proc shows it.
pub(crate) const THAW: u32 = FITHAW;

/// `struct virtio_device_stop_add`
#[repr(C)]
struct Add {
    size: u32,
    index: u32,
    parent: [u8; 64],
    cookie: u64,
}

/// `struct virtio_device_stop_request`
#[derive(Default)]
#[repr(C)]
pub(crate) struct Request {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    /// 1 to 600000; 0: what the device's file says.
    pub(crate) timeout_ms: u32,
    /// 1 to 86400000; 0: 60000. To stop only, else 0.
    pub(crate) lease_ms: u32,
    /// Answer: 0, or what the first device that failed has failed with, negative.
    pub(crate) error: i32,
    /// Answer: that one's reason.
    pub(crate) reason: u32,
    /// Answer: and which one that is.
    pub(crate) cookie: u64,
}

/// `struct virtio_device_stop_status`
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub(crate) struct Status {
    pub(crate) index: u32,
    pub(crate) flags: u32,
    pub(crate) state: u32,
    pub(crate) reason: u32,
    pub(crate) protocol: u32,
    pub(crate) reserved: u32,
    pub(crate) cookie: u64,
    pub(crate) generation: u64,
    pub(crate) in_flight: u64,
    pub(crate) stop_us: u64,
    pub(crate) resume_us: u64,
}

/// `struct virtio_device_stop_report`
#[repr(C)]
struct Report {
    size: u32,
    flags: u32,
    count: u32,
    status_size: u32,
    statuses: u64,
}

const _: () = {
    assert!(size_of::<Add>() == 80 && offset_of!(Add, parent) == 8);
    assert!(offset_of!(Add, cookie) == 72);
    assert!(size_of::<Request>() == 32 && offset_of!(Request, timeout_ms) == 8);
    assert!(offset_of!(Request, lease_ms) == 12 && offset_of!(Request, error) == 16);
    assert!(offset_of!(Request, reason) == 20 && offset_of!(Request, cookie) == 24);
    assert!(size_of::<Status>() == 64 && offset_of!(Status, protocol) == 16);
    assert!(offset_of!(Status, cookie) == 24 && offset_of!(Status, generation) == 32);
    assert!(offset_of!(Status, in_flight) == 40 && offset_of!(Status, resume_us) == 56);
    assert!(size_of::<Report>() == 24 && offset_of!(Report, count) == 8);
    assert!(offset_of!(Report, status_size) == 12 && offset_of!(Report, statuses) == 16);
};

/// This file has stopped it, and the stop stands.
pub(crate) const STATUS_OWN: u32 = 1 << 0;
/// What the device shows can be an answer.
pub(crate) const STATUS_ANSWERS: u32 = 1 << 1;

/// What a [`Request`] asks for.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    Stop,
    Resume,
    Renew,
}

struct Version;

// SAFETY: the command takes no argument, and answers with a number.
unsafe impl Ioctl for Version {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        VERSION
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// Which interface the kernel has.
pub(crate) fn version(file: impl AsFd) -> io::Result<i32> {
    // SAFETY: see `Version`. Another file than ours would fail with ENOTTY.
    Ok(unsafe { ioctl(file, Version) }?)
}

/// Adds the device with that index, below that parent; returns its cookie.
pub(crate) fn add(file: impl AsFd, index: u32, parent: &str) -> io::Result<u64> {
    let mut add = Add {
        size: size_of::<Add>() as u32,
        index,
        parent: [0; 64],
        cookie: 0,
    };
    // A longer name ends without a zero, and is refused.
    for (to, from) in add.parent.iter_mut().zip(parent.bytes()) {
        *to = from;
    }
    // SAFETY: the command reads and writes this structure, whose size it has been told.
    unsafe { ioctl(file, Updater::<ADD, Add>::new(&mut add)) }?;
    Ok(add.cookie)
}

/// Asks all devices of the file. The answer is in `request` if this fails, too.
pub(crate) fn ask(file: impl AsFd, command: Command, request: &mut Request) -> io::Result<()> {
    request.size = size_of::<Request>() as u32;
    // SAFETY: each command reads and writes this structure, whose size it has been told.
    unsafe {
        match command {
            Command::Stop => ioctl(file, Updater::<STOP, Request>::new(request)),
            Command::Resume => ioctl(file, Updater::<RESUME, Request>::new(request)),
            Command::Renew => ioctl(file, Updater::<RENEW, Request>::new(request)),
        }
    }?;
    Ok(())
}

/// Fills `statuses`, in the order in which the devices were added. Returns how many there are,
/// which may be more.
pub(crate) fn report(file: impl AsFd, statuses: &mut [Status]) -> io::Result<usize> {
    let mut report = Report {
        size: size_of::<Report>() as u32,
        flags: 0,
        count: u32::try_from(statuses.len()).unwrap_or(u32::MAX),
        status_size: size_of::<Status>() as u32,
        statuses: statuses.as_mut_ptr() as u64,
    };
    // SAFETY: the command reads and writes this structure, whose size it has been told, and writes
    // at most `count` of `statuses`, each of `status_size`, which are borrowed for as long. Any
    // bytes are a valid `Status`.
    unsafe { ioctl(file, Updater::<REPORT, Report>::new(&mut report)) }?;
    Ok(report.count as usize)
}

/// Calls off the stop that another thread waits for, if one does.
pub(crate) fn call_off(file: impl AsFd) -> io::Result<()> {
    // SAFETY: the command takes no argument.
    Ok(unsafe { ioctl(file, NoArg::<CALL_OFF>::new()) }?)
}

/// Freezes the file system of an open folder: what is written to it waits.
pub(crate) fn freeze(folder: impl AsFd) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the command does not look at its argument.
    Ok(unsafe { ioctl(folder, Updater::<FIFREEZE, i32>::new(&mut unused)) }?)
}

/// Ends that.
pub(crate) fn thaw(folder: impl AsFd) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the command does not look at its argument.
    Ok(unsafe { ioctl(folder, Updater::<FITHAW, i32>::new(&mut unused)) }?)
}

/// Another descriptor of what has come to this process under the number `fd`. Neither goes on to
/// the next program. EBADF if there is none.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: not -1. If nothing is open under this number, both calls fail; nobody in this process
    // owns it, and so nobody closes it meanwhile.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let inherited = fcntl_dupfd_cloexec(fd, 3)?;
    fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    Ok(inherited)
}

/// Ignores a signal, in programs that are executed later, too.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: this installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// A file that is kept in memory as long as this lives, if the process is locked in memory.
pub(crate) struct Mapping {
    address: *mut c_void,
    length: usize,
}

impl Mapping {
    /// Of the first `length` bytes, which must not be 0.
    pub(crate) fn of(file: impl AsFd, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address where nothing is. Nobody reads what is there.
        let address = unsafe {
            let flags = MapFlags::SHARED | MapFlags::LOCKED | MapFlags::POPULATE;
            mmap(ptr::null_mut(), length, ProtFlags::READ, flags, file, 0)
        }?;
        Ok(Self { address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is this mapping's alone, and nothing points into it.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
