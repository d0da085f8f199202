// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files and folders that may not be there, or may not be readable: then nothing is known.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The first line of a file.
pub(crate) fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The number in a file.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    line(path)?.trim().parse().ok()
}

/// The names of what is in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
