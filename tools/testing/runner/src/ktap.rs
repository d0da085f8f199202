// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The nested KTAP of kselftest: one test program a line at the outer level, its results behind "# " before that line.

use std::collections::VecDeque;

/// What a line of output says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// So many programs are to run.
    Programs(usize),
    /// So many results are to come from the program that runs.
    Results(usize),
    /// A result of that program.
    Result(Outcome),
    /// The program has ended.
    Program(Outcome),
    /// Anything else.
    Other,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What was tested.
    pub(crate) name: String,
    /// Whether it has passed. A test that was skipped, or that is known to fail, has not.
    pub(crate) passed: bool,
}

impl Line {
    /// What `line` says. A serial line ends it with a carriage return.
    pub(crate) fn parse(line: &str) -> Self {
        let line = line.trim_end_matches('\r');
        if let Some(inner) = line.strip_prefix("# ") {
            if let Some(count) = plan(inner) {
                return Self::Results(count);
            }
            return outcome(inner).map_or(Self::Other, Self::Result);
        }
        if let Some(count) = plan(line) {
            return Self::Programs(count);
        }
        outcome(line).map_or(Self::Other, Self::Program)
    }
}

/// `1..N`, perhaps with a reason why there is nothing to do.
fn plan(line: &str) -> Option<usize> {
    line.strip_prefix("1..")?.split(' ').next()?.parse().ok()
}

/// `ok N NAME`, `not ok N NAME # DIRECTIVE`.
fn outcome(line: &str) -> Option<Outcome> {
    let (ok, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u64>().ok()?;
    let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let counts = !directive.starts_with("SKIP") && !directive.starts_with("XFAIL");
    // kselftest has a program as "selftests: SUITE: PROGRAM.sh".
    let name = name.rsplit(": ").next().unwrap_or(name).trim();
    Some(Outcome {
        name: name.strip_suffix(".sh").unwrap_or(name).to_owned(),
        passed: ok && counts,
    })
}

/// What the KTAP of one run has come to.
#[derive(Debug)]
pub(crate) struct Tally {
    passed: usize,
    failures: Vec<String>,
    /// The programs that are still to end, in their order.
    waiting: VecDeque<String>,
    planned: Option<usize>,
    results: usize,
    failed_in_program: bool,
    has_begun: bool,
    given_up: bool,
}

impl Tally {
    /// These programs are to run.
    pub(crate) fn new(programs: impl IntoIterator<Item = String>) -> Self {
        Self {
            passed: 0,
            failures: Vec::new(),
            waiting: programs.into_iter().collect(),
            planned: None,
            results: 0,
            failed_in_program: false,
            has_begun: false,
            given_up: false,
        }
    }

    /// The program that runs.
    pub(crate) fn running(&self) -> Option<&str> {
        self.waiting.front().map(String::as_str)
    }

    /// Whether a program has got as far as to say what it will do.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The programs that come after the one that runs.
    pub(crate) fn not_begun(&self) -> impl Iterator<Item = &String> {
        self.waiting.iter().skip(1)
    }

    /// How many results have passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// What has failed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Something has failed that no line tells of.
    pub(crate) fn flaw(&mut self, what: String) {
        self.failed_in_program = true;
        self.failures.push(what);
    }

    /// The program that runs was ended, for that reason.
    pub(crate) fn give_up(&mut self, why: &str) {
        let program = self.program();
        self.flaw(format!("{program}: {why}"));
        self.given_up = true;
    }

    /// Counts what a line says.
    pub(crate) fn see(&mut self, line: &Line) {
        self.has_begun |= matches!(line, Line::Results(_));
        match line {
            Line::Programs(count) if *count != self.waiting.len() => {
                let planned = self.waiting.len();
                self.flaw(format!("{count} programs instead of {planned} are planned"));
            }
            Line::Programs(_) | Line::Other => {}
            Line::Results(_) if self.planned.is_some() => {
                let program = self.program();
                self.flaw(format!("{program}: a second plan"));
            }
            Line::Results(count) => self.planned = Some(*count),
            Line::Result(result) => {
                self.results += 1;
                if result.passed {
                    self.passed += 1;
                } else {
                    let program = self.program();
                    self.flaw(format!("{program}: {}", result.name));
                }
            }
            Line::Program(end) => self.program_has_ended(end),
        }
    }

    fn program(&self) -> String {
        self.running().unwrap_or("nothing").to_owned()
    }

    fn program_has_ended(&mut self, end: &Outcome) {
        let program = self.program();
        if end.name != program {
            self.flaw(format!("{} has ended instead of {program}", end.name));
        }
        match self.planned {
            None => self.flaw(format!("{program}: no plan")),
            Some(0) => self.flaw(format!("{program}: nothing planned")),
            Some(planned) if self.results < planned => {
                let missing = planned - self.results;
                self.flaw(format!(
                    "{program}: {missing} of {planned} results are missing"
                ));
            }
            Some(planned) if self.results > planned => {
                self.flaw(format!("{program}: more results than planned"));
            }
            Some(_) if !end.passed && !self.failed_in_program => {
                self.flaw(format!("{program}: failed after its last result"));
            }
            Some(_) => {}
        }
        self.waiting.pop_front();
        self.planned = None;
        self.results = 0;
        self.failed_in_program = false;
    }

    /// There are no more lines.
    pub(crate) fn end(&mut self) {
        if self.given_up {
            return;
        }
        if let Some(program) = self.running() {
            let program = program.to_owned();
            self.flaw(format!("{program}: has not ended"));
        } else if self.results > 0 || self.planned.is_some() {
            self.flaw("results of a program that has not ended".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tally makes of these lines, of these programs: passed, and failed.
    fn totals(programs: &[&str], lines: &[&str]) -> (usize, usize) {
        let mut tally = Tally::new(programs.iter().map(|&name| name.to_owned()));
        for line in lines {
            tally.see(&Line::parse(line));
        }
        tally.end();
        (tally.passed(), tally.failures().len())
    }

    #[test]
    fn a_good_run() {
        let lines = [
            "TAP version 13",
            "1..2",
            "# TAP version 13",
            "# 1..2",
            "# ok 1 a",
            "# # all is well",
            "# ok 2 b\r",
            "ok 1 selftests: suite: x.sh",
            "# 1..1",
            "# ok 1 c",
            "ok 2 y",
        ];
        assert_eq!(totals(&["x", "y"], &lines), (3, 0));
    }

    #[test]
    fn a_failure_is_one() {
        let lines = [
            "1..1",
            "# 1..2",
            "# ok 1 a",
            "# not ok 2 b",
            "not ok 1 x # exit=1",
        ];
        assert_eq!(totals(&["x"], &lines), (1, 1));
    }

    #[test]
    fn a_skip_is_a_failure() {
        let lines = ["1..1", "# 1..1", "# ok 1 a # SKIP no device", "ok 1 x"];
        assert_eq!(totals(&["x"], &lines), (0, 1));
        let lines = ["1..1", "# 1..0 # SKIP no device", "ok 1 x # SKIP"];
        assert_eq!(totals(&["x"], &lines), (0, 1));
        let lines = ["1..1", "# 1..1", "# ok 1 a # XFAIL", "ok 1 x"];
        assert_eq!(totals(&["x"], &lines), (0, 1));
    }

    #[test]
    fn a_missing_result_is_a_failure() {
        assert_eq!(
            totals(&["x"], &["1..1", "# 1..2", "# ok 1 a", "ok 1 x"]),
            (1, 1)
        );
    }

    #[test]
    fn a_missing_plan_is_a_failure() {
        assert_eq!(totals(&["x"], &["1..1", "# ok 1 a", "ok 1 x"]), (1, 1));
    }

    #[test]
    fn a_second_plan_is_a_failure() {
        assert_eq!(
            totals(&["x"], &["# 1..1", "# 1..1", "# ok 1 a", "ok 1 x"]),
            (1, 1)
        );
    }

    #[test]
    fn a_program_that_fails_by_itself_is_a_failure() {
        assert_eq!(
            totals(&["x"], &["# 1..1", "# ok 1 a", "not ok 1 x # exit=1"]),
            (1, 1)
        );
    }

    #[test]
    fn a_guest_that_died_is_a_failure() {
        let lines = ["1..2", "# 1..1", "# ok 1 a", "ok 1 x", "# 1..1"];
        assert_eq!(totals(&["x", "y"], &lines), (1, 1));
        assert_eq!(totals(&["x"], &[]), (0, 1));
    }

    #[test]
    fn another_program_than_was_asked_for_is_a_failure() {
        assert_eq!(totals(&["x"], &["# 1..1", "# ok 1 a", "ok 1 y"]), (1, 1));
        assert_eq!(
            totals(&["x"], &["1..2", "# 1..1", "# ok 1 a", "ok 1 x"]),
            (1, 1)
        );
    }

    #[test]
    fn whoever_has_not_begun_is_known() {
        let mut tally = Tally::new(["x", "y", "z"].map(str::to_owned));
        for line in ["# 1..1", "# ok 1 a", "ok 1 x", "# 1..3"] {
            tally.see(&Line::parse(line));
        }
        assert_eq!(tally.running(), Some("y"));
        assert!(tally.not_begun().eq(["z"]));
    }
}
