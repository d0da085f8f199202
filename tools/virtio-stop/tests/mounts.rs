// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! mountinfo and swaps, as the kernel writes them.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

mod tree;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use tree::Tree;
use virtio_stop::mounts::{mount_of, parse_mountinfo, swaps, Number};
use virtio_stop::Mount;

/// As seq_path() and mangle() in the kernel.
fn escape(text: &[u8]) -> Vec<u8> {
    let escaped = text.iter().flat_map(|&byte| match byte {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![byte],
    });
    escaped.collect()
}

fn line(mount: &Mount, optional: &str) -> Vec<u8> {
    let mut line = format!("{} 35 {} ", mount.id, mount.number).into_bytes();
    line.extend(escape(mount.root.as_os_str().as_bytes()));
    line.push(b' ');
    line.extend(escape(mount.point.as_os_str().as_bytes()));
    line.extend(format!(" rw,noatime{optional} - {} ", mount.kind).into_bytes());
    line.extend(escape(mount.source.as_os_str().as_bytes()));
    line.push(b' ');
    line.extend(escape(mount.options.as_bytes()));
    line.push(b'\n');
    line
}

/// Anything that can be in a path.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..=255, 0..20)
}

prop_compose! {
    fn a_mount()(
        id: u64,
        major: u32,
        minor: u32,
        paths in [bytes(), bytes(), bytes(), bytes()],
        kind in "[a-z0-9.]{1,10}",
    ) -> Mount {
        let [root, point, source, options] = paths;
        let path = |bytes: Vec<u8>| {
            PathBuf::from(OsString::from_vec([b"/", &bytes[..]].concat()))
        };
        Mount {
            id,
            number: Number { major, minor },
            root: path(root),
            point: path(point),
            kind,
            source: path(source),
            options: OsString::from_vec(options),
        }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        mounts in vec(a_mount(), 0..5),
        optional in prop_oneof![
            Just(""), Just(" shared:1"), Just(" shared:1 master:2"), Just(" unbindable")
        ],
    ) {
        let text: Vec<u8> = mounts.iter().flat_map(|mount| line(mount, optional)).collect();
        prop_assert_eq!(parse_mountinfo(&text), mounts);
    }

    #[test]
    fn anything_can_be_read(text in vec(any::<u8>(), 0..200)) {
        parse_mountinfo(&text);
    }

    #[test]
    fn anything_that_looks_like_it_can_be_read(text in "[0-9: /\\\\a\n-]{0,200}") {
        parse_mountinfo(text.as_bytes());
    }
}

#[test]
fn a_mount_is_not_that_of_a_path_that_only_begins_alike() {
    let text = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /home rw - ext4 /dev/sda2 rw\n";
    let mounts = parse_mountinfo(text);
    let of = |path: &str| mount_of(&mounts, Path::new(path)).unwrap().number.minor;
    assert_eq!(of("/home"), 2);
    assert_eq!(of("/home/user"), 2);
    assert_eq!(of("/homework"), 1);
    assert_eq!(of("/"), 1);
}

#[test]
fn swap_on_a_partition_and_on_a_file() {
    let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                /dev/vda2                               partition\t1048572\t\t0\t\t-2\n\
                /swap\\040file\\011x                      file\t\t102396\t\t0\t\t-3\n";
    let tree = Tree::new().raw("proc/swaps", text.as_bytes());
    let paths = swaps(&tree.system()).unwrap();
    assert_eq!(paths, [Path::new("/dev/vda2"), Path::new("/swap file\tx")]);
    assert!(swaps(&Tree::new().system()).unwrap().is_empty());
}
