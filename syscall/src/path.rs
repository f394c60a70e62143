//! Arguments that name files: path strings and directory descriptors.

use alloc::vec::Vec;

use base::{Errno, Result};
use fs::{Fd, FsContext, OpenFlags, Path};
use hal::user;
use process::Task;

/// The longest path with its NUL (PATH_MAX).
const PATH_MAX: usize = 4096;
/// Paths of up to this length are read without allocating.
const INLINE: usize = 256;

/// AT_FDCWD.
pub(crate) const AT_FDCWD: Fd = -100;
/// AT_SYMLINK_NOFOLLOW.
pub(crate) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// AT_SYMLINK_FOLLOW.
pub(crate) const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// AT_NO_AUTOMOUNT.
pub(crate) const AT_NO_AUTOMOUNT: u32 = 0x800;
/// AT_EMPTY_PATH.
pub(crate) const AT_EMPTY_PATH: u32 = 0x1000;

/// A path (or other name) copied in.
pub(crate) struct UserString {
    inline: [u8; INLINE],
    heap: Vec<u8>,
    len: usize,
}

impl UserString {
    /// Copies a path in. `EFAULT`, `ENAMETOOLONG`, `ENOMEM`.
    pub(crate) fn path(addr: usize) -> Result<UserString> {
        UserString::read(addr, PATH_MAX)
    }

    /// Copies a string of at most `max` bytes, its NUL included. `EFAULT`, `ENAMETOOLONG`, `ENOMEM`.
    pub(crate) fn read(addr: usize, max: usize) -> Result<UserString> {
        let mut string = UserString { inline: [0; INLINE], heap: Vec::new(), len: 0 };
        let short = &mut string.inline[..max.min(INLINE)];
        match user::read_cstr(short, addr).map(|s| s.len()) {
            Ok(len) => string.len = len,
            Err(Errno::ENAMETOOLONG) if max > INLINE => {
                string.heap.try_reserve_exact(max).map_err(|_| Errno::ENOMEM)?;
                string.heap.resize(max, 0);
                string.len = user::read_cstr(&mut string.heap, addr)?.len();
            }
            Err(error) => return Err(error),
        }
        Ok(string)
    }

    /// The bytes, without the NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        let all = if self.heap.is_empty() { &self.inline[..] } else { &self.heap };
        &all[..self.len]
    }
}

/// A path argument with the directory it is relative to.
pub(crate) struct At {
    /// Who asks.
    pub(crate) cx: FsContext,
    base: Option<Path>,
    path: UserString,
}

impl At {
    /// The path at `addr`, relative to `dirfd`, which is looked at only if it has to be. `EBADF`, `ENOTDIR` (not with an empty path), and
    /// what copying gives.
    pub(crate) fn new(task: &Task, dirfd: Fd, addr: usize) -> Result<At> {
        At::with(task, dirfd, UserString::path(addr)?)
    }

    /// As [`At::new`], where a NULL address with AT_EMPTY_PATH is an empty path.
    pub(crate) fn or_empty(task: &Task, dirfd: Fd, addr: usize, flags: u32) -> Result<At> {
        if addr == 0 && flags & AT_EMPTY_PATH != 0 {
            return At::with(task, dirfd, UserString { inline: [0; INLINE], heap: Vec::new(), len: 0 });
        }
        At::new(task, dirfd, addr)
    }

    /// The path at `addr`, relative to the working directory.
    pub(crate) fn cwd(task: &Task, addr: usize) -> Result<At> {
        At::new(task, AT_FDCWD, addr)
    }

    fn with(task: &Task, dirfd: Fd, path: UserString) -> Result<At> {
        let absolute = path.bytes().first() == Some(&b'/');
        let base = if absolute || dirfd == AT_FDCWD {
            None
        } else {
            let found = task.files().get_any(dirfd)?.path().clone();
            if !path.bytes().is_empty() && !found.inode()?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            Some(found)
        };
        Ok(At { cx: task.fs_context(), base, path })
    }

    /// The directory that the path is relative to; `None` for the working directory.
    pub(crate) fn base(&self) -> Option<&Path> {
        self.base.as_ref()
    }

    /// The path's bytes.
    pub(crate) fn path(&self) -> &[u8] {
        self.path.bytes()
    }

    /// The file that it names; the base itself for an empty path if `flags` have AT_EMPTY_PATH.
    pub(crate) fn lookup(&self, follow: bool, flags: u32) -> Result<Path> {
        fs::vfs::walk::lookup_at(&self.cx, self.base(), self.path(), follow, flags & AT_EMPTY_PATH != 0)
    }

    /// As [`At::lookup`], following as AT_SYMLINK_NOFOLLOW says.
    pub(crate) fn lookup_by_flags(&self, flags: u32) -> Result<Path> {
        self.lookup(flags & AT_SYMLINK_NOFOLLOW == 0, flags)
    }
}

/// `EINVAL` for flags that a call doesn't know.
pub(crate) fn only(flags: u32, known: u32) -> Result<u32> {
    if flags & !known == 0 { Ok(flags) } else { Err(Errno::EINVAL) }
}

/// The flags of open(2) out of an argument: unknown bits are ignored.
pub(crate) fn open_flags(bits: u32) -> OpenFlags {
    OpenFlags::from_bits_truncate(bits) | OpenFlags::from_bits_retain(bits & abi::general::O_ACCMODE)
}
