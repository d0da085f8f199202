// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every command, by another implementation of the protocol: the client of the `vfio_user` crate.

use std::os::fd::{AsRawFd, OwnedFd};

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_user::Client;

use crate::served::{blocking_eventfd, memory_file, signals, Served};

const EVENTFD: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
const DISABLE: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
const MASK: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
const UNMASK: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
const INTX: u32 = VFIO_PCI_INTX_IRQ_INDEX;
const BAR: u32 = VFIO_PCI_BAR0_REGION_INDEX;
const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;

/// A driver that is ready, as far as interrupts go.
fn bring_up(client: &mut Client) {
    for status in [1, 3] {
        client.region_write(BAR, 0x14, &[status]).unwrap();
    }
    client.region_write(BAR, 0x08, &[1, 0, 0, 0]).unwrap();
    client.region_write(BAR, 0x0c, &[1, 0, 0, 0]).unwrap();
    for status in [11, 15] {
        client.region_write(BAR, 0x14, &[status]).unwrap();
    }
    // The vector of the configuration.
    client.region_write(BAR, 0x10, &[1, 0]).unwrap();
}

#[test]
fn the_device_is_found() {
    let served = Served::new(false);
    let mut client = Client::new(&served.path()).unwrap();
    let size = |index| client.region(index).unwrap().size;
    assert_eq!(size(BAR), 0x4000);
    assert_eq!(size(VFIO_PCI_BAR2_REGION_INDEX), 0x1000);
    assert_eq!(size(VFIO_PCI_CONFIG_REGION_INDEX), 256);
    assert_eq!(size(1), 0);
    let mut id = [0; 4];
    client
        .region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut id)
        .unwrap();
    assert_eq!(id, [0xf4, 0x1a, 0x49, 0x10]);
    assert!(served.device.report().connected);
}

#[test]
fn registers_are_read_and_written_and_reset() {
    let served = Served::new(false);
    let mut client = Client::new(&served.path()).unwrap();
    client.region_write(BAR, 0x14, &[1]).unwrap();
    let mut status = [0];
    client.region_read(BAR, 0x14, &mut status).unwrap();
    assert_eq!((status, served.device.report().status), ([1], 1));
    client.reset().unwrap();
    assert_eq!(served.device.report().status, 0);
}

/// The configuration space is that of a function which was just powered on: no memory, no bus master, no MSI-X, BARs nowhere.
fn is_as_at_power_on(client: &mut Client) -> bool {
    let mut read = |offset, length| {
        let mut bytes = vec![0; length];
        client.region_read(CONFIG, offset, &mut bytes).unwrap();
        bytes
    };
    let (command, bars, line, msix) = (read(0x04, 2), read(0x10, 24), read(0x3c, 1), read(0x43, 1));
    let bar_0 = [&[0b100][..], &[0; 23]].concat();
    (command, bars, line, msix) == (vec![0; 2], bar_0, vec![0], vec![0])
}

#[test]
fn the_configuration_space_is_reset_and_is_another_clients() {
    let served = Served::new(false);
    for way in ["reset", "another client"] {
        let mut client = Client::new(&served.path()).unwrap();
        assert!(is_as_at_power_on(&mut client), "{way}");
        for (offset, bytes) in [
            (0x04, &[6, 4][..]),
            (0x10, &[0xff; 12]),
            (0x3c, &[11]),
            (0x42, &[0, 0x80]),
            (0x94, &[1]),
        ] {
            client.region_write(CONFIG, offset, bytes).unwrap();
        }
        assert!(!is_as_at_power_on(&mut client));
        if way == "reset" {
            client.reset().unwrap();
            assert!(is_as_at_power_on(&mut client), "{way}");
            let mut id = [0; 4];
            client.region_read(CONFIG, 0, &mut id).unwrap();
            assert_eq!(id, [0xf4, 0x1a, 0x49, 0x10]);
            client.region_write(CONFIG, 0x04, &[6, 4]).unwrap();
        }
        client.shutdown().unwrap();
    }
    let mut client = Client::new(&served.path()).unwrap();
    assert!(is_as_at_power_on(&mut client));
}

#[test]
fn memory_is_mapped_and_unmapped() {
    let served = Served::new(false);
    let mut client = Client::new(&served.path()).unwrap();
    let file = memory_file(0x4000);
    client
        .dma_map(0x1000, 0x10_0000, 0x2000, file.as_raw_fd())
        .unwrap();
    client
        .dma_map(0, 0x20_0000, 0x1000, file.as_raw_fd())
        .unwrap();
    assert!(served.reaches(0x10_1fff) && served.reaches(0x20_0000));
    assert!(!served.reaches(0x10_2000));
    client.dma_unmap(0x10_0000, 0x2000).unwrap();
    assert!(!served.reaches(0x10_0000) && served.reaches(0x20_0000));
}

#[test]
fn interrupts_are_what_the_device_has() {
    for (intx, msix_vectors, intx_vectors) in [(false, 2, 0), (true, 0, 1)] {
        let served = Served::new(intx);
        let mut client = Client::new(&served.path()).unwrap();
        let mut count = |index| client.get_irq_info(index).unwrap().count;
        assert_eq!(count(VFIO_PCI_MSIX_IRQ_INDEX), msix_vectors);
        assert_eq!(count(VFIO_PCI_INTX_IRQ_INDEX), intx_vectors);
        assert_eq!(count(3), 0);
    }
}

#[test]
fn vectors_are_signalled() {
    let served = Served::new(false);
    let mut client = Client::new(&served.path()).unwrap();
    let files = [blocking_eventfd(), blocking_eventfd()];
    let raw = files.each_ref().map(AsRawFd::as_raw_fd);
    let msix = VFIO_PCI_MSIX_IRQ_INDEX;
    client.set_irqs(msix, EVENTFD, 0, 2, &raw).unwrap();
    bring_up(&mut client);
    served.interrupt();
    assert_eq!(signals(&files[1]), 1);
    for (flags, start, count) in [(EVENTFD, 1, 1), (DISABLE, 0, 0)] {
        client.set_irqs(msix, EVENTFD, 0, 2, &raw).unwrap();
        let raised = || served.device.report().counters.interrupts;
        let before = raised();
        client.set_irqs(msix, flags, start, count, &[]).unwrap();
        served.interrupt();
        assert_eq!(raised(), before, "nobody listens");
    }
}

/// A device without MSI-X vectors, whose driver is ready, and the file to signal INTx by.
fn signalled_by_intx() -> (Served, Client, OwnedFd) {
    let served = Served::new(true);
    let mut client = Client::new(&served.path()).unwrap();
    let file = blocking_eventfd();
    client
        .set_irqs(INTX, EVENTFD, 0, 1, &[file.as_raw_fd()])
        .unwrap();
    bring_up(&mut client);
    (served, client, file)
}

#[test]
fn intx_is_signalled_and_unmasked() {
    let (served, mut client, file) = signalled_by_intx();
    served.interrupt();
    assert_eq!(signals(&file), 1);
    client.set_irqs(INTX, UNMASK, 0, 1, &[]).unwrap();
    assert_eq!(signals(&file), 1, "the status was not read");
    client.set_irqs(INTX, DISABLE, 0, 0, &[]).unwrap();
    let raised = served.device.report().counters.interrupts;
    served.interrupt();
    assert_eq!(served.device.report().counters.interrupts, raised);
}

#[test]
fn masked_intx_is_signalled_when_it_is_unmasked() {
    let (served, mut client, file) = signalled_by_intx();
    client.set_irqs(INTX, MASK, 0, 1, &[]).unwrap();
    let raised = served.device.report().counters.interrupts;
    served.interrupt();
    assert_eq!(served.device.report().counters.interrupts, raised);
    client.set_irqs(INTX, UNMASK, 0, 1, &[]).unwrap();
    assert_eq!(signals(&file), 1);
}

#[test]
fn one_client_comes_after_another() {
    let served = Served::new(false);
    for _ in 0..3 {
        let mut client = Client::new(&served.path()).unwrap();
        let mut status = [0xff];
        client.region_read(BAR, 0x14, &mut status).unwrap();
        assert_eq!(status, [0], "a client that goes takes its guest with it");
        client.region_write(BAR, 0x14, &[1]).unwrap();
        client.shutdown().unwrap();
    }
}
