// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Scenarios: files that say how devices behave.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::settings;
use crate::spec::Changes;

/// Why a scenario was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("{path}: can't open it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a table of tables.
    #[error("{path}: not a scenario")]
    Scenario {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It speaks of a device that is not there.
    #[error("no device '{0}': there are {1}")]
    NoDevice(String, String),
    /// A setting makes no sense.
    #[error(transparent)]
    Setting(#[from] settings::Error),
}

/// What is set for each device that is named.
pub type Scenario = BTreeMap<String, Changes>;

/// Reads a scenario: a TOML file with a table of settings for each device that it speaks of.
///
/// ```toml
/// [disk]
/// acknowledge = "after:100-300"
/// io_order = "shuffled"
/// ```
pub fn read(path: &Path) -> Result<Scenario, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    let tables: BTreeMap<String, BTreeMap<String, Word>> =
        toml::from_str(&text).map_err(|source| Error::Scenario {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    let words = |table: BTreeMap<String, Word>| {
        table
            .into_iter()
            .map(|(name, word)| (name, word.to_string()))
            .collect()
    };
    Ok(tables
        .into_iter()
        .map(|(name, table)| (name, words(table)))
        .collect())
}

/// A setting's value. A number or a flag needs no quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Flag(bool),
    Number(u64),
    Text(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_a_table_for_each_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "[disk]\nacknowledge = \"never\"\nio_depth = 4\n[net]\nhang_up = \"on-stop\"\n",
        )
        .unwrap();
        let scenario = read(file.path()).unwrap();
        let setting = |device: &str, name: &str| scenario[device][name].as_str();
        assert_eq!(setting("disk", "acknowledge"), "never");
        assert_eq!(setting("disk", "io_depth"), "4");
        assert_eq!(setting("net", "hang_up"), "on-stop");
        fs::write(file.path(), "acknowledge = 1").unwrap();
        assert!(matches!(read(file.path()), Err(Error::Scenario { .. })));
    }
}
