// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bus Master Enable, bit 2 of the PCI command register: while it is clear, the device reaches no memory and sends no message, and when it
//! is set, nothing is lost.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use vfio_user_virtio::buffers::PATIENCE;
use vfio_user_virtio::device::{Device, Offer};
use vfio_user_virtio::eventfd::Eventfd;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::{Description, Malformed, Outcome, Request, Type};

use crate::driver::{
    disk, files_of, Driver, D, DEVICE_STOPPED, MEMORY, NEEDS_RESET, QUEUE_SIZE, READY, S, SUSPEND,
    SUSPENDED,
};

const MS: Duration = Duration::from_millis(1);

/// How often the device has signalled since the last look.
fn signals(file: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(file, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn signal() -> (Eventfd, OwnedFd) {
    let file = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    (Eventfd::try_from(file.try_clone().unwrap()).unwrap(), file)
}

/// What the device signals the virtqueue by, and what the configuration.
fn listen(driver: &Driver) -> (OwnedFd, OwnedFd) {
    let ((queue, of_queue), (configuration, of_configuration)) = (signal(), signal());
    driver.device.set_vectors(0, 2, vec![queue, configuration]);
    driver.write16(0x10, 1);
    driver.device.write_config(0x42, &[0, 0x80], driver.now);
    (of_queue, of_configuration)
}

/// All of the driver's memory.
fn memory(driver: &Driver) -> Vec<u8> {
    driver.bytes(0, MEMORY as usize)
}

#[test]
fn a_device_that_was_never_a_bus_master_does_nothing_and_then_everything() {
    let mut driver = Driver::new();
    driver.negotiate(!0);
    driver.set_bus_master(false);
    driver.lay_out(None);
    assert_eq!(driver.set_status(READY), READY);
    assert!(!driver.report().bus_master);
    let at = driver.submit_read(0);
    let before = memory(&driver);
    driver.serve();
    driver.advance(2 * PATIENCE);
    assert!(memory(&driver) == before);
    let counters = driver.report().counters;
    assert_eq!((counters.requests.taken, counters.interrupts), (0, 0));
    assert_eq!(driver.status(), READY, "it is no error");
    driver.set_bus_master(true);
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    assert_eq!(driver.used(0), 1);
}

#[test]
fn what_was_taken_waits_for_the_bit_and_is_signalled_then() {
    let mut driver = Driver::ready();
    let (queue, configuration) = listen(&driver);
    driver.set("io_delay_us", "1000");
    let taken = driver.submit_read(0);
    driver.serve();
    driver.set_bus_master(false);
    let notified = driver.submit_read(1);
    let before = memory(&driver);
    driver.serve();
    driver.advance(2 * PATIENCE);
    driver.advance(2 * PATIENCE);
    assert!(memory(&driver) == before);
    assert_eq!((signals(&queue), signals(&configuration)), (0, 0));
    let requests = driver.report().counters.requests;
    assert_eq!((requests.taken, requests.in_flight), (1, 1));
    assert_eq!(driver.status(), READY);
    driver.set_bus_master(true);
    driver.serve();
    driver.advance(MS);
    assert_eq!([taken, notified].map(|at| driver.outcome(at)), [0; 2]);
    assert_eq!((driver.status(), driver.used(0)), (READY, 2));
    assert!(signals(&queue) != 0);
}

/// What QEMU takes away while the device is no bus master is missed only once it is one again.
#[test]
fn patience_does_not_run_out_meanwhile() {
    for missed_before in [false, true] {
        let mut driver = Driver::ready();
        driver.device.memory().clear();
        let at = driver.submit_read(0);
        if missed_before {
            driver.serve();
        }
        driver.set_bus_master(false);
        driver.serve();
        driver.advance(2 * PATIENCE);
        driver.set_bus_master(true);
        driver.serve();
        assert_eq!(driver.status(), READY);
        driver.advance(PATIENCE - MS);
        assert_eq!(driver.status(), READY);
        driver.map_all();
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    }
}

#[test]
fn no_message_is_sent_meanwhile_and_one_for_all_later() {
    let driver = Driver::ready();
    let (queue, configuration) = listen(&driver);
    driver.set_bus_master(false);
    driver.device.act("resize:32").unwrap();
    driver.device.act("needs-reset").unwrap();
    assert_eq!((signals(&queue), signals(&configuration)), (0, 0));
    assert_eq!(driver.read(0x1000, 1), 2, "the interrupt status has it");
    assert_eq!(driver.report().counters.interrupts, 0);
    driver.set_bus_master(true);
    assert_eq!((signals(&queue), signals(&configuration)), (0, 1));
    driver.set_bus_master(false);
    driver.set_bus_master(true);
    assert_eq!(signals(&configuration), 0, "told once");
    driver.set_bus_master(false);
    driver.device.act("resize:16").unwrap();
    driver.set_status(0);
    driver.set_bus_master(true);
    assert_eq!(signals(&configuration), 0, "forgotten by a reset");
}

#[test]
fn intx_is_no_message() {
    let driver = Driver::of(disk(1, false).0, Offer { intx: true, ..D });
    let (eventfd, file) = signal();
    driver.device.set_intx(Some(eventfd));
    driver.set_bus_master(false);
    driver.device.act("resize:32").unwrap();
    assert_eq!((signals(&file), driver.read(0x1000, 1)), (1, 2));
    driver.device.unmask_intx();
    driver.set_bus_master(true);
    assert_eq!(signals(&file), 0, "it was told");
}

/// S-DEV-2: a suspended device says nothing, whatever the driver writes elsewhere.
#[test]
fn what_could_not_be_told_before_a_suspension_is_told_after_it() {
    let driver = Driver::suspendable();
    let (_, configuration) = listen(&driver);
    driver.set_bus_master(false);
    driver.device.act("resize:32").unwrap();
    assert_eq!(driver.stop(), SUSPENDED);
    driver.set_bus_master(true);
    assert_eq!(signals(&configuration), 0);
    assert_eq!(driver.resume(), READY);
    assert_eq!(signals(&configuration), 1);

    // Nor does a resume tell of anything without the bit.
    driver.stop();
    driver.set_bus_master(false);
    driver.device.act("resize:16").unwrap();
    assert_eq!(driver.resume(), READY);
    assert_eq!(signals(&configuration), 0);
    driver.set_bus_master(true);
    assert_eq!(signals(&configuration), 1);
}

#[test]
fn a_stop_waits_for_what_was_taken_and_for_nothing_else() {
    for (offer, written, stopped) in [
        (D, READY | DEVICE_STOPPED, READY | DEVICE_STOPPED),
        (S, READY | SUSPEND, SUSPENDED),
    ] {
        let mut driver = Driver::of(disk(1, false).0, offer);
        driver.set_bus_master(false);
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!(
            driver.set_status(written),
            stopped,
            "nothing is in its hands"
        );
        driver.set_bus_master(true);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (stopped, 0xff));
        driver.resume();
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));

        driver.set("io_delay_us", "1000");
        let at = driver.submit_read(0);
        driver.serve();
        driver.set_bus_master(false);
        assert_eq!(driver.set_status(written), READY);
        driver.advance(2 * PATIENCE);
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0xff));
        driver.set_bus_master(true);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (stopped, 0));
    }
}

#[test]
fn a_reset_drops_what_waits_for_the_bit() {
    for by_status in [true, false] {
        let mut driver = Driver::ready();
        driver.set("io_delay_us", "1000");
        let at = driver.submit_read(0);
        driver.serve();
        driver.set_bus_master(false);
        driver.submit_read(1);
        driver.advance(MS);
        let before = memory(&driver);
        match by_status {
            true => assert_eq!(driver.set_status(0), 0),
            false => driver.device.reset(),
        }
        let requests = driver.report().counters.requests;
        assert_eq!((requests.in_flight, requests.dropped), (0, 1));
        driver.set_bus_master(true);
        driver.advance(MS);
        assert!(memory(&driver) == before);
        assert_eq!(driver.outcome(at), 0xff);
        driver.bring_up(!0);
        let at = driver.submit_read(0);
        driver.serve();
        driver.advance(MS);
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    }
}

/// PCI: a reset of the function clears the command register.
#[test]
fn a_reset_of_the_function_makes_it_no_bus_master() {
    let mut driver = Driver::ready();
    driver.device.reset();
    assert!(!driver.report().bus_master);
    assert!(!driver.device.memory().lock().is_bus_master());
    driver.set_status(0);
    driver.bring_up(!0);
    driver.set_status(0);
    assert!(
        driver.report().bus_master,
        "that of the virtio device does not"
    );
    driver.bring_up(!0);
    assert_ne!(driver.status() & NEEDS_RESET, NEEDS_RESET);
}

/// A type that stands still before and after it writes to a request's buffer, until it is told to go on.
#[derive(Debug)]
struct Steps {
    stands: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Steps {
    fn step(&self) {
        self.stands.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
    }
}

impl Type for Steps {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        self.step();
        let ok = request.output.write_all(&[7; 16]).is_ok();
        self.step();
        Ok(Outcome {
            kind: "any",
            ok,
            written: 16,
        })
    }
}

#[test]
fn what_is_being_carried_out_stands_still_and_is_no_error() {
    let minute = Duration::from_secs(60);
    let (stands, has_stood) = channel();
    let (go, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let mut driver = Driver::of(Arc::new(Steps { stands, go_on }), D);
    let at = [(); 2].map(|()| {
        let at = driver.buffer();
        driver.make_available(&[(at, 16, true)], false);
        at
    });
    let next = || has_stood.recv_timeout(minute).unwrap();
    let (before, during, stopped) = std::thread::scope(|scope| {
        scope.spawn(|| driver.device.serve(driver.now));
        next();
        driver.set_bus_master(false);
        let before = memory(&driver);
        go.send(()).unwrap();
        let stopped = driver.set_status(READY | DEVICE_STOPPED);
        driver.set_status(READY);
        let during = memory(&driver);
        driver.set_bus_master(true);
        next();
        // The first is carried out but not given back, the second not begun.
        driver.set_bus_master(false);
        go.send(()).unwrap();
        (before, during, stopped)
    });
    assert!(before == during);
    assert_eq!(stopped, READY, "it was carrying a request out");
    assert_eq!(
        at.map(|at| driver.bytes(at, 16)),
        [vec![7; 16], vec![0; 16]]
    );
    driver.advance(2 * PATIENCE);
    driver.advance(2 * PATIENCE);
    assert_eq!((driver.status(), driver.used(0)), (READY, 0));
    assert_eq!(driver.report().counters.requests.in_flight, 2);
    driver.set_bus_master(true);
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    driver.serve();
    assert_eq!((driver.status(), driver.used(0)), (READY, 2));
    assert_eq!(driver.bytes(at[1], 16), [7; 16]);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.completed, requests.failed), (2, 0));
}

#[test]
fn a_virtqueue_can_be_reset_meanwhile() {
    let minute = Duration::from_secs(60);
    let (stands, has_stood) = channel();
    let (go, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let offer = Offer {
        ring_reset: true,
        long_common: true,
        ..D
    };
    let mut driver = Driver::of(Arc::new(Steps { stands, go_on }), offer);
    let at = driver.buffer();
    driver.make_available(&[(at, 16, true)], false);
    std::thread::scope(|scope| {
        scope.spawn(|| driver.device.serve(driver.now));
        has_stood.recv_timeout(minute).unwrap();
        driver.set_bus_master(false);
        // It reaches for the memory, in vain, and has nobody to tell.
        go.send(()).unwrap();
        go.send(()).unwrap();
        driver.write16(0x16, 0);
        driver.write16(0x3a, 1);
    });
    assert_eq!(driver.read(0x3a, 2), 0);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.dropped, requests.in_flight), (1, 0));
    assert_eq!(driver.bytes(at, 16), [0; 16]);
}

#[test]
fn what_waits_for_the_bit_is_dropped_with_its_virtqueue() {
    let offer = Offer {
        ring_reset: true,
        long_common: true,
        ..D
    };
    let mut driver = Driver::of(disk(1, false).0, offer);
    driver.set("io_delay_us", "1000");
    let taken = driver.submit_read(0);
    driver.serve();
    driver.set_bus_master(false);
    driver.advance(Duration::from_millis(1));
    let left = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.report().counters.requests.in_flight, 1);
    driver.write16(0x16, 0);
    driver.write16(0x3a, 1);
    assert_eq!((driver.read(0x3a, 2), driver.read(0x1c, 2)), (0, 0));
    let requests = driver.report().counters.requests;
    assert_eq!((requests.dropped, requests.in_flight), (1, 0));
    driver.lay_out_queue(0, QUEUE_SIZE, None);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), 0xff, "it still is no bus master");
    driver.set_bus_master(true);
    driver.serve();
    driver.advance(Duration::from_millis(1));
    let outcomes = [taken, left, at].map(|at| driver.outcome(at));
    assert_eq!((outcomes, driver.used(0)), ([0xff, 0xff, 0], 1));
}

#[test]
fn the_worker_hears_of_the_bit() {
    let mut driver = Driver::ready();
    driver.set_bus_master(false);
    let at = driver.submit_read(0);
    let driver = Arc::new(driver);
    let worker = Arc::clone(&driver);
    std::thread::spawn(move || worker.device.run());
    std::thread::yield_now();
    driver.set_bus_master(true);
    let begun = Instant::now();
    while driver.outcome(at) != 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

/// PCI configuration space is a part of the image.
#[test]
fn who_goes_on_with_the_device_is_a_bus_master_as_it_was() {
    let null = || Null::new(9, 1).with_answers(1);
    for enabled in [false, true] {
        let mut driver = Driver::of(Arc::new(null()), D);
        driver.stop();
        driver.set_bus_master(enabled);
        driver.device.act("needs-reset").unwrap();
        let frozen = driver.device.freeze().unwrap();
        let (image, files) = (frozen.image().unwrap(), files_of(&frozen));
        drop(frozen);
        driver.device = Device::restore(Box::new(null()), D, image, files, true).unwrap();
        assert_eq!(driver.report().bus_master, enabled);
        assert_eq!(driver.device.memory().lock().is_bus_master(), enabled);
        assert_eq!(driver.device.memory().maps(), 1);
        let (configuration, told) = signal();
        driver.device.set_vectors(1, 1, vec![configuration]);
        driver.write16(0x10, 1);
        driver.set_bus_master(true);
        assert_eq!(signals(&told), u64::from(!enabled), "what is not told yet");
    }
}

#[test]
fn a_successor_goes_on_with_what_waits_for_the_bit() {
    let null = || Null::new(9, 1).with_answers(1);
    let mut driver = Driver::of(Arc::new(null()), D);
    let at = driver.buffer();
    driver.set_bus_master(false);
    driver.make_available(&[(at, 16, true)], false);
    driver.stop();
    let frozen = driver.device.freeze().unwrap();
    let (image, files) = (frozen.image().unwrap(), files_of(&frozen));
    drop(frozen);
    driver.device = Device::restore(Box::new(null()), D, image, files, true).unwrap();
    driver.resume();
    driver.serve();
    assert_eq!(driver.used(0), 0);
    driver.set_bus_master(true);
    driver.serve();
    assert_eq!((driver.status(), driver.used(0)), (READY, 1));
}
