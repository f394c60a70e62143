//! Who may do what to a file.

use alloc::sync::Arc;

use base::{Capability, Cred, Errno, Result};

use crate::vfs::acl;
use crate::{Access, FileKind, FsContext, Inode, NewInode, Path};

const STICKY: u32 = 0o1000;
const SET_GID: u32 = 0o2000;

/// May the holder of `cred` use the inode for `wanted`? `EACCES`, or what the file system says.
#[inline]
pub fn check(cred: &Cred, inode: &Inode, wanted: Access) -> Result<()> {
    inode.ops().permission(inode, wanted)?;
    let mode = inode.mode();
    let owns = cred.fsuid == inode.uid();
    if !owns
        && mode & 0o070 != 0
        && let Some(verdict) = acl::check(cred, inode, wanted)
    {
        return match verdict {
            Err(Errno::EACCES) => by_capability(cred, inode, wanted, mode),
            verdict => verdict,
        };
    }
    let bits = if owns {
        mode >> 6
    } else if cred.in_group(inode.gid()) {
        mode >> 3
    } else {
        mode
    };
    if Access::from_bits_truncate(bits & 7).contains(wanted) {
        return Ok(());
    }
    by_capability(cred, inode, wanted, mode)
}

fn by_capability(cred: &Cred, inode: &Inode, wanted: Access, mode: u32) -> Result<()> {
    let overrides = inode.is_dir() || !wanted.contains(Access::EXEC) || mode & 0o111 != 0;
    if overrides && cred.capable(Capability::DacOverride) {
        return Ok(());
    }
    let only_looks = if inode.is_dir() { !wanted.contains(Access::WRITE) } else { wanted == Access::READ };
    if only_looks && cred.capable(Capability::DacReadSearch) { Ok(()) } else { Err(Errno::EACCES) }
}

/// As [`check`], and `EROFS` for writing to what lives on a mount that is read-only.
#[inline]
pub fn check_path(cx: &FsContext, path: &Path, wanted: Access) -> Result<()> {
    let inode = path.inode()?;
    let stored = matches!(inode.kind(), FileKind::Regular | FileKind::Directory | FileKind::Symlink);
    if wanted.contains(Access::WRITE) && stored {
        writable_mount(path)?;
    }
    check(&cx.cred, inode, wanted)
}

/// `EROFS` where the mount is read-only.
#[inline]
pub fn writable_mount(path: &Path) -> Result<()> {
    if path.mount.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
}

/// Does the holder of `cred` own the inode, or may act as if (CAP_FOWNER)?
pub fn is_owner(cred: &Cred, inode: &Inode) -> bool {
    cred.fsuid == inode.uid() || cred.capable(Capability::Fowner)
}

/// May `victim` be taken out of the directory (unlink, rmdir, rename)? The directory's write permission was checked.
/// `EPERM` in a sticky directory for who owns neither.
pub fn check_sticky(cred: &Cred, dir: &Inode, victim: &Inode) -> Result<()> {
    let guarded = dir.mode() & STICKY != 0 && cred.fsuid != victim.uid() && cred.fsuid != dir.uid();
    if guarded && !cred.capable(Capability::Fowner) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Owner, group and mode of a file that `cx` makes in `dir` with `mode`: umask applied (or the directory's default
/// list, which [`create`] then gives it), set-group-ID inherited or stripped.
pub fn for_new(cx: &FsContext, dir: &Arc<Inode>, kind: FileKind, mode: u32) -> (u32, u32, u32) {
    let mut mode = mode & 0o7777;
    if let Some(listed) = acl::mode_for_new(dir, kind, mode) {
        mode = listed;
    } else if kind != FileKind::Symlink {
        mode &= !(cx.umask & 0o777);
    }
    let mut gid = cx.cred.fsgid;
    if dir.mode() & SET_GID != 0 {
        gid = dir.gid();
        if kind == FileKind::Directory {
            mode |= SET_GID;
        }
    }
    let foreign = !cx.cred.in_group(gid) && !cx.cred.capable(Capability::Fsetid);
    if kind != FileKind::Directory && mode & (SET_GID | 0o010) == SET_GID | 0o010 && foreign {
        mode &= !SET_GID;
    }
    (cx.cred.fsuid, gid, mode)
}

/// Makes a file in `dir` under a free name, as [`for_new`] and the directory's default list have it; `mode` is what was asked for.
pub(crate) fn create(dir: &Arc<Inode>, name: &[u8], new: &NewInode, mode: u32) -> Result<Arc<Inode>> {
    let made = dir.ops().create(dir, name, new)?;
    if let Err(error) = acl::inherit(dir, &made, mode) {
        // Without its list it might let in whom the list would not.
        let _ = dir.ops().unlink(dir, name, &made);
        return Err(error);
    }
    Ok(made)
}
