// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a program can begin while file systems stand still.
//!
//! A static program can: its file is kept in memory. It is refused only if it lies where the kernel
//! asks a server that stands still to open it. Any other program begins with another one, the
//! dynamic linker or the interpreter of a script, which opens files by their names, when everything
//! stands still already. So it is refused if one of the places where these files are stands still.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{access, Access, CWD};

use crate::error::{Error, Result};
use crate::ioctl::Mapping;
use crate::mounts::{mount_of, Mount, Place};

/// Where the dynamic linker looks.
const LIBRARIES: [&str; 6] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
];

/// A script may have an interpreter that is a script; the kernel follows so many.
const MOST_SCRIPTS: usize = 4;

/// A program that can be executed without a disk that stands still: its path has no symbolic links
/// in it, and while its file is open, the kernel has all of that path in memory.
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    _file: File,
    _memory: Option<Mapping>,
}

/// What is mounted, and what of that will stand still.
#[derive(Clone, Copy, Debug)]
pub struct Mounts<'a> {
    /// All of it, in the order in which it was mounted.
    pub all: &'a [Mount],
    /// All mounts of the file systems that stand still.
    pub still: &'a [Mount],
}

impl Mounts<'_> {
    /// The file system that stands still, and that `path` lies in. That of an open file, a link in
    /// /proc/self/fd, is found even if the file was deleted, or its mount is hidden. It does not
    /// lie in any if it can't be found.
    pub fn still_at(&self, path: &Path) -> Option<&Mount> {
        let still = |number| self.still.iter().find(|mount| mount.number == number);
        let named = fs::canonicalize(path).ok();
        let named = named.and_then(|path| Some(mount_of(self.all, &path)?.number));
        named.and_then(still).or_else(|| {
            let place = Place::of(CWD, path).ok()?;
            still(place.number(self.all))
        })
    }
}

impl Mounts<'_> {
    /// As [`still_at`](Self::still_at), if its server is asked to open a file.
    fn asked_for(&self, path: &Path) -> Option<&Mount> {
        // What an overlay opens lies in another file system, which can be any of them.
        let may_have = |mount: &Mount| {
            mount.has_server()
                || (mount.kind == "overlay" && self.still.iter().any(Mount::has_server))
        };
        self.still_at(path).filter(|mount| may_have(mount))
    }
}

impl Executable {
    /// Finds what the shell would, and opens it.
    ///
    /// # Errors
    ///
    /// [`Error::CommandNotFound`], [`Error::Command`]; [`Error::CommandStands`] if it needs what
    /// stands still.
    pub(crate) fn find(name: &OsStr, mounts: Mounts<'_>) -> Result<Self> {
        let path = look_up(name)?;
        let failed = |source| Error::Command {
            path: path.clone(),
            source,
        };
        access(&path, Access::EXEC_OK).map_err(|error| failed(error.into()))?;
        let path = fs::canonicalize(&path).map_err(failed)?;
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::ErrorKind::PermissionDenied.into()));
        }
        needs(&path, &file, mounts, MOST_SCRIPTS)?;
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        // Wherever it lies: that may be on what stands still without anything telling so.
        let memory = match beginning(&file).map_err(failed)? {
            Beginning::Static => Some(Mapping::of(&file, length).map_err(failed)?),
            _ => None,
        };
        Ok(Self {
            path,
            _file: file,
            _memory: memory,
        })
    }
}

fn look_up(name: &OsStr) -> Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let folders = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let mut found = env::split_paths(&folders).map(|folder| folder.join(name));
    let found = found.find(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok());
    found.ok_or_else(|| Error::CommandNotFound(name.into()))
}

/// Fails if the program needs a file, other than a static program, that stands still.
fn needs(path: &Path, file: &File, mounts: Mounts<'_>, scripts: usize) -> Result<()> {
    let beginning = beginning(file).map_err(|source| Error::Command {
        path: path.into(),
        source,
    })?;
    let refuse = |needed: &Path, mount: Option<&Mount>| match mount {
        Some(mount) => Err(Error::CommandStands {
            path: path.into(),
            needed: needed.into(),
            point: mount.point.clone(),
        }),
        None => Ok(()),
    };
    let stands = |needed: &Path| refuse(needed, mounts.still_at(needed));
    match beginning {
        Beginning::Static => refuse(path, mounts.asked_for(path)),
        Beginning::Linker(linker) => {
            stands(path)?;
            stands(&linker)?;
            LIBRARIES
                .iter()
                .try_for_each(|folder| stands(Path::new(folder)))
        }
        Beginning::Script(interpreter) => {
            stands(path)?;
            stands(&interpreter)?;
            match (File::open(&interpreter), scripts.checked_sub(1)) {
                (Ok(file), Some(scripts)) => needs(&interpreter, &file, mounts, scripts),
                // The kernel will say why it can't be executed.
                _ => Ok(()),
            }
        }
        // For another kind of machine, or whatever the kernel has been taught. What it can't
        // execute is a script of the shell.
        Beginning::Other => {
            stands(path)?;
            stands(Path::new("/bin/sh"))?;
            LIBRARIES
                .iter()
                .try_for_each(|folder| stands(Path::new(folder)))
        }
    }
}

/// What the kernel executes first.
#[derive(Debug, Eq, PartialEq)]
enum Beginning {
    /// Itself, and nothing else.
    Static,
    /// The dynamic linker.
    Linker(PathBuf),
    /// An interpreter.
    Script(PathBuf),
    /// That can't be told.
    Other,
}

fn beginning(file: &File) -> io::Result<Beginning> {
    let mut head = [0; 256];
    let length = file.read_at(&mut head, 0)?;
    let head = head.get(..length).unwrap_or_default();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| b" \t".contains(byte));
        let interpreter = words.find(|word| !word.is_empty()).unwrap_or_default();
        return Ok(Beginning::Script(
            OsString::from_vec(interpreter.to_vec()).into(),
        ));
    }
    Ok(elf(head, file)?.unwrap_or(Beginning::Other))
}

/// Where a program says for which machines it is.
const MACHINE: Range<usize> = 0x12..0x14;

fn own_machine() -> io::Result<[u8; 2]> {
    let mut machine = [0; 2];
    let own = File::open("/proc/self/exe")?;
    own.read_exact_at(&mut machine, MACHINE.start as u64)?;
    Ok(machine)
}

/// `None`: not a program for machines like this one.
fn elf(head: &[u8], file: &File) -> io::Result<Option<Beginning>> {
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
    const INTERPRETER: u32 = 3;
    let number = |at| head.get(at..)?.first_chunk().copied();
    let size = |at: usize| {
        head.get(at..)?
            .first_chunk()
            .copied()
            .map(u16::from_ne_bytes)
    };
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2, ORDER]) {
        return Ok(None);
    }
    // The kernel may have been taught an interpreter for others, which opens files.
    if head.get(MACHINE) != Some(own_machine()?.as_slice()) {
        return Ok(None);
    }
    // Where the program headers are, how long each is, and how many.
    let (Some(at), Some(length), Some(count)) = (number(0x20), size(0x36), size(0x38)) else {
        return Ok(None);
    };
    let mut at = u64::from_ne_bytes(at);
    for _ in 0..count {
        let mut header = [0; 56];
        if file.read_at(&mut header, at)? < header.len() {
            return Ok(None);
        }
        let word = |at: usize| {
            header
                .get(at..)?
                .first_chunk()
                .copied()
                .map(u64::from_ne_bytes)
        };
        if header.first_chunk().copied().map(u32::from_ne_bytes) == Some(INTERPRETER) {
            let mut path = vec![0; word(32).unwrap_or(0).min(4096) as usize];
            file.read_exact_at(&mut path, word(8).unwrap_or(0))?;
            path.retain(|&byte| byte != 0);
            return Ok(Some(Beginning::Linker(OsString::from_vec(path).into())));
        }
        at = at.saturating_add(length.into());
    }
    Ok(Some(Beginning::Static))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use crate::device::System;
    use crate::mounts::{mounts, Number};

    use super::*;

    fn mount(point: &str, minor: u32) -> Mount {
        Mount {
            // As no file of this machine has.
            id: u64::MAX,
            number: Number { major: 4095, minor },
            root: "/".into(),
            point: point.into(),
            kind: "ext4".into(),
            source: "/dev/vda".into(),
            options: OsString::new(),
        }
    }

    fn program(contents: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let mut file = File::create(&path).unwrap();
        file.write_all(contents).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755))
            .unwrap();
        folder
    }

    /// With the one program header that is given.
    fn elf_with(kind: u32) -> Vec<u8> {
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[MACHINE].copy_from_slice(&own_machine().unwrap());
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 1;
        let mut header = vec![0; 56];
        header[..4].copy_from_slice(&kind.to_ne_bytes());
        header[8] = 0x78;
        header[32] = 14;
        elf.extend(header);
        elf.extend(b"/usr/lib/ld.so");
        elf
    }

    /// The folder of the program, or another place, stands still.
    fn find(folder: &Path, still: &str) -> Result<Executable> {
        find_on(folder, still, "ext4")
    }

    /// The folder is of this type.
    fn find_on(folder: &Path, still: &str, kind: &str) -> Result<Executable> {
        let folder = fs::canonicalize(folder).unwrap();
        let all = [
            mount("/", 1),
            mount("/usr", 2),
            mount("/etc", 3),
            Mount {
                kind: kind.into(),
                ..mount(folder.to_str().unwrap(), 4)
            },
            Mount {
                kind: "virtiofs".into(),
                ..mount("/other", 5)
            },
        ];
        let still = match still {
            "program" => &all[3..4],
            "program and a server" => &all[3..5],
            "/" => &all[0..1],
            "/usr" => &all[1..2],
            "/etc" => &all[2..3],
            _ => &all[0..0],
        };
        let mounts = Mounts { all: &all, still };
        Executable::find(folder.join("program").as_os_str(), mounts)
    }

    fn needed(result: Result<Executable>) -> Option<PathBuf> {
        match result {
            Ok(_) => None,
            Err(Error::CommandStands { needed, .. }) => Some(needed),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_static_program_may_lie_on_what_stands_still_and_is_kept_in_memory() {
        let folder = program(&elf_with(1));
        let executable = find(folder.path(), "program").unwrap();
        assert!(executable._memory.is_some());
        let executable = find(folder.path(), "/").unwrap();
        assert!(executable._memory.is_some());
        let executable = find(program(&elf_with(3)).path(), "nothing").unwrap();
        assert!(executable._memory.is_none());
    }

    #[test]
    fn a_static_program_is_refused_where_a_server_opens_it() {
        let folder = program(&elf_with(1));
        let path = fs::canonicalize(folder.path()).unwrap().join("program");
        for kind in ["virtiofs", "9p", "fuse.sshfs", "fuseblk", "nfs4"] {
            let found = find_on(folder.path(), "program", kind);
            assert_eq!(needed(found), Some(path.clone()), "{kind}");
            assert_eq!(needed(find_on(folder.path(), "nothing", kind)), None);
        }
        assert_eq!(needed(find_on(folder.path(), "program", "overlay")), None);
        let found = find_on(folder.path(), "program and a server", "overlay");
        assert_eq!(needed(found), Some(path));
        assert_eq!(needed(find(folder.path(), "program and a server")), None);
    }

    #[test]
    fn a_dynamic_program_needs_itself_and_where_libraries_are() {
        let folder = program(&elf_with(3));
        let path = fs::canonicalize(folder.path()).unwrap().join("program");
        assert_eq!(needed(find(folder.path(), "program")), Some(path));
        assert_eq!(needed(find(folder.path(), "/etc")), Some("/etc".into()));
        assert!(needed(find(folder.path(), "/usr")).is_some());
        assert_eq!(needed(find(folder.path(), "nothing")), None);
    }

    #[test]
    fn a_file_that_was_deleted_lies_where_it_was() {
        let all = mounts(&System::default()).unwrap();
        let file = tempfile::tempfile().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let place = Place::of(&file, Path::new("")).unwrap();
        let still: Vec<_> = all
            .iter()
            .filter(|mount| place.is_in(mount))
            .cloned()
            .collect();
        let mounts = Mounts {
            all: &all,
            still: &still,
        };
        assert_eq!(
            mounts.still_at(&path).map(|mount| mount.id),
            Some(still[0].id)
        );
        let mounts = Mounts {
            all: &all,
            still: &[],
        };
        assert_eq!(mounts.still_at(&path), None);
    }

    #[test]
    fn a_script_needs_its_interpreter_and_what_that_needs() {
        let folder = program(b"#! /usr/bin/env sh\n");
        assert_eq!(
            needed(find(folder.path(), "/usr")),
            Some("/usr/bin/env".into())
        );
        // Of the host: it is linked dynamically.
        assert_eq!(needed(find(folder.path(), "/etc")), Some("/etc".into()));
        assert_eq!(needed(find(folder.path(), "nothing")), None);
        assert!(needed(find(folder.path(), "program")).is_some());
    }

    #[test]
    fn a_static_program_for_another_machine_needs_an_interpreter() {
        let mut contents = elf_with(1);
        contents[MACHINE.start] ^= 1;
        let folder = program(&contents);
        assert!(needed(find(folder.path(), "program")).is_some());
        assert!(needed(find(folder.path(), "/usr")).is_some());
        assert_eq!(needed(find(folder.path(), "nothing")), None);
    }

    #[test]
    fn what_begins_with_an_elf_header_alone_is_not_taken_for_static() {
        let folder = program(&elf_with(1)[..0x50]);
        assert!(needed(find(folder.path(), "program")).is_some());
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        let mounts = Mounts {
            all: &[],
            still: &[],
        };
        let found = Executable::find(OsStr::new("there-is-no-such-program"), mounts);
        assert!(matches!(found, Err(Error::CommandNotFound(_))));
    }
}
