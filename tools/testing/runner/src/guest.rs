// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that runs: a process group, what it prints, and what that has come to.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process_group, test_kill_process_group, Pid, Signal};

use crate::ktap::{Line, Tally};
use crate::plan::Guest;

/// How long a guest that is to end may take to do so.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How many of the lines before a failure are shown.
const SHOWN: usize = 60;

/// Something has happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest with that number has printed a line at that time.
    Line(usize, Instant, String),
    /// It prints no more.
    End(usize),
    /// The user, or the system, wants everything to end.
    Interrupted,
}

/// Something that took its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Took {
    /// Which guest.
    pub(crate) guest: String,
    /// Which program; the guest itself, if there is none.
    pub(crate) program: Option<String>,
    /// Which of its results; the program itself, if there is none.
    pub(crate) result: Option<String>,
    /// Whether it has passed, as far as that is known.
    pub(crate) passed: bool,
    /// How long.
    pub(crate) time: Duration,
}

/// A guest that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which it is.
    pub(crate) guest: Guest,
    /// What it has come to so far.
    pub(crate) tally: Tally,
    /// What has taken how long.
    pub(crate) times: Vec<Took>,
    /// The last line that it has printed.
    pub(crate) last_words: String,
    /// What it has printed before each failure, since the result before that.
    pub(crate) evidence: Vec<String>,
    /// The last lines since the last result, each with its time.
    said: VecDeque<String>,
    child: Child,
    killed: bool,
    waited_for: bool,
    log: File,
    errors: File,
    began: Instant,
    program_began: Instant,
    result_began: Instant,
    heard: Instant,
}

impl Running {
    /// Starts `command`, which is that guest, as a process group of its own. What it prints goes to the file `log`, and to `events`
    /// as of the guest `number`. What it complains of goes to a file with another ending, and is shown if the guest fails.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub(crate) fn start(
        mut command: Command,
        guest: Guest,
        number: usize,
        log: &Path,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let errors = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(log.with_extension("errors"))?;
        errors.set_len(0)?;
        let log = File::options().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take();
        thread::spawn(move || {
            for line in output
                .into_iter()
                .flat_map(|output| BufReader::new(output).split(b'\n'))
            {
                let Ok(line) = line else {
                    break;
                };
                let line = String::from_utf8_lossy(&line).into_owned();
                if events
                    .send(Event::Line(number, Instant::now(), line))
                    .is_err()
                {
                    return;
                }
            }
            // Nobody listens only if everything ends.
            let _ = events.send(Event::End(number));
        });
        let now = Instant::now();
        Ok(Self {
            tally: Tally::new(guest.steps.iter().map(|step| step.name.clone())),
            guest,
            times: Vec::new(),
            last_words: String::new(),
            evidence: Vec::new(),
            said: VecDeque::new(),
            child,
            killed: false,
            waited_for: false,
            log,
            errors,
            began: now,
            program_began: now,
            result_began: now,
            heard: now,
        })
    }

    /// It has printed a line, at that time.
    ///
    /// # Errors
    ///
    /// The log can't be written.
    pub(crate) fn hear(&mut self, now: Instant, text: &str) -> io::Result<()> {
        let since = now.duration_since(self.began).as_secs_f64();
        let said = format!("[{since:8.2}] {}", text.trim_end_matches('\r'));
        writeln!(self.log, "{said}")?;
        if self.said.len() == SHOWN {
            self.said.pop_front();
        }
        self.said.push_back(said);
        let line = Line::parse(text);
        match &line {
            Line::Results(_) => self.result_began = now,
            Line::Result(result) => {
                let program = self.tally.running().map(str::to_owned);
                let time = now.duration_since(self.result_began);
                self.note(program, Some(result.name.clone()), result.passed, time);
                self.result_began = now;
                self.judge_what_was_said(result.passed);
            }
            Line::Program(program) => {
                let time = now.duration_since(self.program_began);
                self.note(Some(program.name.clone()), None, program.passed, time);
                self.program_began = now;
                self.judge_what_was_said(program.passed);
            }
            Line::Programs(_) => self.program_began = now,
            Line::Other => {}
        }
        self.tally.see(&line);
        self.heard = now;
        self.last_words = text.to_owned();
        Ok(())
    }

    /// A result has come: what was said until then is of interest only if it is a failure.
    fn judge_what_was_said(&mut self, passed: bool) {
        let said = self.said.drain(..);
        if !passed {
            self.evidence.extend(said);
        }
    }

    /// The end of what it has complained of.
    fn complaints(&mut self) -> io::Result<Vec<String>> {
        let mut text = Vec::new();
        self.errors.rewind()?;
        self.errors.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let first = lines.len().saturating_sub(SHOWN);
        Ok(lines.into_iter().skip(first).map(str::to_owned).collect())
    }

    fn note(
        &mut self,
        program: Option<String>,
        result: Option<String>,
        passed: bool,
        time: Duration,
    ) {
        self.times.push(Took {
            guest: self.guest.to_string(),
            program,
            result,
            passed,
            time,
        });
    }

    /// For how long it has run.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// For how long it has said nothing.
    pub(crate) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// It prints no more: waits for its end, or brings it about.
    ///
    /// # Errors
    ///
    /// It can't be waited for.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let status = self.wait()?;
        self.note(None, None, status.success(), self.age());
        self.tally.end();
        // What comes after the last result tells why the guest has failed, or has said nothing more.
        self.judge_what_was_said(status.success());
        if !status.success() {
            let complaints = self.complaints()?;
            self.evidence.extend(complaints);
            if self.tally.failures().is_empty() {
                self.tally
                    .flaw(format!("{status}, although no result has failed"));
            }
        }
        Ok(())
    }

    /// Has it end, with all its processes.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.signal(Signal::TERM);
    }

    /// Nobody could listen to it until now.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.heard = now;
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, signal);
        }
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        let patient_until = Instant::now() + GRACE;
        let mut ended = None;
        loop {
            if ended.is_none() {
                ended = self.child.try_wait()?;
            }
            if let Some(status) = ended {
                // What it has started cleans up after itself when it is told to end.
                let others = self.killed
                    && self
                        .group()
                        .is_some_and(|group| test_kill_process_group(group).is_ok());
                if !others {
                    self.waited_for = true;
                    return Ok(status);
                }
            }
            if Instant::now() > patient_until {
                self.signal(Signal::KILL);
                self.waited_for = true;
                return ended.map_or_else(|| self.child.wait(), Ok);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited_for {
            self.kill();
            // There is nobody left to tell.
            let _ = self.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Kernel, Protocol};

    fn evidence(lines: &[&str]) -> Vec<String> {
        evidence_of(Command::new("true"), lines)
    }

    fn evidence_of(command: Command, lines: &[&str]) -> Vec<String> {
        let logs = tempfile::tempdir().unwrap();
        let guest = Guest {
            suite: "virtio_device_stop",
            kernel: Kernel::Stock,
            protocol: Protocol::Suspend,
            steps: Vec::new(),
        };
        let (events, _heard) = std::sync::mpsc::channel();
        let log = logs.path().join("log");
        let mut running = Running::start(command, guest, 1, &log, events).unwrap();
        for line in lines {
            running.hear(Instant::now(), line).unwrap();
        }
        running.end().unwrap();
        let text = |line: &String| {
            line.split_once("] ")
                .map_or(&**line, |(_, text)| text)
                .to_owned()
        };
        running.evidence.iter().map(text).collect()
    }

    #[test]
    fn what_led_to_a_failure_is_kept_and_nothing_else() {
        let lines = [
            "TAP version 13\r",
            "# 1..3",
            "# ok 1 a",
            "# # the reason\r",
            "# not ok 2 b",
            "# # of no interest",
            "# ok 3 c",
            "ok 1 program",
        ];
        assert_eq!(evidence(&lines), ["# # the reason", "# not ok 2 b"]);
    }

    #[test]
    fn what_a_guest_that_fails_at_its_end_complains_of_is_shown() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 123"]);
        assert_eq!(
            evidence_of(command, &["# 1..1", "# ok 1 a", "said"]),
            ["said", "the reason"]
        );
        let mut command = Command::new("sh");
        command.args(["-c", "echo nothing >&2"]);
        assert_eq!(evidence_of(command, &["# 1..1", "# ok 1 a"]), [""; 0]);
    }

    #[test]
    fn of_much_that_was_said_the_end_is_kept() {
        let many: Vec<_> = (0..2 * SHOWN).map(|number| number.to_string()).collect();
        let mut lines: Vec<_> = many.iter().map(String::as_str).collect();
        lines.push("# not ok 1 a");
        let evidence = evidence(&lines);
        assert_eq!((evidence.len(), &*evidence[0]), (SHOWN, "61"));
    }
}
