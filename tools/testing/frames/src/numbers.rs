// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which numbers have come back.

use std::collections::BTreeSet;
use std::fmt;

/// The numbers that were sent, from 0 on, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    sent: u64,
    received: u64,
    missing: BTreeSet<u64>,
    highest: Option<u64>,
    duplicated: u64,
    reordered: u64,
    unknown: u64,
}

impl Numbers {
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// How many have not come back.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.len() as u64
    }

    /// The next number was sent.
    pub(crate) fn send(&mut self) {
        self.missing.insert(self.sent);
        self.sent += 1;
    }

    /// `number` has come back.
    pub(crate) fn receive(&mut self, number: u64) {
        self.received += 1;
        if number >= self.sent {
            self.unknown += 1;
        } else if !self.missing.remove(&number) {
            self.duplicated += 1;
        } else {
            self.reordered += u64::from(self.highest > Some(number));
            self.highest = self.highest.max(Some(number));
        }
    }

    /// Whether all have come back, once and in order.
    pub(crate) fn all_is_well(&self) -> bool {
        self.missing.is_empty() && self.duplicated + self.reordered + self.unknown == 0
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent={} received={} lost={} duplicated={} reordered={} unknown={}",
            self.sent,
            self.received,
            self.missing(),
            self.duplicated,
            self.reordered,
            self.unknown
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sent: u64, received: &[u64]) -> Numbers {
        let mut numbers = Numbers::default();
        (0..sent).for_each(|_| numbers.send());
        received.iter().for_each(|number| numbers.receive(*number));
        numbers
    }

    #[test]
    fn loss_order_and_duplication_are_told() {
        for (sent, received, expected, well) in [
            (
                2,
                &[0, 1][..],
                "lost=0 duplicated=0 reordered=0 unknown=0",
                true,
            ),
            (
                3,
                &[0, 2],
                "lost=1 duplicated=0 reordered=0 unknown=0",
                false,
            ),
            (
                2,
                &[1, 0],
                "lost=0 duplicated=0 reordered=1 unknown=0",
                false,
            ),
            (
                2,
                &[0, 1, 1],
                "lost=0 duplicated=1 reordered=0 unknown=0",
                false,
            ),
            (
                1,
                &[0, 9],
                "lost=0 duplicated=0 reordered=0 unknown=1",
                false,
            ),
        ] {
            let numbers = after(sent, received);
            assert!(numbers.to_string().ends_with(expected), "{numbers}");
            assert_eq!(numbers.all_is_well(), well, "{numbers}");
        }
    }
}
