//! chmod(2), chown(2), utimensat(2), access(2).

use base::{Capability, Errno, Result};

use crate::notify::{self, event};
use crate::vfs::{acl, permission};
use crate::{Access, FileKind, FsContext, MountFlags, Path, SetAttributes, SetTime};

fn apply(path: &Path, change: &SetAttributes) -> Result<()> {
    path.inode()?.set_attributes(change)?;
    notify::dentry_event(&path.dentry, event::ATTRIB);
    Ok(())
}

/// chmod(2). `EPERM` for who doesn't own it, `EROFS`, `EOPNOTSUPP` for symbolic links.
pub fn chmod(cx: &FsContext, path: &Path, mode: u32) -> Result<()> {
    let inode = path.inode()?;
    permission::writable_mount(path)?;
    if !permission::is_owner(&cx.cred, inode) {
        return Err(Errno::EPERM);
    }
    if inode.kind() == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut mode = mode & 0o7777;
    if !cx.cred.in_group(inode.gid()) && !cx.cred.capable(Capability::Fsetid) {
        mode &= !0o2000;
    }
    apply(path, &SetAttributes { mode: Some(mode), ..SetAttributes::default() })?;
    acl::chmod(inode, mode)
}

/// chown(2); `None` leaves an id as it is. `EPERM`, `EROFS`.
pub fn chown(cx: &FsContext, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let inode = path.inode()?;
    permission::writable_mount(path)?;
    let (cred, owns) = (&cx.cred, cx.cred.fsuid == inode.uid());
    if !cred.capable(Capability::Chown) {
        let same_owner = owns && uid.is_none_or(|uid| uid == inode.uid());
        let own_group = owns && gid.is_none_or(|gid| gid == inode.gid() || cred.in_group(gid));
        if uid.is_some() && !same_owner || gid.is_some() && !own_group {
            return Err(Errno::EPERM);
        }
    }
    let mut change = SetAttributes { uid, gid, ..SetAttributes::default() };
    if !inode.is_dir() && (uid.is_some() || gid.is_some()) {
        let mode = inode.mode();
        let strip = 0o4000 | if mode & 0o010 != 0 { 0o2000 } else { 0 };
        if mode & strip != 0 {
            change.mode = Some(mode & !strip);
        }
    }
    apply(path, &change)
}

/// utimensat(2); `None` leaves a time as it is (UTIME_OMIT). Both `Now` needs only write permission: `EACCES`; else `EPERM`. `EROFS`.
pub fn set_times(cx: &FsContext, path: &Path, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    let inode = path.inode()?;
    permission::writable_mount(path)?;
    if !permission::is_owner(&cx.cred, inode) {
        let both_now = atime == Some(SetTime::Now) && mtime == Some(SetTime::Now);
        if !both_now {
            return Err(Errno::EPERM);
        }
        permission::check(&cx.cred, inode, Access::WRITE)?;
    }
    apply(path, &SetAttributes { atime, mtime, ..SetAttributes::default() })
}

/// access(2), with the credentials in `cx` (the caller puts the real ids there unless AT_EACCESS). `EACCES`, `EROFS`.
pub fn access(cx: &FsContext, path: &Path, wanted: Access) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let inode = path.inode()?;
    let noexec = path.mount.flags().contains(MountFlags::NOEXEC);
    if wanted.contains(Access::EXEC) && inode.kind() == FileKind::Regular && noexec {
        return Err(Errno::EACCES);
    }
    permission::check(&cx.cred, inode, wanted)?;
    permission::check_path(cx, path, wanted)
}
