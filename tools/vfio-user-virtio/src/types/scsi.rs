// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The SCSI host device (virtio 1.4, 5.6), with one target whose logical units are disks: see [`unit`]. It refuses task management.
//! When the size of a unit changes it says so: see [`event`].

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::buffers::{Reader, Writer};
use crate::types::store::{Place, Store};
use crate::types::{
    parse, put, ActionError, Description, Malformed, Outcome, Request, RestoreError, Type, Wants,
};
use event::Events;
use unit::{Answer, Command, Unit};

pub mod event;
pub mod unit;

const CONTROL: usize = 0;
const EVENT: usize = 1;
/// Bytes of the control requests, after their type.
const TMF_SIZE: usize = 20;
const AN_SIZE: usize = 12;
/// Request virtqueues come after these.
const OTHER_QUEUES: u16 = 2;

const F_HOTPLUG: u64 = 1 << 1;
const F_CHANGE: u64 = 1 << 2;

const SEG_MAX: u32 = 126;
const MAX_SECTORS: u32 = 2048;
const CMD_PER_LUN: u32 = 128;
/// Where these are in the configuration space, which the driver may write.
const SENSE_SIZE: usize = 20;
const CDB_SIZE: usize = 24;
const MAX_LUN: usize = 32;

/// Before the CDB in a request, and before the sense data in a response.
const REQUEST_HEADER: usize = 19;
const RESPONSE_HEADER: usize = 12;

const S_OK: u8 = 0;
const S_OVERRUN: u8 = 1;
const S_BAD_TARGET: u8 = 3;
const S_FAILURE: u8 = 9;
const S_FUNCTION_REJECTED: u8 = 11;

const T_TMF: u32 = 0;
const T_AN_QUERY: u32 = 1;
const T_AN_SUBSCRIBE: u32 = 2;

/// A SCSI host.
#[derive(Debug)]
pub struct Scsi {
    units: Vec<Unit>,
    request_queues: u16,
    sizes: Mutex<Sizes>,
    events: Mutex<Events>,
}

/// What the driver may choose.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    sense: u32,
    cdb: u32,
}

/// What a successor has to know.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    units: Vec<Place>,
    sizes: Sizes,
    events: Events,
}

impl Sizes {
    const POWER_ON: Self = Self { sense: 96, cdb: 32 };
    /// Larger ones are not taken.
    const MOST: u32 = 256;
}

/// The logical unit that is named in the first bytes of a request, if it is one of the target's.
fn unit_of([one, target, high, low, ..]: [u8; REQUEST_HEADER]) -> Option<usize> {
    let lun = u16::from_be_bytes([high & 0x3f, low]);
    (one == 1 && target == 0).then_some(usize::from(lun))
}

/// The response to a command, with `left` bytes of data not moved. Without an answer it was for no target that is there.
fn response(answer: Option<&Answer>, left: usize, sense_size: usize) -> Vec<u8> {
    let (response, status) = match answer {
        None => (S_BAD_TARGET, 0),
        Some(Answer::Good) => (S_OK, 0),
        Some(Answer::Overrun) => (S_OVERRUN, 0),
        Some(Answer::Failure) => (S_FAILURE, 0),
        Some(Answer::Check(_)) => (S_OK, unit::CHECK_CONDITION),
    };
    let mut bytes = vec![0; RESPONSE_HEADER + sense_size];
    if let Some(Answer::Check(sense)) = answer {
        let sense = sense.bytes();
        put(
            &mut bytes,
            0,
            &(sense.len().min(sense_size) as u32).to_le_bytes(),
        );
        put(&mut bytes, RESPONSE_HEADER, &sense);
    }
    put(&mut bytes, 4, &(left as u32).to_le_bytes());
    put(&mut bytes, 10, &[status, response]);
    bytes
}

impl Scsi {
    /// A host with a unit for each of `stores`. `name` is part of their serial numbers.
    pub fn new(stores: Vec<Store>, name: &str, request_queues: u16) -> Self {
        let units = stores.into_iter().enumerate();
        Self {
            units: units
                .map(|(lun, store)| Unit::new(store, format!("{name}-{lun}")))
                .collect(),
            request_queues,
            sizes: Mutex::new(Sizes::POWER_ON),
            events: Mutex::default(),
        }
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resize(&self, lun: u16, sectors: u64) -> Result<(), ActionError> {
        let unit = self
            .units
            .get(usize::from(lun))
            .ok_or(ActionError::Value("resize: no such UNIT"))?;
        if unit.resize(sectors)? {
            self.events().resized(lun);
        }
        Ok(())
    }

    /// The driver is told of what has happened.
    fn event(&self, mut output: Writer<'_>) -> Result<Outcome, Malformed> {
        const SHORT: Malformed = Malformed("no room for an event");
        if output.available_bytes() < event::SIZE {
            return Err(SHORT);
        }
        let bytes = self.events().tell();
        output.write_all(&bytes).map_err(|_| SHORT)?;
        Ok(Outcome {
            kind: "event",
            ok: true,
            written: event::SIZE as u32,
        })
    }

    fn command(&self, request: Request<'_>) -> Result<Outcome, Malformed> {
        let Request {
            mut input,
            mut output,
            fail,
            ..
        } = request;
        let sizes = *self.sizes();
        let mut header = [0; REQUEST_HEADER];
        let mut cdb = vec![0; sizes.cdb as usize];
        input
            .read_exact(&mut header)
            .and_then(|()| input.read_exact(&mut cdb))
            .map_err(|_| Malformed("no command"))?;
        let mut data = output
            .split_at(RESPONSE_HEADER + sizes.sense as usize)
            .ok_or(Malformed("no room for the response"))?;
        let expected = data.available_bytes() + input.available_bytes();
        let before = input.bytes_read();
        let command = Command {
            cdb: &cdb,
            fail,
            units: self.units.len(),
        };
        // 5.6.6.1.1: without VIRTIO_SCSI_F_INOUT.
        let both = data.available_bytes() > 0 && input.available_bytes() > 0;
        let answer = unit_of(header).map(|lun| match self.units.get(lun) {
            _ if both => Answer::Failure,
            Some(unit) => unit.execute(&command, &mut input, &mut data),
            None => unit::execute_without_unit(&command, &mut data),
        });
        let moved = data.bytes_written() + input.bytes_read() - before;
        let response = response(
            answer.as_ref(),
            expected.saturating_sub(moved),
            sizes.sense as usize,
        );
        let written = response.len() + data.bytes_written();
        output
            .write_all(&response)
            .map_err(|_| Malformed("no room for the response"))?;
        Ok(Outcome {
            kind: command.name(),
            ok: matches!(answer, Some(Answer::Good)),
            written: u32::try_from(written).unwrap_or(u32::MAX),
        })
    }

    /// Task management, which could not undo what was taken; and notifications, of which there are none.
    fn control(&self, mut input: Reader<'_>, mut output: Writer<'_>) -> Result<Outcome, Malformed> {
        let mut number = [0; 4];
        input
            .read_exact(&mut number)
            .map_err(|_| Malformed("no control request"))?;
        let (kind, size, answer): (_, _, &[u8]) = match u32::from_le_bytes(number) {
            T_TMF => ("task_management", TMF_SIZE, &[S_FUNCTION_REJECTED]),
            T_AN_QUERY => ("query_notifications", AN_SIZE, &[0, 0, 0, 0, S_OK]),
            T_AN_SUBSCRIBE => ("subscribe_notifications", AN_SIZE, &[0, 0, 0, 0, S_OK]),
            _ => return Err(Malformed("unknown control request")),
        };
        if input.available_bytes() < size {
            return Err(Malformed("a control request is too short"));
        }
        output
            .write_all(answer)
            .map_err(|_| Malformed("no room for the answer"))?;
        Ok(Outcome {
            kind,
            ok: kind != "task_management",
            written: answer.len() as u32,
        })
    }
}

impl Type for Scsi {
    fn describe(&self) -> Description {
        Description {
            name: "scsi",
            device_id: 8,
            pci_class: 0x01_0000,
            features: F_HOTPLUG | F_CHANGE,
            queues: OTHER_QUEUES + self.request_queues,
        }
    }

    fn configuration(&self, config: &mut [u8]) {
        let sizes = *self.sizes();
        let max_lun = self.units.len().saturating_sub(1) as u32;
        let fields = [
            (0, u32::from(self.request_queues)),
            (4, SEG_MAX),
            (8, MAX_SECTORS),
            (12, CMD_PER_LUN),
            (16, event::SIZE as u32),
            (SENSE_SIZE, sizes.sense),
            (CDB_SIZE, sizes.cdb),
            (MAX_LUN, max_lun),
        ];
        config.fill(0);
        for (at, field) in fields {
            put(config, at, &field.to_le_bytes());
        }
    }

    fn write_configuration(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = data.try_into() else {
            return;
        };
        let size = u32::from_le_bytes(bytes);
        if !(1..=Sizes::MOST).contains(&size) {
            return;
        }
        match offset {
            _ if offset == SENSE_SIZE as u64 => self.sizes().sense = size,
            _ if offset == CDB_SIZE as u64 => self.sizes().cdb = size,
            _ => {}
        }
    }

    fn wants(&self, queue: usize) -> Wants {
        match queue {
            EVENT => Wants::Some(self.events().pending()),
            _ => Wants::All,
        }
    }

    fn execute(&self, request: Request<'_>) -> Result<Outcome, Malformed> {
        match request.queue {
            CONTROL => self.control(request.input, request.output),
            EVENT => self.event(request.output),
            _ => self.command(request),
        }
    }

    fn given_back(&self, queue: usize, _ok: bool) {
        if queue == EVENT {
            self.events().given_back();
        }
    }

    fn queue_reset(&self, queue: usize) {
        if queue == EVENT {
            self.events().buffers_are_lost();
        }
    }

    fn negotiated(&self, features: u64) {
        self.events().start(features & F_CHANGE != 0);
    }

    /// `resize:UNIT:SECTORS`.
    fn act(&self, action: &str) -> Result<bool, ActionError> {
        let Some(("resize", what)) = action.split_once(':') else {
            return Err(ActionError::Unknown(action.to_owned()));
        };
        let (lun, sectors) = what
            .split_once(':')
            .and_then(|(lun, sectors)| Some((lun.parse().ok()?, sectors.parse().ok()?)))
            .ok_or(ActionError::Value("resize: UNIT and SECTORS are numbers"))?;
        self.resize(lun, sectors)?;
        Ok(false)
    }

    fn reset(&self) {
        *self.sizes() = Sizes::POWER_ON;
        *self.events() = Events::default();
    }

    fn report(&self) -> Value {
        let sectors: Vec<u64> = self.units.iter().map(Unit::sectors).collect();
        json!({ "sectors": sectors, "pending_events": self.events().pending() })
    }

    fn file(&self) -> Option<Arc<File>> {
        self.units.first().map(|unit| unit.store().file())
    }

    fn save(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(Saved {
            units: self.units.iter().map(|unit| unit.store().save()).collect(),
            sizes: *self.sizes(),
            events: self.events().clone(),
        })
    }

    fn restore(&mut self, saved: Value) -> Result<(), RestoreError> {
        let saved: Saved = parse(saved)?;
        if saved.units.len() != self.units.len() {
            return Err(RestoreError::Fit("another number of units"));
        }
        for (unit, place) in self.units.iter_mut().zip(&saved.units) {
            unit.store_mut().restore(place)?;
        }
        *self.sizes() = saved.sizes;
        *self.events() = saved.events;
        Ok(())
    }
}
