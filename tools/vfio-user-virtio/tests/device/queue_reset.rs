// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_RING_RESET: one virtqueue is reset, and enabled again (virtio 1.4, 2.6.1).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::types::net::peer::NUMBERED;
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::{Description, Malformed, Outcome, Request, Type, Wants};
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{disk, Driver, D, MEMORY, NEEDS_RESET, QUEUE_SIZE, READY, S, SUSPENDED};

const MS: Duration = Duration::from_millis(1);
const RECEIVE: usize = 0;
const RING_RESET: u64 = 1 << 40;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_RESET: u64 = 0x3a;

pub(crate) fn offer(of: Offer) -> Offer {
    Offer {
        ring_reset: true,
        ..of
    }
}

pub(crate) fn reset_queue(driver: &Driver, queue: u16) {
    driver.write16(0x16, queue);
    driver.write16(QUEUE_RESET, 1);
}

fn is_reset(driver: &Driver) -> bool {
    (driver.read(QUEUE_RESET, 2), driver.read(QUEUE_ENABLE, 2)) == (0, 0)
}

#[test]
fn a_virtqueue_begins_anew_after_its_reset_and_the_others_go_on() {
    let mut driver = Driver::of(disk(2, false).0, offer(D));
    let (_, other) = driver.request(0, 0, 512);
    driver.add(1, &other, false);
    driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.used(0), driver.used(1)), (1, 1));

    reset_queue(&driver, 0);
    assert!(is_reset(&driver));
    // As after a reset of the device.
    assert_eq!((driver.read(0x18, 2), driver.read(0x1a, 2)), (256, 0xffff));
    assert_eq!((driver.read(0x20, 4), driver.read(0x30, 4)), (0, 0));
    let (lost, buffers) = driver.request(0, 0, 512);
    driver.make_available(&buffers, false);
    driver.add(1, &other, false);
    driver.notify(1);
    driver.serve();
    assert_eq!((driver.used(0), driver.used(1)), (1, 2));
    assert_eq!(driver.outcome(lost), 0xff, "nothing is taken from it");

    driver.lay_out_queue(0, QUEUE_SIZE / 2, None);
    assert_eq!((driver.read(QUEUE_ENABLE, 2), driver.read(0x18, 2)), (1, 8));
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.outcome(at), driver.used(0)), (0, 1));
    assert_eq!((driver.status(), driver.used(1)), (READY, 2));
    assert_eq!(driver.report().counters.queue_resets, 1);
    assert!(driver.breaches().is_empty());
}

#[test]
fn a_virtqueue_is_not_reset_without_the_feature() {
    let mut driver = Driver::found(disk(1, false).0, offer(D));
    driver.bring_up(!RING_RESET);
    reset_queue(&driver, 0);
    assert_eq!(
        (driver.read(QUEUE_RESET, 2), driver.read(QUEUE_ENABLE, 2)),
        (0, 1)
    );
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.outcome(at), 0);
    let driver = Driver::ready();
    assert_eq!(driver.offered() & RING_RESET, 0);
}

#[test]
fn requests_of_a_virtqueue_that_is_reset_are_dropped_and_not_those_of_others() {
    for hold in [("io_delay_us", "1000"), ("io_hold", "always")] {
        let mut driver = Driver::of(disk(2, false).0, offer(D));
        driver.set(hold.0, hold.1);
        let (kept, buffers) = driver.request(0, 0, 512);
        driver.add(1, &buffers, false);
        let dropped = driver.submit_read(0);
        driver.submit_read(0);
        driver.notify(1);
        driver.serve();
        reset_queue(&driver, 0);
        assert!(is_reset(&driver));
        driver.set("io_hold", "no");
        driver.advance(MS);
        assert_eq!((driver.outcome(dropped), driver.outcome(kept)), (0xff, 0));
        let requests = driver.report().counters.requests;
        assert_eq!((requests.dropped, requests.in_flight), (2, 0));
        driver.lay_out_queue(0, QUEUE_SIZE, None);
        driver.set("io_delay_us", "0");
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!((driver.outcome(at), driver.used(0)), (0, 1));
    }
}

#[test]
fn a_stop_need_not_wait_for_requests_of_a_virtqueue_that_is_reset() {
    let mut driver = Driver::of(disk(1, false).0, offer(D));
    driver.set("io_hold", "always");
    driver.submit_read(0);
    driver.serve();
    assert_eq!(driver.stop(), READY);
    reset_queue(&driver, 0);
    driver.serve();
    assert_eq!(driver.status(), READY | 32);
    assert!(driver.breaches().is_empty());
}

#[test]
fn a_virtqueue_that_waits_for_memory_can_be_reset() {
    let mut driver = Driver::of(disk(1, false).0, offer(D));
    driver.set("io_delay_us", "1000");
    driver.submit_read(0);
    driver.serve();
    driver.device.memory().clear();
    driver.advance(MS);
    reset_queue(&driver, 0);
    assert!(is_reset(&driver));
    driver.advance(Duration::from_secs(3));
    assert_eq!(driver.status(), READY, "nobody needs that memory any more");
    assert_eq!(driver.report().counters.requests.in_flight, 0);
}

#[test]
fn what_was_missing_for_a_virtqueue_is_not_waited_for_after_its_reset() {
    let mut driver = Driver::of(disk(1, false).0, offer(D));
    reset_queue(&driver, 0);
    driver.lay_out_queue(0, QUEUE_SIZE, Some((0x20, MEMORY)));
    driver.notify(0);
    driver.serve();
    reset_queue(&driver, 0);
    driver.lay_out_queue(0, QUEUE_SIZE, None);
    let at = driver.submit_read(0);
    driver.serve();
    assert_eq!((driver.outcome(at), driver.used(0)), (0, 1), "at once");
}

#[test]
fn a_virtqueue_that_is_enabled_again_has_to_be_aligned() {
    let mut driver = Driver::of(disk(1, false).0, offer(D));
    reset_queue(&driver, 0);
    driver.lay_out_queue(0, QUEUE_SIZE, Some((0x20, 8)));
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn s_drv_4_a_virtqueue_of_a_suspended_device_must_not_be_reset() {
    let mut driver = Driver::of(disk(1, false).0, offer(S));
    reset_queue(&driver, 0);
    driver.lay_out_queue(0, QUEUE_SIZE, None);
    driver.stop();
    assert!(driver.breaches().is_empty());
    reset_queue(&driver, 0);
    assert!(is_reset(&driver), "the driver does not wait for ever");
    assert_eq!(driver.breaches(), ["S-DRV-4"]);
}

/// A type whose requests end when they may.
#[derive(Debug, Default)]
struct Gate {
    begun: AtomicBool,
    open: AtomicBool,
    executed: AtomicUsize,
}

impl Type for Gate {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, _request: Request<'_>) -> Result<Outcome, Malformed> {
        self.executed.fetch_add(1, Ordering::Relaxed);
        self.pass();
        Ok(Outcome {
            kind: "gate",
            ok: true,
            written: 0,
        })
    }
}

impl Gate {
    fn pass(&self) {
        self.begun.store(true, Ordering::Relaxed);
        while !self.open.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}

/// A card whose frames are in their buffers, but for the gate.
#[derive(Debug)]
struct GatedCard {
    card: Net,
    gate: Arc<Gate>,
}

impl Type for GatedCard {
    fn describe(&self) -> Description {
        self.card.describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        self.card.configuration(config);
    }

    fn wants(&self, queue: usize) -> Wants {
        self.card.wants(queue)
    }

    fn execute(&self, request: Request<'_>) -> Result<Outcome, Malformed> {
        let queue = request.queue;
        let outcome = self.card.execute(request);
        if queue == RECEIVE {
            self.gate.pass();
        }
        outcome
    }

    fn given_back(&self, queue: usize, ok: bool) {
        self.card.given_back(queue, ok);
    }

    fn report(&self) -> Value {
        self.card.report()
    }
}

/// Has the device carry a request out, `meanwhile` do something, and the request end then.
fn in_the_middle(driver: Driver, gate: &Gate, meanwhile: impl FnOnce(&Driver)) -> Driver {
    let (driver, started) = (Arc::new(driver), Instant::now());
    let worker = Arc::clone(&driver);
    let works = std::thread::spawn(move || worker.device.serve(worker.now));
    while !gate.begun.load(Ordering::Relaxed) {
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    meanwhile(&driver);
    gate.open.store(true, Ordering::Relaxed);
    works.join().unwrap();
    Arc::into_inner(driver).unwrap()
}

#[test]
fn the_reset_lasts_until_what_is_being_carried_out_has_ended() {
    let gate = Arc::new(Gate::default());
    let mut driver = Driver::of(Arc::clone(&gate) as Arc<dyn Type>, offer(D));
    driver.submit_read(0);
    let driver = in_the_middle(driver, &gate, |driver| {
        reset_queue(driver, 0);
        assert_eq!(driver.read(QUEUE_RESET, 2), 1);
        driver.write16(QUEUE_RESET, 0);
        driver.write16(QUEUE_ENABLE, 1);
        assert_eq!(
            driver.read(QUEUE_RESET, 2),
            1,
            "whatever is written meanwhile"
        );
    });
    assert!(is_reset(&driver));
    let counters = driver.report().counters;
    let requests = counters.requests;
    assert_eq!((driver.used(0), requests.completed), (0, 0));
    assert_eq!((requests.dropped, requests.in_flight), (1, 0));
    assert_eq!(counters.interrupts, 0);
}

#[test]
fn requests_that_are_due_are_not_begun_after_the_reset() {
    let gate = Arc::new(Gate::default());
    let mut driver = Driver::of(Arc::clone(&gate) as Arc<dyn Type>, offer(D));
    for _ in 0..3 {
        driver.submit_read(0);
    }
    let driver = in_the_middle(driver, &gate, |driver| reset_queue(driver, 0));
    assert!(is_reset(&driver));
    assert_eq!(gate.executed.load(Ordering::Relaxed), 1);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.dropped, requests.in_flight), (3, 0));
}

#[test]
fn a_frame_counts_as_received_when_the_driver_has_it() {
    for (reset, expected) in [(false, 1), (true, 0)] {
        let gate = Arc::new(Gate::default());
        let card = GatedCard {
            card: Net::new([2, 0, 0, 0, 0, 9], 1),
            gate: Arc::clone(&gate),
        };
        let mut driver = Driver::of(Arc::new(card), offer(D));
        let frame = driver.buffer();
        // A numbered frame, which comes back.
        let ethertype = NUMBERED.to_be_bytes();
        let bytes = [&[0; 12 + 12][..], &ethertype, &[0; 46]].concat();
        let memory = &driver.memory;
        memory.write_slice(&bytes, GuestAddress(frame)).unwrap();
        driver.add(1, &[(frame, bytes.len() as u32, false)], false);
        driver.notify(1);
        driver.serve();
        let room = driver.buffer();
        driver.add(0, &[(room, 0x800, true)], false);
        driver.notify(0);
        let driver = in_the_middle(driver, &gate, |driver| {
            assert_eq!(driver.report().of_type["received"], 0);
            if reset {
                reset_queue(driver, 0);
            }
        });
        assert_eq!(driver.used(0), expected);
        assert_eq!(driver.report().of_type["received"], expected);
    }
}

/// S-DEV-2, whatever a setting was before.
#[test]
fn a_suspended_device_gives_nothing_back_that_it_was_carrying_out() {
    let gate = Arc::new(Gate::default());
    let mut driver = Driver::of(Arc::clone(&gate) as Arc<dyn Type>, S);
    driver.set("take_while_stopped", "true");
    driver.submit_read(0);
    let mut driver = in_the_middle(driver, &gate, |driver| {
        assert_eq!(driver.stop(), SUSPENDED);
        driver.set("take_while_stopped", "false");
    });
    assert_eq!((driver.status(), driver.used(0)), (SUSPENDED, 0));
    assert_eq!(driver.report().counters.interrupts, 0);
    driver.resume();
    driver.serve();
    assert_eq!((driver.status(), driver.used(0)), (READY, 1));
}
