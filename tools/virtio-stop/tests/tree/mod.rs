// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A folder that looks like /sys, /proc and /dev of a guest.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use virtio_stop::device::System;

/// The tree. It is gone when this is dropped.
pub struct Tree {
    _folder: TempDir,
    root: PathBuf,
    mounts: String,
}

impl Tree {
    /// With nothing but a root file system in memory.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let tree = Self {
            _folder: folder,
            root,
            mounts: String::new(),
        };
        tree.mount("0:1", "/", "rootfs", "rootfs")
    }

    pub fn system(&self) -> System {
        System::new(&self.root)
    }

    /// A file with a line.
    pub fn file(self, path: &str, line: &str) -> Self {
        self.raw(path, format!("{line}\n").as_bytes())
    }

    /// A file with anything.
    pub fn raw(self, path: &str, contents: &[u8]) -> Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// A symbolic link to what is in the tree, or will be.
    pub fn link(self, at: &str, to: &str) -> Self {
        let link = self.root.join(at);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        // Relative ones, as those of the kernel and of udev are.
        let up = "../".repeat(Path::new(at).components().count() - 1);
        symlink(Path::new(&up).join(to), link).unwrap();
        self
    }

    /// A symbolic link with this very text.
    pub fn text_link(self, at: &str, text: &str) -> Self {
        let link = self.root.join(at);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(text, link).unwrap();
        self
    }

    pub fn remove(self, path: &str) -> Self {
        let path = self.root.join(path);
        match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        }
        .unwrap();
        self
    }

    /// A virtio device of this type, the child of 0000:00:0N.0.
    pub fn virtio(self, index: u32, kind: u32) -> Self {
        let path = virtio_path(index);
        let name = format!("virtio{index}");
        self.file(&format!("{path}/device"), &format!("0x{kind:04x}"))
            .link(&format!("sys/bus/virtio/devices/{name}"), &path)
    }

    /// A driver for it.
    pub fn driver(self, index: u32, name: &str) -> Self {
        let driver = format!("sys/bus/virtio/drivers/{name}");
        self.file(&format!("{driver}/bind"), "")
            .link(&format!("{}/driver", virtio_path(index)), &driver)
    }

    /// A virtio disk.
    pub fn disk(self, index: u32, name: &str, number: &str) -> Self {
        let path = format!("{}/block/{name}", virtio_path(index));
        self.virtio(index, 2)
            .driver(index, "virtio_blk")
            .block(&path, number)
    }

    /// A SCSI disk at the host of a virtio device.
    pub fn scsi_disk(self, index: u32, unit: u32, name: &str, number: &str) -> Self {
        let scsi = format!("host0/target0:0:{unit}/0:0:{unit}:0");
        let path = format!("{}/{scsi}/block/{name}", virtio_path(index));
        self.block(&path, number)
    }

    /// A partition of what is at this path in sysfs.
    pub fn partition(self, of: &str, name: &str, number: &str) -> Self {
        let whole = fs::canonicalize(self.root.join("sys/class/block").join(of)).unwrap();
        let whole = whole.strip_prefix(&self.root).unwrap();
        let path = format!("{}/{name}", whole.display());
        self.file(&format!("{path}/partition"), "1")
            .block(&path, number)
    }

    /// A block device that lies on others.
    pub fn virtual_block(mut self, name: &str, number: &str, slaves: &[&str]) -> Self {
        let path = format!("sys/devices/virtual/block/{name}");
        self = self.block(&path, number);
        for slave in slaves {
            let to = format!("sys/class/block/{slave}");
            self = self.link(&format!("{path}/slaves/{slave}"), &to);
        }
        self
    }

    /// One of device mapper, with its symbolic link in /dev/mapper.
    pub fn dm(self, name: &str, number: &str, dm: (&str, &str), slaves: &[&str]) -> Self {
        let path = format!("sys/devices/virtual/block/{name}/dm");
        self.virtual_block(name, number, slaves)
            .file(&format!("{path}/name"), dm.0)
            .file(&format!("{path}/uuid"), dm.1)
            .link(&format!("dev/mapper/{}", dm.0), &format!("dev/{name}"))
    }

    /// A RAID.
    pub fn md(self, name: &str, number: &str, slaves: &[&str]) -> Self {
        let path = format!("sys/devices/virtual/block/{name}/md/level");
        self.virtual_block(name, number, slaves)
            .file(&path, "raid1")
    }

    /// A loop device that shows a file.
    pub fn loop_device(self, name: &str, number: &str, file: &str) -> Self {
        let path = format!("sys/devices/virtual/block/{name}/loop/backing_file");
        self.virtual_block(name, number, &[]).file(&path, file)
    }

    fn block(self, path: &str, number: &str) -> Self {
        let name = path.rsplit('/').next().unwrap();
        self.file(&format!("{path}/dev"), number)
            .link(&format!("sys/class/block/{name}"), path)
            .raw(&format!("dev/{name}"), b"")
    }

    /// A virtio network device.
    pub fn card(self, index: u32, name: &str) -> Self {
        let path = format!("{}/net/{name}", virtio_path(index));
        self.virtio(index, 1)
            .driver(index, "virtio_net")
            .raw(
                &format!("{path}/uevent"),
                format!("INTERFACE={name}\n").as_bytes(),
            )
            .link(&format!("sys/class/net/{name}"), &path)
    }

    /// A network interface that lies on others.
    pub fn virtual_interface(mut self, name: &str, kind: &str, lower: &[&str]) -> Self {
        let path = format!("sys/devices/virtual/net/{name}");
        let uevent = match kind {
            "" => format!("INTERFACE={name}\n"),
            kind => format!("DEVTYPE={kind}\nINTERFACE={name}\n"),
        };
        self = self
            .raw(&format!("{path}/uevent"), uevent.as_bytes())
            .link(&format!("sys/class/net/{name}"), &path);
        for lower in lower {
            let to = format!("sys/class/net/{lower}");
            self = self.link(&format!("{path}/lower_{lower}"), &to);
        }
        self
    }

    /// A mount, as /proc/self/mountinfo has it: with escapes.
    pub fn mount(self, number: &str, point: &str, kind: &str, source: &str) -> Self {
        self.mount_with(number, point, kind, source, "rw")
    }

    /// One with options.
    pub fn mount_with(
        mut self,
        number: &str,
        point: &str,
        kind: &str,
        source: &str,
        options: &str,
    ) -> Self {
        let id = self.mounts.lines().count() + 20;
        let rest = format!("- {kind} {source} {options}");
        writeln!(
            self.mounts,
            "{id} 1 {number} / {point} rw,relatime shared:1 {rest}"
        )
        .unwrap();
        if !point.contains('\\') {
            fs::create_dir_all(self.root.join(point.trim_start_matches('/'))).unwrap();
        }
        let mounts = self.mounts.clone();
        self.raw("proc/self/mountinfo", mounts.as_bytes())
    }

    /// virtio_device_stop is loaded, and this is what the device's files say.
    pub fn module(mut self, index: u32, state: &str, reason: &str) -> Self {
        let files = [
            ("state", state),
            (
                "protocol",
                if state == "unavailable" {
                    "none"
                } else {
                    "device_stop"
                },
            ),
            ("reason", reason),
            ("timeout_ms", "1000"),
            ("lease_ms", "60000"),
            ("generation", "18446744073709551615"),
            ("in_flight", "unknown"),
            ("holder", "none"),
            ("force", "0"),
            ("accept_bit39", "0"),
        ];
        for (name, value) in files {
            self = self.stop_file(index, name, value);
        }
        let stats = format!("{}/device_stop_stats", virtio_path(index));
        self.file(&format!("{stats}/stops"), "3")
            .file(&format!("{stats}/last_stop_us"), "417")
            .file("sys/module/virtio_device_stop/refcnt", "0")
    }

    /// One of the files of virtio_device_stop.
    pub fn stop_file(self, index: u32, name: &str, value: &str) -> Self {
        self.file(&format!("{}/device_stop/{name}", virtio_path(index)), value)
    }
}

/// Where a virtio device is, below the root of the tree.
pub fn virtio_path(index: u32) -> String {
    format!("sys/devices/pci0000:00/0000:00:{index:02x}.0/virtio{index}")
}
