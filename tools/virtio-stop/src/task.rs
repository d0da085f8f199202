// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What devices are stopped for: a program, or somebody who says when it is over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::process::Signal;

use crate::agent::Agent;
use crate::command::Command;
use crate::error::{Error, Result};
use crate::owner::Report;
use crate::signals::Signals;
use crate::waiting::{received, until, Received, Waiting};

/// What is told of a stop.
pub trait Tell {
    /// In bytes, by what was seen right after the stop. It must not need what stands still, nor
    /// allocate memory.
    fn line(&mut self, report: &Report) -> &[u8];
}

/// What is done while the devices stand still.
pub enum Task<'a> {
    /// A program runs.
    Command(Command),
    /// Somebody is told, and waited for.
    Until {
        /// What he says that it is over by.
        end: Until,
        /// Where he is told. If nobody listens, the stop ends.
        out: BorrowedFd<'a>,
        /// That the devices stand still.
        tell: Box<dyn Tell + 'a>,
    },
}

/// By what somebody says that something is over.
#[derive(Debug)]
pub enum Until {
    /// He closes the other end of this: a socket, or what does not block.
    Eof(OwnedFd),
    /// He writes something to the other end of it, or closes that.
    Input(OwnedFd),
    /// He has what was frozen thawed.
    Thaw(Agent),
}

/// What the task has come to.
#[derive(Debug)]
pub enum End {
    /// The program has ended.
    Exited(ExitStatus),
    /// The program could not be executed.
    NotExecuted(io::Error),
    /// Somebody has said so.
    Told,
}

impl Task<'_> {
    /// `None`: it has not come to an end, but the devices can't stand still any longer. `late` is
    /// set once they may not.
    pub(crate) fn work(
        &mut self,
        waiting: &mut Waiting<'_>,
        signals: &Signals,
        first: &Report,
        late: &mut bool,
    ) -> Result<Option<End>> {
        match self {
            Self::Command(command) => {
                let mut runs = command.go().is_ok();
                while runs {
                    let event = waiting.wait((command.as_fd(), PollFlags::IN), None);
                    let event = event.inspect_err(|_| command.signal(Signal::TERM.as_raw()))?;
                    if event.late {
                        *late = true;
                        command.signal(Signal::TERM.as_raw());
                    }
                    if event.over {
                        return Ok(None);
                    }
                    runs = !event.first;
                    if pass_on(signals, command) || event.late {
                        // It may wait for what stands still, and hear of that only afterwards.
                        waiting.let_go();
                    }
                }
                Ok(Some(end_of(command)))
            }
            Self::Until { end, out, tell } => {
                let line = tell.line(first);
                *late = !end.wait(waiting, *out, line, signals)?;
                Ok((!*late).then_some(End::Told))
            }
        }
    }

    /// Waits for what has come to no end, when all is undone.
    pub(crate) fn finish(&mut self, signals: &Signals) -> Result<Option<End>> {
        let Self::Command(command) = self else {
            return Ok(None);
        };
        loop {
            let mut fds = [
                PollFd::new(command, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            retry_on_intr(|| poll(&mut fds, None)).map_err(|error| Error::Owner(error.into()))?;
            let [ended, _] = fds.map(|fd| !fd.revents().is_empty());
            if ended {
                return Ok(Some(end_of(command)));
            }
            pass_on(signals, command);
        }
    }
}

impl Until {
    /// `false`: the devices may not stand still any longer.
    fn wait(
        &self,
        waiting: &mut Waiting<'_>,
        out: BorrowedFd<'_>,
        line: &[u8],
        signals: &Signals,
    ) -> Result<bool> {
        let interrupted = || signals.last();
        match self {
            Self::Eof(end) => {
                let is_over = || Ok(received(end.as_fd()) == Received::End);
                until(waiting, end.as_fd(), is_over, out, line, interrupted)
            }
            Self::Input(end) => {
                let is_over = || Ok(received(end.as_fd()) != Received::Nothing);
                until(waiting, end.as_fd(), is_over, out, line, interrupted)
            }
            Self::Thaw(agent) => {
                let is_over = || agent.thaws();
                until(waiting, agent.ticks(), is_over, out, line, interrupted)
            }
        }
    }
}

/// Sends COMMAND the signals that have come. Whether any has.
fn pass_on(signals: &Signals, command: &Command) -> bool {
    let mut any = false;
    while let Some(signal) = signals.take() {
        command.signal(signal);
        any = true;
    }
    any
}

fn end_of(command: &mut Command) -> End {
    command.wait().map_or_else(End::NotExecuted, End::Exited)
}

impl End {
    /// With which status a program ends that passes it on, as a shell does.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => (code & 0xff) as u8,
                (None, signal) => (signal.unwrap_or(0) & 0x7f) as u8 | 0x80,
            },
            Self::NotExecuted(error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::NotExecuted(_) => 126,
            Self::Told => 0,
        }
    }
}
