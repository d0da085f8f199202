// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the server logs. Guests cause lines, and nobody may be there to read them: whoever logs never waits, and never fails. The lines go
//! through a queue to a thread that writes them, and may be blocked or refused alone. What there is no room for is counted. Of the same
//! line by threads of the same name, and so of the same device, only so many are let through in a while; how many were left out is said
//! then.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

use crate::threads::Threads;

/// The thread that writes.
const THREAD: &str = "log";
/// Lines that wait to be written, and the longest one.
const MOST_LINES: usize = 1024;
const LONGEST: usize = 4096;
/// How many of a kind are let through in [`WHILE`], and how many kinds are told apart.
const MOST_OF_A_KIND: u64 = 20;
const WHILE: Duration = Duration::from_secs(60);
const MOST_KINDS: usize = 1024;

/// The log.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The writer has one that is not among them any more.
    writing: bool,
    /// There was no room for them, or they could not be written.
    lost: u64,
    kinds: HashMap<Source, Kind>,
}

/// Which line, and the name of the threads that log it.
type Source = (Identifier, Option<String>);

/// Lines of a kind.
#[derive(Debug)]
struct Kind {
    since: Instant,
    what: String,
    count: u64,
}

impl State {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() < MOST_LINES {
            let line = line.get(..LONGEST).unwrap_or(line);
            self.lines.push_back(line.to_vec());
        } else {
            self.lost += 1;
        }
    }

    /// Whether there may be another line of that kind.
    fn allows(&mut self, kind: Source, what: &str, now: Instant) -> bool {
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&kind) {
            self.lost += 1;
            return false;
        }
        let kind = self.kinds.entry(kind).or_insert_with(|| Kind {
            since: now,
            what: what.to_owned(),
            count: 0,
        });
        kind.count += 1;
        kind.count <= MOST_OF_A_KIND
    }

    /// Says how many lines were left out of the kinds whose while is over; of all of them, if this is the end.
    fn tell_left_out(&mut self, now: Instant, end: bool) {
        let mut told = Vec::new();
        self.kinds.retain(|_, kind| {
            let over = end || now.saturating_duration_since(kind.since) >= WHILE;
            let left_out = kind.count.saturating_sub(MOST_OF_A_KIND);
            if over && left_out > 0 {
                told.push(format!("{left_out} more lines left out: {}\n", kind.what));
            }
            !over
        });
        for line in told {
            self.push(line.as_bytes());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, for ever.
    fn write(&self, mut to: impl Write) {
        let mut state = self.lock();
        loop {
            state.tell_left_out(Instant::now(), false);
            let Some(line) = state.lines.pop_front() else {
                self.changed.notify_all();
                let wait = self.changed.wait_timeout(state, WHILE);
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            let lost = state.lost;
            state.writing = true;
            drop(state);
            let told = match lost {
                0 => Ok(()),
                _ => writeln!(to, "{lost} lines were lost"),
            };
            let written = told
                .as_ref()
                .map_or(Ok(()), |()| to.write_all(&line).and_then(|()| to.flush()));
            state = self.lock();
            state.writing = false;
            if told.is_ok() {
                state.lost -= lost;
            }
            state.lost += u64::from(told.is_err() || written.is_err());
        }
    }
}

impl Log {
    /// A log that is written to `to`.
    pub fn start(threads: &Threads, to: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        threads.spawn(THREAD, move || {
            writer.write(to);
            Ok(())
        })?;
        Ok(Self(shared))
    }

    /// Adds a line that says why this thread panics. The one that writes the lines may have them locked, and nobody else writes any.
    pub fn panicked(&self, line: &str) {
        if thread::current().name() != Some(THREAD) {
            self.line(line);
        }
    }

    /// Adds a line.
    pub fn line(&self, line: &str) {
        self.0.lock().push(format!("{line}\n").as_bytes());
        self.0.changed.notify_all();
    }

    /// Returns when everything is written, or when it has not been for as long as `patience`.
    pub fn finish(&self, patience: Duration) {
        let mut state = self.0.lock();
        state.tell_left_out(Instant::now(), true);
        if state.lost > 0 && state.lines.is_empty() {
            // Has the writer say so.
            state.push(b"");
        }
        self.0.changed.notify_all();
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(
            self.0
                .changed
                .wait_timeout_while(state, patience, unwritten),
        );
    }
}

/// Takes one line.
#[derive(Debug)]
pub struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().push(line);
        self.0.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let what = format!("{}, {}", metadata.target(), metadata.name());
        let thread = thread::current().name().map(str::to_owned);
        let kind = (metadata.callsite(), thread);
        self.0.lock().allows(kind, &what, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Failure;
    use std::sync::mpsc::{sync_channel, Receiver};
    use tracing_subscriber::layer::SubscriberExt;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What was written. Each write waits until it is allowed, and is refused if that says so.
    #[derive(Clone)]
    struct Sink(Arc<Mutex<String>>, Arc<Mutex<Receiver<bool>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.lock().unwrap().recv() == Ok(false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let text = std::str::from_utf8(bytes).unwrap();
            self.0.lock().unwrap().push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink() -> (Sink, std::sync::mpsc::SyncSender<bool>) {
        let (allow, allowed) = sync_channel(16);
        (Sink(Arc::default(), Arc::new(Mutex::new(allowed))), allow)
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_was_lost_is_counted() {
        let (sink, allow) = sink();
        let log = Log::start(&Threads::new().0, sink.clone()).unwrap();
        for nth in 0..3 * MOST_LINES {
            let line = format!("line {nth}\n");
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        log.finish(Duration::ZERO);
        assert!(log.0.lock().lines.len() <= MOST_LINES);
        drop(allow);
        log.finish(PATIENCE);
        let text = sink.0.lock().unwrap().clone();
        let lines = text.lines().filter(|line| line.starts_with("line "));
        let lost = text.lines().filter_map(|line| {
            let count = line.strip_suffix(" lines were lost")?;
            count.parse::<usize>().ok()
        });
        assert_eq!(lines.count() + lost.sum::<usize>(), 3 * MOST_LINES);
    }

    #[test]
    fn a_line_that_can_not_be_written_is_lost_and_nobody_fails() {
        let (sink, allow) = sink();
        let log = Log::start(&Threads::new().0, sink.clone()).unwrap();
        log.line("refused");
        allow.send(false).unwrap();
        drop(allow);
        log.finish(PATIENCE);
        log.line("written");
        log.finish(PATIENCE);
        assert_eq!(*sink.0.lock().unwrap(), "1 lines were lost\nwritten\n");
    }

    #[test]
    fn of_a_line_that_comes_again_and_again_most_are_only_counted() {
        let (sink, allow) = sink();
        drop(allow);
        let log = Log::start(&Threads::new().0, sink.clone()).unwrap();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(log.clone()))
            .with(log.clone());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1000 {
                tracing::warn!("again");
            }
            tracing::warn!("another");
        });
        log.finish(PATIENCE);
        let text = sink.0.lock().unwrap().clone();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!((count("again"), count("another")), (20, 1));
        assert_eq!(count("980 more lines left out: "), 1);
    }

    #[test]
    fn threads_of_one_name_are_one_source_of_lines() {
        let (sink, allow) = sink();
        drop(allow);
        let log = Log::start(&Threads::new().0, sink.clone()).unwrap();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(log.clone()))
            .with(log.clone());
        let dispatch = tracing::Dispatch::new(subscriber);
        for name in ["control", "disk worker"] {
            for _ in 0..30 {
                let dispatch = dispatch.clone();
                let logs = move || {
                    tracing::dispatcher::with_default(&dispatch, || tracing::warn!("from a thread"))
                };
                let thread = thread::Builder::new().name(name.to_owned());
                thread.spawn(logs).unwrap().join().unwrap();
            }
        }
        log.finish(PATIENCE);
        let text = sink.0.lock().unwrap().clone();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count("from a thread"), 40);
        assert_eq!(count("10 more lines left out: "), 2);
    }

    #[test]
    fn a_writer_that_panics_is_told_of() {
        struct Wrong;
        impl Write for Wrong {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("as it is to");
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (threads, ended) = Threads::new();
        let log = Log::start(&threads, Wrong).unwrap();
        log.line("any");
        let Err(Failure::Panicked(name)) = ended.recv_timeout(PATIENCE).unwrap() else {
            panic!("it has not panicked");
        };
        assert_eq!(name, THREAD);
        log.finish(Duration::ZERO);
    }
}
