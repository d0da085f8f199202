// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: reads the command line, and either starts the devices or asks a server that has.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::EnvFilter;

use vfio_user_virtio::args::{Args, Command, Serve};
use vfio_user_virtio::client::{self, Client};
use vfio_user_virtio::control;
use vfio_user_virtio::handover::{self, show, take, PATIENCE};
use vfio_user_virtio::log::Log;
use vfio_user_virtio::replace::replace;
use vfio_user_virtio::scenario::{self, Scenario};
use vfio_user_virtio::service::{Devices, Service};
use vfio_user_virtio::socket::Made;
use vfio_user_virtio::threads::{Ended, Threads};

/// Why the program can't go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Service(#[from] handover::Error),
    #[error("{path}: can't be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Scenario(#[from] scenario::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("a system call fails")]
    System(#[from] io::Error),
}

/// The status of `report` when it can't tell, and of everything else that goes wrong.
const TROUBLE: u8 = 2;
/// How long the end of the process waits for what is logged to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    let (threads, ended) = Threads::new();
    let log = match Log::start(&threads, io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "vfio-user-virtio: can't start a thread: {error}"
            );
            return TROUBLE.into();
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::registry()
        .with(filter)
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(log.clone())
                .with_thread_names(true)
                .with_ansi(io::stderr().is_terminal()),
        )
        .with(log.clone())
        .init();
    // Like every other line: nobody waits for who reads it.
    let panics = log.clone();
    std::panic::set_hook(Box::new(move |panic| panics.panicked(&panic.to_string())));
    let status = run(args.command, &log, &threads, &ended).unwrap_or_else(|error| {
        complain(&log, &error);
        TROUBLE.into()
    });
    log.finish(LAST_LINES);
    status
}

/// Logs an error, and why it has come to it.
fn complain(log: &Log, error: &dyn std::error::Error) {
    log.line(&format!("vfio-user-virtio: {error}"));
    let mut source = error.source();
    while let Some(error) = source {
        log.line(&format!("  because: {error}"));
        source = error.source();
    }
}

fn run(
    command: Command,
    log: &Log,
    threads: &Threads,
    ended: &Receiver<Ended>,
) -> Result<ExitCode, Error> {
    match command {
        Command::Serve(args) => {
            let failed = Arc::new(AtomicBool::new(false));
            let service = serve(&args, log, threads, &failed)?;
            // A device without one of its threads would be there and never answer.
            if let Err(failure) = ended.recv().unwrap_or(Ok(())) {
                // A signal may end the process before the sockets are removed.
                failed.store(true, Ordering::SeqCst);
                complain(log, &failure);
                // A successor that hangs has the connections, too. Whoever hands over lets go well before that.
                threads.briefly("end", 2 * PATIENCE, move || service.remove_sockets());
                return Ok(TROUBLE.into());
            }
        }
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
        Command::Save { control, file } => {
            let snapshot = Client::connect(&control)?.save()?;
            replace(&file, &format!("{snapshot:#}\n"))
                .map_err(|source| Error::File { path: file, source })?;
        }
        Command::Show { file } => match std::fs::read(&file) {
            Ok(text) => print!("{}", show::show(&text)?),
            Err(source) => return Err(Error::File { path: file, source }),
        },
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

/// From when this is made on a signal does not end the process by itself: there may be sockets to remove.
struct Told {
    is_to_end: Arc<AtomicBool>,
    signals: Signals,
}

impl Told {
    fn new() -> io::Result<Self> {
        let is_to_end = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&is_to_end))?;
        }
        Ok(Self {
            is_to_end,
            signals: Signals::new([SIGINT, SIGTERM])?,
        })
    }
}

/// Starts the devices, and returns while they work. A signal ends the process as one that has `failed`, or well.
fn serve(
    args: &Serve,
    log: &Log,
    threads: &Threads,
    failed: &Arc<AtomicBool>,
) -> Result<Arc<Service>, Error> {
    // All that may be waited for is read before there are sockets.
    let scenario = match &args.scenario {
        Some(file) => scenario::read(file)?,
        None => Scenario::new(),
    };
    let new_files = args.new_files.iter().cloned().collect();
    let patience = Duration::from_secs(args.wait.unwrap_or(0).into());
    let (service, made, predecessor, told) = match (&args.take_over, &args.restore) {
        (Some(control), _) => {
            // It makes no socket. While it waits a signal ends it at once.
            let (service, predecessor) = take::take(control, &new_files, patience)?;
            (service, Made::default(), Some(predecessor), Told::new()?)
        }
        (None, Some(file)) => {
            let saved = std::fs::read(file).map_err(|source| Error::File {
                path: file.clone(),
                source,
            })?;
            let told = Told::new()?;
            let (service, made) = take::restore(&saved, &new_files)?;
            (service, made, None, told)
        }
        (None, None) => {
            let told = Told::new()?;
            let (service, made) = Service::open(&args.devices, args.control.clone())?;
            (service, made, None, told)
        }
    };
    apply(scenario, service.devices())?;
    let service = Arc::new(service);
    // Nobody begins before all can, and a predecessor has let go; or at all, if that does not come to pass.
    let start = Arc::new(RwLock::new(false));
    let mut wait = start.write().unwrap_or_else(PoisonError::into_inner);
    let spawn = |name: &str, body: Box<dyn FnOnce() -> io::Result<()> + Send>| {
        let start = Arc::clone(&start);
        threads.spawn(name, move || {
            let begins = *start.read().unwrap_or_else(PoisonError::into_inner);
            if begins {
                body()
            } else {
                Ok(())
            }
        })
    };
    for (number, endpoint) in service.endpoints().iter().enumerate() {
        let name = &endpoint.spec().name;
        let device = Arc::clone(endpoint.device());
        spawn(&format!("{name} worker"), Box::new(move || device.run()))?;
        let service = Arc::clone(&service);
        let serve = move || match service.endpoints().get(number) {
            Some(endpoint) => endpoint.server().run(endpoint.device()),
            None => Ok(()),
        };
        spawn(&format!("{name} server"), Box::new(serve))?;
    }
    let (controlled, clients) = (Arc::clone(&service), threads.clone());
    let serve = move || match controlled.control() {
        Some(control) => control::run(control, &controlled, &clients),
        None => Ok(()),
    };
    spawn("control", Box::new(serve))?;
    let Told {
        is_to_end,
        mut signals,
    } = told;
    let (signalled, last, failed) = (Arc::clone(&service), log.clone(), Arc::clone(failed));
    let serve = move || {
        if signals.forever().next().is_some() {
            signalled.remove_sockets();
            last.finish(LAST_LINES);
            let trouble = failed.load(Ordering::SeqCst);
            std::process::exit(if trouble { TROUBLE.into() } else { 0 });
        }
        Ok(())
    };
    spawn("signals", Box::new(serve))?;
    // Nothing has begun: a predecessor goes on.
    if is_to_end.load(Ordering::SeqCst) {
        return Err(handover::Error::Ending.into());
    }
    if let Some(predecessor) = predecessor {
        let taken = predecessor.take_over()?;
        log.line(&format!(
            "vfio-user-virtio: has taken {} devices over in {} us",
            service.endpoints().len(),
            taken.as_micros()
        ));
    }
    let threads = threads.clone();
    service.set_in_charge(move || threads.finish());
    made.keep();
    *wait = true;
    drop(wait);
    Ok(service)
}

fn apply(scenario: Scenario, devices: &Devices) -> Result<(), Error> {
    for (name, changes) in scenario {
        let names = || devices.keys().cloned().collect::<Vec<_>>().join(", ");
        let device = devices
            .get(&name)
            .ok_or_else(|| scenario::Error::NoDevice(name.clone(), names()))?;
        device
            .set(&changes, std::time::Instant::now())
            .map_err(scenario::Error::from)?;
    }
    Ok(())
}
