//! `/proc/PID/ns`: files that stand for the namespaces of a process (namespaces(7)), for setns(2) and for telling them apart.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use base::{Errno, Result};
use fs::vfs::pseudo::NAMESPACES;
use fs::{File, FileKind, FsContext, Inode, InodeOps, IoctlContext, MountNamespace, OpenFile, OpenFlags, Path};

use crate::Task;
use crate::fork::flags;

/// What a namespace is about.
#[derive(Clone)]
pub enum Namespace {
    /// Mounts.
    Mount(Arc<MountNamespace>),
    /// A kind of which there is one for all processes.
    Only(&'static Only),
}

/// A kind of namespace of which there is one: its name in `/proc/PID/ns`, its number, and its flag of clone(2).
pub struct Only {
    /// The name in `/proc/PID/ns`.
    pub name: &'static str,
    /// What the link shows in front of the number.
    label: &'static str,
    number: u64,
    flag: u64,
}

const fn only(name: &'static str, label: &'static str, number: u64, flag: u64) -> Only {
    Only { name, label, number, flag }
}

/// Those kinds, with the numbers that the first ones have on Linux.
pub static ONLY: [Only; 9] = [
    only("cgroup", "cgroup", 0xefff_fffb, flags::CLONE_NEWCGROUP),
    only("ipc", "ipc", 0xefff_ffff, flags::CLONE_NEWIPC),
    only("net", "net", 0xf000_0000, flags::CLONE_NEWNET),
    only("pid", "pid", 0xefff_fffc, flags::CLONE_NEWPID),
    only("pid_for_children", "pid", 0xefff_fffc, flags::CLONE_NEWPID),
    only("time", "time", 0xefff_fffa, flags::CLONE_NEWTIME),
    only("time_for_children", "time", 0xefff_fffa, flags::CLONE_NEWTIME),
    only("user", "user", 0xefff_fffd, flags::CLONE_NEWUSER),
    only("uts", "uts", 0xefff_fffe, flags::CLONE_NEWUTS),
];

impl Namespace {
    /// Its flag of clone(2).
    pub fn flag(&self) -> u64 {
        match self {
            Namespace::Mount(_) => flags::CLONE_NEWNS,
            Namespace::Only(kind) => kind.flag,
        }
    }

    /// The file that stands for it.
    pub fn path(&self) -> Path {
        let (label, number) = match self {
            Namespace::Mount(namespace) => ("mnt", namespace.id),
            Namespace::Only(kind) => (kind.label, kind.number),
        };
        let inode = NAMESPACES.inode_with(number, FileKind::Regular, 0o444, Box::new(Node(self.clone())));
        NAMESPACES.path(&inode, format!("{label}:[{number}]").as_bytes())
    }

    /// The namespace that an open file stands for. `EINVAL`.
    pub fn of(open: &OpenFile) -> Result<Namespace> {
        open.file().downcast::<Opened>().map(|opened| opened.0.clone()).ok_or(Errno::EINVAL)
    }
}

struct Node(Namespace);

impl InodeOps for Node {
    fn open(&self, _inode: &Arc<Inode>, flags: OpenFlags, _cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        if flags.access().contains(fs::Access::WRITE) {
            return Err(Errno::EPERM);
        }
        Ok(Some(Arc::new(Opened(self.0.clone()))))
    }
}

/// An open file that stands for a namespace.
struct Opened(Namespace);

impl File for Opened {
    /// ioctl_ns(2). `ENOTTY`; `EPERM` where the answer is a user namespace out of reach.
    fn ioctl(&self, _cx: &IoctlContext, request: u32, _arg: usize) -> Result<usize> {
        const NS_GET_USERNS: u32 = 0xb701;
        const NS_GET_PARENT: u32 = 0xb702;
        const NS_GET_NSTYPE: u32 = 0xb703;
        const NS_GET_OWNER_UID: u32 = 0xb704;
        let flag = self.0.flag();
        match request {
            NS_GET_NSTYPE => Ok(flag as usize),
            // The first namespaces belong to the first user namespace, which nobody is outside of.
            NS_GET_USERNS => Err(Errno::EPERM),
            NS_GET_PARENT if flag & (flags::CLONE_NEWPID | flags::CLONE_NEWUSER) != 0 => Err(Errno::EPERM),
            NS_GET_PARENT => Err(Errno::EINVAL),
            NS_GET_OWNER_UID if flag == flags::CLONE_NEWUSER => Ok(0),
            NS_GET_OWNER_UID => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn pollable(&self) -> bool {
        false
    }
}

/// The file for one of the namespaces of a thread, by its name in `/proc/PID/ns`. `ENOENT`.
pub(crate) fn file_of(task: &Task, name: &[u8]) -> Result<Path> {
    if name == b"mnt" {
        let fs = task.fs_if_alive().ok_or(Errno::ENOENT)?;
        return Ok(Namespace::Mount(fs.namespace()).path());
    }
    let kind = ONLY.iter().find(|kind| kind.name.as_bytes() == name).ok_or(Errno::ENOENT)?;
    Ok(Namespace::Only(kind).path())
}
