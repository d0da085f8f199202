// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: reads the command line, opens what it names, starts the threads.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use vfio_user_virtio::args::{Args, Protocol};
use vfio_user_virtio::blk::Disk;
use vfio_user_virtio::device::Device;
use vfio_user_virtio::server::Server;
use vfio_user_virtio::{control, server};

/// Why the server can't go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path}: can't open it as a disk")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: can't listen for control clients")]
    Control {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("can't start a thread or wait for signals")]
    System(#[from] io::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")),
        )
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio-user-virtio: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let disk = Disk::open(&args.file).map_err(|source| Error::Disk {
        path: args.file.clone(),
        source,
    })?;
    let device = Arc::new(Device::new(
        disk,
        args.protocol == Protocol::DeviceStop,
        args.settings,
    ));
    let mut sockets = vec![args.socket.clone()];
    if let Some(path) = &args.control {
        let listener = control::listen(path).map_err(|source| Error::Control {
            path: path.clone(),
            source,
        })?;
        sockets.push(path.clone());
        let device = Arc::clone(&device);
        spawn("control", move || {
            if let Err(error) = control::run(&listener, &device) {
                tracing::error!(%error, "no more control clients");
            }
        })?;
    }
    // Whoever sees this socket may connect to both.
    let server = Server::listen(&args.socket)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    spawn("signals", move || {
        if signals.forever().next().is_some() {
            for socket in sockets {
                let _ = std::fs::remove_file(socket);
            }
            std::process::exit(0);
        }
    })?;
    let worker = Arc::clone(&device);
    spawn("worker", move || worker.run())?;
    server.run(&device).map_err(Error::from)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
}
