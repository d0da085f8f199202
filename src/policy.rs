// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Which virtio device types may be stopped by which protocol, and how the driver above is held
//! meanwhile.
//!
//! It depends on what Linux' driver does while its device does not answer. Some just wait; a block
//! device is quiesced at its request queue, and a network device detached, so that their drivers
//! need not even do that. Others spin with interrupts disabled, or give up and free what the device
//! still owns.
//!
//! Under VIRTIO_F_SUSPEND the driver may not touch the device while it is stopped: what is not
//! quiesced wholly may break that rule, and is stopped only where the administrator insists.

use super::status::Protocol;

/// What may be done to devices of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are stopped.
    Allowed,
    /// They are stopped if the administrator insists (`force`).
    WithForce,
    /// They are not, and the feature is not negotiated.
    Never,
}

/// How the driver above is held while its device is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiesce {
    /// The request queue of the disk is quiesced.
    Block,
    /// The network interface is detached, and the control virtqueue not used. Under DEVICE_STOP the
    /// device still gets receive buffers; under SUSPEND no virtqueue is used.
    Net,
    /// The request queues of the SCSI host's units are quiesced. Under DEVICE_STOP the device still
    /// gets task management requests, and requests of units that are found meanwhile; under SUSPEND
    /// the former fail, and the latter wait.
    Scsi,
    /// It is not: what it submits waits in the virtqueues.
    Nothing,
}

/// What is done to devices of one type, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The virtio device type (virtio 1.4, section 5).
    pub device_type: u32,
    /// What the specification calls it.
    pub name: &'static str,
    /// Under VIRTIO_F_DEVICE_STOP.
    pub device_stop: Verdict,
    /// Under VIRTIO_F_SUSPEND.
    pub suspend: Verdict,
    /// How the driver above is held.
    pub quiesce: Quiesce,
    /// What Linux' driver does while its device is stopped.
    pub why: &'static str,
}

impl Policy {
    /// What holds for a device of this type.
    pub fn of(device_type: u32) -> Self {
        let found = TABLE
            .iter()
            .find(|policy| policy.device_type == device_type);
        found.copied().unwrap_or(Self {
            device_type,
            ..UNKNOWN
        })
    }

    /// Whether such a device is not stopped by any means, so that nothing is negotiated with it.
    pub const fn refuses(&self) -> bool {
        matches!(
            (self.device_stop, self.suspend),
            (Verdict::Never, Verdict::Never)
        )
    }

    /// Whether such a device may be stopped under `protocol`. `force`: the administrator insists.
    pub fn permits(&self, protocol: Protocol, force: bool) -> bool {
        let verdict = match protocol {
            Protocol::DeviceStop => self.device_stop,
            Protocol::Suspend => self.suspend,
        };
        match verdict {
            Verdict::Allowed => true,
            Verdict::WithForce => force,
            Verdict::Never => false,
        }
    }

    const fn new(device_type: u32, name: &'static str, why: &'static str) -> Self {
        Self {
            device_type,
            name,
            device_stop: Verdict::Allowed,
            suspend: Verdict::WithForce,
            quiesce: Quiesce::Nothing,
            why,
        }
    }

    const fn with_force(self) -> Self {
        Self {
            device_stop: Verdict::WithForce,
            suspend: Verdict::WithForce,
            ..self
        }
    }

    const fn never(self) -> Self {
        Self {
            device_stop: Verdict::Never,
            suspend: Verdict::Never,
            ..self
        }
    }

    const fn quiesced(self, quiesce: Quiesce) -> Self {
        Self {
            suspend: match quiesce {
                Quiesce::Block | Quiesce::Net | Quiesce::Scsi => Verdict::Allowed,
                Quiesce::Nothing => self.suspend,
            },
            quiesce,
            ..self
        }
    }
}

const UNKNOWN: Policy = Policy::new(0, "any other", "not looked into").with_force();

/// All types that were looked into, by number.
pub const TABLE: &[Policy] = &[
    Policy::new(1, "network", "is detached; configuring it fails meanwhile").quiesced(Quiesce::Net),
    Policy::new(2, "block", "waits, without errors; is quiesced").quiesced(Quiesce::Block),
    Policy::new(3, "console", "spins with interrupts disabled").never(),
    Policy::new(4, "entropy", "waits, and can be killed"),
    Policy::new(
        5,
        "memory balloon",
        "waits while memory is reclaimed or compacted",
    )
    .with_force(),
    Policy::new(8, "SCSI host", "waits, without errors; is quiesced").quiesced(Quiesce::Scsi),
    Policy::new(9, "9P transport", "waits, and can be killed"),
    Policy::new(16, "GPU", "waits, and gives up after 5 to 15 s").with_force(),
    Policy::new(18, "input", "does not wait; may drop what goes to a LED"),
    Policy::new(
        19,
        "socket",
        "waits; to connect times out after 2 s, to close after 8 s",
    ),
    Policy::new(
        20,
        "crypto",
        "waits, in session requests without being interruptible",
    )
    .with_force(),
    Policy::new(23, "IOMMU", "spins with interrupts disabled").never(),
    Policy::new(24, "memory", "waits while memory is plugged").with_force(),
    Policy::new(25, "sound", "gives up after 1 s").with_force(),
    Policy::new(26, "file system", "waits"),
    Policy::new(27, "PMEM", "waits when it flushes; memory works on"),
    Policy::new(32, "SCMI", "gives up, and clocks with it").with_force(),
    Policy::new(
        34,
        "I2C adapter",
        "gives up when interrupted, and frees what the device writes to later",
    )
    .never(),
    Policy::new(
        36,
        "CAN",
        "waits with the network's lock held, and can't be interrupted",
    )
    .with_force(),
    Policy::new(40, "Bluetooth", "gives up after 2 s").with_force(),
    Policy::new(41, "GPIO", "waits, and can't be interrupted").with_force(),
    Policy::new(45, "SPI controller", "waits, and can't be interrupted").with_force(),
];

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Protocol; 2] = [Protocol::DeviceStop, Protocol::Suspend];

    #[test]
    fn types_are_in_order_and_there_once() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].device_type < pair[1].device_type, "{pair:?}");
        }
    }

    #[test]
    fn what_is_never_stopped_is_not_even_with_force() {
        for device_type in [3, 23, 34] {
            assert!(Policy::of(device_type).refuses());
            for protocol in BOTH {
                assert!(!Policy::of(device_type).permits(protocol, true));
            }
        }
    }

    #[test]
    fn an_unknown_type_needs_force() {
        for device_type in [0, 99, u32::MAX] {
            let policy = Policy::of(device_type);
            assert_eq!(policy.device_type, device_type);
            for protocol in BOTH {
                assert!(policy.permits(protocol, true));
                assert!(!policy.permits(protocol, false));
            }
        }
    }

    #[test]
    fn only_what_leaves_the_device_alone_is_stopped_without_force_under_suspend() {
        for policy in TABLE {
            let leaves_alone = policy.quiesce != Quiesce::Nothing;
            assert_eq!(policy.permits(Protocol::Suspend, false), leaves_alone);
            let never = policy.device_stop == Verdict::Never;
            assert_eq!(policy.suspend == Verdict::Never, never);
            assert_eq!(policy.refuses(), never);
        }
    }

    #[test]
    fn the_table_is_documented() {
        let text = include_str!("Documentation/driver-api/virtio-device-stop.rst");
        let word = |verdict| match verdict {
            Verdict::Allowed => "yes",
            Verdict::WithForce => "force",
            Verdict::Never => "never",
        };
        let line = |policy: &Policy, number: &str| {
            format!(
                "{number:<4}  {:<14}  {:<11}  {:<7}  {}",
                policy.name,
                word(policy.device_stop),
                word(policy.suspend),
                policy.why
            )
        };
        let table: Vec<_> = TABLE
            .iter()
            .map(|policy| line(policy, &policy.device_type.to_string()))
            .chain([line(&UNKNOWN, "\\")])
            .collect();
        let table = table.join("\n");
        assert!(text.contains(&table), "is to have:\n{table}");
    }
}
