// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs the guest tests of a tier.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rustix::process::{set_parent_process_death_signal, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use guest::Event;
use plan::{Guest, Kernel, Plan, Tier};
use run::{Conditions, Results};
use screen::Screen;

mod guest;
mod ktap;
mod plan;
mod report;
mod run;
mod screen;

/// Run the guest tests of a tier, several guests at a time
///
/// Ends with a line "N passed, N failed", and with status 0 only if nothing has failed. A result that is missing or skipped is a
/// failure. What each program does comes into a log; a table of all durations is beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// What to run
    #[arg(value_enum)]
    tier: TierName,
    /// Only these programs (test_still, end_reboot)
    programs: Vec<String>,
    /// How many guests at a time [default: one more than there are processors, since some wait]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    guests: Option<u16>,
    /// A guest that says nothing for so long stands still, and is ended [default: 300, or 1800 with all cycles]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    silence: Option<u64>,
    /// Only say what would be run
    #[arg(long)]
    list: bool,
    /// The project's folder
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    top: PathBuf,
    /// The module for the stock kernel
    #[arg(long, value_name = "KO")]
    stock_module: Option<PathBuf>,
    /// The module for the debug kernel
    #[arg(long, value_name = "KO")]
    debug_module: Option<PathBuf>,
    /// The module for the kernel that looks for data races
    #[arg(long, value_name = "KO")]
    kcsan_module: Option<PathBuf>,
    /// The module for sid's kernel
    #[arg(long, value_name = "KO")]
    sid_module: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TierName {
    Test,
    TestDebug,
    TestKcsan,
    TestSid,
    TestAll,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Test => Self::Test,
            TierName::TestDebug => Self::TestDebug,
            TierName::TestKcsan => Self::TestKcsan,
            TierName::TestSid => Self::TestSid,
            TierName::TestAll => Self::TestAll,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Plan(#[from] plan::Error),
    #[error("no test program '{0}' in this tier: see --list")]
    NoProgram(String),
    #[error("--{0}-module is needed")]
    NoModule(Kernel),
    #[error("can't write to {0}")]
    Write(String, #[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Run(#[from] run::Error),
}

fn main() -> ExitCode {
    // Guests that nobody waits for would run on.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let results = match test(&Args::parse()) {
        Ok(results) => results,
        Err(error) => {
            eprint!("test-runner: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            return 2.into();
        }
    };
    println!(
        "{} passed, {} failed",
        results.passed,
        results.failures.len()
    );
    if results.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn test(args: &Args) -> Result<Results, Error> {
    let testing = args.top.join("tools/testing");
    let tier = Tier::from(args.tier);
    let plan = Plan::read(&testing.join("plan.toml"))?;
    let guests = plan.guests(tier, |name| {
        args.programs.is_empty() || args.programs.iter().any(|wanted| wanted == name)
    });
    for wanted in &args.programs {
        if !guests
            .iter()
            .flat_map(|guest| &guest.steps)
            .any(|step| step.name == *wanted)
        {
            return Err(Error::NoProgram(wanted.clone()));
        }
    }
    if args.list {
        for guest in &guests {
            for step in &guest.steps {
                println!(
                    "{guest:<24} {} (at most {} s)",
                    step.name,
                    step.budget.as_secs()
                );
            }
        }
        return Ok(Results::default());
    }
    let modules = |kernel| match kernel {
        Kernel::Stock => args.stock_module.as_deref(),
        Kernel::Debug | Kernel::Leaks => args.debug_module.as_deref(),
        Kernel::Kcsan => args.kcsan_module.as_deref(),
        Kernel::Sid => args.sid_module.as_deref(),
    };
    for guest in &guests {
        if modules(guest.kernel).is_none() {
            return Err(Error::NoModule(match guest.kernel {
                Kernel::Leaks => Kernel::Debug,
                kernel => kernel,
            }));
        }
    }
    let logs = args.top.join("build/testing").join(tier.name());
    let write_error = |path: &Path| {
        let path = path.display().to_string();
        |error| Error::Write(path, error)
    };
    if logs.exists() {
        fs::remove_dir_all(&logs).map_err(write_error(&logs))?;
    }
    fs::create_dir_all(&logs).map_err(write_error(&logs))?;

    let processors = thread::available_parallelism().map_or(1, usize::from);
    let conditions = Conditions {
        slots: args.guests.map_or(processors + 1, usize::from),
        silence: args
            .silence
            .map_or_else(|| tier.silence(), Duration::from_secs),
        logs: &logs,
        command: &|guest| command(&testing, &logs, guest, modules(guest.kernel)),
    };
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(Error::Signals)?;
    let listen = move |events: Sender<Event>| {
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                // Nobody listens only if all has ended.
                let _ = events.send(Event::Interrupted);
            }
        });
    };
    let mut screen = Screen::new(guests.iter().map(|guest| guest.steps.len()).sum());
    let results = run::run(guests.clone(), conditions, &mut screen, listen);
    screen.end();
    let results = results?;
    let table = logs.join("durations.tsv");
    fs::write(&table, report::table(&results.times)).map_err(write_error(&table))?;
    let left_out = if args.programs.is_empty() {
        plan.left_out(tier)
    } else {
        Vec::new()
    };
    print!(
        "{}",
        report::summary(&results, &guests, &left_out, tier.name())
    );
    println!("\nAll durations: {}", table.display());
    Ok(results)
}

/// The program that is this guest. The data races that its kernel reports, if it looks for them, are added to a file among the logs.
fn command(testing: &Path, logs: &Path, guest: &Guest, module: Option<&Path>) -> Command {
    let mut command = Command::new(testing.join(if guest.is_alone() { "ends" } else { "guest" }));
    if !guest.is_alone() {
        command.args(["--suite", guest.suite]);
    }
    match guest.kernel {
        Kernel::Stock => command.args(["--kernel", "stock"]),
        Kernel::Debug => command.args(["--kernel", "debug"]),
        Kernel::Leaks => command.args(["--kernel", "debug", "--leaks"]),
        Kernel::Kcsan => {
            let command = command.args(["--kernel", "kcsan", "--races"]);
            command.arg(logs.join("races"))
        }
        Kernel::Sid => command.args(["--kernel", "sid"]),
    };
    command.args(["--protocol", &guest.protocol.to_string()]);
    if let Some(module) = module {
        command.arg("--module").arg(module);
    }
    for step in &guest.steps {
        command.arg(match step.cycles {
            Some(cycles) => format!("{}={cycles}", step.name),
            None => step.name.clone(),
        });
    }
    command
}
