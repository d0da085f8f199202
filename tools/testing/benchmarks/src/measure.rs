// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The benchmarks: which guests they take, and what is made of what these say.

use serde_json::Value;

pub(crate) mod data_path;
pub(crate) mod device;
pub(crate) mod many;
pub(crate) mod overshoot;
pub(crate) mod rebind;
pub(crate) mod stop;
pub(crate) mod timeline;

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Its median.
    pub(crate) median: String,
    /// How far others are from that.
    pub(crate) spread: String,
    /// What it is compared with, in the same run.
    pub(crate) against: String,
    /// The one by the other.
    pub(crate) ratio: String,
}

/// What a benchmark yields.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// For the table.
    pub(crate) rows: Vec<Row>,
    /// Everything.
    pub(crate) figures: Value,
    /// Their names, and what they are.
    pub(crate) pictures: Vec<(&'static str, String)>,
}
