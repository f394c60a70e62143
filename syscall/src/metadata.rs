//! What files are: stat, statx, statfs; chmod, chown, utimes, access, truncate.

use alloc::sync::Arc;

use base::{CapSet, Cred, Errno, NANOS_PER_SEC, Result};
use fs::vfs::{attributes, change};
use fs::{Access, Fd, FsContext, Metadata, Path, SetTime};
use hal::user::{UserPtr, copy_out};
use zerocopy::{Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::path::{AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, At, only};

/// Seconds and nanoseconds of a time in nanoseconds.
fn split(nanos: i64) -> (i64, i64) {
    (nanos.div_euclid(NANOS_PER_SEC as i64), nanos.rem_euclid(NANOS_PER_SEC as i64))
}

/// `struct stat`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Stat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    _pad: u32,
    rdev: u64,
    size: i64,
    block_size: i64,
    blocks: i64,
    times: [i64; 6],
    _unused: [i64; 3],
}

const _: () = assert!(size_of::<Stat>() == 144 && size_of::<Statx>() == 256 && size_of::<StatFs>() == 120);

fn store_stat(metadata: &Metadata, addr: usize) -> Result<usize> {
    let m = metadata;
    let ((atime, atime_nsec), (mtime, mtime_nsec), (ctime, ctime_nsec)) =
        (split(m.attributes.atime), split(m.attributes.mtime), split(m.attributes.ctime));
    let stat = Stat {
        dev: m.device.encode(),
        ino: m.inode,
        nlink: m.attributes.nlink.into(),
        mode: m.kind.mode_bits() | m.attributes.mode,
        uid: m.attributes.uid,
        gid: m.attributes.gid,
        _pad: 0,
        rdev: m.rdev.encode(),
        size: m.size as i64,
        block_size: m.block_size.into(),
        blocks: m.blocks as i64,
        times: [atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec],
        _unused: [0; 3],
    };
    copy_out(addr, stat.as_bytes())?;
    Ok(0)
}

fn stat_path(cx: &Context, path: usize, follow: bool, addr: usize) -> Result<usize> {
    let found = At::cwd(cx.task, path)?.lookup(follow, 0)?;
    store_stat(&found.inode()?.metadata(), addr)
}

pub(crate) fn stat(cx: &mut Context, a: Args) -> Result<usize> {
    stat_path(cx, a.0[0], true, a.0[1])
}

pub(crate) fn lstat(cx: &mut Context, a: Args) -> Result<usize> {
    stat_path(cx, a.0[0], false, a.0[1])
}

pub(crate) fn fstat(cx: &mut Context, a: Args) -> Result<usize> {
    store_stat(&cx.task.files().get_any(a.fd(0))?.stat(), a.0[1])
}

pub(crate) fn newfstatat(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(3), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)?;
    let found = At::new(cx.task, a.fd(0), a.0[1])?.lookup_by_flags(flags)?;
    store_stat(&found.inode()?.metadata(), a.0[2])
}

/// `struct statx_timestamp`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct StatxTime {
    seconds: i64,
    nanos: u32,
    _pad: i32,
}

impl StatxTime {
    fn new(nanos: i64) -> StatxTime {
        let (seconds, nanos) = split(nanos);
        StatxTime { seconds, nanos: nanos as u32, _pad: 0 }
    }
}

/// `struct statx`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    _pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev: [u32; 2],
    dev: [u32; 2],
    mount: u64,
    dio_align: [u32; 2],
    _spare: [u64; 12],
}

pub(crate) fn statx(cx: &mut Context, a: Args) -> Result<usize> {
    const SYNC_TYPES: u32 = 0x6000;
    const RESERVED: u32 = 1 << 31;
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    /// Everything of STATX_BASIC_STATS, STATX_BTIME and STATX_MNT_ID.
    const KNOWN: u32 = 0x1fff;
    let flags = only(a.uint(2), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | SYNC_TYPES)?;
    if a.uint(3) & RESERVED != 0 || flags & SYNC_TYPES == SYNC_TYPES {
        return Err(Errno::EINVAL);
    }
    let found = At::or_empty(cx.task, a.fd(0), a.0[1], flags)?.lookup_by_flags(flags)?;
    let m = found.inode()?.metadata();
    let statx = Statx {
        mask: KNOWN,
        block_size: m.block_size,
        attributes: if found.is_mount_root() { ATTR_MOUNT_ROOT } else { 0 },
        nlink: m.attributes.nlink,
        uid: m.attributes.uid,
        gid: m.attributes.gid,
        mode: (m.kind.mode_bits() | m.attributes.mode) as u16,
        _pad: 0,
        ino: m.inode,
        size: m.size,
        blocks: m.blocks,
        attributes_mask: ATTR_MOUNT_ROOT,
        atime: StatxTime::new(m.attributes.atime),
        btime: StatxTime::new(m.attributes.btime),
        ctime: StatxTime::new(m.attributes.ctime),
        mtime: StatxTime::new(m.attributes.mtime),
        rdev: [m.rdev.major, m.rdev.minor],
        dev: [m.device.major, m.device.minor],
        mount: found.mount.id,
        dio_align: [0; 2],
        _spare: [0; 12],
    };
    copy_out(a.0[4], statx.as_bytes())?;
    Ok(0)
}

/// `struct statfs`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct StatFs {
    kind: i64,
    block_size: i64,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    free_files: u64,
    id: [u32; 2],
    name_len: i64,
    fragment_size: i64,
    flags: i64,
    _spare: [i64; 4],
}

fn store_statfs(path: &Path, addr: usize) -> Result<usize> {
    /// ST_VALID.
    const VALID: i64 = 0x20;
    /// ST_RELATIME; the lower flags are as mount(2)'s.
    const RELATIME: i64 = 0x1000;
    let superblock = path.inode()?.superblock();
    let stats = superblock.ops.stats();
    let mount = path.mount.flags();
    let relatime = if mount.contains(fs::MountFlags::RELATIME) { RELATIME } else { 0 };
    let statfs = StatFs {
        kind: superblock.magic.into(),
        block_size: superblock.block_size.into(),
        blocks: stats.blocks,
        free: stats.free,
        available: stats.available,
        files: stats.files,
        free_files: stats.free_files,
        id: [superblock.device.encode() as u32, 0],
        name_len: 255,
        fragment_size: superblock.block_size.into(),
        flags: i64::from(mount.bits() & 0xfff) | VALID | relatime,
        _spare: [0; 4],
    };
    copy_out(addr, statfs.as_bytes())?;
    Ok(0)
}

pub(crate) fn statfs(cx: &mut Context, a: Args) -> Result<usize> {
    store_statfs(&At::cwd(cx.task, a.0[0])?.lookup(true, 0)?, a.0[1])
}

pub(crate) fn fstatfs(cx: &mut Context, a: Args) -> Result<usize> {
    store_statfs(cx.task.files().get_any(a.fd(0))?.path(), a.0[1])
}

pub(crate) fn chmod(cx: &mut Context, a: Args) -> Result<usize> {
    chmod_at(cx, AT_FDCWD, a.0[0], a.uint(1))
}

pub(crate) fn fchmodat(cx: &mut Context, a: Args) -> Result<usize> {
    chmod_at(cx, a.fd(0), a.0[1], a.uint(2))
}

fn chmod_at(cx: &Context, dirfd: Fd, path: usize, mode: u32) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    attributes::chmod(&at.cx, &at.lookup(true, 0)?, mode).map(|()| 0)
}

pub(crate) fn fchmod(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    attributes::chmod(&cx.task.fs_context(), open.path(), a.uint(1)).map(|()| 0)
}

/// An id argument; -1 leaves it as it is.
fn id(value: u32) -> Option<u32> {
    (value != u32::MAX).then_some(value)
}

fn chown_at(cx: &Context, dirfd: Fd, path: usize, ids: (u32, u32), flags: u32) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    attributes::chown(&at.cx, &at.lookup_by_flags(flags)?, id(ids.0), id(ids.1)).map(|()| 0)
}

pub(crate) fn chown(cx: &mut Context, a: Args) -> Result<usize> {
    chown_at(cx, AT_FDCWD, a.0[0], (a.uint(1), a.uint(2)), 0)
}

pub(crate) fn lchown(cx: &mut Context, a: Args) -> Result<usize> {
    chown_at(cx, AT_FDCWD, a.0[0], (a.uint(1), a.uint(2)), AT_SYMLINK_NOFOLLOW)
}

pub(crate) fn fchownat(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(4), AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    chown_at(cx, a.fd(0), a.0[1], (a.uint(2), a.uint(3)), flags)
}

pub(crate) fn fchown(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    attributes::chown(&cx.task.fs_context(), open.path(), id(a.uint(1)), id(a.uint(2))).map(|()| 0)
}

/// Seconds and a fraction (of `per_second`) as nanoseconds, clamped to what inodes keep.
fn join(seconds: i64, fraction: i64, per_second: i64) -> i64 {
    seconds.saturating_mul(NANOS_PER_SEC as i64).saturating_add(fraction * (NANOS_PER_SEC as i64 / per_second))
}

type Times = (Option<SetTime>, Option<SetTime>);
const BOTH_NOW: Times = (Some(SetTime::Now), Some(SetTime::Now));

/// The two `struct timespec` of utimensat(2), with UTIME_NOW and UTIME_OMIT. `EINVAL`.
fn from_timespecs(addr: usize) -> Result<Times> {
    const UTIME_NOW: i64 = (1 << 30) - 1;
    const UTIME_OMIT: i64 = (1 << 30) - 2;
    if addr == 0 {
        return Ok(BOTH_NOW);
    }
    let raw = UserPtr::<[[i64; 2]; 2]>::new(addr).read()?;
    let time = |[seconds, nanos]: [i64; 2]| match nanos {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(join(seconds, nanos, NANOS_PER_SEC as i64)))),
        _ => Err(Errno::EINVAL),
    };
    Ok((time(raw[0])?, time(raw[1])?))
}

/// The two `struct timeval` of utimes(2). `EINVAL`.
fn from_timevals(addr: usize) -> Result<Times> {
    if addr == 0 {
        return Ok(BOTH_NOW);
    }
    let raw = UserPtr::<[[i64; 2]; 2]>::new(addr).read()?;
    let time = |[seconds, micros]: [i64; 2]| match micros {
        0..1_000_000 => Ok(Some(SetTime::At(join(seconds, micros, 1_000_000)))),
        _ => Err(Errno::EINVAL),
    };
    Ok((time(raw[0])?, time(raw[1])?))
}

fn set_times(cx: &FsContext, path: &Path, times: Times) -> Result<usize> {
    attributes::set_times(cx, path, times.0, times.1).map(|()| 0)
}

pub(crate) fn utimensat(cx: &mut Context, a: Args) -> Result<usize> {
    let times = from_timespecs(a.0[2])?;
    let flags = only(a.uint(3), AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    if a.0[1] == 0 && a.fd(0) != AT_FDCWD {
        // What futimens(3) calls: the descriptor itself.
        if flags & AT_SYMLINK_NOFOLLOW != 0 {
            return Err(Errno::EINVAL);
        }
        let open = cx.task.files().get(a.fd(0))?;
        return set_times(&cx.task.fs_context(), open.path(), times);
    }
    let at = At::new(cx.task, a.fd(0), a.0[1])?;
    set_times(&at.cx, &at.lookup_by_flags(flags)?, times)
}

pub(crate) fn utime(cx: &mut Context, a: Args) -> Result<usize> {
    let times = match a.ptr::<[i64; 2]>(1).non_null() {
        None => BOTH_NOW,
        Some(pointer) => {
            let [atime, mtime] = pointer.read()?;
            (Some(SetTime::At(join(atime, 0, 1))), Some(SetTime::At(join(mtime, 0, 1))))
        }
    };
    let at = At::cwd(cx.task, a.0[0])?;
    set_times(&at.cx, &at.lookup(true, 0)?, times)
}

pub(crate) fn utimes(cx: &mut Context, a: Args) -> Result<usize> {
    let at = At::cwd(cx.task, a.0[0])?;
    set_times(&at.cx, &at.lookup(true, 0)?, from_timevals(a.0[1])?)
}

pub(crate) fn futimesat(cx: &mut Context, a: Args) -> Result<usize> {
    let times = from_timevals(a.0[2])?;
    if a.0[1] == 0 {
        let open = cx.task.files().get(a.fd(0))?;
        return set_times(&cx.task.fs_context(), open.path(), times);
    }
    let at = At::new(cx.task, a.fd(0), a.0[1])?;
    set_times(&at.cx, &at.lookup(true, 0)?, times)
}

/// The credentials that access(2) checks: the real ids, and the capabilities that they would have.
fn real(cred: &Cred) -> Cred {
    let effective = if cred.uid == 0 { cred.permitted } else { CapSet::empty() };
    Cred { fsuid: cred.uid, fsgid: cred.gid, effective, ..cred.clone() }
}

fn access_at(cx: &Context, dirfd: Fd, path: usize, mode: u32, flags: u32) -> Result<usize> {
    const AT_EACCESS: u32 = 0x200;
    let flags = only(flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let wanted = Access::from_bits(mode).ok_or(Errno::EINVAL)?;
    let mut at = At::new(cx.task, dirfd, path)?;
    if flags & AT_EACCESS == 0 {
        at.cx.cred = Arc::new(real(&at.cx.cred));
    }
    attributes::access(&at.cx, &at.lookup_by_flags(flags)?, wanted).map(|()| 0)
}

pub(crate) fn access(cx: &mut Context, a: Args) -> Result<usize> {
    access_at(cx, AT_FDCWD, a.0[0], a.uint(1), 0)
}

pub(crate) fn faccessat(cx: &mut Context, a: Args) -> Result<usize> {
    access_at(cx, a.fd(0), a.0[1], a.uint(2), 0)
}

pub(crate) fn faccessat2(cx: &mut Context, a: Args) -> Result<usize> {
    access_at(cx, a.fd(0), a.0[1], a.uint(2), a.uint(3))
}

pub(crate) fn truncate(cx: &mut Context, a: Args) -> Result<usize> {
    let size = u64::try_from(a.offset(1)).map_err(|_| Errno::EINVAL)?;
    let at = At::cwd(cx.task, a.0[0])?;
    let found = at.lookup(true, 0)?;
    if size > cx.task.rlimit(process::Resource::Fsize).0 && size > found.inode()?.metadata().size {
        cx.task.raise(process::signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    change::truncate(&at.cx, &found, size).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_split_and_join() {
        assert_eq!(split(-1), (-1, 999_999_999));
        assert_eq!(join(-1, 999_999_999, NANOS_PER_SEC as i64), -1);
        assert_eq!(join(i64::MAX, 0, 1), i64::MAX);
    }
}
