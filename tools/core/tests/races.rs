// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! A stop and a resume, against everything that the kernel's virtio core does to the status field at
//! the same time: every order of their steps.
//!
//! Core's steps are those of `virtio_add_status` (a read, and a write later) and of a reset that is
//! followed by a new negotiation. They are carried out between the accesses of the handshake, which
//! are the atomic ones: the module takes a lock for each.

use core_on_host::field::{
    Field,
    Register, //
};
use core_on_host::handshake::{
    self,
    Cut,
    Port,
    Resume,
    Stop, //
};
use core_on_host::state::Reason;
use core_on_host::status::{
    Fault,
    Protocol,
    Status, //
};
use std::cell::{
    Cell,
    RefCell, //
};

const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = Status::DRIVER_OK;
const FEATURES_OK: u8 = 8;
const READY: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK;
const LONG_US: u64 = 1_000_000;

/// What the device has been asked for and has not done yet: reads of its status until it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    ToStop(u32),
    ToResume(u32),
}

/// A device that keeps to the protocol, and lets nobody break it.
struct Device {
    protocol: Protocol,
    delay: u32,
    status: Cell<u8>,
    asked: Cell<Asked>,
    resets: Cell<u64>,
    /// Core waits for 0: who writes now makes it wait for ever.
    resetting: Cell<bool>,
    /// What core has written since the last reset.
    by_core: Cell<u8>,
}

impl Device {
    fn own(&self) -> u8 {
        match self.protocol {
            Protocol::DeviceStop => Status::DEVICE_STOPPED,
            Protocol::Suspend => Status::SUSPEND,
        }
    }

    fn has_stopped(&self) -> bool {
        Status(self.status.get()).shows_stopped(self.protocol)
    }

    fn reset(&self) {
        self.status.set(0);
        self.asked.set(Asked::Nothing);
        self.resets.set(self.resets.get() + 1);
        self.by_core.set(0);
    }
}

impl Register for Device {
    fn read(&self) -> Status {
        let status = self.status.get();
        let ok = match self.protocol {
            Protocol::DeviceStop => 0,
            Protocol::Suspend => DRIVER_OK,
        };
        match self.asked.get() {
            Asked::Nothing => {}
            Asked::ToStop(0) => {
                self.status.set(status & !ok | self.own());
                self.asked.set(Asked::Nothing);
            }
            Asked::ToResume(0) => {
                self.status.set(status & !self.own() | ok);
                self.asked.set(Asked::Nothing);
            }
            Asked::ToStop(left) => self.asked.set(Asked::ToStop(left - 1)),
            Asked::ToResume(left) => self.asked.set(Asked::ToResume(left - 1)),
        }
        Status(self.status.get())
    }

    fn write(&self, Status(new): Status) {
        let old = self.status.get();
        let own = self.own();
        assert!(!self.resetting.get(), "written while core waits for 0");
        assert_ne!(new, 0, "a reset");
        match self.protocol {
            Protocol::DeviceStop => {
                assert_eq!(old & !new & !own, 0, "{old:#x} -> {new:#x}: clears a bit");
                let stands = old & own != 0 || matches!(self.asked.get(), Asked::ToStop(_));
                if (new & own != 0) != stands {
                    assert_ne!(old & DRIVER_OK, 0, "asks for a stop before it is ready");
                    self.asked.set(match stands {
                        false => Asked::ToStop(self.delay),
                        true if old & own != 0 => Asked::ToResume(self.delay),
                        true => Asked::Nothing,
                    });
                }
                self.status.set(new & !own | old & own);
            }
            Protocol::Suspend => {
                let pending = matches!(self.asked.get(), Asked::ToStop(_));
                let own_or_pending = if pending { own | DRIVER_OK } else { 0 };
                assert_eq!(
                    old & !new & !own_or_pending,
                    0,
                    "{old:#x} -> {new:#x}: clears a bit"
                );
                if self.has_stopped() && new & DRIVER_OK != 0 {
                    self.asked.set(Asked::ToResume(self.delay));
                } else if !self.has_stopped() && new & own != 0 && old & DRIVER_OK != 0 {
                    self.asked.set(match self.asked.get() {
                        Asked::Nothing => Asked::ToStop(self.delay),
                        asked => asked,
                    });
                }
                let shown = self.own() | DRIVER_OK;
                let suspends = self.has_stopped() || pending || self.asked.get() != Asked::Nothing;
                self.status.set(match suspends {
                    true => new & !shown | old & shown,
                    false => new & !own,
                });
            }
        }
    }
}

/// One step of the virtio core's.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The read of `virtio_add_status`.
    Look,
    /// Its write, of what was read and this bit.
    Add(u8),
    ResetBegins,
    ResetRegister,
    ResetEnds,
    Negotiate,
}

/// The module, the device, and core between the module's accesses.
struct World<'a> {
    device: Device,
    field: RefCell<Field>,
    epoch: u64,
    steps: &'a [Step],
    /// Before which access of the module's each step happens.
    places: &'a [usize],
    accesses: usize,
    done: usize,
    seen: u8,
    now: u64,
}

impl<'a> World<'a> {
    fn new(protocol: Protocol, delay: u32, steps: &'a [Step], places: &'a [usize]) -> Self {
        let mut field = Field::new();
        field.negotiate(Ok(protocol));
        Self {
            device: Device {
                protocol,
                delay,
                status: Cell::new(READY),
                asked: Cell::new(Asked::Nothing),
                resets: Cell::new(0),
                resetting: Cell::new(false),
                by_core: Cell::new(READY),
            },
            field: RefCell::new(field),
            epoch: 0,
            steps,
            places,
            accesses: 0,
            done: 0,
            seen: 0,
            now: 0,
        }
    }

    fn core(&mut self, step: Step) {
        let mut field = self.field.borrow_mut();
        let device = &self.device;
        match step {
            Step::Look => self.seen = device.read().0,
            Step::Add(bit) => {
                let written = field.write_for_core(device, Status(self.seen | bit)).0;
                device.by_core.set(device.by_core.get() | bit);
                let ours = device.own() | DRIVER_OK;
                let asked = device.by_core.get();
                assert_eq!(written & !asked & !ours, 0, "a bit that nobody has added");
                if field.negotiated().is_ok() && bit == DRIVER_OK {
                    assert_ne!(written & DRIVER_OK, 0, "core's DRIVER_OK is lost");
                }
            }
            Step::ResetBegins => field.reset_begins(),
            Step::ResetRegister => {
                device.reset();
                device.resetting.set(true);
            }
            Step::ResetEnds => {
                assert_eq!(device.status.get(), 0, "core waits for ever");
                device.resetting.set(false);
                field.reset_ends();
            }
            Step::Negotiate => field.negotiate(Ok(device.protocol)),
        }
    }

    fn next(&mut self) {
        if let Some(step) = self.steps.get(self.done) {
            self.done += 1;
            self.core(*step);
        }
    }

    /// What core does before the module's next access.
    fn others(&mut self) {
        while self.places.get(self.done) == Some(&self.accesses) {
            self.next();
        }
        self.accesses += 1;
    }

    fn finish(&mut self) {
        while self.done < self.steps.len() {
            self.next();
        }
    }

    /// A request begins, if the device can be asked: whether it does.
    fn begins(&mut self) -> bool {
        let field = self.field.borrow();
        self.epoch = field.epoch();
        field.negotiated().is_ok()
    }
}

impl Port for World<'_> {
    fn now_us(&self) -> u64 {
        self.now
    }

    fn read(&mut self) -> Result<Status, Cut> {
        self.others();
        self.field.borrow().read(&self.device, self.epoch)
    }

    fn update(
        &mut self,
        stop_wanted: bool,
        change: impl FnOnce(Status) -> Option<Status>,
    ) -> Result<Status, Cut> {
        self.others();
        let mut field = self.field.borrow_mut();
        field.update(&self.device, self.epoch, stop_wanted, change)
    }

    fn wait(&mut self, us: u64) -> Result<(), Cut> {
        self.others();
        self.now += us;
        self.field.borrow().lasts(self.epoch)
    }
}

/// Calls `body` with every way to place `steps` steps before `accesses` accesses, or after them.
fn every_order(steps: usize, accesses: usize, body: &mut impl FnMut(&[usize])) {
    fn place(places: &mut Vec<usize>, steps: usize, last: usize, body: &mut impl FnMut(&[usize])) {
        if places.len() == steps {
            return body(places);
        }
        for at in places.last().copied().unwrap_or(0)..=last {
            places.push(at);
            place(places, steps, last, body);
            places.pop();
        }
    }
    place(&mut Vec::new(), steps, accesses, body);
}

/// Stops and resumes the device in every order with `steps`. `check` sees what came of it.
fn against(steps: &[Step], accesses: usize, check: impl Fn(&World<'_>, Stop, Option<Resume>)) {
    for protocol in BOTH {
        for delay in [0, 1, 2] {
            every_order(steps.len(), accesses, &mut |places| {
                let mut world = World::new(protocol, delay, steps, places);
                assert!(world.begins());
                let (stop, _) = handshake::stop(&mut world, protocol, LONG_US);
                if stop == Stop::Acknowledged {
                    assert!(world.device.has_stopped(), "{places:?}");
                    assert_eq!(world.device.resets.get(), world.epoch, "{places:?}");
                }
                let resume = (stop == Stop::Acknowledged && world.begins()).then(|| {
                    let (resume, _) = handshake::resume(&mut world, protocol, false, LONG_US);
                    if resume == Resume::Acknowledged {
                        assert!(!world.device.has_stopped(), "{places:?}");
                        assert_eq!(world.device.resets.get(), world.epoch, "{places:?}");
                    }
                    resume
                });
                world.finish();
                // What was asked for is done by now.
                for _ in 0..4 {
                    world.device.read();
                }
                assert!(!world.device.has_stopped(), "left stopped: {places:?}");
                let status = world.device.status.get();
                assert_eq!(
                    status & READY,
                    world.device.by_core.get() & READY,
                    "{places:?}"
                );
                check(&world, stop, resume);
            });
        }
    }
}

#[test]
fn core_adds_a_bit() {
    let steps = [
        Step::Look,
        Step::Add(DRIVER),
        Step::Look,
        Step::Add(FEATURES_OK),
    ];
    against(&steps, 12, |world, stop, resume| {
        assert_eq!(stop, Stop::Acknowledged);
        assert_eq!(resume, Some(Resume::Acknowledged));
        assert_eq!(world.device.status.get(), READY);
    });
}

#[test]
fn the_driver_fails_meanwhile() {
    let steps = [Step::Look, Step::Add(Status::FAILED)];
    against_failure(&steps);
}

fn against_failure(steps: &[Step]) {
    for protocol in BOTH {
        every_order(steps.len(), 12, &mut |places| {
            let mut world = World::new(protocol, 1, steps, places);
            assert!(world.begins());
            let (stop, _) = handshake::stop(&mut world, protocol, LONG_US);
            if stop != Stop::Acknowledged {
                assert_eq!(stop, Stop::Fault(Fault::NeedsReset), "{places:?}");
            }
            world.finish();
            assert_ne!(world.device.status.get() & Status::FAILED, 0, "{places:?}");
        });
    }
}

#[test]
fn core_resets_the_device_and_brings_it_up_again() {
    let steps = [
        Step::ResetBegins,
        Step::ResetRegister,
        Step::ResetEnds,
        Step::Look,
        Step::Add(ACKNOWLEDGE | DRIVER),
        Step::Negotiate,
        Step::Add(FEATURES_OK),
        Step::Look,
        Step::Add(DRIVER_OK),
    ];
    let reset = Cell::new(false);
    against(&steps, 9, |world, stop, resume| {
        assert_eq!(world.device.resets.get(), 1);
        assert_eq!(world.field.borrow().negotiated(), Ok(world.device.protocol));
        let cut = stop == Stop::Fault(Fault::Reset);
        assert!(cut || stop == Stop::Acknowledged, "{stop:?}");
        reset.set(reset.get() || cut);
        if let Some(resume) = resume {
            let ended = [
                Resume::Acknowledged,
                Resume::Dropped,
                Resume::Fault(Fault::Reset),
            ];
            assert!(ended.contains(&resume), "{resume:?}");
        }
    });
    assert!(reset.get(), "no order has met the reset");
}

#[test]
fn a_reset_between_two_looks_is_no_answer() {
    for protocol in BOTH {
        let mut world = World::new(protocol, 0, &[], &[]);
        assert!(world.begins());
        // Somebody else has stopped the device since: it shows what the first one waits for.
        for step in [
            Step::ResetBegins,
            Step::ResetRegister,
            Step::ResetEnds,
            Step::Negotiate,
        ] {
            world.core(step);
        }
        world.device.status.set(READY);
        let shown = Status(READY).to_stop(protocol);
        world.device.write(shown);
        world.device.read();
        assert!(world.device.has_stopped());
        assert_eq!(world.read(), Err(Cut::Reset));
        assert_eq!(world.update(false, Some), Err(Cut::Reset));
        assert_eq!(world.wait(1), Err(Cut::Reset));
        assert!(world.begins());
        assert!(world.read().is_ok());
    }
}

#[test]
fn nothing_is_written_while_a_reset_is_under_way() {
    let mut world = World::new(Protocol::DeviceStop, 0, &[], &[]);
    world.core(Step::ResetBegins);
    assert!(!world.begins());
    assert_eq!(world.update(true, Some), Err(Cut::Reset));
    world.core(Step::ResetRegister);
    assert_eq!(world.update(true, Some), Err(Cut::Reset));
    world.core(Step::ResetEnds);
    assert_eq!(
        world.field.borrow().negotiated(),
        Err(Reason::Reset),
        "has to be negotiated anew"
    );
}

/// Shows that it has stopped, but has resumed by the time that it is written to.
struct Late {
    writes: Cell<u32>,
}

impl Register for Late {
    fn read(&self) -> Status {
        Status(READY & !DRIVER_OK | Status::SUSPEND)
    }

    fn write(&self, _: Status) {
        self.writes.set(self.writes.get() + 1);
    }
}

#[test]
fn a_resume_by_suspend_is_written_once() {
    let late = Late {
        writes: Cell::new(0),
    };
    let mut field = Field::new();
    field.negotiate(Ok(Protocol::Suspend));
    let resume = |status: Status| Some(status.to_resume(Protocol::Suspend));
    let stop = |status: Status| Some(status.to_stop(Protocol::Suspend));
    assert!(field.update(&late, 0, true, stop).is_ok());
    for _ in 0..3 {
        assert!(field.update(&late, 0, false, resume).is_ok());
    }
    assert_eq!(late.writes.get(), 2);
    assert!(field.update(&late, 0, true, stop).is_ok());
    assert!(field.update(&late, 0, false, resume).is_ok());
    assert_eq!(late.writes.get(), 4);
}
