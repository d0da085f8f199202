// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: reads the command line, and either starts the devices or asks a server that has.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use vfio_user_virtio::args::{Args, Command, Serve};
use vfio_user_virtio::client::{self, Client};
use vfio_user_virtio::control::{self, Devices};
use vfio_user_virtio::scenario;
use vfio_user_virtio::socket;
use vfio_user_virtio::vfio_user::Server;

/// Why the program can't go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path}: can't listen")]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("two devices are called '{0}': give them names with name=")]
    SameName(String),
    #[error("device '{name}'")]
    Device {
        name: String,
        #[source]
        source: scenario::Error,
    },
    #[error(transparent)]
    Scenario(#[from] scenario::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("can't start a thread or wait for signals")]
    System(#[from] io::Error),
}

/// The status of `report` when it can't tell, and of everything else that goes wrong.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")),
        )
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(args.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("vfio-user-virtio: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            TROUBLE.into()
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Serve(args) => serve(&args)?,
        Command::Report {
            control,
            device,
            json,
        } => return report(&control, device.as_deref(), json),
        Command::Get {
            control,
            device,
            path,
        } => {
            let value = Client::connect(&control)?.get(&device, &path)?;
            println!("{}", client::plain(&value));
        }
        Command::Set {
            control,
            device,
            settings,
            scenario,
        } => {
            let changes = match (scenario, device) {
                (Some(file), _) => scenario::read(&file)?,
                (None, device) => {
                    [(device.unwrap_or_default(), client::changes(&settings)?)].into()
                }
            };
            let mut client = Client::connect(&control)?;
            for (device, changes) in &changes {
                client.set(device, changes)?;
            }
        }
        Command::Do {
            control,
            device,
            action,
        } => Client::connect(&control)?.act(&device, &action)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(control: &Path, device: Option<&str>, json: bool) -> Result<ExitCode, Error> {
    let reports = Client::connect(control)?.reports(device)?;
    let breaches = client::breaches(&reports);
    if json {
        println!("{}", serde_json::Value::Object(reports));
    } else {
        for (name, report) in &reports {
            println!("{}", client::show(name, report));
        }
    }
    Ok(match breaches {
        Some(0) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => TROUBLE.into(),
    })
}

fn serve(args: &Serve) -> Result<(), Error> {
    let mut devices = Devices::new();
    let mut servers = Vec::new();
    let mut sockets = Vec::new();
    for spec in &args.devices {
        let device = Arc::new(spec.open().map_err(|source| Error::Device {
            name: spec.name.clone(),
            source,
        })?);
        if devices
            .insert(spec.name.clone(), Arc::clone(&device))
            .is_some()
        {
            return Err(Error::SameName(spec.name.clone()));
        }
        servers.push((spec.socket.clone(), device));
        sockets.push(spec.socket.clone());
    }
    if let Some(file) = &args.scenario {
        for (name, changes) in scenario::read(file)? {
            let names = || devices.keys().cloned().collect::<Vec<_>>().join(", ");
            let device = devices
                .get(&name)
                .ok_or_else(|| scenario::Error::NoDevice(name.clone(), names()))?;
            device
                .set(&changes, std::time::Instant::now())
                .map_err(scenario::Error::from)?;
        }
    }
    let devices = Arc::new(devices);
    if let Some(path) = &args.control {
        let listener = socket::listen(path).map_err(cant_listen(path))?;
        sockets.push(path.clone());
        let devices = Arc::clone(&devices);
        spawn("control", move || control::run(&listener, &devices))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // Whoever sees the last socket may connect to all.
    for (socket, device) in servers {
        let server = Server::listen(&socket).map_err(cant_listen(&socket))?;
        let worker = Arc::clone(&device);
        spawn("worker", move || worker.run())?;
        spawn("server", move || server.run(&device))?;
    }
    if signals.forever().next().is_some() {
        for socket in sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
    Ok(())
}

fn cant_listen(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Listen {
        path: path.to_owned(),
        source,
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
}
