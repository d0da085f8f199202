// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `run` waits for that has no command: the end of what can be read.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fcntl_getfl, fcntl_setfl, fstat, open, FileType, Mode, OFlags};
use rustix::io::Errno;
use virtio_stop::{inherited, is_closed, Error, Result};

/// What has come to this process under the number `fd`.
pub(crate) fn end(fd: i32) -> Result<OwnedFd> {
    let failed = |source| Error::Descriptor { fd, source };
    let given = inherited(fd).map_err(failed)?;
    let kind = fstat(&given).map_err(|error| failed(error.into()))?;
    let kind = FileType::from_raw_mode(kind.st_mode);
    if matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
        return Err(Error::EndUnfit(fd));
    }
    if is_held(&given) {
        return Err(Error::EndHeld(fd));
    }
    let end = not_blocking(&given).map_err(failed)?;
    // Else it would resume as soon as it has stopped, and nobody would know. Only `given` knows of
    // a writer of a FIFO who has gone before the other one was opened.
    if is_closed(&end) || is_hung_up(&given) {
        return Err(Error::EndClosed(fd));
    }
    Ok(end)
}

/// Opens it once more. It is not made so itself: whoever shares it may rely on that.
fn not_blocking(given: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", given.as_raw_fd());
    match open(path, flags, Mode::empty()) {
        Ok(end) => Ok(end),
        // What has no name: a socket, for example, which needs not be opened.
        Err(Errno::NXIO) => given.try_clone(),
        // What can be open once only, for example a port of virtio-serial: nobody shares it.
        Err(Errno::BUSY) => {
            fcntl_setfl(given, fcntl_getfl(given)? | OFlags::NONBLOCK)?;
            given.try_clone()
        }
        Err(error) => Err(error.into()),
    }
}

fn is_hung_up(given: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(given, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    let [given] = fds;
    polled.is_ok() && given.revents().contains(PollFlags::HUP)
}

/// Whether this process could write to the pipe that it waits for: it would never end.
fn is_held(end: &OwnedFd) -> bool {
    let Some(pipe) = pipe(end) else { return false };
    let is_other_end =
        |fd: &dyn AsFd| self::pipe(fd.as_fd()) == Some(pipe) && can_write(fd.as_fd());
    // None of the others goes on to another program, which would keep it open likewise.
    let folder = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others: Vec<i32> = numbers.filter(|&fd| fd > 2).collect();
    let others = others.into_iter().filter_map(|fd| inherited(fd).ok());
    is_other_end(&io::stdin())
        || is_other_end(&io::stdout())
        || is_other_end(&io::stderr())
        // Each of them, so no `any`.
        || others.fold(false, |is_held, fd| is_held | is_other_end(&fd))
}

/// Which pipe or FIFO it is.
fn pipe(fd: impl AsFd) -> Option<(u64, u64)> {
    let stat = fstat(fd).ok()?;
    let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    is_pipe.then_some((stat.st_dev, stat.st_ino))
}

fn can_write(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{mknodat, CWD};
    use rustix::io::{fcntl_getfd, fcntl_setfd, FdFlags};
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn who_could_write_himself_would_wait_for_ever() {
        let (reader, writer) = pipe().unwrap();
        fcntl_setfd(&writer, FdFlags::empty()).unwrap();
        let held = end(reader.as_raw_fd());
        assert!(matches!(held, Err(Error::EndHeld(_))), "{held:?}");
        assert_eq!(fcntl_getfd(&writer), Ok(FdFlags::CLOEXEC));
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let both = File::options().read(true).write(true).open(path).unwrap();
        drop((reader, writer));
        let held = end(both.as_raw_fd());
        assert!(matches!(held, Err(Error::EndHeld(_))), "{held:?}");
    }

    #[test]
    fn the_end_must_be_to_come() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        end(ours.as_raw_fd()).unwrap();
        drop(theirs);
        let closed = end(ours.as_raw_fd());
        assert!(matches!(closed, Err(Error::EndClosed(_))), "{closed:?}");
        let none = end(-1);
        assert!(matches!(none, Err(Error::Descriptor { .. })), "{none:?}");
    }

    #[test]
    fn what_has_one_side_only_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let unfit = end(file.as_raw_fd());
        assert!(matches!(unfit, Err(Error::EndUnfit(_))), "{unfit:?}");
    }

    #[test]
    fn who_reads_along_does_not_make_it_wait() {
        let (reader, writer) = pipe().unwrap();
        let end = not_blocking(&reader).unwrap();
        assert!(fcntl_getfl(&end).unwrap().contains(OFlags::NONBLOCK));
        assert!(!fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        assert!(!is_closed(&end));
        drop(writer);
        assert!(is_closed(&end));
    }

    #[test]
    fn a_fifo_without_a_writer_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let reader = open(&path, flags, Mode::empty()).unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let opened = not_blocking(&reader).unwrap();
        assert!(!is_closed(&opened) && !is_hung_up(&reader));
        drop(writer);
        assert!(is_closed(&opened));
        let closed = end(reader.as_raw_fd());
        assert!(matches!(closed, Err(Error::EndClosed(_))), "{closed:?}");
    }
}
