// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! How long things may take, and what the administrator has chosen.

/// Microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The shortest and the longest time between two looks, while somebody waits.
    pub wait: (u64, u64),
    /// And while nobody does.
    pub watch: (u64, u64),
    /// For how long, at least and at most, a device is waited for that does not answer what can't
    /// be taken back: ten times the timeout.
    pub abort: (u64, u64),
    /// How long who unbinds a driver waits for its device, at most.
    pub leave: u64,
}

/// As the module has them.
pub const LIMITS: Limits = Limits {
    wait: (20, 10_000),
    watch: (10_000, 1_000_000),
    abort: (10_000_000, 120_000_000),
    leave: 5_000_000,
};

/// What the administrator has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a request may take.
    pub timeout_us: u64,
    /// For how long a stop may stand; 0: for ever.
    pub lease_us: u64,
    /// The device may be stopped although its type should not be.
    pub force: bool,
}
