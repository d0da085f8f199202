// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one process serves: devices, each on a vfio-user socket, and a control socket for all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

use rustix::net::{shutdown, Shutdown};

use crate::boundary::Boundary;
use crate::device::Device;
use crate::handover::Error;
use crate::socket::Made;
use crate::spec::Spec;
use crate::vfio_user::{Server, Standing};

/// Devices by name.
pub type Devices = BTreeMap<String, Arc<Device>>;

/// A device, and where it is served.
#[derive(Debug)]
pub struct Endpoint {
    spec: Spec,
    device: Arc<Device>,
    server: Server,
}

impl Endpoint {
    /// The device that `spec` describes.
    pub fn new(spec: Spec, device: Arc<Device>, server: Server) -> Self {
        Self {
            spec,
            device,
            server,
        }
    }

    /// As it is described.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its server.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

/// The control socket.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    listener: UnixListener,
    boundary: Boundary<()>,
}

impl Control {
    /// One that listens on `path` already.
    pub fn new(path: PathBuf, listener: UnixListener) -> io::Result<Self> {
        // Who has connected may be gone before it is accepted.
        listener.set_nonblocking(true)?;
        Ok(Self {
            path,
            listener,
            boundary: Boundary::new()?,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where no client is accepted for a while.
    pub fn boundary(&self) -> &Boundary<()> {
        &self.boundary
    }
}

/// All of it.
#[derive(Debug)]
pub struct Service {
    endpoints: Vec<Endpoint>,
    devices: Devices,
    control: Option<Control>,
    /// Whoever changes the devices for a control client reads. Whoever hands them over writes.
    turn: RwLock<()>,
    /// Somebody has the devices stand still for a snapshot.
    saving: Mutex<bool>,
    saved: Condvar,
    /// Clients connect to this process, and not to one that it takes over from, or that has taken over.
    in_charge: Mutex<Option<End>>,
}

/// A snapshot is being made as long as this lives.
#[derive(Debug)]
pub struct Saving<'a>(&'a Service);

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        let saving = self.0.saving.lock();
        *saving.unwrap_or_else(PoisonError::into_inner) = false;
        self.0.saved.notify_one();
    }
}

/// Has this process end.
struct End(Box<dyn FnOnce() + Send>);

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("End")
    }
}

impl Service {
    /// What is to be served. It is [in charge](Self::set_in_charge) not yet.
    pub fn new(endpoints: Vec<Endpoint>, control: Option<Control>) -> Result<Self, Error> {
        let mut devices = Devices::new();
        for endpoint in &endpoints {
            let name = &endpoint.spec.name;
            let device = Arc::clone(&endpoint.device);
            if devices.insert(name.clone(), device).is_some() {
                return Err(Error::SameName(name.clone()));
            }
        }
        Ok(Self {
            endpoints,
            devices,
            control,
            turn: RwLock::new(()),
            saving: Mutex::new(false),
            saved: Condvar::new(),
            in_charge: Mutex::default(),
        })
    }

    /// The devices that `specs` describe, and a control socket.
    pub fn open(specs: &[Spec], control: Option<PathBuf>) -> Result<(Self, Made), Error> {
        let devices = specs
            .iter()
            .map(|spec| {
                let device = spec.open().map_err(|source| Error::Device {
                    name: spec.name.clone(),
                    source,
                })?;
                Ok((spec.clone(), device))
            })
            .collect::<Result<_, Error>>()?;
        Self::listen(devices, control)
    }

    /// These devices, and a control socket. The sockets are made now.
    pub fn listen(
        devices: Vec<(Spec, Device)>,
        control: Option<PathBuf>,
    ) -> Result<(Self, Made), Error> {
        let mut names: Vec<&str> = devices.iter().map(|(spec, _)| &*spec.name).collect();
        names.sort_unstable();
        if let Some(twice) = names
            .windows(2)
            .find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()))
            .flatten()
        {
            return Err(Error::SameName((*twice).to_owned()));
        }
        let mut made = Made::default();
        let mut listen = |path: &Path| {
            made.listen(path).map_err(|source| Error::Listen {
                path: path.to_owned(),
                source,
            })
        };
        let control = match control {
            None => None,
            Some(path) => Some(Control::new(path.clone(), listen(&path)?)?),
        };
        let endpoint = |(spec, device): (Spec, _)| {
            let server = Server::new(listen(&spec.socket)?, Standing::Listening)?;
            Ok(Endpoint::new(spec, Arc::new(device), server))
        };
        // Whoever sees the last socket may connect to all.
        let endpoints = devices
            .into_iter()
            .map(endpoint)
            .collect::<Result<_, Error>>()?;
        Ok((Self::new(endpoints, control)?, made))
    }

    /// Where the devices are served.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The devices.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The control socket, if there is one.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// What a control client asks for is done while this is held.
    pub fn turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held nothing is done for control clients.
    pub fn stand_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else saves as long as this is held. Others that do are waited for, up to `patience`.
    pub fn save(&self, patience: Duration) -> Option<Saving<'_>> {
        let saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .saved
            .wait_timeout_while(saving, patience, |saving| *saving);
        let (mut saving, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let others = std::mem::replace(&mut *saving, true);
        (!others).then(|| Saving(self))
    }

    fn in_charge(&self) -> MutexGuard<'_, Option<End>> {
        self.in_charge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients connect to this process from now on. `end` is called when another one has taken over.
    pub fn set_in_charge(&self, end: impl FnOnce() + Send + 'static) {
        *self.in_charge() = Some(End(Box::new(end)));
    }

    /// Whether they do.
    pub fn is_in_charge(&self) -> bool {
        self.in_charge().is_some()
    }

    /// Another process has taken over: this one is to end.
    pub fn end(&self) {
        if let Some(End(end)) = self.in_charge().take() {
            end();
        }
    }

    /// Removes the sockets, unless they are another process's. No other process takes over any more.
    pub fn remove_sockets(&self) {
        let _turn = self.stand_still();
        if self.in_charge().take().is_none() {
            return;
        }
        let sockets = self.endpoints.iter().map(|endpoint| &*endpoint.spec.socket);
        for socket in sockets.chain(self.control.iter().map(Control::path)) {
            let _ = std::fs::remove_file(socket);
        }
        // Another process may have them open, too: a successor that hangs.
        for endpoint in &self.endpoints {
            hang_up_on_all(endpoint.server.listener());
            let _ = endpoint.device.act("hang-up");
        }
        if let Some(control) = &self.control {
            hang_up_on_all(control.listener());
        }
    }
}

/// Nobody can connect any more, and who has connected and was not accepted is not kept waiting.
fn hang_up_on_all(listener: &UnixListener) {
    let _ = shutdown(listener, Shutdown::Both);
    // The kernel keeps them until the last process closes the socket. After the shutdown this waits for no others.
    while listener.accept().is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_has_connected_and_was_not_accepted_is_hung_up_on() {
        let folder = tempfile::tempdir().unwrap();
        let (control, socket) = (folder.path().join("control"), folder.path().join("device"));
        let spec = format!("rng,name=x,socket={}", socket.display());
        let spec = spec.parse().unwrap();
        let (service, made) = Service::open(&[spec], Some(control.clone())).unwrap();
        made.keep();
        service.set_in_charge(|| ());
        // A process that hangs has these.
        let listeners = [
            service.endpoints()[0].server().listener(),
            service.control().unwrap().listener(),
        ];
        let kept = listeners.map(|listener| listener.try_clone().unwrap());
        let clients = [&socket, &control].map(|path| UnixStream::connect(path).unwrap());
        service.remove_sockets();
        for mut client in clients {
            client.set_nonblocking(true).unwrap();
            match client.read(&mut [0]) {
                Ok(length) => assert_eq!(length, 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        assert!(!socket.exists() && !control.exists());
        drop(kept);
    }
}
