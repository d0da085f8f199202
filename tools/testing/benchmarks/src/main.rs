// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures what a stop costs, in guests: one table, its figures as JSON, and pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use guest::Place;
use measure::Measured;

mod figures;
mod guest;
mod machine;
mod measure;
mod table;

/// Measure what a stop costs, in guests
///
/// Prints a table of medians with their spread, and of ratios of what was measured in one run. Leaves the figures as JSON, and pictures,
/// in build/bench.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// What to measure [default: all]
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    /// The project's folder
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    top: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Benchmark {
    /// Stops and resumes of disks, SCSI hosts and network devices, on 1, 2 and 4 processors, against their handshakes
    Stop,
    /// How late an acknowledgement is seen, against drivers that look every millisecond, and every ten
    Overshoot,
    /// Stop and resume against unbind and bind
    Rebind,
    /// 8 and 32 devices at once, against one after the other
    Many,
    /// What the module costs when nothing is stopped
    DataPath,
    /// The reference device against QEMU's own
    Device,
    /// A disk and a network device over two seconds, with a stop and a resume: a picture
    Timeline,
}

impl Benchmark {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn measure(self, place: &Place) -> Result<Measured, guest::Error> {
        match self {
            Self::Stop => measure::stop::measure(place),
            Self::Overshoot => measure::overshoot::measure(place),
            Self::Rebind => measure::rebind::measure(place),
            Self::Many => measure::many::measure(place),
            Self::DataPath => measure::data_path::measure(place),
            Self::Device => measure::device::measure(place),
            Self::Timeline => measure::timeline::measure(place),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("can't write {0}")]
    Write(String, #[source] std::io::Error),
    #[error("the figures are no JSON")]
    Json(#[source] serde_json::Error),
    #[error("no folder for sockets")]
    Work(#[source] std::io::Error),
    #[error(transparent)]
    Guest(#[from] guest::Error),
    #[error("{0}")]
    Measure(String, #[source] guest::Error),
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            benchmarks::complain("bench", &error);
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), Error> {
    let place = Place {
        top: args.top.clone(),
        work: tempfile::tempdir().map_err(Error::Work)?,
    };
    let output = args.top.join("build/bench");
    fs::create_dir_all(&output)
        .map_err(|error| Error::Write(output.display().to_string(), error))?;
    let machine = machine::describe(&place)?;
    let benchmarks = match args.benchmarks.as_slice() {
        [] => Benchmark::value_variants(),
        chosen => chosen,
    };
    let began = Instant::now();
    let mut rows = Vec::new();
    for benchmark in benchmarks {
        let name = benchmark.name();
        eprintln!("[{:>3} s] {name}", began.elapsed().as_secs());
        let measured = benchmark
            .measure(&place)
            .map_err(|error| Error::Measure(name.clone(), error))?;
        let figures = serde_json::json!({ "machine": machine, "benchmark": name, "figures": measured.figures });
        let figures = serde_json::to_string_pretty(&figures).map_err(Error::Json)?;
        write(&output.join(format!("{name}.json")), &figures)?;
        for (picture, svg) in &measured.pictures {
            write(&output.join(format!("{picture}.svg")), svg)?;
        }
        rows.extend(measured.rows.into_iter().map(|row| (name.clone(), row)));
    }
    println!("{machine}");
    println!("{}", table::of(&rows));
    println!(
        "Figures and pictures: {}  ({} s)",
        output.display(),
        began.elapsed().as_secs()
    );
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|error| Error::Write(path.display().to_string(), error))
}
