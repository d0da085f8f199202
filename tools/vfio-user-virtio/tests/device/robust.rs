// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Nothing that a guest says makes the device panic, hang, or reach outside of its memory.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vfio_user_virtio::buffers::PATIENCE;
use vfio_user_virtio::device::Offer;
use vfio_user_virtio::report::Report;
use vfio_user_virtio::settings::Settings;
use vfio_user_virtio::status::{Protocol, Stop};
use vfio_user_virtio::types::net::Net;
use vfio_user_virtio::types::null::Null;
use vfio_user_virtio::types::rng::Rng;
use vfio_user_virtio::types::{Description, Malformed, Outcome, Request, Type};
use vm_memory::{Bytes, GuestAddress};

use crate::driver::{
    disk, memory_file, ring, Driver, D, MEMORY, NEEDS_RESET, PACKED, QUEUE_SIZE, READY,
};
use crate::scsi::scsi;

/// What a guest, its QEMU, the user, or time does.
#[derive(Clone, Debug)]
enum Act {
    WriteBar(u64, u64, usize),
    ReadBar(u64, usize),
    WriteConfig(u64, u64, usize),
    ReadConfig(u64, usize),
    WriteMemory(u64, u64),
    Descriptor(u16, u16, (u64, u32, u16, u16)),
    Publish(u16, u16),
    AvailIndex(u16, u16),
    Notify(u16),
    BringUp,
    Stop,
    Resume,
    Unmap(u64, u64),
    Map,
    Reset,
    Set(&'static str, &'static str),
    Do(&'static str),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let size = || prop::sample::select(vec![1usize, 2, 4, 8]);
    // Mostly where something is.
    let bar = || prop_oneof![8 => 0u64..0x40, 2 => 0x2000u64..0x2100, 2 => 0x3000u64..0x3010, 1 => any::<u64>()];
    let config = || prop_oneof![8 => 0u64..0x100, 1 => any::<u64>()];
    let address = || prop_oneof![8 => 0..MEMORY, 1 => any::<u64>()];
    let length = || prop_oneof![8 => 0u32..0x2000, 1 => any::<u32>()];
    let set = prop::sample::select(vec![
        ("acknowledge", "at-once"),
        ("acknowledge", "after:1-3"),
        ("acknowledge", "never"),
        ("acknowledge", "given-up:1"),
        ("acknowledge", "needs-reset"),
        ("resume", "after:2"),
        ("resume", "at-once"),
        ("resume_form", "any"),
        ("resume_form", "cleared"),
        ("resume_form", "strict"),
        ("drop_stop", "after:1"),
        ("drop_stop", "never"),
        ("show_status", "stopping:0x00"),
        ("show_status", "as-is"),
        ("take_while_stopped", "true"),
        ("take_while_stopped", "false"),
        ("leave_requests", "true"),
        ("leave_requests", "false"),
        ("forget_notifications", "true"),
        ("change_while_stopped", "true"),
        ("io_delay_us", "1500"),
        ("io_delay_us", "0"),
        ("io_hold", "always"),
        ("io_hold", "until-stop"),
        ("io_hold", "no"),
        ("io_depth", "1"),
        ("io_depth", "128"),
        ("io_order", "shuffled"),
        ("io_error_every", "2"),
    ]);
    let what = prop::sample::select(vec![
        "needs-reset",
        "resize:8",
        "resize:64",
        "resize:1:8",
        "resize:1:64",
        "link:down",
        "link:up",
    ]);
    prop_oneof![
        4 => (bar(), any::<u64>(), size()).prop_map(|(at, value, size)| Act::WriteBar(at, value, size)),
        2 => (bar(), size()).prop_map(|(at, size)| Act::ReadBar(at, size)),
        1 => (config(), any::<u64>(), size()).prop_map(|(at, value, size)| Act::WriteConfig(at, value, size)),
        1 => (config(), size()).prop_map(|(at, size)| Act::ReadConfig(at, size)),
        2 => (0..MEMORY - 8, any::<u64>()).prop_map(|(at, value)| Act::WriteMemory(at, value)),
        8 => (0u16..3, 0u16..QUEUE_SIZE, (address(), length(), 0u16..8, 0u16..QUEUE_SIZE + 1))
            .prop_map(|(queue, index, descriptor)| Act::Descriptor(queue, index, descriptor)),
        6 => (0u16..3, prop_oneof![8 => 0u16..QUEUE_SIZE, 1 => any::<u16>()]).prop_map(|(queue, head)| Act::Publish(queue, head)),
        1 => (0u16..3, any::<u16>()).prop_map(|(queue, index)| Act::AvailIndex(queue, index)),
        6 => (0u16..4).prop_map(Act::Notify),
        3 => Just(Act::BringUp),
        3 => Just(Act::Stop),
        3 => Just(Act::Resume),
        1 => (0..MEMORY, 0..=MEMORY).prop_map(|(at, size)| Act::Unmap(at, size)),
        1 => Just(Act::Map),
        1 => Just(Act::Reset),
        4 => set.prop_map(|(name, value)| Act::Set(name, value)),
        1 => what.prop_map(Act::Do),
        8 => (0u64..3000).prop_map(Act::Pass),
    ]
}

fn perform(driver: &mut Driver, queues: u16, act: Act) {
    let (device, now) = (&driver.device, driver.now);
    match act {
        Act::WriteBar(at, value, size) => device.write_bar(at, &value.to_le_bytes()[..size], now),
        Act::ReadBar(at, size) => device.read_bar(at, &mut [0; 8][..size], now),
        Act::WriteConfig(at, value, size) => {
            device.write_config(at, &value.to_le_bytes()[..size], now)
        }
        Act::ReadConfig(at, size) => device.read_config(at, &mut [0; 8][..size], now),
        Act::WriteMemory(at, value) => driver.memory.write_obj(value, GuestAddress(at)).unwrap(),
        Act::Descriptor(queue, index, descriptor) => {
            driver.descriptor(ring(queue, 0), index, descriptor)
        }
        Act::Publish(queue, head) => driver.publish(queue % queues, head),
        Act::AvailIndex(queue, index) => driver.set_avail_index(queue % queues, index),
        Act::Notify(queue) => driver.notify(queue),
        Act::BringUp => driver.bring_up(!0),
        Act::Stop => drop(driver.stop()),
        Act::Resume => drop(driver.resume()),
        Act::Unmap(at, size) => drop(device.memory().unmap(at, size)),
        Act::Map => {
            // Refused as long as the memory is there.
            let _ = device.map(0, MEMORY, 0, memory_file());
        }
        Act::Reset => device.reset(),
        Act::Set(name, value) => driver.set(name, value),
        Act::Do(what) => drop(device.act(what)),
        Act::Pass(micros) => driver.advance(Duration::from_micros(micros)),
    }
}

fn of_type(kind: u8) -> Arc<dyn Type> {
    match kind {
        0 => disk(2, false).0,
        1 => Arc::new(Net::new([2; 6], 1).with_dhcp(60)),
        2 => Arc::new(Rng::open().unwrap()),
        3 => scsi(2).0,
        _ => Arc::new(Null::new(5, 3)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_device_survives_everything_and_works_after_a_reset(
        kind in 0u8..5,
        both in any::<bool>(),
        suspend in any::<bool>(),
        ring_reset in any::<bool>(),
        notification_data in any::<bool>(),
        packed in any::<bool>(),
        acts in prop::collection::vec(act(), 0..300),
    ) {
        let offer = Offer { device_stop: both || !suspend, suspend: both || suspend, ring_reset, notification_data, packed, ..D };
        let mut driver = Driver::found(of_type(kind), offer);
        let queues = of_type(kind).describe().queues;
        for act in acts {
            let before = driver.report();
            let stop_asked_for = before.counters.stops.requested;
            perform(&mut driver, queues, act);
            let report = driver.report();
            // S-DEV-2, but for the setting that is there to break it.
            let suspended = |report: &Report| {
                report.protocol == Protocol::Suspend
                    && matches!(report.stop, Stop::Stopped | Stop::Resuming)
                    && !report.settings.take_while_stopped
            };
            if suspended(&before) && suspended(&report) {
                let requests = |report: &Report| {
                    let requests = &report.counters.requests;
                    (requests.taken, requests.completed)
                };
                prop_assert_eq!(requests(&before), requests(&report));
            }
            // D-DEV-2, S-DEV-4: only settings make a device acknowledge with requests.
            let left = report.counters.stops.acknowledged_with_requests;
            let allowed = report.settings.take_while_stopped
                || report.settings.leave_requests && report.protocol == Protocol::Suspend;
            prop_assert!(allowed || left == before.counters.stops.acknowledged_with_requests);
            prop_assert!(report.counters.requests.in_flight <= 128);
            prop_assert!(report.breaches.len() <= 64);
            // The device stops only when asked to.
            prop_assert!(report.counters.stops.requested > 0 || report.stop == Stop::Running);
            prop_assert!(stop_asked_for <= report.counters.stops.requested);
            // What it shows is what it is.
            let shown = report.status & (32 | 16) != 0;
            prop_assert_eq!(shown, matches!(report.stop, Stop::Stopped | Stop::Resuming));
        }

        for (name, value) in Settings::default().to_map() {
            driver.set(name, &value);
        }
        driver.map_all();
        driver.bring_up(!PACKED);
        prop_assert_eq!(driver.status(), READY);
        prop_assert_ne!(driver.stop(), READY);
        prop_assert_eq!(driver.resume(), READY);
        if kind == 0 {
            let at = driver.submit_read(0);
            driver.serve();
            prop_assert_eq!(driver.outcome(at), 0);
        }
    }
}

/// Virtio 1.4, 2.7: a descriptor table has to be aligned to 16 bytes, the rings to 2 and 4.
#[test]
fn a_virtqueue_that_is_not_aligned_needs_a_reset_and_is_not_looked_for_elsewhere() {
    for (register, off) in [(0x20, 8), (0x20, 1), (0x28, 1), (0x30, 2), (0x30, 1)] {
        let mut driver = Driver::new();
        driver.negotiate(!0);
        driver.lay_out(Some((register, off)));
        // What is at address 0 looks like rings with a request.
        for address in [0, 2, 4] {
            driver
                .memory
                .write_obj(1u16, GuestAddress(address))
                .unwrap();
        }
        let before = driver.bytes(0, 0x1000);
        driver.set_status(READY);
        driver.notify(0);
        driver.serve();
        assert_eq!(driver.status(), READY | NEEDS_RESET, "{register:#x}");
        assert_eq!(driver.report().counters.requests.taken, 0);
        assert_eq!(driver.bytes(0, 0x1000), before);
    }
}

#[test]
fn a_request_is_carried_out_as_it_was_when_it_was_taken() {
    for indirect in [false, true] {
        let mut driver = Driver::ready();
        driver.set("io_delay_us", "1000");
        let (at, buffers) = driver.request(0, 0, 512);
        driver.make_available(&buffers, indirect);
        driver.serve();
        driver.fill(at, &[7; 512]);
        // No loop, no other buffer, and no other length that is written there later counts.
        for index in 0..3 {
            for table in [ring(0, 0), ring(0, 0x3000)] {
                driver.descriptor(table, index, (0, 512, 3, 0));
            }
        }
        driver.advance(Duration::from_millis(1));
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
        assert_eq!(driver.data(at, 512), [0; 512]);
    }
}

/// After the answer to an unmap the client may cut its file short: whoever touched that would be killed.
#[test]
fn memory_that_was_taken_away_is_not_touched_for_a_request_from_before() {
    let mut driver = Driver::ready();
    driver.set("io_delay_us", "1000");
    let at = driver.submit_read(0);
    driver.serve();
    let contents = driver.bytes(0, MEMORY as usize);
    driver.exchange_memory(&contents);
    driver.advance(Duration::from_millis(1));
    assert_eq!(driver.report().counters.requests.completed, 1);
    let memory = driver.device.memory().lock();
    let outcome: u8 = memory.read_obj(GuestAddress(at + 0x1f00)).unwrap();
    assert_eq!(outcome, 0);
}

/// A type whose requests end only when nobody wants them any more.
#[derive(Debug, Default)]
struct Endless(AtomicUsize);

impl Type for Endless {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, request: Request<'_>) -> Result<Outcome, Malformed> {
        self.0.fetch_add(1, Ordering::Relaxed);
        while request.input.guest().wanted().is_ok() {
            std::thread::yield_now();
        }
        Err(Malformed("nobody wants it"))
    }
}

/// A type whose requests wait for a file, and then reach for the guest's memory all the same.
#[derive(Debug)]
struct Slow {
    begun: Sender<()>,
    may_end: Mutex<Receiver<()>>,
    ended: Sender<(bool, bool)>,
}

impl Type for Slow {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let file = request.input.guest().away(|| {
            self.begun.send(()).unwrap();
            self.may_end.lock().unwrap().recv().unwrap();
            Ok(())
        });
        let written = request.output.write_all(&[0xee; 16]);
        let ended = (file.is_ok(), written.is_ok());
        self.ended.send(ended).unwrap();
        Ok(Outcome {
            kind: "slow",
            ok: true,
            written: 16,
        })
    }
}

#[test]
fn a_reset_does_not_wait_for_a_file_and_nothing_comes_of_the_request() {
    let (begun, has_begun) = channel();
    let (end, may_end) = channel();
    let (ended, has_ended) = channel();
    let may_end = Mutex::new(may_end);
    let slow = Slow {
        begun,
        may_end,
        ended,
    };
    let minute = Duration::from_secs(60);
    let mut driver = Driver::of(Arc::new(slow), D);
    for way in ["status", "function"] {
        let at = driver.buffer();
        driver.make_available(&[(at, 16, true)], false);
        let before = driver.report().counters.requests;
        std::thread::scope(|scope| {
            scope.spawn(|| driver.device.serve(driver.now));
            has_begun.recv_timeout(minute).unwrap();
            match way {
                "status" => driver.write_status(0),
                _ => driver.device.reset(),
            }
            let status = driver.status();
            let requests = driver.report().counters.requests;
            end.send(()).unwrap();
            assert_eq!(status, 0, "{way}");
            assert_eq!(requests.dropped, before.dropped + 1);
            assert_eq!(requests.in_flight, 0);
            assert_eq!(has_ended.recv_timeout(minute).unwrap(), (false, false));
        });
        assert_eq!(driver.bytes(at, 16), [0; 16]);
        driver.bring_up(!0);
        let requests = driver.report().counters.requests;
        assert_eq!(
            (driver.status(), requests.completed),
            (READY, before.completed)
        );
        assert_eq!(driver.used(0), 0);
        // The next driver's requests are carried out.
        end.send(()).unwrap();
        let at = driver.buffer();
        driver.make_available(&[(at, 16, true)], false);
        driver.serve();
        has_begun.recv_timeout(minute).unwrap();
        assert_eq!(has_ended.recv_timeout(minute).unwrap(), (true, true));
        assert_eq!((driver.used(0), driver.bytes(at, 16)), (1, vec![0xee; 16]));
    }
}

#[test]
fn a_reset_ends_what_is_being_carried_out() {
    let endless = Arc::new(Endless::default());
    let mut driver = Driver::of(Arc::clone(&endless) as Arc<dyn Type>, D);
    for _ in 0..3 {
        let (_, buffers) = driver.request(0, 0, 512);
        driver.make_available(&buffers, false);
    }
    let (driver, started) = (Arc::new(driver), Instant::now());
    let worker = Arc::clone(&driver);
    std::thread::spawn(move || worker.device.serve(worker.now));
    let until = |what: &dyn Fn() -> bool| {
        while !what() {
            assert!(started.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
    };
    until(&|| endless.0.load(Ordering::Relaxed) == 1);
    driver.write_status(0);
    until(&|| driver.status() == 0);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.in_flight, requests.dropped), (0, 3));
    assert_eq!(
        endless.0.load(Ordering::Relaxed),
        1,
        "the others are not begun"
    );
    // The next driver's requests are wanted.
    assert_eq!(driver.set_status(1), 1);
}

/// What QEMU does when firmware changes what a part of the memory is.
#[test]
fn memory_that_is_gone_for_a_moment_is_no_error_of_the_driver() {
    for indirect in [false, true] {
        let mut driver = Driver::ready();
        let (at, buffers) = driver.request(0, 0, 512);
        driver.device.memory().clear();
        driver.make_available(&buffers, indirect);
        driver.serve();
        driver.map_all();
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));

        // The same for one that was taken before.
        driver.set("io_delay_us", "1000");
        let (at, buffers) = driver.request(0, 0, 512);
        driver.make_available(&buffers, indirect);
        driver.serve();
        driver.device.memory().clear();
        driver.advance(Duration::from_millis(1));
        assert_eq!(driver.report().counters.requests.in_flight, 1);
        driver.map_all();
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
        assert_eq!(
            (driver.used(0), driver.report().counters.requests.in_flight),
            (2, 0)
        );
    }
}

#[test]
fn memory_that_comes_back_in_pieces_is_waited_for() {
    let mut driver = Driver::ready();
    driver.set("io_delay_us", "1000");
    let at = driver.submit_read(0);
    driver.serve();
    driver.device.memory().clear();
    driver.advance(Duration::from_millis(1));
    // First the buffers, then the virtqueue: the request is carried out, and its result waits.
    driver.map_part(0x8_0000, 0x8_0000);
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    assert_eq!(driver.used(0), 0);
    driver.map_part(0, 0x8_0000);
    driver.serve();
    assert_eq!((driver.status(), driver.used(0)), (READY, 1));
    assert_eq!(driver.report().counters.requests.in_flight, 0);
}

#[test]
fn memory_that_stays_away_needs_a_reset_in_the_end() {
    // A virtqueue from the start, an available ring, and a buffer of a request.
    let mut driver = Driver::new();
    driver.negotiate(!0);
    driver.lay_out(Some((0x30, MEMORY)));
    driver.set_status(READY);
    driver.serve();
    assert_eq!(driver.status(), READY);
    driver.advance(PATIENCE);
    assert_eq!(driver.status(), READY | NEEDS_RESET);

    for taken in [false, true] {
        let mut driver = Driver::ready();
        driver.set("io_delay_us", "1000");
        driver.submit_read(0);
        if taken {
            driver.serve();
        }
        driver.device.memory().clear();
        driver.advance(Duration::from_millis(1));
        driver.advance(PATIENCE - Duration::from_millis(2));
        assert_eq!(driver.status(), READY);
        driver.advance(PATIENCE);
        assert_eq!(driver.status(), READY | NEEDS_RESET);
        assert_eq!(driver.report().counters.requests.in_flight, 0);
        driver.map_all();
        driver.bring_up(!0);
        driver.set("io_delay_us", "0");
        let at = driver.submit_read(0);
        driver.serve();
        assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
    }
}

/// A type that has something done in the middle of each request, and then needs the rest of its buffers.
struct Meanwhile(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Meanwhile")
    }
}

impl Type for Meanwhile {
    fn describe(&self) -> Description {
        Null::new(9, 1).describe()
    }

    fn configuration(&self, config: &mut [u8]) {
        config.fill(0);
    }

    /// A device that has no room for data can still say that something failed.
    fn execute(&self, mut request: Request<'_>) -> Result<Outcome, Malformed> {
        let mut status = request.output.split_at(512).unwrap();
        self.0();
        let ok = request.output.write_all(&[0xee; 512]).is_ok();
        status
            .write_all(&[u8::from(!ok)])
            .map_err(|_| Malformed("no room for the status"))?;
        Ok(Outcome {
            kind: "any",
            ok,
            written: 513,
        })
    }
}

/// Its buffers: in the first half of the memory, and in the second.
const FIRST: u64 = 0x7_f000;
const SECOND: u64 = 0x8_0000;

#[test]
fn memory_that_goes_away_for_good_in_the_middle_of_a_request_needs_a_reset() {
    let (goes, has_gone) = channel();
    let (gone, may_go_on) = channel();
    let may_go_on = Mutex::new(may_go_on);
    let of_type = Meanwhile(Box::new(move || {
        goes.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
    }));
    let mut driver = Driver::of(Arc::new(of_type), D);
    driver.device.memory().clear();
    driver.map_part(0, SECOND);
    driver.map_part(SECOND, MEMORY - SECOND);
    driver.make_available(&[(SECOND, 512, true), (FIRST, 1, true)], false);
    std::thread::scope(|scope| {
        scope.spawn(|| driver.device.serve(driver.now));
        has_gone.recv().unwrap();
        driver
            .device
            .memory()
            .unmap(SECOND, MEMORY - SECOND)
            .unwrap();
        gone.send(()).unwrap();
    });
    assert_eq!(driver.status(), READY | NEEDS_RESET);
    let requests = driver.report().counters.requests;
    assert_eq!((requests.completed, requests.dropped), (0, 1));
    assert_eq!((driver.used(0), driver.bytes(FIRST, 1)), (0, vec![0]));
}

#[test]
fn patience_begins_when_something_is_missed() {
    let at_work = Duration::from_millis(50);
    let of_type = Meanwhile(Box::new(move || {
        let begun = Instant::now();
        while begun.elapsed() < at_work {
            std::thread::yield_now();
        }
    }));
    let mut driver = Driver::of(Arc::new(of_type), D);
    driver.device.memory().clear();
    driver.map_part(0, SECOND);
    driver.make_available(&[(FIRST, 512, true), (FIRST + 512, 1, true)], false);
    driver.make_available(&[(SECOND, 512, true), (FIRST + 513, 1, true)], false);
    driver.serve();
    assert_eq!(driver.used(0), 1);
    driver.advance(PATIENCE + at_work / 2);
    assert_eq!(driver.status(), READY, "it has missed it later than that");
    driver.advance(PATIENCE);
    assert_eq!(driver.status(), READY | NEEDS_RESET);
}

#[test]
fn a_suspended_device_waits_for_memory_only_when_it_runs_again() {
    let mut driver = Driver::suspendable();
    driver.set("io_delay_us", "1000");
    driver.set("leave_requests", "true");
    let at = driver.submit_read(0);
    driver.serve();
    driver.device.memory().clear();
    driver.advance(Duration::from_millis(1));
    driver.stop();
    driver.advance(2 * PATIENCE);
    driver.map_all();
    driver.serve();
    assert_eq!(driver.report().counters.requests.completed, 0);
    assert_eq!(driver.resume(), READY);
    driver.serve();
    assert_eq!((driver.status(), driver.outcome(at)), (READY, 0));
}
