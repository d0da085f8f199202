// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asks qemu-guest-agent in a guest, by the socket of its serial port: for tests. What it asks for, it waits for.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use qapi::qga;

use agent::{Agent, Error};

mod agent;

/// Ask qemu-guest-agent in a guest
///
/// Ends with status 0 if it has done what it was asked for, with 125 if not. `run` ends with the
/// program's status.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The socket of the agent's port
    socket: PathBuf,
    /// For how long to wait for the agent, and for what it runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    #[command(subcommand)]
    command: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Wait until it answers
    Ping,
    /// Run a program; show what it prints
    Run {
        /// Pass standard input on to it
        #[arg(long)]
        input: bool,
        /// The program, by its path, and its arguments
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
    /// Start a program; print its process ID
    Start {
        /// The program, by its path, and its arguments
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
    /// Wait for a program that `start` has started; show what it has printed
    Wait {
        /// What `start` has printed
        pid: i64,
    },
    /// Freeze the file systems, all or those; print how many it has frozen
    Freeze {
        /// Where they are mounted
        mount_points: Vec<String>,
    },
    /// Print whether it has frozen them
    Status,
    /// Thaw them; print how many it has thawed
    Thaw,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text = format!("{text}: {source}");
            }
            // Nobody is left to be told.
            let _ = writeln!(io::stderr(), "guest-agent: {text}");
            ExitCode::from(125)
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Error> {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let mut agent = Agent::connect(&args.socket, until)?;
    let answer = match args.command {
        Ask::Ping => return Ok(ExitCode::SUCCESS),
        Ask::Run { input, program } => {
            let mut text = Vec::new();
            if input {
                io::stdin()
                    .read_to_end(&mut text)
                    .map_err(|error| Error::Connection("standard input", error))?;
            }
            let pid = agent.start(&program, text)?;
            return show(&mut agent, pid);
        }
        Ask::Start { program } => agent.start(&program, Vec::new())?.to_string(),
        Ask::Wait { pid } => return show(&mut agent, pid),
        Ask::Freeze { mount_points } if mount_points.is_empty() => {
            agent.ask(&qga::guest_fsfreeze_freeze {})?.to_string()
        }
        Ask::Freeze { mount_points } => {
            let mountpoints = Some(mount_points);
            agent
                .ask(&qga::guest_fsfreeze_freeze_list { mountpoints })?
                .to_string()
        }
        Ask::Status => match agent.ask(&qga::guest_fsfreeze_status {})? {
            qga::GuestFsfreezeStatus::frozen => "frozen".to_owned(),
            qga::GuestFsfreezeStatus::thawed => "thawed".to_owned(),
        },
        Ask::Thaw => agent.ask(&qga::guest_fsfreeze_thaw {})?.to_string(),
    };
    print(&mut io::stdout(), format!("{answer}\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for a program, and shows what it has printed.
fn show(agent: &mut Agent, pid: i64) -> Result<ExitCode, Error> {
    let ended = agent.wait(pid)?;
    print(&mut io::stdout(), &ended.output)?;
    print(&mut io::stderr(), &ended.errors)?;
    Ok(ExitCode::from(ended.status))
}

fn print(stream: &mut impl Write, text: &[u8]) -> Result<(), Error> {
    stream
        .write_all(text)
        .and_then(|()| stream.flush())
        .map_err(|error| Error::Connection("standard output", error))
}
