//! Module 3, file systems: the virtual file system, descriptors, and the file systems themselves.
//!
//! From the outside in: a [`FdTable`] maps descriptor numbers to [`OpenFile`]s (POSIX's open file descriptions), each of which holds a
//! [`File`], the object that reads and writes. Names lead to files through [`Path`]s, a mount and a dentry in the cache of names
//! ([`vfs`]), below which an [`Inode`] is a file of some file system. The file systems are modules of their own: [`ext4`], [`tmpfs`],
//! [`procfs`], [`sysfs`], [`devpts`]; [`block`] is the disks below them, [`writeback`] the thread that writes what is dirty; [`chardev`] registers devices, [`tty`] is terminals.
//!
//! May depend on `mm`, `sched` and `hal`. Operations take a [`FsContext`] and never ask who is "current"; what the layers above must
//! answer comes through small traits that they register (`tty::JobControl`, `procfs::PidRoot`).
//!
//! Lock order (outermost first): rename lock -> directory locks (ancestors first, then by address) -> position of an open file ->
//! file system's own sleeping locks -> changes of mounts -> a namespace's mounts, a mount's children, its links (one at a
//! time) -> dentry's children -> dentry's place -> inode attributes -> page cache.
//! Those up to the changes of mounts sleep; the others are spin locks.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod async_notify;
mod attributes;
pub mod block;
pub mod boot;
mod bytes;
pub mod callers;
pub mod chardev;
mod context;
mod crc32c;
#[cfg(test)]
mod damage;
pub mod devices;
mod direct;
pub mod directory_notify;
mod erofs;
pub mod ext4;
pub mod fanotify;
mod fd_table;
mod file;
mod flags;
pub mod fuse;
mod image;
pub mod initramfs;
mod inode;
mod inode_table;
pub mod inotify;
mod jbd2;
pub mod landlock;
pub mod lease;
pub mod lock;
pub mod memfd;
pub mod ninep;
pub mod notify;
mod open_file;
mod overlayfs;
mod poll;
pub mod procfs;
mod remote;
mod squashfs;
pub mod sysfs;
pub mod tmpfs;
pub mod tty;
pub mod vfs;
pub mod writeback;
pub mod xattr;

pub use async_notify::AsyncOwner;
pub use attributes::{
    Attributes, DeviceNumber, DirEntry, FileKind, Found, LinkTarget, Metadata, NewInode, SetAttributes, SetTime,
};
pub use context::FsContext;
pub use fd_table::{Descriptor, Fd, FdTable};
pub use file::{File, Io, IoctlContext, Mapping, SeekFrom};
pub use flags::{Access, OpenFlags};
pub use inode::{Inode, InodeOps};
pub use lock::{FileLocks, LockKind, LockOwner, RangeLock, WholeLock};
pub use open_file::{Hold, MappedFile, OpenFile};
pub use poll::{ALWAYS_READY, PollTable};
pub use vfs::dentry::Dentry;
pub use vfs::exec::open_exec;
pub use vfs::mount::{Mount, MountFlags, MountNamespace, SuperFlags};
pub use vfs::path::Path;
pub use vfs::superblock::{FileSystem, FsStats, SuperBlock, SuperOps};
