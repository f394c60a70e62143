//! Extended attributes: who may use which name space (xattr(7)).

use alloc::vec::Vec;

use base::{Capability, Errno, Result};

use crate::notify::{self, event};
use crate::vfs::acl::{self, Acl};
use crate::vfs::permission;
use crate::xattr::{SetMode, XattrStore};
use crate::{Access, FileKind, FsContext, Inode, Path, SetAttributes};

fn store(inode: &Inode) -> Result<&dyn XattrStore> {
    inode.ops().xattrs().ok_or(Errno::EOPNOTSUPP)
}

/// Checks the name space. `EOPNOTSUPP` for unknown ones, `EPERM`, `ENODATA`, `EACCES`.
fn check(cx: &FsContext, inode: &Inode, name: &[u8], write: bool) -> Result<()> {
    let refused = if write { Errno::EPERM } else { Errno::ENODATA };
    if name.starts_with(b"trusted.") {
        return if cx.cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(refused) };
    }
    if name.starts_with(b"security.") {
        let allowed = !write || cx.cred.capable(Capability::SysAdmin);
        return if allowed { Ok(()) } else { Err(Errno::EPERM) };
    }
    if is_list(name) {
        let has = inode.superblock().ops.has_acls() && inode.kind() != FileKind::Symlink;
        return match has {
            false => Err(Errno::EOPNOTSUPP),
            true if write && !permission::is_owner(&cx.cred, inode) => Err(Errno::EPERM),
            true => Ok(()),
        };
    }
    if !name.starts_with(b"user.") || name == b"user." {
        return Err(if name == b"user." { Errno::EINVAL } else { Errno::EOPNOTSUPP });
    }
    if !matches!(inode.kind(), FileKind::Regular | FileKind::Directory) {
        return Err(refused);
    }
    if write && inode.is_dir() && inode.mode() & 0o1000 != 0 && !permission::is_owner(&cx.cred, inode) {
        return Err(Errno::EPERM);
    }
    permission::check(&cx.cred, inode, if write { Access::WRITE } else { Access::READ })
}

fn is_list(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

/// Sets an access control list or takes it away: one that says no more than a mode becomes that. `EINVAL`, `EACCES` for the default list of
/// what is no directory, `ENOSPC`, `EIO`.
fn set_list(cx: &FsContext, inode: &Inode, name: &[u8], mut list: Option<Acl>) -> Result<()> {
    if let Some(list) = &list {
        list.check()?;
    }
    if name == acl::DEFAULT && !inode.is_dir() {
        return if list.is_some() { Err(Errno::EACCES) } else { Ok(()) };
    }
    let mut mode = inode.mode();
    if let (acl::ACCESS, Some((bits, is_all))) = (name, list.as_ref().map(Acl::mode)) {
        mode = mode & !0o777 | bits;
        if !cx.cred.in_group(inode.gid()) && !cx.cred.capable(Capability::Fsetid) {
            mode &= !0o2000;
        }
        if is_all {
            list = None;
        }
    }
    let result = match list {
        Some(list) => store(inode)?.set(name, &list.value(), SetMode::Any),
        None => match store(inode)?.remove(name) {
            Err(Errno::ENODATA) => Ok(()),
            result => result,
        },
    };
    inode.acls.forget();
    result?;
    // The mode follows the list, so that a list that can't be kept changes nothing.
    if mode != inode.mode() {
        inode.set_attributes(&SetAttributes { mode: Some(mode), ..SetAttributes::default() })?;
    }
    Ok(())
}

/// getxattr(2). `ENODATA`, `EOPNOTSUPP`, `EACCES`.
pub fn get(cx: &FsContext, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    let inode = path.inode()?;
    check(cx, inode, name, false)?;
    store(inode)?.get(name)
}

/// setxattr(2). `EEXIST`, `ENODATA`, `ENOSPC`, `EOPNOTSUPP`, `EPERM`, `EACCES`, `EROFS`.
pub fn set(cx: &FsContext, path: &Path, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
    let inode = path.inode()?;
    permission::writable_mount(path)?;
    check(cx, inode, name, true)?;
    if is_list(name) {
        set_list(cx, inode, name, Acl::parse(value)?)?;
    } else {
        store(inode)?.set(name, value, mode)?;
    }
    inode.changed();
    notify::dentry_event(&path.dentry, event::ATTRIB);
    Ok(())
}

/// removexattr(2). `ENODATA`, `EOPNOTSUPP`, `EPERM`, `EACCES`, `EROFS`.
pub fn remove(cx: &FsContext, path: &Path, name: &[u8]) -> Result<()> {
    let inode = path.inode()?;
    permission::writable_mount(path)?;
    check(cx, inode, name, true)?;
    if is_list(name) {
        set_list(cx, inode, name, None)?;
    } else {
        store(inode)?.remove(name)?;
    }
    inode.changed();
    notify::dentry_event(&path.dentry, event::ATTRIB);
    Ok(())
}

/// listxattr(2): the names that the caller may see. `EOPNOTSUPP`.
pub fn list(cx: &FsContext, path: &Path) -> Result<Vec<u8>> {
    let trusted = cx.cred.capable(Capability::SysAdmin);
    store(path.inode()?)?.list(&|name| trusted || !name.starts_with(b"trusted."))
}
