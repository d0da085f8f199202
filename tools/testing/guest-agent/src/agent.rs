// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connection to an agent.

use std::io::{self, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qapi::{qga, Command, ExecuteError, Qga, Stream};

/// How long to wait before asking again what has not happened yet.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a guest may take to answer before it is taken not to have heard the question.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the agent could not be asked, or did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing listens there.
    #[error("can't connect to {0}")]
    Connect(String, #[source] io::Error),
    /// It has not answered in time.
    #[error("no answer to {0} in time")]
    Silent(&'static str),
    /// The connection has ended, or what came was no answer.
    #[error("{0}")]
    Connection(&'static str, #[source] io::Error),
    /// It answered with an error.
    #[error("{0}: {1}")]
    Refused(&'static str, String),
}

/// What a program that the agent has run came to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status, or 128 + the signal that has ended it.
    pub(crate) status: u8,
    /// What it has written to standard output, as far as the agent keeps it.
    pub(crate) output: Vec<u8>,
    /// What it has written to standard error.
    pub(crate) errors: Vec<u8>,
}

/// An agent that has answered.
pub(crate) struct Agent {
    asked: Qga<Stream<BufReader<UnixStream>, UnixStream>>,
    stream: UnixStream,
    until: Instant,
}

impl Agent {
    /// Connects to the agent behind the socket at `path`, as soon as it answers. Whatever is asked of
    /// it has to be answered by the time `until`.
    ///
    /// # Errors
    ///
    /// Nothing listens there, or the agent does not answer in time.
    pub(crate) fn connect(path: &Path, until: Instant) -> Result<Self, Error> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            let reader = BufReader::new(stream.try_clone()?);
            Ok((Qga::new(Stream::new(reader, stream.try_clone()?)), stream))
        };
        let (asked, stream) =
            connect().map_err(|error| Error::Connect(path.display().to_string(), error))?;
        let mut agent = Self {
            asked,
            stream,
            until,
        };
        agent.synchronize()?;
        Ok(agent)
    }

    /// Asks until it gives the answer to this very question: others may have left answers behind, and
    /// a guest that starts loses what it is asked.
    fn synchronize(&mut self) -> Result<(), Error> {
        let mut id = i64::from(std::process::id()) << 16;
        loop {
            id += 1;
            let mut answer = self.ask_for(&qga::guest_sync { id }, PATIENCE);
            loop {
                match answer {
                    Ok(answered) if answered == id => return Ok(()),
                    Err(Error::Silent(_)) if Instant::now() < self.until => break,
                    Err(Error::Connection(name, error))
                        if error.kind() != ErrorKind::InvalidData =>
                    {
                        return Err(Error::Connection(name, error))
                    }
                    Err(error @ (Error::Silent(_) | Error::Connect(..))) => return Err(error),
                    // What somebody else had asked for.
                    Ok(_) | Err(_) => answer = self.read::<qga::guest_sync>(PATIENCE),
                }
            }
        }
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// The agent refuses, or does not answer in time.
    pub(crate) fn ask<C: Command>(&mut self, command: &C) -> Result<C::Ok, Error> {
        self.ask_for(command, Duration::MAX)
    }

    /// The same, and gives it that much time at most.
    fn ask_for<C: Command>(&mut self, command: &C, time: Duration) -> Result<C::Ok, Error> {
        self.asked
            .write_command(command)
            .map_err(|error| Error::Connection(C::NAME, error))?;
        self.read::<C>(time)
    }

    fn read<C: Command>(&mut self, time: Duration) -> Result<C::Ok, Error> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Silent(C::NAME));
        }
        self.stream
            .set_read_timeout(Some(left.min(time)))
            .map_err(|error| Error::Connection(C::NAME, error))?;
        self.asked
            .read_response::<C>()
            .map_err(|error| match error {
                ExecuteError::Qapi(error) => Error::Refused(C::NAME, error.desc),
                ExecuteError::Io(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    Error::Silent(C::NAME)
                }
                ExecuteError::Io(error) => Error::Connection(C::NAME, error),
            })
    }

    /// Has it start a program, with that input. Returns the program's process ID.
    ///
    /// # Errors
    ///
    /// As for [`Self::ask`].
    pub(crate) fn start(&mut self, command: &[String], input: Vec<u8>) -> Result<i64, Error> {
        let mut words = command.iter().cloned();
        let exec = qga::guest_exec {
            path: words.next().unwrap_or_default(),
            arg: Some(words.collect()),
            env: None,
            input_data: Some(input).filter(|input| !input.is_empty()),
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
        };
        Ok(self.ask(&exec)?.pid)
    }

    /// Waits for a program that it has started.
    ///
    /// # Errors
    ///
    /// As for [`Self::ask`].
    pub(crate) fn wait(&mut self, pid: i64) -> Result<Ended, Error> {
        loop {
            let status = self.ask(&qga::guest_exec_status { pid })?;
            if status.exited {
                let code = match (status.exitcode, status.signal) {
                    (Some(code), _) => code,
                    (None, signal) => signal.unwrap_or_default() + 128,
                };
                return Ok(Ended {
                    status: u8::try_from(code).unwrap_or(u8::MAX),
                    output: status.out_data.unwrap_or_default(),
                    errors: status.err_data.unwrap_or_default(),
                });
            }
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    /// The socket of an agent that answers each of the questions with one of the texts.
    fn agent(name: &str, answers: Vec<fn(&str) -> String>) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vds-agent-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut questions = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                let question = questions.next().unwrap().unwrap();
                stream.write_all(answer(&question).as_bytes()).unwrap();
            }
        });
        path
    }

    fn echo(question: &str) -> String {
        let id = question
            .split(|c: char| !c.is_ascii_digit())
            .find(|id| !id.is_empty());
        format!("{{\"return\": {}}}\n", id.unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn answers_to_others_are_passed_over() {
        let stale = |question: &str| {
            let refused = r#"{"error": {"class": "GenericError", "desc": "no"}}"#;
            format!(
                "{{\"return\": {{}}}}\n{refused}\n{{\"return\": 7}}\n{}",
                echo(question)
            )
        };
        let path = agent("stale", vec![stale, |_| "{\"return\": 3}\n".to_owned()]);
        let mut agent = Agent::connect(&path, soon()).unwrap();
        assert_eq!(agent.ask(&qga::guest_fsfreeze_freeze {}).unwrap(), 3);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_question_that_was_lost_is_asked_again() {
        let path = agent("lost", vec![|_| String::new(), echo]);
        Agent::connect(&path, soon()).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_end_of_the_guest_ends_the_wait() {
        let path = agent("gone", vec![|_| String::new()]);
        let began = soon();
        assert!(matches!(
            Agent::connect(&path, began),
            Err(Error::Connection(..))
        ));
        assert!(Instant::now() < began);
        std::fs::remove_file(path).unwrap();
    }
}
