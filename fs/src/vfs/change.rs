//! unlink(2), rmdir(2), and truncate(2).

use alloc::sync::Arc;

use base::{Errno, Result};

use crate::landlock;
use crate::lease;
use crate::notify::{self, event};
use crate::vfs::create::existing;
use crate::vfs::walk::{Last, Resolve, Walk};
use crate::vfs::{permission, regular};
use crate::{Access, Dentry, FileKind, FsContext, Inode, OpenFlags, Path};

/// Checks that the caller may take `victim` out of `dir`. `EACCES`, `EPERM`, `EROFS`.
pub(crate) fn may_remove(cx: &FsContext, dir: &Path, victim: &Inode) -> Result<()> {
    permission::check_path(cx, dir, Access::WRITE | Access::EXEC)?;
    permission::check_sticky(&cx.cred, &**dir.inode()?, victim)
}

/// unlink(2). `EISDIR` for directories, `ENOENT`, `ENOTDIR` (slashes behind a file), `EBUSY` (mount point), ...
pub fn unlink(cx: &FsContext, base: Option<&Path>, path: &[u8]) -> Result<()> {
    let mut walk = Walk::new(cx, base, Resolve::empty());
    let tail = walk.to_parent(path)?;
    let Last::Name(name) = tail.last else { return Err(Errno::EISDIR) };
    let dir = walk.at;
    let dir_inode = dir.inode()?.clone();
    let victim = {
        let _held = dir_inode.content.lock();
        let (dentry, inode) = existing(&dir, name)?;
        if tail.slash {
            return Err(if inode.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        landlock::remove(cx, &dir, &inode)?;
        may_remove(cx, &dir, &inode)?;
        if inode.is_dir() {
            return Err(Errno::EISDIR);
        }
        if dentry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        dir_inode.ops().unlink(&dir_inode, name, &inode)?;
        inode.drop_link();
        removed(&dir, &dentry, name, &inode);
        inode
    };
    // Its pages may be many: they go after the directory is unlocked.
    drop(victim);
    Ok(())
}

/// rmdir(2). `EINVAL` for `.`, `ENOTEMPTY` for `..`, `EBUSY` for roots and mount points, `ENOTDIR`.
pub fn rmdir(cx: &FsContext, base: Option<&Path>, path: &[u8]) -> Result<()> {
    let mut walk = Walk::new(cx, base, Resolve::empty());
    let name = match walk.to_parent(path)?.last {
        Last::Name(name) => name,
        Last::Up => return Err(Errno::ENOTEMPTY),
        Last::Here if path.iter().all(|&b| b == b'/') => return Err(Errno::EBUSY),
        Last::Here => return Err(Errno::EINVAL),
    };
    let dir = walk.at;
    let dir_inode = dir.inode()?.clone();
    let _held = dir_inode.content.lock();
    let (dentry, inode) = existing(&dir, name)?;
    landlock::remove(cx, &dir, &inode)?;
    may_remove(cx, &dir, &inode)?;
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if dentry.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    let _victim_held = inode.content.lock();
    dir_inode.ops().unlink(&dir_inode, name, &inode)?;
    inode.set_nlink(0);
    inode.changed();
    dir_inode.drop_link();
    removed(&dir, &dentry, name, &inode);
    Ok(())
}

/// What follows when a name was taken out of the directory.
pub(crate) fn removed(dir: &Path, dentry: &Arc<Dentry>, name: &[u8], inode: &Arc<Inode>) {
    dir.dentry.remove_child(dentry);
    if let Ok(dir_inode) = dir.inode() {
        dir_inode.modified();
        notify::name_event(dir_inode, event::DELETE, name, inode, 0);
    }
    notify::inode_event(inode, if inode.nlink() == 0 { event::DELETE_SELF } else { event::ATTRIB });
}

/// truncate(2). `EISDIR`, `EINVAL` (no regular file), `EACCES`, `ETXTBSY`, `EPERM`, `EROFS`.
pub fn truncate(cx: &FsContext, path: &Path, size: u64) -> Result<()> {
    let inode = path.inode()?;
    match inode.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    permission::check_path(cx, path, Access::WRITE)?;
    inode.get_write()?;
    let result = lease::break_leases(inode, true, OpenFlags::empty())
        .and_then(|()| regular::resize(inode, size))
        .and_then(|()| regular::strip_ids(inode));
    inode.put_write();
    notify::dentry_event(&path.dentry, event::MODIFY);
    result
}
