// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the judge has noted.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Judge;

/// The breaches that are kept; more are only counted.
pub(super) const KEPT: usize = 64;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Breach {
    /// Which rule, for example `D-DRV-2`.
    pub rule: Cow<'static, str>,
    /// What was seen.
    pub seen: String,
    /// When, in microseconds since the server started.
    pub at_us: u64,
}

impl Judge {
    /// The breaches so far: how many, and the first of them in full.
    pub fn breaches(&self) -> (u64, &[Breach]) {
        (self.count, &self.breaches)
    }

    /// Forgets the breaches so far.
    pub fn forget(&mut self) {
        self.count = 0;
        self.breaches.clear();
    }

    /// What happens from now on happens `at_us` microseconds after the server started.
    pub fn set_time(&mut self, at_us: u64) {
        self.at_us = at_us;
    }

    pub(super) fn note(&mut self, rule: &'static str, seen: String) {
        self.count = self.count.saturating_add(1);
        tracing::warn!(rule, seen, "the driver broke a rule");
        if self.breaches.len() < KEPT {
            self.breaches.push(Breach {
                rule: rule.into(),
                seen,
                at_us: self.at_us,
            });
        }
    }
}
