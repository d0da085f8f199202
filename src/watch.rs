// SPDX-License-Identifier: GPL-2.0-only

//! Looking after a device that may still answer what it was asked before.
//!
//! A stop that was given up may be acknowledged later. Nobody waits for it then, and the device
//! would stand still for ever: so it is looked at again and again, and resumed when that happens.

use crate::{
    device::Device,
    handshake::{
        end_late_stop,
        Port, //
    },
    state::{
        Event,
        Look, //
    },
    sys::{
        lock::NoIo,
        module::ModuleRef, //
    },
};
use kernel::{
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    workqueue::{
        impl_has_delayed_work,
        WorkItem, //
    }, //
};

/// The shortest and the longest time between two looks.
const MIN_WAIT_MS: u64 = 10;
const MAX_WAIT_MS: u64 = 1000;

/// Which of the device's works this is.
pub(crate) const WORK: u64 = 1;

/// A device is being watched. The module stays loaded: nobody else would do it.
pub(crate) struct Watch {
    since: Instant<Monotonic>,
    _module: Option<ModuleRef>,
}

impl Watch {
    /// Begins now.
    pub(crate) fn begin(device: &Arc<Device>) -> Self {
        let watch = Self {
            since: Instant::now(),
            _module: ModuleRef::get(device.module()),
        };
        device.enqueue::<WORK>(msecs_to_jiffies(watch.wait_ms()));
        watch
    }

    fn late_us(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros_ceil()).unwrap_or(0)
    }

    fn wait_ms(&self) -> u32 {
        (self.late_us() / 25_000).clamp(MIN_WAIT_MS, MAX_WAIT_MS) as u32
    }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Device, 1> for Device { self.watch_work }
}

impl WorkItem<WORK> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _no_io = NoIo::enter();
        // Whoever stops or resumes the device begins another watch, if one is needed.
        let Some(mut transition) = this.at_rest() else {
            return;
        };
        this.let_go_after_reset(&mut transition);
        let Some(late_us) = transition.watch.as_ref().map(Watch::late_us) else {
            return;
        };
        let life = this.life();
        if !life.is_watched() {
            transition.watch = None;
            return;
        }
        let Some(mut register) = this.register() else {
            transition.watch = None;
            return;
        };
        let Ok(status) = register.read() else {
            // It is being reset: see again when that is over.
            return this.enqueue::<WORK>(msecs_to_jiffies(MIN_WAIT_MS as u32));
        };
        let protocol = register.protocol;
        let look = match this.watched_look(&register, status) {
            Look::End => match end_late_stop(&mut register, protocol) {
                Ok(runs) => life.look_after_end(runs),
                Err(fault) => Look::Event(Event::Fault(fault)),
            },
            look => look,
        };
        let look = match look {
            Look::Again if life.is_overdue(late_us, this.timeout_us()) => {
                Look::Event(Event::AbortUnanswered)
            }
            look => look,
        };
        if let Look::Event(event) = look {
            let _ = this.settle(&mut transition, &register, event);
        }
        if let Some(watch) = &transition.watch {
            this.enqueue::<WORK>(msecs_to_jiffies(watch.wait_ms()));
        }
    }
}
