// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts to the driver, by way of the client: MSI-X vectors, or INTx and its status register.

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use crate::eventfd::Eventfd;
use crate::pci;
use crate::registers::NO_VECTOR;

/// What the driver is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A virtqueue has used buffers.
    Queue,
    /// The configuration has changed.
    Configuration,
}

/// The ways to interrupt the driver.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interrupts {
    #[serde(skip)]
    vectors: Vec<Option<Eventfd>>,
    #[serde(skip)]
    intx: Option<Eventfd>,
    /// INTx was signalled: the client unmasks it when the driver has looked.
    masked: bool,
    isr: u8,
    /// The configuration has changed, and the device was no bus master, so that no message could tell of it.
    untold: bool,
}

impl Interrupts {
    /// Interrupts of a device with that many MSI-X vectors. None: it has INTx.
    pub(super) fn new(vectors: u16) -> Self {
        let mut interrupts = Self::default();
        interrupts
            .vectors
            .resize_with(usize::from(vectors), || None);
        interrupts
    }

    pub(super) fn set_vectors(&mut self, start: usize, count: usize, files: Vec<Eventfd>) {
        let mut files = files.into_iter();
        for vector in self.vectors.iter_mut().skip(start).take(count) {
            *vector = files.next();
        }
    }

    pub(super) fn set_intx(&mut self, file: Option<Eventfd>) {
        self.intx = file;
        self.unmask_intx();
    }

    pub(super) fn mask_intx(&mut self) {
        self.masked = true;
    }

    pub(super) fn unmask_intx(&mut self) {
        self.masked = false;
        self.signal_intx();
    }

    pub(super) fn clear(&mut self) {
        self.vectors.fill_with(|| None);
        self.intx = None;
        self.masked = false;
    }

    /// The files of the MSI-X vectors, and that of INTx.
    pub(super) fn files(&self) -> (Vec<Option<BorrowedFd<'_>>>, Option<BorrowedFd<'_>>) {
        let vectors = self.vectors.iter().map(file).collect();
        (vectors, file(&self.intx))
    }

    /// Goes on as those that were saved, which have no files.
    pub(super) fn restore(&mut self, saved: Self) {
        (self.masked, self.isr, self.untold) = (saved.masked, saved.isr, saved.untold);
    }

    /// The file to signal INTx by, as before: masked or not.
    pub(super) fn restore_intx(&mut self, file: Eventfd) {
        self.intx = Some(file);
    }

    /// The interrupt status. To read it is to take it away.
    pub(super) fn read_isr(&mut self) -> u8 {
        std::mem::take(&mut self.isr)
    }

    /// Back to the state after power-on.
    pub(super) fn reset(&mut self) {
        self.isr = 0;
        self.untold = false;
    }

    /// Whether the driver is still to be told that the configuration has changed.
    pub(super) fn is_untold(&self) -> bool {
        self.untold
    }

    /// Whether the interrupt status is not 0.
    pub(super) fn is_pending(&self) -> bool {
        self.isr != 0
    }

    /// Interrupts the driver, by MSI-X vector `vector` if the device has any. Returns whether anybody could be told. 4.1.4.5.1: the
    /// interrupt status tells of a change of the configuration in any case, of used buffers only if MSI-X is not enabled. A message is a
    /// write to memory, which only a bus master can do. INTx is not.
    pub(super) fn raise(&mut self, cause: Cause, vector: u16, pci: &pci::Config) -> bool {
        self.isr |= match cause {
            Cause::Queue if pci.msix_enabled() => 0,
            Cause::Queue => 1,
            Cause::Configuration => 2,
        };
        if self.vectors.is_empty() {
            return self.signal_intx();
        }
        // Who reaches no memory uses no buffers: there are no other messages to be kept.
        self.untold = match cause {
            Cause::Queue => self.untold,
            Cause::Configuration => !pci.is_bus_master(),
        };
        match self.vectors.get(usize::from(vector)) {
            Some(Some(eventfd)) if vector != NO_VECTOR && pci.is_bus_master() => is_told(eventfd),
            _ => false,
        }
    }

    fn signal_intx(&mut self) -> bool {
        match &self.intx {
            Some(eventfd) if self.isr != 0 && !self.masked => {
                self.masked = true;
                is_told(eventfd)
            }
            _ => false,
        }
    }
}

fn file(eventfd: &Option<Eventfd>) -> Option<BorrowedFd<'_>> {
    eventfd.as_ref().map(Eventfd::as_fd)
}

fn is_told(eventfd: &Eventfd) -> bool {
    eventfd
        .signal()
        .inspect_err(|error| tracing::warn!(%error, "can't signal an interrupt"))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;
    use std::os::fd::OwnedFd;

    fn eventfd() -> (Eventfd, OwnedFd) {
        let file = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        (Eventfd::try_from(file.try_clone().unwrap()).unwrap(), file)
    }

    /// Of a device that is a bus master.
    fn msix(enabled: bool) -> pci::Config {
        let mut config = pci::Config::new(9, 0, 2, pci::SHORT_COMMON);
        config.write(4, &[6]);
        config.write(0x42, &[0, if enabled { 0x80 } else { 0 }]);
        config
    }

    /// The signals since the last look.
    fn signals(file: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(file, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn a_vector_is_signalled_where_there_is_one() {
        let mut interrupts = Interrupts::new(2);
        let (file, signalled) = eventfd();
        assert!(
            !interrupts.raise(Cause::Queue, 1, &msix(true)),
            "nobody listens"
        );
        interrupts.set_vectors(1, 1, vec![file]);
        assert!(interrupts.raise(Cause::Queue, 1, &msix(true)));
        assert!(!interrupts.raise(Cause::Queue, 0, &msix(true)));
        assert!(!interrupts.raise(Cause::Queue, NO_VECTOR, &msix(true)));
        assert_eq!(signals(&signalled), 1);
        interrupts.set_vectors(0, 2, Vec::new());
        assert!(!interrupts.raise(Cause::Queue, 1, &msix(true)));
        assert_eq!(interrupts.read_isr(), 0, "it is told by vectors");
    }

    #[test]
    fn all_files_are_handed_over_each_at_its_place() {
        let mut interrupts = Interrupts::new(2);
        interrupts.set_vectors(1, 1, vec![eventfd().0]);
        let there = |(vectors, intx): (Vec<Option<BorrowedFd<'_>>>, Option<BorrowedFd<'_>>)| {
            let vectors = vectors.iter().map(Option::is_some).collect::<Vec<_>>();
            (vectors, intx.is_some())
        };
        assert_eq!(there(interrupts.files()), (vec![false, true], false));
        let mut interrupts = Interrupts::new(0);
        interrupts.set_intx(Some(eventfd().0));
        assert_eq!(there(interrupts.files()), (vec![], true));
    }

    #[test]
    fn intx_is_signalled_once_until_the_driver_has_looked() {
        let mut interrupts = Interrupts::new(0);
        let (file, signalled) = eventfd();
        interrupts.set_intx(Some(file));
        interrupts.raise(Cause::Queue, NO_VECTOR, &msix(false));
        interrupts.raise(Cause::Configuration, NO_VECTOR, &msix(false));
        assert_eq!(signals(&signalled), 1);
        interrupts.unmask_intx();
        assert_eq!(signals(&signalled), 1, "the status was not read");
        assert_eq!((interrupts.read_isr(), interrupts.read_isr()), (3, 0));
        interrupts.unmask_intx();
        assert_eq!(signals(&signalled), 0);
        interrupts.raise(Cause::Queue, NO_VECTOR, &msix(false));
        assert_eq!(signals(&signalled), 1);
    }

    #[test]
    fn masked_intx_is_signalled_when_it_is_unmasked() {
        let mut interrupts = Interrupts::new(0);
        let (file, signalled) = eventfd();
        interrupts.set_intx(Some(file));
        interrupts.mask_intx();
        interrupts.raise(Cause::Queue, NO_VECTOR, &msix(false));
        assert_eq!(signals(&signalled), 0);
        interrupts.unmask_intx();
        assert_eq!(signals(&signalled), 1);
    }

    #[test]
    fn what_came_before_anybody_listened_is_told_then() {
        let mut interrupts = Interrupts::new(0);
        assert!(!interrupts.raise(Cause::Queue, NO_VECTOR, &msix(false)));
        let (file, signalled) = eventfd();
        interrupts.set_intx(Some(file));
        assert_eq!(signals(&signalled), 1);
    }
}
