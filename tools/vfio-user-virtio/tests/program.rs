// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program, when it has as many files as it can have.

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{channel, Receiver};
    use std::thread;
    use std::time::{Duration, Instant};

    /// A server with a device that is served on `device`, and is controlled on `control`. It may have 24 files.
    struct Program {
        folder: tempfile::TempDir,
        child: Child,
        log: Receiver<String>,
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Program {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut child = Command::new("sh")
                .args(["-c", "ulimit -n 24 && exec \"$0\" \"$@\""])
                .arg(env!("CARGO_BIN_EXE_vfio-user-virtio"))
                .args(["serve", "--control", "control", "--device"])
                .arg("null,name=x,id=9,queues=1,socket=device")
                .current_dir(folder.path())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let (sender, log) = channel();
            thread::spawn(move || {
                lines
                    .map_while(Result::ok)
                    .try_for_each(|line| sender.send(line))
            });
            let program = Self { folder, child, log };
            drop(program.connect("device"));
            program
        }

        fn connect(&self, socket: &str) -> UnixStream {
            let (path, start) = (self.folder.path().join(socket), Instant::now());
            loop {
                match UnixStream::connect(&path) {
                    Ok(stream) => {
                        let minute = Some(Duration::from_secs(60));
                        stream.set_read_timeout(minute).unwrap();
                        return stream;
                    }
                    Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
                }
                thread::yield_now();
            }
        }

        fn is_connected(&self) -> bool {
            let mut control = self.connect("control");
            let request = b"{\"v\":1,\"id\":1,\"device\":\"x\",\"get\":\"connected\"}\n";
            control.write_all(request).unwrap();
            let mut line = String::new();
            BufReader::new(control).read_line(&mut line).unwrap();
            line.ends_with("true}\n")
        }

        /// Connects more clients than it can have, until it has said so.
        ///
        /// Its open files can't tell: accept(2) keeps a number for a client that has not come yet.
        fn fill(&self) -> Vec<UnixStream> {
            let clients = (0..40).map(|_| self.connect("control")).collect();
            let minute = Duration::from_secs(60);
            while !self
                .log
                .recv_timeout(minute)
                .unwrap()
                .contains("can't accept a client")
            {}
            clients
        }
    }

    #[test]
    fn clients_are_accepted_when_there_are_files_again() {
        let mut program = Program::start();
        let clients = program.fill();
        let mut device = program.connect("device");
        // Message 1 is command 1, of 40 bytes: the version 0.0.
        let header = [1u16, 1, 40, 0, 0, 0, 0, 0, 0, 0].map(u16::to_ne_bytes);
        let version = [&header.concat()[..], b"{\"capabilities\":{}}\0"].concat();
        device.write_all(&version).unwrap();
        drop(clients);
        let mut header = [0; 16];
        device.read_exact(&mut header).unwrap();
        assert!(program.is_connected());
        assert!(program.child.try_wait().unwrap().is_none());
    }
}
