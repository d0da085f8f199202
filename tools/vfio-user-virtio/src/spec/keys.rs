// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keys of a device's description.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::settings;

/// Keys and their values. Whoever knows a key takes it out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Keys(BTreeMap<String, String>);

impl Keys {
    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Where the value of `key` can be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut String> {
        self.0.get_mut(key)
    }

    /// Adds a key, or gives it another value.
    pub(super) fn insert(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// What `key` says.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// What `key` says, which `parse` understands.
    pub(super) fn parse<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.take(key)
            .map(|value| parse(&value).ok_or(Error::Value(key, expected)))
            .transpose()
    }

    /// Whether `key` is there and true.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Error> {
        let flag = self.parse(key, "true or false", |value| value.parse().ok())?;
        Ok(flag.unwrap_or_default())
    }

    /// A number in `range`, which `expected` describes.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u16>,
        expected: &'static str,
    ) -> Result<Option<u16>, Error> {
        self.parse(key, expected, |value| {
            value.parse().ok().filter(|number| range.contains(number))
        })
    }

    /// A mask of bits, of which only those in `allowed` make sense.
    pub(super) fn bits(&mut self, key: &'static str, allowed: u64) -> Result<u64, Error> {
        let bits = self.parse(key, "a mask of bits, such as 0x5", |value| {
            value
                .strip_prefix("0x")
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .filter(|bits| bits & !allowed == 0)
        })?;
        Ok(bits.unwrap_or_default())
    }

    /// Nobody knows those that are left over.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.0.into_keys().next() {
            Some(key) => Err(settings::Error::Unknown(key).into()),
            None => Ok(()),
        }
    }
}
