// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Watches devices of vfio-user-virtio while the process behind them is exchanged, and draws what they do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use benchmarks::exchanges::Samples;
use benchmarks::picture;
use clap::Parser;
use vfio_user_virtio::client::{self, Client};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// An exchange hangs up: how soon to look for the successor.
const AGAIN: Duration = Duration::from_millis(5);
/// Whoever has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Draw what devices do while the process behind them is exchanged
///
/// Watches the devices, which have a guest, until the guest has ended.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The control socket of the devices
    control: PathBuf,
    /// Where to leave the picture
    svg: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("can't watch the devices")]
    Watch(#[source] client::Error),
    #[error("can't draw the picture")]
    Draw(#[source] picture::Error),
    #[error("can't write {0}")]
    Write(String, #[source] std::io::Error),
    #[error("no exchange was seen")]
    NoExchange,
}

fn main() -> ExitCode {
    match watch(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            benchmarks::complain("watch-exchanges", &error);
            ExitCode::FAILURE
        }
    }
}

fn watch(args: &Args) -> Result<(), Error> {
    let timeline = look(&args.control)?.timeline();
    if timeline.exchanges.is_empty() {
        return Err(Error::NoExchange);
    }
    let svg = picture::exchanges::draw(&timeline).map_err(Error::Draw)?;
    fs::write(&args.svg, svg).map_err(|error| Error::Write(args.svg.display().to_string(), error))
}

fn look(control: &Path) -> Result<Samples, Error> {
    let mut samples = Samples::default();
    let began = Instant::now();
    let (mut client, mut answered) = (None, began);
    loop {
        let at = began.elapsed();
        match ask(&mut client, control) {
            Ok(reports) => {
                if !samples.push(at.as_secs_f64(), &reports) {
                    return Ok(samples);
                }
                answered = Instant::now();
                sleep(INTERVAL.saturating_sub(began.elapsed().saturating_sub(at)));
            }
            Err(error) if answered.elapsed() > PATIENCE => return Err(Error::Watch(error)),
            Err(_) => {
                client = None;
                sleep(AGAIN);
            }
        }
    }
}

fn ask(
    client: &mut Option<Client>,
    control: &Path,
) -> Result<serde_json::Map<String, serde_json::Value>, client::Error> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => Client::connect(control)?,
    };
    client.insert(connected).reports(None)
}
