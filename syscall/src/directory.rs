//! Names in directories: mkdir, rmdir, link, symlink, unlink, rename, readlink, mknod, getdents; working directory and root.

use alloc::vec::Vec;

use base::{Capability, Errno, Result};
use fs::vfs::rename::RenameMode;
use fs::vfs::{change, create, permission, rename as vfs_rename};
use fs::{Access, DeviceNumber, DirEntry, Fd, FileKind, Path};
use hal::user;

use crate::args::Args;
use crate::context::Context;
use crate::path::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, At, UserString, only};

fn mkdir_at(cx: &Context, dirfd: Fd, path: usize, mode: u32) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    create::mkdir(&at.cx, at.base(), at.path(), mode).map(|()| 0)
}

pub(crate) fn mkdir(cx: &mut Context, a: Args) -> Result<usize> {
    mkdir_at(cx, AT_FDCWD, a.0[0], a.uint(1))
}

pub(crate) fn mkdirat(cx: &mut Context, a: Args) -> Result<usize> {
    mkdir_at(cx, a.fd(0), a.0[1], a.uint(2))
}

fn mknod_at(cx: &Context, dirfd: Fd, path: usize, mode: u32, dev: u32) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    create::mknod(&at.cx, at.base(), at.path(), mode, DeviceNumber::decode(dev)).map(|()| 0)
}

pub(crate) fn mknod(cx: &mut Context, a: Args) -> Result<usize> {
    mknod_at(cx, AT_FDCWD, a.0[0], a.uint(1), a.uint(2))
}

pub(crate) fn mknodat(cx: &mut Context, a: Args) -> Result<usize> {
    mknod_at(cx, a.fd(0), a.0[1], a.uint(2), a.uint(3))
}

fn unlink_at(cx: &Context, dirfd: Fd, path: usize, directory: bool) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    let remove = if directory { change::rmdir } else { change::unlink };
    remove(&at.cx, at.base(), at.path()).map(|()| 0)
}

pub(crate) fn unlink(cx: &mut Context, a: Args) -> Result<usize> {
    unlink_at(cx, AT_FDCWD, a.0[0], false)
}

pub(crate) fn rmdir(cx: &mut Context, a: Args) -> Result<usize> {
    unlink_at(cx, AT_FDCWD, a.0[0], true)
}

pub(crate) fn unlinkat(cx: &mut Context, a: Args) -> Result<usize> {
    const AT_REMOVEDIR: u32 = 0x200;
    let flags = only(a.uint(2), AT_REMOVEDIR)?;
    unlink_at(cx, a.fd(0), a.0[1], flags != 0)
}

fn symlink_at(cx: &Context, target: usize, dirfd: Fd, path: usize) -> Result<usize> {
    let target = UserString::path(target)?;
    let at = At::new(cx.task, dirfd, path)?;
    create::symlink(&at.cx, target.bytes(), at.base(), at.path()).map(|()| 0)
}

pub(crate) fn symlink(cx: &mut Context, a: Args) -> Result<usize> {
    symlink_at(cx, a.0[0], AT_FDCWD, a.0[1])
}

pub(crate) fn symlinkat(cx: &mut Context, a: Args) -> Result<usize> {
    symlink_at(cx, a.0[0], a.fd(1), a.0[2])
}

fn link_at(cx: &Context, from: (Fd, usize), to: (Fd, usize), flags: u32) -> Result<usize> {
    if flags & AT_EMPTY_PATH != 0 && !cx.task.cred().capable(Capability::DacReadSearch) {
        return Err(Errno::ENOENT);
    }
    let old = At::new(cx.task, from.0, from.1)?.lookup(flags & AT_SYMLINK_FOLLOW != 0, flags)?;
    let new = At::new(cx.task, to.0, to.1)?;
    create::link(&new.cx, &old, new.base(), new.path()).map(|()| 0)
}

pub(crate) fn link(cx: &mut Context, a: Args) -> Result<usize> {
    link_at(cx, (AT_FDCWD, a.0[0]), (AT_FDCWD, a.0[1]), 0)
}

pub(crate) fn linkat(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(4), AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    link_at(cx, (a.fd(0), a.0[1]), (a.fd(2), a.0[3]), flags)
}

fn rename_at(cx: &Context, from: (Fd, usize), to: (Fd, usize), mode: RenameMode) -> Result<usize> {
    let old = At::new(cx.task, from.0, from.1)?;
    let new = At::new(cx.task, to.0, to.1)?;
    vfs_rename::rename(&old.cx, (old.base(), old.path()), (new.base(), new.path()), mode).map(|()| 0)
}

pub(crate) fn rename(cx: &mut Context, a: Args) -> Result<usize> {
    rename_at(cx, (AT_FDCWD, a.0[0]), (AT_FDCWD, a.0[1]), RenameMode::Replace { whiteout: false })
}

pub(crate) fn renameat(cx: &mut Context, a: Args) -> Result<usize> {
    rename_at(cx, (a.fd(0), a.0[1]), (a.fd(2), a.0[3]), RenameMode::Replace { whiteout: false })
}

pub(crate) fn renameat2(cx: &mut Context, a: Args) -> Result<usize> {
    const NOREPLACE: u32 = 1;
    const EXCHANGE: u32 = 2;
    const WHITEOUT: u32 = 4;
    let whiteout = a.uint(4) & WHITEOUT != 0;
    let mode = match a.uint(4) & !WHITEOUT {
        0 => RenameMode::Replace { whiteout },
        NOREPLACE => RenameMode::NoReplace { whiteout },
        EXCHANGE if !whiteout => RenameMode::Exchange,
        _ => return Err(Errno::EINVAL),
    };
    rename_at(cx, (a.fd(0), a.0[1]), (a.fd(2), a.0[3]), mode)
}

fn readlink_at(cx: &Context, dirfd: Fd, path: usize, buffer: usize, size: i32) -> Result<usize> {
    let size = usize::try_from(size).ok().filter(|&s| s > 0).ok_or(Errno::EINVAL)?;
    let at = At::new(cx.task, dirfd, path)?;
    let empty = at.path().is_empty();
    // An O_PATH descriptor may stand for the link itself.
    let found = at.lookup(false, if dirfd == AT_FDCWD { 0 } else { AT_EMPTY_PATH })?;
    let inode = found.inode()?;
    if inode.kind() != FileKind::Symlink {
        return Err(if empty { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = inode.ops().link_text(&at.cx)?;
    inode.accessed();
    let len = text.len().min(size);
    user::copy_out(buffer, &text[..len])?;
    Ok(len)
}

pub(crate) fn readlink(cx: &mut Context, a: Args) -> Result<usize> {
    readlink_at(cx, AT_FDCWD, a.0[0], a.0[1], a.int(2))
}

pub(crate) fn readlinkat(cx: &mut Context, a: Args) -> Result<usize> {
    readlink_at(cx, a.fd(0), a.0[1], a.0[2], a.int(3))
}

/// Checks that the path is a directory in which the caller may search.
fn enterable(cx: &fs::FsContext, path: &Path) -> Result<()> {
    if !path.inode()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    permission::check_path(cx, path, Access::EXEC)
}

pub(crate) fn chdir(cx: &mut Context, a: Args) -> Result<usize> {
    let at = At::cwd(cx.task, a.0[0])?;
    let found = at.lookup(true, 0)?;
    enterable(&at.cx, &found)?;
    cx.task.fs().set_cwd(found);
    Ok(0)
}

pub(crate) fn fchdir(cx: &mut Context, a: Args) -> Result<usize> {
    let found = cx.task.files().get_any(a.fd(0))?.path().clone();
    enterable(&cx.task.fs_context(), &found)?;
    cx.task.fs().set_cwd(found);
    Ok(0)
}

pub(crate) fn chroot(cx: &mut Context, a: Args) -> Result<usize> {
    let at = At::cwd(cx.task, a.0[0])?;
    let found = at.lookup(true, 0)?;
    enterable(&at.cx, &found)?;
    if !at.cx.cred.capable(Capability::SysChroot) {
        return Err(Errno::EPERM);
    }
    cx.task.fs().set_root(found);
    Ok(0)
}

pub(crate) fn getcwd(cx: &mut Context, a: Args) -> Result<usize> {
    let fs = cx.task.fs_context();
    let mut name = fs.cwd.name_for_cwd(&fs.root)?;
    name.push(0);
    if name.len() > a.size(1) {
        return Err(Errno::ERANGE);
    }
    user::copy_out(a.0[0], &name)?;
    Ok(name.len())
}

/// The most that one call lists.
const LIST_MAX: usize = 64 << 10;

/// Lists a directory into a kernel buffer, entry by entry as `encode` lays them out (`None`: doesn't fit), and copies it out.
/// `EINVAL` where not even one entry fits.
fn list(cx: &Context, a: Args, encode: fn(&mut Vec<u8>, &DirEntry, usize) -> Option<()>) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    let size = (a.uint(2) as usize).min(LIST_MAX);
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(size.min(LIST_MAX)).map_err(|_| Errno::ENOMEM)?;
    let mut full = false;
    open.list(&mut |entry| {
        full = encode(&mut buffer, entry, size).is_none();
        !full
    })?;
    if buffer.is_empty() {
        return if full { Err(Errno::EINVAL) } else { Ok(0) };
    }
    user::copy_out(a.0[1], &buffer)?;
    Ok(buffer.len())
}

/// `struct linux_dirent64`: inode, offset, length of the record, type, name.
fn encode64(buffer: &mut Vec<u8>, entry: &DirEntry, size: usize) -> Option<()> {
    let len = (19 + entry.name.len() + 1).next_multiple_of(8);
    if buffer.len() + len > size {
        return None;
    }
    let end = buffer.len() + len;
    buffer.extend_from_slice(&entry.inode.to_le_bytes());
    buffer.extend_from_slice(&entry.next.to_le_bytes());
    buffer.extend_from_slice(&(len as u16).to_le_bytes());
    buffer.push(entry.kind.dirent_type());
    buffer.extend_from_slice(entry.name);
    buffer.resize(end, 0);
    Some(())
}

/// `struct linux_dirent`: as the other, but the type is the record's last byte.
fn encode_old(buffer: &mut Vec<u8>, entry: &DirEntry, size: usize) -> Option<()> {
    let len = (18 + entry.name.len() + 2).next_multiple_of(8);
    if buffer.len() + len > size {
        return None;
    }
    let end = buffer.len() + len;
    buffer.extend_from_slice(&entry.inode.to_le_bytes());
    buffer.extend_from_slice(&entry.next.to_le_bytes());
    buffer.extend_from_slice(&(len as u16).to_le_bytes());
    buffer.extend_from_slice(entry.name);
    buffer.resize(end - 1, 0);
    buffer.push(entry.kind.dirent_type());
    Some(())
}

pub(crate) fn getdents64(cx: &mut Context, a: Args) -> Result<usize> {
    list(cx, a, encode64)
}

pub(crate) fn getdents(cx: &mut Context, a: Args) -> Result<usize> {
    list(cx, a, encode_old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_refused_where_they_do_not_fit() {
        let entry = DirEntry { name: b"abc", inode: 7, kind: FileKind::Directory, next: 3 };
        let mut buffer = Vec::new();
        assert!(encode64(&mut buffer, &entry, 24).is_some());
        assert_eq!((buffer.len(), buffer[16], buffer[18], &buffer[19..23]), (24, 24, 4, &b"abc\0"[..]));
        assert!(encode64(&mut buffer, &entry, 47).is_none());
        assert_eq!(buffer.len(), 24);
        let mut old = Vec::new();
        assert!(encode_old(&mut old, &entry, 24).is_some());
        assert_eq!((old.len(), old[23], &old[18..22]), (24, 4, &b"abc\0"[..]));
    }
}
