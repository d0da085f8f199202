// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a person sees meanwhile: each program that has ended, and what runs now.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::guest::{Running, Took};

/// Without a terminal, what runs now is told when nothing else was for so long.
const SILENCE: Duration = Duration::from_secs(60);

/// What is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    all: ProgressBar,
    guests: BTreeMap<usize, ProgressBar>,
    lines: bool,
    began: Instant,
    spoke: Instant,
}

impl Screen {
    /// For so many programs.
    pub(crate) fn new(programs: usize) -> Self {
        let screen = Self::on(ProgressDrawTarget::stderr(), programs);
        Self {
            lines: true,
            ..screen
        }
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self::on(ProgressDrawTarget::hidden(), 0)
    }

    fn on(target: ProgressDrawTarget, programs: usize) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let all = ProgressBar::new(programs.try_into().unwrap_or(u64::MAX));
        if let Ok(style) =
            ProgressStyle::with_template("  {elapsed} {bar:30} {pos} of {len} programs")
        {
            all.set_style(style);
        }
        Self {
            all: bars.add(all),
            bars,
            guests: BTreeMap::new(),
            lines: false,
            began: Instant::now(),
            spoke: Instant::now(),
        }
    }

    fn say(&mut self, line: &str) {
        self.spoke = Instant::now();
        if self.lines {
            // Nobody may be left to read it.
            self.bars.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{line}");
            });
        }
    }

    /// A program has ended, with these results.
    pub(crate) fn program(&mut self, program: &Took, results: &[Took]) {
        self.all.inc(1);
        let failed = results.iter().filter(|result| !result.passed).count();
        let passed = results.len() - failed;
        let outcome = if failed > 0 || !program.passed {
            format!("{passed} passed, FAILED")
        } else {
            format!("{passed} passed")
        };
        let line = format!(
            "[{:>5}] {:>3} of {}  {:<24} {:<36} {:>5}  {outcome}",
            clock(self.began.elapsed()),
            self.all.position(),
            self.all.length().unwrap_or(0),
            program.guest,
            program.program.as_deref().unwrap_or_default(),
            clock(program.time),
        );
        self.say(&line);
    }

    /// A guest has ended, with its log in that file. If something has failed, what led to it is shown.
    pub(crate) fn guest(&mut self, number: usize, running: &Running, log: &Path) {
        if let Some(bar) = self.guests.remove(&number) {
            bar.finish_and_clear();
        }
        if running.tally.failures().is_empty() {
            return;
        }
        self.say(&format!("\n{}:", running.guest));
        for failure in running.tally.failures() {
            self.say(&format!("  FAILED {failure}"));
        }
        for line in &running.evidence {
            self.say(&format!("    {line}"));
        }
        self.say(&format!("  the whole log: {}\n", log.display()));
    }

    /// These run.
    pub(crate) fn tick(&mut self, running: &BTreeMap<usize, Running>) {
        let now = |running: &Running| {
            let program = running.tally.running().unwrap_or("the guest ends");
            format!("{} {program} {}", running.guest, clock(running.age()))
        };
        if std::io::stderr().is_terminal() {
            for (number, running) in running {
                let bar = self.guests.entry(*number).or_insert_with(|| {
                    let bar = ProgressBar::new_spinner();
                    self.bars.add(bar)
                });
                bar.set_message(now(running));
                bar.tick();
            }
            self.all.tick();
        } else if self.spoke.elapsed() > SILENCE {
            let all: Vec<_> = running.values().map(now).collect();
            self.say(&format!(
                "[{:>5}] running: {}",
                clock(self.began.elapsed()),
                all.join("; ")
            ));
        }
    }

    /// Nothing runs any more.
    pub(crate) fn end(&self) {
        self.all.finish_and_clear();
    }
}

/// Minutes and seconds.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
