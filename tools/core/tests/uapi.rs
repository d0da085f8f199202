// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! The numbers that programs see are those of the module.

use core_on_host::{
    state::{Reason, State},
    status::Protocol,
};

const HEADER: &str = include_str!("../../../src/uapi/virtio_device_stop.h");

/// The words of an enumeration in the header, as sysfs has them, in the order of their numbers.
fn words(of: &str) -> Vec<String> {
    let prefix = format!("VIRTIO_DEVICE_STOP_{of}_");
    let entries = HEADER.lines().filter_map(|line| {
        let (name, number) = line.trim().strip_prefix(&prefix)?.split_once(" = ")?;
        let number: usize = number.strip_suffix(',')?.parse().ok()?;
        Some((number, name.to_lowercase()))
    });
    let entries: Vec<_> = entries.collect();
    assert!(entries
        .iter()
        .map(|(number, _)| *number)
        .eq(0..entries.len()));
    entries.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn states() {
    use State::*;
    let ours = [
        Unavailable,
        Running,
        Stopping,
        Stopped,
        Resuming,
        Aborting,
        Failed,
    ];
    assert_eq!(words("STATE"), ours.map(State::name));
    assert!(ours
        .iter()
        .enumerate()
        .all(|(at, state)| *state as usize == at));
}

#[test]
fn reasons() {
    use Reason::*;
    let ours = [
        None,
        NoDriver,
        NotOffered,
        Bit39Ambiguous,
        Disabled,
        NotVersion1,
        AdminVq,
        Transport,
        TypeRefused,
        NoQuiesce,
        BoundBefore,
        Reset,
        Gone,
        NeedsReset,
        StopTimeout,
        StopUnanswered,
        ResumeUnanswered,
        StopDropped,
        LeaseExpired,
    ];
    assert_eq!(words("REASON"), ours.map(Reason::name));
    assert!(ours
        .iter()
        .enumerate()
        .all(|(at, reason)| *reason as usize == at));
}

#[test]
fn protocols() {
    let ours = [Protocol::DeviceStop, Protocol::Suspend];
    let words = words("PROTOCOL");
    assert_eq!(words[0], "none");
    assert_eq!(words[1..], ours.map(Protocol::name));
    assert!(ours
        .iter()
        .zip(1..)
        .all(|(protocol, number)| *protocol as usize == number));
}
