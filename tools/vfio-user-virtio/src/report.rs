// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device tells of itself and of its driver: the format that tests and people rely on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::judge::Breach;
use crate::settings::Settings;
use crate::status::{Protocol, Stop};

/// Format of the reports. It changes when something is renamed or removed, not when something is added.
pub const VERSION: u32 = 1;

/// All that a device tells.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The type's name, such as `blk`.
    pub r#type: &'static str,
    /// Virtio device type.
    pub device_id: u16,
    /// Whether a client is connected.
    pub connected: bool,
    /// Whether the driver has set Bus Master Enable. Without it the device does nothing with its virtqueues.
    pub bus_master: bool,
    /// The device status field, as it is (the driver may be shown another, see `show_status`).
    pub status: u8,
    /// Where the device is between serving and having stopped.
    pub stop: Stop,
    /// Features that the device offers.
    pub offered: u64,
    /// Features that the driver has accepted.
    pub features: u64,
    /// By which protocol the driver can stop it now.
    pub protocol: Protocol,
    /// What was counted.
    pub counters: Counters,
    /// How many rules the driver has broken.
    pub breach_count: u64,
    /// The first of them.
    pub breaches: Vec<Breach>,
    /// How the device behaves.
    pub settings: Settings,
    /// What its type has to tell.
    pub of_type: Value,
}

/// What a device has counted since it was started.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Requests.
    pub requests: Requests,
    /// Stops and resumes.
    pub stops: Stops,
    /// Reads of the device status by the driver.
    pub status_reads: u64,
    /// Writes of the device status by the driver.
    pub status_writes: u64,
    /// Available buffer notifications by the driver.
    pub notifications: u64,
    /// Those of them that came while the device was stopped.
    pub notifications_while_stopped: u64,
    /// Those of them that did not carry the data that the driver had promised (VIRTIO_F_NOTIF_CONFIG_DATA, VIRTIO_F_NOTIFICATION_DATA), and
    /// so were lost.
    pub notifications_lost: u64,
    /// Used buffer and configuration change notifications to the driver.
    pub interrupts: u64,
    /// Configuration change notifications among them.
    pub configuration_changes: u64,
    /// Resets, by whatever means.
    pub resets: u64,
    /// How often another process has taken the device over.
    pub takeovers: u64,
    /// Resets of one virtqueue (VIRTIO_F_RING_RESET).
    pub queue_resets: u64,
}

/// Requests, by what has become of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Taken from a virtqueue.
    pub taken: u64,
    /// Given back to the driver.
    pub completed: u64,
    /// Taken, but neither given back nor dropped.
    pub in_flight: u64,
    /// Dropped by a reset of the device or of the virtqueue.
    pub dropped: u64,
    /// Taken, and never to be given back: the device has no use for them.
    pub kept: u64,
    /// Taken while a stop was pending or stood.
    pub taken_while_stopped: u64,
    /// Completed requests that ended with an error.
    pub failed: u64,
    /// Completed requests by what they were, such as `read`.
    pub kinds: BTreeMap<Cow<'static, str>, u64>,
}

/// Stops and resumes, by what has become of them. Times are in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stops {
    /// Asked for by the driver.
    pub requested: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Called off by the driver before they were acknowledged.
    pub called_off: u64,
    /// Ended by the driver after they were acknowledged.
    pub resumed: u64,
    /// Ended by the device itself after they were acknowledged.
    pub dropped: u64,
    /// Asked for while requests were in flight.
    pub requested_with_requests: u64,
    /// Acknowledged while requests were in flight: never, unless a setting asks for it.
    pub acknowledged_with_requests: u64,
    /// Requests in flight when the last stop was asked for.
    pub last_requests_when_requested: u64,
    /// Requests in flight when the last stop was acknowledged.
    pub last_requests_when_acknowledged: u64,
    /// Status reads by the driver from the last request for a stop until its acknowledgement was seen.
    pub last_status_reads: u64,
    /// From the driver's write for the last stop to its acknowledgement.
    pub last_acknowledge_us: u64,
    /// From that acknowledgement to the driver's next look.
    pub last_seen_us: u64,
    /// From the driver's write for the last resume to its acknowledgement.
    pub last_resume_us: u64,
    /// From that acknowledgement to the driver's next look.
    pub last_resume_seen_us: u64,
    /// How long the device stood still the last time that it was resumed: between the two acknowledgements.
    pub last_stopped_us: u64,
}
