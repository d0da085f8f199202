// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Somebody at the control socket: lines.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rustix::net::{socket, AddressFamily, SocketType};
use serde_json::Value;
use vfio_user_virtio::control::reply;
use vfio_user_virtio::service::{Endpoint, Service};
use vfio_user_virtio::settings::Settings;
use vfio_user_virtio::vfio_user::{Server, Standing};

use crate::guest::{self, Kind, Offers};

const DISK: Kind = Kind::Blk {
    queues: false,
    read_only: false,
    zoned: false,
};
const CARD: Kind = Kind::Net {
    pairs: false,
    mergeable: false,
};

/// Asks for what the lines of `input` say.
///
/// # Panics
///
/// If a reply makes no sense, or a request that is refused has changed a setting.
pub fn run(input: &[u8]) {
    let endpoints = [("blk", DISK), ("scsi", Kind::Scsi), ("net", CARD)].map(endpoint);
    let service = Service::new(endpoints.into(), None).expect("three names");
    for line in input.split(|byte| *byte == b'\n').take(16) {
        let before = settings(&service);
        let reply = reply(line, &service).expect("a reply");
        let [text @ .., b'\n'] = &reply[..] else {
            panic!("a reply is a line");
        };
        assert!(!text.contains(&b'\n'), "a reply is one line");
        let answer: Value = serde_json::from_slice(text).expect("a reply is JSON");
        let id = serde_json::from_slice::<Value>(line)
            .ok()
            .and_then(|request| request.get("id").cloned());
        assert_eq!(answer["id"], id.unwrap_or_default());
        let (value, error) = (answer.get("value"), answer.get("error"));
        assert_ne!(value.is_some(), error.is_some());
        if error.is_some() {
            assert_eq!(settings(&service), before);
        }
    }
    for settings in settings(&service).values() {
        check_names(settings);
    }
}

/// A device that no client reaches.
fn endpoint((name, kind): (&str, Kind)) -> Endpoint {
    let device = guest::device(kind.make(), Offers::Both.offer(false));
    let spec = format!("null,name={name},id=1,socket={name}");
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let server = Server::new(UnixListener::from(socket), Standing::Listening).expect("a file");
    Endpoint::new(spec.parse().expect("a device"), Arc::new(device), server)
}

fn settings(service: &Service) -> BTreeMap<&String, Settings> {
    let devices = service.devices().iter();
    devices
        .map(|(name, device)| (name, device.report().settings))
        .collect()
}

/// Settings are said in the words that set them.
fn check_names(settings: &Settings) {
    let map = settings.to_map();
    let map = map
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let mut again = Settings::default();
    again.set_all(&map.collect()).expect("these were set");
    assert_eq!(again, *settings);
}
