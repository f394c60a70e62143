//! The vocabulary of inodes: types, numbers, attributes, directory entries.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::general as c;

use crate::{Inode, Path};

/// A device number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs, reason = "makedev(3) names the halves")]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

impl DeviceNumber {
    /// Device `major:minor`.
    pub const fn new(major: u32, minor: u32) -> DeviceNumber {
        DeviceNumber { major, minor }
    }

    /// From the value that mknod(2) takes (Linux's `new_decode_dev`).
    pub const fn decode(dev: u32) -> DeviceNumber {
        DeviceNumber { major: (dev & 0xfff00) >> 8, minor: (dev & 0xff) | ((dev >> 12) & 0xfff00) }
    }

    /// The value that stat(2) gives.
    pub const fn encode(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
    }
}

/// The type of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "inode(7) names them")]
pub enum FileKind {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
    /// Anonymous inodes (eventfd, epoll, ...) have no type.
    None,
}

impl FileKind {
    /// The type bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileKind::Fifo => c::S_IFIFO,
            FileKind::CharDevice => c::S_IFCHR,
            FileKind::Directory => c::S_IFDIR,
            FileKind::BlockDevice => c::S_IFBLK,
            FileKind::Regular => c::S_IFREG,
            FileKind::Symlink => c::S_IFLNK,
            FileKind::Socket => c::S_IFSOCK,
            FileKind::None => 0,
        }
    }

    /// The type that a mode's type bits name; `None` if they name none.
    pub const fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & c::S_IFMT {
            c::S_IFIFO => FileKind::Fifo,
            c::S_IFCHR => FileKind::CharDevice,
            c::S_IFDIR => FileKind::Directory,
            c::S_IFBLK => FileKind::BlockDevice,
            c::S_IFREG => FileKind::Regular,
            c::S_IFLNK => FileKind::Symlink,
            c::S_IFSOCK => FileKind::Socket,
            _ => return None,
        })
    }

    /// The `d_type` of getdents64(2).
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// An entry of a directory as listed.
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Inode number.
    pub inode: u64,
    /// The file's type.
    pub kind: FileKind,
    /// The position after this entry (`d_off`).
    pub next: u64,
}

/// What a directory has under a name.
pub struct Found {
    /// The file, or `None`.
    pub inode: Option<Arc<Inode>>,
    /// May the answer be kept in the cache of names? (Not where the directory changes by itself, as `/proc`.)
    pub cacheable: bool,
}

/// Where a symbolic link leads.
pub enum LinkTarget {
    /// To a path, to be walked.
    Path(Vec<u8>),
    /// Straight to a file (`/proc/PID/fd/N` and the like).
    File(Path),
}

/// What a new file is to be.
#[derive(Clone, Copy)]
pub struct NewInode<'a> {
    /// Type.
    pub kind: FileKind,
    /// Permission bits, umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device of a device file.
    pub rdev: DeviceNumber,
    /// The target of a symbolic link.
    pub target: &'a [u8],
}

/// The attributes that all inodes have. Times are in nanoseconds since 1970, possibly before.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "inode(7) names them")]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub btime: i64,
}

/// What stat(2) and statx(2) tell.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "stat(3type) names them")]
pub struct Metadata {
    pub device: DeviceNumber,
    pub inode: u64,
    pub kind: FileKind,
    pub attributes: Attributes,
    pub rdev: DeviceNumber,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub block_size: u32,
}

/// How utimensat(2) changes a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// To the time of the change.
    Now,
    /// To this, in nanoseconds since 1970.
    At(i64),
}

/// A change of attributes, permission for which has been checked.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs, reason = "inode(7) names them")]
pub struct SetAttributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_a_round_trip() {
        for (major, minor) in [(1, 3), (136, 0), (136, 300), (0xfff, 0xfffff), (254, 256)] {
            let device = DeviceNumber::new(major, minor);
            assert_eq!(DeviceNumber::decode(device.encode() as u32), device);
        }
        assert_eq!(DeviceNumber::new(1, 3).encode(), 0x103);
    }
}
