// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a tier has come to, and where its time has gone.

use std::fmt::Write;
use std::time::Duration;

use crate::guest::Took;
use crate::plan::Guest;
use crate::run::Results;
use crate::screen::clock;

/// How many of the slowest are named.
const SLOWEST: usize = 10;

/// All durations, one a line: seconds, guest, program, result.
pub(crate) fn table(times: &[Took]) -> String {
    let mut table = String::from("seconds\tguest\tprogram\tresult\n");
    for took in times {
        let program = took.program.as_deref().unwrap_or("all");
        let result = took.result.as_deref().unwrap_or("all");
        // To a string there is nothing that can fail.
        let _ = writeln!(
            table,
            "{:.2}\t{}\t{program}\t{result}",
            took.time.as_secs_f64(),
            took.guest
        );
    }
    table
}

/// Those that have taken longest, of one kind.
fn slowest(times: &[Took], kind: impl Fn(&Took) -> bool) -> Vec<&Took> {
    let mut all: Vec<_> = times.iter().filter(|took| kind(took)).collect();
    all.sort_by_key(|took| std::cmp::Reverse(took.time));
    all.truncate(SLOWEST);
    all
}

/// Programs that have taken longer than their budget allows.
fn over_budget(times: &[Took], guests: &[Guest]) -> Vec<String> {
    let mut lines = Vec::new();
    for took in times.iter().filter(|took| took.result.is_none()) {
        let budget = guests
            .iter()
            .filter(|guest| guest.to_string() == took.guest)
            .flat_map(|guest| &guest.steps)
            .find(|step| Some(&step.name) == took.program.as_ref())
            .map(|step| step.budget);
        if let Some(budget) = budget.filter(|budget| took.time > *budget) {
            let program = took.program.as_deref().unwrap_or_default();
            lines.push(format!(
                "{} {program}: {} of {}",
                took.guest,
                clock(took.time),
                clock(budget)
            ));
        }
    }
    lines
}

/// What is said at the end, the totals excepted.
pub(crate) fn summary(
    results: &Results,
    guests: &[Guest],
    left_out: &[String],
    tier: &str,
) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{title}\n  {}", lines.join("\n  "));
        }
    };
    let time = |took: &Took| format!("{:>6.1} s  {:<24}", took.time.as_secs_f64(), took.guest);
    let results_of = |took: &&Took| {
        let program = took.program.as_deref().unwrap_or_default();
        format!(
            "{} {program} {}",
            time(took),
            took.result.as_deref().unwrap_or_default()
        )
    };
    section(
        "The slowest results, each with its clean-up:",
        slowest(&results.times, |took| took.result.is_some())
            .iter()
            .map(results_of)
            .collect(),
    );
    section(
        "The slowest programs:",
        slowest(&results.times, |took| {
            took.result.is_none() && took.program.is_some()
        })
        .iter()
        .map(results_of)
        .collect(),
    );
    let guest_times = results.times.iter().filter(|took| took.program.is_none());
    let sum: Duration = guest_times.clone().map(|took| took.time).sum();
    section(
        "All guests together:",
        vec![format!("{} guests, {}", guest_times.count(), clock(sum))],
    );
    section(
        "Over their budget (plan.toml):",
        over_budget(&results.times, guests),
    );
    section(
        &format!("Not in `make {tier}`, but in `make test-all`:"),
        left_out.to_vec(),
    );
    section("FAILED:", results.failures.clone());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Kernel, Protocol, Step};

    fn took(program: Option<&str>, result: Option<&str>, seconds: u64) -> Took {
        Took {
            guest: "stock suspend".to_owned(),
            program: program.map(str::to_owned),
            result: result.map(str::to_owned),
            passed: true,
            time: Duration::from_secs(seconds),
        }
    }

    fn guest() -> Guest {
        Guest {
            suite: "virtio_device_stop",
            kernel: Kernel::Stock,
            protocol: Protocol::Suspend,
            steps: vec![Step {
                name: "a".to_owned(),
                cycles: None,
                budget: Duration::from_secs(10),
            }],
        }
    }

    #[test]
    fn the_slowest_are_named_and_not_more() {
        let mut results = Results::default();
        for seconds in 0..20 {
            results
                .times
                .push(took(Some("a"), Some(&format!("result-{seconds}")), seconds));
        }
        let text = summary(&results, &[guest()], &[], "test");
        assert!(
            text.contains("19.0 s") && text.contains("result-10") && !text.contains("result-9\n"),
            "{text}"
        );
    }

    #[test]
    fn who_is_over_the_budget_is_named() {
        let mut results = Results::default();
        results.times.push(took(Some("a"), None, 10));
        assert!(!summary(&results, &[guest()], &[], "test").contains("budget"));
        results.times.push(took(Some("a"), None, 71));
        let text = summary(&results, &[guest()], &[], "test");
        assert!(text.contains("stock suspend a: 1:11 of 0:10"), "{text}");
    }

    #[test]
    fn what_is_left_out_is_named_with_the_command_that_runs_it() {
        let text = summary(
            &Results::default(),
            &[],
            &["end_x by suspend".to_owned()],
            "test",
        );
        assert!(
            text.contains("Not in `make test`, but in `make test-all`:\n  end_x by suspend"),
            "{text}"
        );
    }

    #[test]
    fn the_table_has_everything() {
        let times = [
            took(Some("a"), Some("b"), 1),
            took(Some("a"), None, 2),
            took(None, None, 3),
        ];
        assert_eq!(
            table(&times),
            "seconds\tguest\tprogram\tresult\n1.00\tstock suspend\ta\tb\n2.00\tstock suspend\ta\tall\n3.00\tstock suspend\tall\tall\n"
        );
    }
}
