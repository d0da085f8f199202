// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of the device (virtio 1.4, "Device parts"), and what it has counted and judged. A successor of this process is handed
//! them. Nothing here reaches the guest: no files, no thread, no memory.

use serde::{Deserialize, Serialize};

use super::lookout::Lookout;
use super::offer::{Offer, VIRTIO_F_39, VIRTIO_F_SUSPEND};
use super::queues::Virtqueue;
use super::requests::{Held, Requests};
use super::tally::Tally;
use crate::judge::Judge;
use crate::pci::{self, DEVICE_SIZE};
use crate::portable;
use crate::registers::Registers;
use crate::settings::{IoHold, Settings};
use crate::status::{Protocol, Status, Stop, FEATURES_OK};

/// What the driver is not shown, or not told, until the device runs again.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Withheld {
    /// D-DEV-3, S-DEV-2: what the driver sees of the configuration while the device is stopped.
    #[serde(with = "portable::hex::option")]
    pub(super) configuration: Option<[u8; DEVICE_SIZE]>,
    /// The configuration has changed meanwhile.
    pub(super) change: bool,
    /// S-DEV-2: NEEDS_RESET was set meanwhile, without a notification.
    pub(super) needs_reset: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parts {
    pub(super) offer: Offer,
    pub(super) pci: pci::Config,
    pub(super) registers: Registers,
    pub(super) status: Status,
    /// The driver has reset the device while requests were being carried out. The status reads 0 when they are done with.
    pub(super) resetting: bool,
    pub(super) queues: Vec<Virtqueue>,
    pub(super) requests: Requests,
    pub(super) withheld: Withheld,
    pub(super) settings: Settings,
    pub(super) tally: Tally,
    pub(super) judge: Judge,
    pub(super) lookout: Lookout,
}

impl Parts {
    pub(super) fn new(
        offer: Offer,
        registers: Registers,
        pci: pci::Config,
        settings: Settings,
    ) -> Self {
        Self {
            offer,
            pci,
            registers,
            status: Status::default(),
            resetting: false,
            queues: Vec::new(),
            requests: Requests::default(),
            withheld: Withheld::default(),
            settings,
            tally: Tally::default(),
            judge: Judge::default(),
            lookout: Lookout::default(),
        }
    }

    /// What was negotiated.
    pub(super) fn protocol(&self) -> Protocol {
        if self.status.has(FEATURES_OK) {
            self.accepted_protocol()
        } else {
            Protocol::None
        }
    }

    /// What will be negotiated if the features are.
    pub(super) fn accepted_protocol(&self) -> Protocol {
        let accepted = |bit: u32| self.registers.accepted() & (1 << bit) != 0;
        if accepted(VIRTIO_F_SUSPEND) {
            Protocol::Suspend
        } else if accepted(VIRTIO_F_39) && self.offer.device_stop {
            Protocol::DeviceStop
        } else {
            Protocol::None
        }
    }

    /// S-DEV-2: the device keeps its hands off the virtqueues and says nothing.
    pub(super) fn is_suspended(&self) -> bool {
        self.protocol() == Protocol::Suspend
            && matches!(self.status.stop(), Stop::Stopped | Stop::Resuming)
    }

    /// D-DEV-2, S-DEV-4: the device acknowledges a stop when everything that it has taken is finished. What is being carried out touches
    /// the driver's buffers, and is finished in any case.
    pub(super) fn is_quiet(&self) -> bool {
        let leaves = self.settings.leave_requests
            && self.protocol() == Protocol::Suspend
            && !self.requests.are_executing();
        self.requests.len() == 0 || self.settings.take_while_stopped || leaves
    }

    pub(super) fn room(&self) -> bool {
        self.requests.len() < self.settings.io_depth
    }

    /// Nothing is carried out, and nothing given back. S-DEV-2, whether or not the setting that left something there is still set; and a
    /// device that is no bus master can't reach it.
    pub(super) fn holds_all(&self) -> bool {
        self.is_suspended() && !self.settings.take_while_stopped || !self.pci.is_bus_master()
    }

    /// Which requests are kept although their time has come.
    pub(super) fn held(&self) -> Held {
        let all = self.holds_all() || self.requests.absent.is_waiting();
        let waiting = match self.settings.io_hold {
            IoHold::No => false,
            IoHold::Always => true,
            // The driver has asked for a stop since those were taken that were left over.
            IoHold::UntilStop => self.status.stop() == Stop::Running,
        };
        Held {
            left: all || self.settings.io_hold == IoHold::Always,
            waiting: all || waiting,
            saying: all,
        }
    }
}
