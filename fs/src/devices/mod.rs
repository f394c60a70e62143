//! The devices that every system has, and the tree of `/dev` (devtmpfs).

mod kmsg;
mod memory;
pub mod port;

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::{Errno, Result};
use hal::sync::Once;

pub use memory::Random;

use crate::tmpfs::{self, Directory, Options};
use crate::{DeviceNumber, FileKind, FileSystem, FsContext, Inode, NewInode, OpenFlags, chardev};

/// Registers the drivers. Once, at boot.
pub fn register() -> Result<()> {
    memory::register()?;
    let kmsg = |_: DeviceNumber, _: &FsContext, _: OpenFlags| Ok(kmsg::Kmsg::open());
    chardev::register("/dev/kmsg", 1, 11, 11, Arc::new(chardev::OpenWith(Box::new(kmsg))))
}

/// Name, permission bits, group and numbers of the device files in `/dev`.
const NODES: [(&str, u32, u32, DeviceNumber); 12] = [
    ("null", 0o666, 0, DeviceNumber::new(1, 3)),
    ("zero", 0o666, 0, DeviceNumber::new(1, 5)),
    ("full", 0o666, 0, DeviceNumber::new(1, 7)),
    ("random", 0o666, 0, DeviceNumber::new(1, 8)),
    ("urandom", 0o666, 0, DeviceNumber::new(1, 9)),
    ("kmsg", 0o644, 0, DeviceNumber::new(1, 11)),
    ("tty", 0o666, 5, DeviceNumber::new(5, 0)),
    ("console", 0o600, 5, DeviceNumber::new(5, 1)),
    ("ptmx", 0o666, 5, DeviceNumber::new(5, 2)),
    ("ttyS0", 0o620, 5, DeviceNumber::new(4, 64)),
    ("ttyS1", 0o620, 5, DeviceNumber::new(4, 65)),
    ("ttyS2", 0o620, 5, DeviceNumber::new(4, 66)),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

const DIRECTORIES: [(&str, u32); 3] = [("pts", 0o755), ("shm", 0o1777), ("net", 0o755)];

/// Device files in those directories.
const INSIDE: [(&str, &str, u32, DeviceNumber); 1] = [("net", "tun", 0o666, DeviceNumber::new(10, 200))];

fn populate(root: &Arc<Inode>) -> Result<()> {
    let add = |name: &str, kind, mode, gid, rdev, target: &str| {
        let new = NewInode { kind, mode, uid: 0, gid, rdev, target: target.as_bytes() };
        root.ops().create(root, name.as_bytes(), &new)
    };
    for (name, mode, gid, rdev) in NODES {
        add(name, FileKind::CharDevice, mode, gid, rdev, "")?;
    }
    for (name, target) in LINKS {
        add(name, FileKind::Symlink, 0o777, 0, DeviceNumber::default(), target)?;
    }
    for (name, mode) in DIRECTORIES {
        let directory = add(name, FileKind::Directory, mode, 0, DeviceNumber::default(), "")?;
        root.add_link();
        for (_, name, mode, rdev) in INSIDE.iter().filter(|(parent, ..)| *parent == name) {
            let new = NewInode { kind: FileKind::CharDevice, mode: *mode, uid: 0, gid: 0, rdev: *rdev, target: b"" };
            directory.ops().create(&directory, name.as_bytes(), &new)?;
        }
    }
    Ok(())
}

static DEV: Once<Arc<Inode>> = Once::new();

/// The kind "devtmpfs" for mount(2). All mounts show the same.
pub struct Kind;

impl Kind {
    fn root(&self) -> Result<&'static Arc<Inode>> {
        if DEV.get().is_none() {
            let root = tmpfs::instance("devtmpfs", &Options { mode: 0o755, ..Options::default() })?;
            populate(&root)?;
            let _ = DEV.set(root);
        }
        DEV.get().ok_or(Errno::ENOMEM)
    }
}

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "devtmpfs"
    }

    fn mount(&self, _source: &[u8], _options: &[u8]) -> Result<Arc<Inode>> {
        self.root().cloned()
    }
}

/// Adds a device file to `/dev`, for a driver that found its device. `EEXIST`, `ENOMEM`.
pub fn add_node(name: &str, kind: FileKind, mode: u32, gid: u32, rdev: DeviceNumber) -> Result<()> {
    let root = Kind.root()?;
    let directory = root.ops_as::<Directory>().ok_or(Errno::EINVAL)?;
    if directory.get(name.as_bytes()).is_some() {
        return Err(Errno::EEXIST);
    }
    let new = NewInode { kind, mode, uid: 0, gid, rdev, target: b"" };
    root.ops().create(root, name.as_bytes(), &new).map(drop)
}

/// Takes a device file out of `/dev`: its device is gone.
pub fn remove_node(name: &str) {
    if let Ok(root) = Kind.root()
        && let Some(directory) = root.ops_as::<Directory>()
    {
        drop(directory.remove(name.as_bytes()));
    }
}
