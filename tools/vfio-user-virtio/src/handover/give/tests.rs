// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::device::{Device, Offer};
use crate::settings::Settings;
use crate::types::null::Null;
use crate::types::{Description, Malformed, Outcome, Request, Type};
use crate::vfio_user::Server;

const MINUTE: Duration = Duration::from_secs(60);

/// A type that takes its time to be saved.
#[derive(Debug, Default)]
struct Slow {
    begun: Mutex<u32>,
    gate: Mutex<()>,
}

impl Type for Slow {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, _: Request<'_>) -> Result<Outcome, Malformed> {
        Err(Malformed("any"))
    }

    fn save(&self) -> Result<Value, serde_json::Error> {
        *self.begun.lock().unwrap() += 1;
        drop(self.gate.lock().unwrap());
        Ok(Value::Null)
    }
}

fn service(of_type: &Arc<Slow>) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a");
    let spec = format!("null,name=a,id=9,socket={}", socket.display());
    let of_type: Arc<dyn Type> = Arc::clone(of_type) as _;
    let device = Device::new(of_type, Offer::default(), Settings::default());
    let server = Server::listen(&socket).unwrap();
    let endpoint = Endpoint::new(spec.parse().unwrap(), Arc::new(device), server);
    Service::new(vec![endpoint], None).unwrap()
}

#[test]
fn a_snapshot_is_made_after_another_one_however_long_that_takes() {
    let slow = Arc::new(Slow::default());
    let service = service(&slow);
    let closed = slow.gate.lock().unwrap();
    let (sender, saved) = channel();
    thread::scope(|scope| {
        for _ in 0..3 {
            let (service, sender) = (&service, sender.clone());
            scope.spawn(move || sender.send(snapshot(service)).unwrap());
        }
        // Longer than anybody waits for a frozen device.
        let early = saved.recv_timeout(3 * BRIEFLY);
        let waits = matches!(early, Err(RecvTimeoutError::Timeout));
        let begun = *slow.begun.lock().unwrap();
        drop(closed);
        assert!(waits, "{early:?}");
        assert!(begun <= 1);
        for _ in 0..3 {
            saved.recv_timeout(MINUTE).unwrap().unwrap();
        }
    });
    assert_eq!(*slow.begun.lock().unwrap(), 3);
}

#[test]
fn others_are_not_waited_for_without_end() {
    let service = service(&Arc::default());
    let saving = service.save(Duration::ZERO).unwrap();
    assert!(service.save(Duration::ZERO).is_none());
    drop(saving);
    assert!(service.save(Duration::ZERO).is_some());
    assert!(snapshot(&service).is_ok());
}
