//! mount(2), umount2(2), pivot_root(2).

use alloc::vec::Vec;

use base::{Errno, Result};
use fs::vfs::mount::Propagation;
use fs::vfs::mount::change::Changer;
use fs::{FsContext, MountFlags, MountNamespace, Path, SuperFlags};
use hal::user;
use process::{Task, tree};

use crate::args::Args;
use crate::context::Context;
use crate::path::{At, UserString, only};

/// MS_* flags that say what to do, or how.
mod ms {
    pub(super) const REMOUNT: usize = 32;
    pub(super) const NOATIME: usize = 1024;
    pub(super) const NODIRATIME: usize = 2048;
    pub(super) const BIND: usize = 4096;
    pub(super) const MOVE: usize = 8192;
    pub(super) const REC: usize = 16384;
    pub(super) const SILENT: usize = 32768;
    pub(super) const UNBINDABLE: usize = 1 << 17;
    pub(super) const PRIVATE: usize = 1 << 18;
    pub(super) const SLAVE: usize = 1 << 19;
    pub(super) const SHARED: usize = 1 << 20;
    pub(super) const RELATIME: usize = 1 << 21;
    pub(super) const STRICTATIME: usize = 1 << 24;
    pub(super) const PROPAGATION: usize = SHARED | PRIVATE | SLAVE | UNBINDABLE;
}

/// A string argument that may be NULL.
fn optional(addr: usize) -> Result<Option<UserString>> {
    if addr == 0 { Ok(None) } else { UserString::path(addr).map(Some) }
}

/// mount(2)'s data: up to a page, which ends early at a NUL or where memory does.
fn options(addr: usize) -> Result<Option<Vec<u8>>> {
    if addr == 0 {
        return Ok(None);
    }
    let mut data = Vec::new();
    data.try_reserve_exact(abi::PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
    data.resize(abi::PAGE_SIZE, 0);
    let copied = user::copy_in_some(&mut data, addr);
    if copied == 0 {
        return Err(Errno::EFAULT);
    }
    let end = data[..copied].iter().position(|&b| b == 0).unwrap_or(copied);
    data.truncate(end);
    Ok(Some(data))
}

/// The mount's flags out of mount(2)'s; `before` are those of a mount that is changed, which keeps what it does about times of access
/// unless something is said of that.
fn mount_flags(bits: usize, before: Option<MountFlags>) -> MountFlags {
    let own = MountFlags::from_bits_truncate(bits as u32) - MountFlags::ATIME;
    let about_times = ms::NOATIME | ms::NODIRATIME | ms::RELATIME | ms::STRICTATIME;
    if let Some(before) = before
        && bits & about_times == 0
    {
        return own | before & MountFlags::ATIME;
    }
    let dirs = if bits & ms::NODIRATIME != 0 { MountFlags::NODIRATIME } else { MountFlags::empty() };
    let times = match bits & (ms::NOATIME | ms::STRICTATIME) {
        0 => MountFlags::RELATIME,
        ms::NOATIME => MountFlags::NOATIME,
        _ => MountFlags::empty(),
    };
    own | dirs | times
}

fn propagation(flags: usize) -> Result<Propagation> {
    match flags & !(ms::REC | ms::SILENT) {
        ms::SHARED => Ok(Propagation::Shared),
        ms::SLAVE => Ok(Propagation::Slave),
        ms::PRIVATE => Ok(Propagation::Private),
        ms::UNBINDABLE => Ok(Propagation::Unbindable),
        _ => Err(Errno::EINVAL),
    }
}

/// Does `work` as somebody who changes mounts in the thread's namespace.
pub(crate) fn changing<R>(task: &Task, cx: &FsContext, work: impl FnOnce(&Changer) -> Result<R>) -> Result<R> {
    let namespace: alloc::sync::Arc<MountNamespace> = task.fs().namespace();
    work(&Changer { cx, namespace: &namespace })
}

pub(crate) fn mount(cx: &mut Context, a: Args) -> Result<usize> {
    const MAGIC: usize = 0xc0ed_0000;
    const MAGIC_MASK: usize = 0xffff_0000;
    let mut flags = a.size(3);
    if flags & MAGIC_MASK == MAGIC {
        flags &= !MAGIC_MASK;
    }
    let kind = optional(a.0[2])?;
    let source = optional(a.0[0])?;
    let data = options(a.0[4])?;
    let at = At::cwd(cx.task, a.0[1])?;
    let place = at.lookup(true, 0)?;
    changing(cx.task, &at.cx, |changer| {
        changer.may_mount()?;
        let from = || -> Result<Path> {
            let name = source.as_ref().map(UserString::bytes).filter(|name| !name.is_empty()).ok_or(Errno::EINVAL)?;
            fs::vfs::walk::lookup(&at.cx, None, name, true)
        };
        let of_super = SuperFlags::from_bits_truncate(flags as u32);
        let before = place.mount.flags();
        if flags & (ms::REMOUNT | ms::BIND) == ms::REMOUNT | ms::BIND {
            // Only the flags of this mount change, not the file system's.
            changer.remount(&place, mount_flags(flags, Some(before)), None)
        } else if flags & ms::REMOUNT != 0 {
            let of_super = (of_super, data.as_deref().unwrap_or_default());
            changer.remount(&place, mount_flags(flags, Some(before)), Some(of_super))
        } else if flags & ms::BIND != 0 {
            changer.bind(&from()?, &place, flags & ms::REC != 0)
        } else if flags & ms::PROPAGATION != 0 {
            changer.set_propagation(&place, propagation(flags)?, flags & ms::REC != 0)
        } else if flags & ms::MOVE != 0 {
            changer.move_mount(&from()?, &place)
        } else {
            let kind = kind.as_ref().ok_or(Errno::EINVAL)?.bytes();
            let name = source.as_ref().map_or(b"none".as_slice(), UserString::bytes);
            let flags = (mount_flags(flags, None), of_super);
            changer.mount_new(&place, kind, name, flags, data.as_deref().unwrap_or_default())
        }
    })?;
    Ok(0)
}

pub(crate) fn umount2(cx: &mut Context, a: Args) -> Result<usize> {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    let flags = only(a.uint(1), FORCE | DETACH | EXPIRE | NOFOLLOW)?;
    let at = At::cwd(cx.task, a.0[0])?;
    let found = at.lookup(flags & NOFOLLOW == 0, 0)?;
    if flags & EXPIRE != 0 && flags & (FORCE | DETACH) != 0 && at.cx.cred.capable(base::Capability::SysAdmin) {
        return Err(Errno::EINVAL);
    }
    changing(cx.task, &at.cx, |changer| changer.unmount(found, flags & DETACH != 0, flags & EXPIRE != 0)).map(|()| 0)
}

pub(crate) fn pivot_root(cx: &mut Context, a: Args) -> Result<usize> {
    let context = cx.task.fs_context();
    changing(cx.task, &context, |changer| {
        changer.may_mount()?;
        let (new, old) = (At::cwd(cx.task, a.0[0])?, At::cwd(cx.task, a.0[1])?);
        let (new_root, put_old) = (new.lookup(true, 0)?, old.lookup(true, 0)?);
        if !new_root.inode()?.is_dir() || !put_old.inode()?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        changer.pivot_root(&new_root, &put_old)?;
        // Whoever was at the old root goes along.
        for task in tree::processes().iter().flat_map(|process| process.threads()) {
            if let Some(place) = task.fs_if_alive() {
                place.move_places(&context.root, &new_root);
            }
        }
        Ok(0)
    })
}
