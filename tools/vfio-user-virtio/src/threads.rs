// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The threads of the server. When one of them fails the process ends: something that never answers would be there otherwise, and nobody
//! would know why.

use std::io;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// Why a thread has ended that was to go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A mistake in this program. The thread is named.
    #[error("thread '{0}' has panicked")]
    Panicked(String),
    /// A system call fails that it can't do without.
    #[error("thread '{0}' can't go on")]
    System(String, #[source] io::Error),
}

/// How the process's work has ended.
pub type Ended = Result<(), Failure>;

/// Starts threads.
#[derive(Clone, Debug)]
pub struct Threads(Sender<Ended>);

/// Tells when its thread panics.
struct Watch {
    name: String,
    ended: Sender<Ended>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = std::mem::take(&mut self.name);
            let _ = self.ended.send(Err(Failure::Panicked(name)));
        }
    }
}

impl Threads {
    /// No thread yet, and where it arrives that one of them has failed, or that all of them are to end.
    pub fn new() -> (Self, Receiver<Ended>) {
        let (sender, ended) = channel();
        (Self(sender), ended)
    }

    /// Starts one that is called `name`. It may end. It must not fail.
    pub fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let watch = Watch {
            name: name.to_owned(),
            ended: self.0.clone(),
        };
        let name = name.to_owned();
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                if let Err(error) = body() {
                    let _ = watch.ended.send(Err(Failure::System(name, error)));
                }
            })
            .map(drop)
    }

    /// Has another thread do something, and waits for it, but no longer than `patience`.
    pub fn briefly(&self, name: &str, patience: Duration, body: impl FnOnce() + Send + 'static) {
        let (sender, done) = channel();
        let started = self.spawn(name, move || {
            body();
            let _ = sender.send(());
            Ok(())
        });
        // If there is none, nobody sends.
        let _ = started.map(|()| done.recv_timeout(patience));
    }

    /// There is nothing to do for any of them any more.
    pub fn finish(&self) {
        let _ = self.0.send(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_is_told_of_and_one_that_ends_is_not() {
        let (threads, ended) = Threads::new();
        threads.spawn("good", || Ok(())).unwrap();
        threads.spawn("bad", || panic!("as it is to")).unwrap();
        let failure = || Err(io::ErrorKind::Other.into());
        threads.spawn("unlucky", failure).unwrap();
        drop(threads);
        let mut failures: Vec<String> = ended
            .iter()
            .map(|ended| ended.unwrap_err().to_string())
            .collect();
        failures.sort_unstable();
        assert_eq!(
            failures,
            ["thread 'bad' has panicked", "thread 'unlucky' can't go on"]
        );
    }
}
