// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that are written whole, or stay as they were.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names that are tried for the new file.
const MOST_NAMES: u32 = 100;

/// Writes `text` to `file`. A plain file, also one that a link leads to, is as before if that fails, and belongs to whom it has belonged
/// to; what is there and is none is written to.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    let (file, before) = match fs::metadata(file) {
        Ok(there) if there.is_file() => (fs::canonicalize(file)?, Some(there)),
        Ok(_) => return fs::write(file, text),
        // It leads to a file that is not there yet.
        Err(_) if file.is_symlink() => return fs::write(file, text),
        Err(_) => (file.to_owned(), None),
    };
    let (mut new, beside) = create_beside(&file, before.is_some())?;
    let written = before
        .map_or(Ok(()), |before| give_to(&new, &before))
        .and_then(|()| new.write_all(text.as_bytes()))
        .and_then(|()| new.sync_all())
        .and_then(|()| fs::rename(&beside, &file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A new file, and its name. One that is not to be `private` can be read by whom every new file can be read by.
fn create_beside(file: &Path, private: bool) -> io::Result<(File, PathBuf)> {
    let mode = if private { 0o600 } else { 0o666 };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    for number in 0..MOST_NAMES {
        let mut beside = OsString::from(file);
        beside.push(format!(".{}-{number}", std::process::id()));
        match options.open(&beside) {
            // Somebody was ended in the middle of this. In a container all have the same number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|new| (new, beside.into())),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The file is to be as accessible as another was. Who may not give it away keeps it.
fn give_to(new: &File, before: &Metadata) -> io::Result<()> {
    let _ = fchown(new, None, Some(before.gid()));
    let _ = fchown(new, Some(before.uid()), None);
    new.set_permissions(before.permissions())
}
