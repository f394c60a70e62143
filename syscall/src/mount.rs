//! mount(2), umount2(2), pivot_root(2).

use alloc::vec::Vec;

use base::{Capability, Errno, Result};
use fs::MountFlags;
use fs::vfs::mount as vfs;
use hal::user;

use crate::args::Args;
use crate::context::Context;
use crate::path::{At, UserString, only};

/// MS_* flags that say what to do.
mod ms {
    pub(super) const REMOUNT: usize = 32;
    pub(super) const BIND: usize = 4096;
    pub(super) const MOVE: usize = 8192;
    pub(super) const REC: usize = 16384;
    pub(super) const UNBINDABLE: usize = 1 << 17;
    pub(super) const PRIVATE: usize = 1 << 18;
    pub(super) const SLAVE: usize = 1 << 19;
    pub(super) const SHARED: usize = 1 << 20;
    pub(super) const NOATIME: usize = 1024;
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

fn mount_flags(bits: usize) -> MountFlags {
    let flags = MountFlags::from_bits_truncate(bits as u32);
    if bits & ms::NOATIME == 0 { flags | MountFlags::RELATIME } else { flags - MountFlags::RELATIME }
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
    let from = source.as_ref().map(|s| s.bytes());
    if flags & ms::REMOUNT != 0 {
        // With MS_BIND only the flags of this mount change, not the file system's.
        let data = if flags & ms::BIND != 0 { None } else { Some(data.as_deref().unwrap_or_default()) };
        vfs::remount(&at.cx, &place, mount_flags(flags), data)?;
    } else if flags & ms::BIND != 0 {
        let what = fs::vfs::walk::lookup(&at.cx, None, from.filter(|s| !s.is_empty()).ok_or(Errno::EINVAL)?, true)?;
        vfs::bind(&at.cx, &what, &place, flags & ms::REC != 0)?;
    } else if flags & (ms::SHARED | ms::PRIVATE | ms::SLAVE | ms::UNBINDABLE) != 0 {
        if !at.cx.cred.capable(Capability::SysAdmin) {
            return Err(Errno::EPERM);
        }
        // Mounts are private here, which also is what a slave of no master is.
        if flags & (ms::SHARED | ms::UNBINDABLE) != 0 || !place.is_mount_root() {
            return Err(Errno::EINVAL);
        }
    } else if flags & ms::MOVE != 0 {
        let what = fs::vfs::walk::lookup(&at.cx, None, from.filter(|s| !s.is_empty()).ok_or(Errno::EINVAL)?, true)?;
        vfs::move_mount(&at.cx, &what, &place)?;
    } else {
        let kind = kind.ok_or(Errno::EINVAL)?;
        let (from, data) = (from.unwrap_or(b"none"), data.unwrap_or_default());
        vfs::mount_new(&at.cx, &place, kind.bytes(), from, mount_flags(flags), &data)?;
    }
    Ok(0)
}

pub(crate) fn umount2(cx: &mut Context, a: Args) -> Result<usize> {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    let flags = only(a.uint(1), FORCE | DETACH | EXPIRE | NOFOLLOW)?;
    if flags & EXPIRE != 0 {
        return Err(if flags & (FORCE | DETACH) != 0 { Errno::EINVAL } else { Errno::EAGAIN });
    }
    let at = At::cwd(cx.task, a.0[0])?;
    let found = at.lookup(flags & NOFOLLOW == 0, 0)?;
    vfs::unmount(&at.cx, found, flags & DETACH != 0).map(|()| 0)
}

pub(crate) fn pivot_root(cx: &mut Context, a: Args) -> Result<usize> {
    let (new, old) = (At::cwd(cx.task, a.0[0])?, At::cwd(cx.task, a.0[1])?);
    let (new_root, put_old) = (new.lookup(true, 0)?, old.lookup(true, 0)?);
    vfs::pivot_root(&new.cx, &new_root, &put_old).map(|()| 0)
}
