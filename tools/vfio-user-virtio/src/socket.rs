// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets that listen: for QEMU, and for who controls the devices.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How long to wait for what is wanting to accept a client: a file descriptor, memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `path`. A socket that a dead process has left there is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process is listening there",
        ));
    }
    // Only a socket is removed: anything else there makes bind() fail.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Sockets that were made to listen on. They are removed when this is dropped.
#[derive(Debug, Default)]
pub struct Made(Vec<PathBuf>);

impl Made {
    /// Listens on `path`, too. A socket that a dead process has left there is replaced.
    pub fn listen(&mut self, path: &Path) -> io::Result<UnixListener> {
        let listener = listen(path)?;
        self.0.push(path.to_owned());
        Ok(listener)
    }

    /// They are not removed: clients may connect to them.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The next client. None: there is none after all. Who is accepted is waited for, whatever the listener's mode.
pub fn accept(listener: &UnixListener) -> Option<UnixStream> {
    let mut told = false;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => {
                if !told {
                    tracing::warn!(%error, "can't accept a client, and tries again");
                }
                told = true;
                thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_replaced_only_when_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = listen(&path).unwrap();
        let error = listen(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        listen(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(listen(&file).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = listen(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(accept(&listener).is_none());
        let client = UnixStream::connect(&path).unwrap();
        let accepted = accept(&listener).unwrap();
        drop(accepted);
        assert_eq!(io::copy(&mut &client, &mut io::sink()).unwrap(), 0);
    }
}
