//! fcntl, ioctl, flock, lseek, and what else acts on an open file.

use alloc::sync::Arc;

use abi::general as c;
use base::{Errno, Result};
use fs::vfs::permission;
use fs::{
    Access, AsyncOwner, Fd, IoctlContext, LockKind, LockOwner, OpenFile, OpenFlags, RangeLock, SeekFrom, WholeLock,
};
use fs::{directory_notify, lease};
use hal::user::UserPtr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::open::fd_limit;

/// Commands and constants that the ABI crate does not name, or not for all.
mod cmd {
    pub(super) const OFD_GETLK: u32 = 36;
    pub(super) const OFD_SETLK: u32 = 37;
    pub(super) const OFD_SETLKW: u32 = 38;
    pub(super) const GETOWNER_UIDS: u32 = 17;
    pub(super) const SETLEASE: u32 = 1024;
    pub(super) const GETLEASE: u32 = 1025;
    pub(super) const NOTIFY: u32 = 1026;
    pub(super) const DUPFD_CLOEXEC: u32 = 1030;
    pub(super) const SETPIPE_SZ: u32 = 1031;
    pub(super) const GETPIPE_SZ: u32 = 1032;
    pub(super) const ADD_SEALS: u32 = 1033;
    pub(super) const GET_SEALS: u32 = 1034;
    pub(super) const UNLCK: i16 = 2;
}

pub(crate) fn fcntl(cx: &mut Context, a: Args) -> Result<usize> {
    let (fd, command, arg) = (a.fd(0), a.uint(1), a.0[2]);
    let files = cx.task.files();
    let open = files.get_any(fd)?;
    let on_descriptor = matches!(command, c::F_DUPFD | cmd::DUPFD_CLOEXEC | c::F_GETFD | c::F_SETFD | c::F_GETFL);
    if open.is_path() && !on_descriptor {
        return Err(Errno::EBADF);
    }
    match command {
        c::F_DUPFD | cmd::DUPFD_CLOEXEC => {
            let from = Fd::try_from(arg as u32).map_err(|_| Errno::EINVAL)?;
            files.install_from(from, open, command == cmd::DUPFD_CLOEXEC, fd_limit(cx.task)).map(|fd| fd as usize)
        }
        c::F_GETFD => Ok(usize::from(files.descriptor(fd)?.close_on_exec)),
        c::F_SETFD => files.set_close_on_exec(fd, arg & c::FD_CLOEXEC as usize != 0).map(|()| 0),
        c::F_GETFL => Ok(open.flags().bits() as usize),
        c::F_SETFL => set_flags(cx, fd, &open, OpenFlags::from_bits_retain(arg as u32)),
        c::F_GETLK | cmd::OFD_GETLK => get_lock(cx, &open, UserPtr::new(arg), command == cmd::OFD_GETLK),
        c::F_SETLK | c::F_SETLKW | cmd::OFD_SETLK | cmd::OFD_SETLKW => {
            let wait = matches!(command, c::F_SETLKW | cmd::OFD_SETLKW);
            set_lock(cx, fd, &open, UserPtr::new(arg), wait, matches!(command, cmd::OFD_SETLK | cmd::OFD_SETLKW))
        }
        c::F_SETOWN..=c::F_GETSIG | c::F_SETOWN_EX | c::F_GETOWN_EX | cmd::GETOWNER_UIDS => {
            owner(cx, &open, command, arg)
        }
        cmd::SETPIPE_SZ => ipc::pipe::set_capacity(open.file(), arg as u32 as usize, &cx.task.cred()),
        cmd::GETPIPE_SZ => ipc::pipe::capacity(open.file()),
        cmd::ADD_SEALS => {
            let memfd = open.inode().ops_as::<fs::tmpfs::Regular>().ok_or(Errno::EINVAL)?;
            if !open.access().contains(Access::WRITE) {
                return Err(Errno::EPERM);
            }
            memfd.add_seals(open.inode(), arg as u32).map(|()| 0)
        }
        cmd::GET_SEALS => open.inode().ops_as::<fs::tmpfs::Regular>().map(|f| f.seals() as usize).ok_or(Errno::EINVAL),
        cmd::GETLEASE => Ok(match lease::get(&open) {
            Some(LockKind::Read) => 0,
            Some(LockKind::Write) => 1,
            None => cmd::UNLCK as usize,
        }),
        cmd::SETLEASE => {
            let kind = lock_kind(i16::try_from(arg as u32).map_err(|_| Errno::EINVAL)?)?;
            lease::set(&cx.task.fs_context(), &open, fd, kind).map(|()| 0)
        }
        cmd::NOTIFY => directory_notify::set(&open, fd, arg as u32).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

fn set_flags(cx: &Context, fd: Fd, open: &OpenFile, new: OpenFlags) -> Result<usize> {
    let gains_noatime = new.contains(OpenFlags::NOATIME) && !open.flags().contains(OpenFlags::NOATIME);
    if gains_noatime && !permission::is_owner(&cx.task.cred(), open.inode()) {
        return Err(Errno::EPERM);
    }
    change_flags(open, fd, new)
}

/// Sets the status flags; with O_ASYNC, signal-driven I/O begins or ends.
fn change_flags(open: &OpenFile, fd: Fd, new: OpenFlags) -> Result<usize> {
    let before = open.flags();
    open.set_flags(new)?;
    let on = new.contains(OpenFlags::ASYNC);
    if on != before.contains(OpenFlags::ASYNC) && open.file().pollable() {
        open.set_asynchronous(on, fd)?;
    }
    Ok(0)
}

fn owner(cx: &Context, open: &OpenFile, command: u32, arg: usize) -> Result<usize> {
    let mut owner = open.owner();
    if matches!(command, c::F_SETOWN | c::F_SETOWN_EX) {
        let cred = cx.task.cred();
        owner.users = (cred.uid, cred.euid);
    }
    match command {
        c::F_SETOWN => {
            let id = arg as u32 as i32;
            let group = id < 0;
            owner.kind = if group { c::F_OWNER_PGRP } else { c::F_OWNER_PID };
            owner.id = if group { id.checked_neg().ok_or(Errno::EINVAL)? } else { id };
            open.set_owner(owner);
            Ok(0)
        }
        c::F_GETOWN => {
            let id = if owner.kind == c::F_OWNER_PGRP { -owner.id } else { owner.id };
            Ok(id as isize as usize)
        }
        c::F_SETSIG => {
            let signal = i32::try_from(arg).ok().filter(|s| (0..=64).contains(s)).ok_or(Errno::EINVAL)?;
            open.set_owner(AsyncOwner { signal, ..owner });
            Ok(0)
        }
        c::F_GETSIG => Ok(owner.signal as usize),
        c::F_SETOWN_EX => {
            let [kind, id] = UserPtr::<[i32; 2]>::new(arg).read()?;
            let kind = u32::try_from(kind).ok().filter(|k| *k <= c::F_OWNER_PGRP).ok_or(Errno::EINVAL)?;
            open.set_owner(AsyncOwner { kind, id, ..owner });
            Ok(0)
        }
        c::F_GETOWN_EX => UserPtr::new(arg).write(&[owner.kind as i32, owner.id]).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// `struct flock`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Flock {
    kind: i16,
    whence: i16,
    _pad: i32,
    start: i64,
    len: i64,
    pid: i32,
    _pad2: i32,
}

impl Flock {
    /// The first and last byte that it means. `EINVAL`, `EOVERFLOW`.
    fn range(&self, open: &OpenFile) -> Result<(u64, u64)> {
        let base = match self.whence as u32 {
            c::SEEK_SET => 0,
            c::SEEK_CUR => open.position() as i64,
            c::SEEK_END => i64::try_from(open.stat().size).map_err(|_| Errno::EOVERFLOW)?,
            _ => return Err(Errno::EINVAL),
        };
        let start = base.checked_add(self.start).ok_or(Errno::EOVERFLOW)?;
        let (first, last) = match self.len {
            0 => (start, i64::MAX),
            1.. => (start, start.checked_add(self.len - 1).ok_or(Errno::EOVERFLOW)?),
            _ => (start.checked_add(self.len).ok_or(Errno::EINVAL)?, start - 1),
        };
        let unsigned = |n: i64| u64::try_from(n).map_err(|_| Errno::EINVAL);
        Ok((unsigned(first)?, unsigned(last)?))
    }
}

/// F_RDLCK, F_WRLCK, or `None` for F_UNLCK. `EINVAL`.
fn lock_kind(raw: i16) -> Result<Option<LockKind>> {
    match raw {
        0 => Ok(Some(LockKind::Read)),
        1 => Ok(Some(LockKind::Write)),
        cmd::UNLCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// The lock that a `struct flock` asks for; `None` for the kind in an unlock request. `EINVAL`, `EOVERFLOW`.
fn wanted(cx: &Context, open: &OpenFile, raw: &Flock, ofd: bool) -> Result<(Option<LockKind>, RangeLock)> {
    if ofd && raw.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = lock_kind(raw.kind)?;
    let (start, end) = raw.range(open)?;
    let (owner, pid) = match ofd {
        true => (LockOwner::OpenFile(open.id()), -1),
        false => (LockOwner::Table(cx.task.files().id()), cx.task.pid()),
    };
    Ok((kind, RangeLock { owner, pid, open: open.id(), kind: kind.unwrap_or(LockKind::Read), start, end }))
}

fn get_lock(cx: &Context, open: &OpenFile, pointer: UserPtr<Flock>, ofd: bool) -> Result<usize> {
    let mut raw = pointer.read()?;
    let (kind, lock) = wanted(cx, open, &raw, ofd)?;
    if kind.is_none() {
        return Err(Errno::EINVAL);
    }
    match open.inode().locks().and_then(|locks| locks.blocker(&lock)) {
        None => raw.kind = cmd::UNLCK,
        Some(held) => {
            raw.kind = if held.kind == LockKind::Write { 1 } else { 0 };
            raw.whence = 0;
            raw.start = held.start as i64;
            raw.len = if held.end == i64::MAX as u64 { 0 } else { (held.end - held.start + 1) as i64 };
            raw.pid = held.pid;
        }
    }
    pointer.write(&raw).map(|()| 0)
}

fn set_lock(cx: &Context, fd: Fd, open: &OpenFile, pointer: UserPtr<Flock>, wait: bool, ofd: bool) -> Result<usize> {
    let (kind, lock) = wanted(cx, open, &pointer.read()?, ofd)?;
    let needed = match kind {
        Some(LockKind::Read) => Access::READ,
        Some(LockKind::Write) => Access::WRITE,
        None => Access::empty(),
    };
    if !open.access().contains(needed) {
        return Err(Errno::EBADF);
    }
    if kind.is_none() {
        if let Some(locks) = open.inode().locks() {
            locks.unlock_range(lock)?;
        }
        return Ok(0);
    }
    let locks = open.inode().locks_or_new();
    locks.lock_range(lock, wait)?;
    // Another thread may have closed the descriptor while we waited: then nobody would ever give the lock up.
    let still_open = cx.task.files().get_any(fd).is_ok_and(|now| now.id() == open.id());
    if !ofd && !still_open {
        locks.unlock_range(lock)?;
        return Err(Errno::EBADF);
    }
    Ok(0)
}

pub(crate) fn flock(cx: &mut Context, a: Args) -> Result<usize> {
    let operation = a.uint(1);
    let kind = match operation & !c::LOCK_NB {
        c::LOCK_SH => Some(LockKind::Read),
        c::LOCK_EX => Some(LockKind::Write),
        c::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let open = cx.task.files().get(a.fd(0))?;
    match kind {
        Some(kind) => {
            let wanted = WholeLock { open: open.id(), pid: cx.task.pid(), kind };
            open.inode().locks_or_new().lock_whole(wanted, operation & c::LOCK_NB == 0)?;
        }
        None => {
            if let Some(locks) = open.inode().locks() {
                locks.unlock_whole(open.id());
            }
        }
    }
    Ok(0)
}

pub(crate) fn ioctl(cx: &mut Context, a: Args) -> Result<usize> {
    let (fd, request, arg) = (a.fd(0), a.uint(1), a.0[2]);
    let files = cx.task.files();
    let open = files.get(fd)?;
    match request {
        abi::ioctl::FIOCLEX => return files.set_close_on_exec(fd, true).map(|()| 0),
        abi::ioctl::FIONCLEX => return files.set_close_on_exec(fd, false).map(|()| 0),
        abi::ioctl::FIONBIO | abi::ioctl::FIOASYNC => {
            let flag = if request == abi::ioctl::FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = open.flags();
            flags.set(flag, UserPtr::<i32>::new(arg).read()? != 0);
            return change_flags(&open, fd, flags);
        }
        _ => {}
    }
    let (task, cred) = (cx.task, cx.task.cred());
    let install = |made, close_on_exec| files.install(made, close_on_exec, fd_limit(task));
    let lookup = |fd| files.get(fd);
    open.file().ioctl(&IoctlContext { cred: &cred, open: &open, install: &install, lookup: &lookup }, request, arg)
}

pub(crate) fn lseek(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    let offset = a.offset(1);
    let to = match a.uint(2) {
        c::SEEK_SET => SeekFrom::Start(offset),
        c::SEEK_CUR => SeekFrom::Current(offset),
        c::SEEK_END => SeekFrom::End(offset),
        3 => SeekFrom::Data(offset),
        4 => SeekFrom::Hole(offset),
        _ => return Err(Errno::EINVAL),
    };
    open.seek(to).map(|at| at as usize)
}

pub(crate) fn fsync(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.files().get(a.fd(0))?.file().sync().map(|()| 0)
}

pub(crate) fn fdatasync(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.files().get(a.fd(0))?.file().sync_data().map(|()| 0)
}

pub(crate) fn sync_file_range(cx: &mut Context, a: Args) -> Result<usize> {
    sync_range_of(&*cx.task.files().get(a.fd(0))?, a)
}

/// [`sync_file_range`] of an open file, the other arguments being as there.
pub(crate) fn sync_range_of(open: &OpenFile, a: Args) -> Result<usize> {
    let end = a.offset(1).checked_add(a.offset(2));
    if a.uint(3) & !7 != 0 || a.offset(1) < 0 || end.is_none_or(|end| end < a.offset(1)) {
        return Err(Errno::EINVAL);
    }
    if !open.file().positioned() {
        return Err(Errno::ESPIPE);
    }
    let from = u64::try_from(a.offset(1)).map_err(|_| Errno::EINVAL)?;
    let to = end.and_then(|end| u64::try_from(end).ok()).filter(|&end| end > from).unwrap_or(u64::MAX);
    open.file().write_back(from, to).map(|()| 0)
}

pub(crate) fn sync(_cx: &mut Context, _a: Args) -> Result<usize> {
    fs::writeback::sync_all();
    Ok(0)
}

pub(crate) fn syncfs(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.files().get(a.fd(0))?.inode().superblock().ops.sync().map(|()| 0)
}

pub(crate) fn ftruncate(cx: &mut Context, a: Args) -> Result<usize> {
    let size = u64::try_from(a.offset(1)).map_err(|_| Errno::EINVAL)?;
    let open = cx.task.files().get(a.fd(0))?;
    check_size_limit(cx, size, &open)?;
    open.truncate(size).map(|()| 0)
}

fn check_size_limit(cx: &Context, size: u64, open: &OpenFile) -> Result<()> {
    if size > cx.task.rlimit(process::Resource::Fsize).0 && size > open.stat().size {
        cx.task.raise(process::signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

pub(crate) fn fallocate(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    allocate_in(cx, &open, a)
}

/// [`fallocate`] in an open file, the other arguments being as there.
pub(crate) fn allocate_in(cx: &Context, open: &OpenFile, a: Args) -> Result<usize> {
    let (offset, len) = (u64::try_from(a.offset(2)), u64::try_from(a.offset(3)));
    let (Ok(offset), Ok(len @ 1..)) = (offset, len) else { return Err(Errno::EINVAL) };
    check_allocation_mode(a.uint(1))?;
    if !open.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    match open.inode().kind() {
        fs::FileKind::Regular => {}
        fs::FileKind::Fifo => return Err(Errno::ESPIPE),
        fs::FileKind::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    if a.uint(1) & 1 == 0 {
        check_size_limit(cx, offset.saturating_add(len), open)?;
    }
    open.file().allocate(a.uint(1), offset, len).map(|()| 0)
}

/// Which modes go together, whatever the file can. `EOPNOTSUPP`, `EINVAL`.
fn check_allocation_mode(mode: u32) -> Result<()> {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    const COLLAPSE_RANGE: u32 = 8;
    const ZERO_RANGE: u32 = 16;
    const INSERT_RANGE: u32 = 32;
    const UNSHARE_RANGE: u32 = 64;
    let has = |bit: u32| mode & bit != 0;
    let known = KEEP_SIZE | PUNCH_HOLE | COLLAPSE_RANGE | ZERO_RANGE | INSERT_RANGE | UNSHARE_RANGE;
    if mode & !known != 0 || has(PUNCH_HOLE) && (has(ZERO_RANGE) || !has(KEEP_SIZE)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let alone = |bit: u32, others: u32| !has(bit) || mode & !(bit | others) == 0;
    let good = alone(COLLAPSE_RANGE, 0) && alone(INSERT_RANGE, 0) && alone(UNSHARE_RANGE, KEEP_SIZE);
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(crate) fn fadvise64(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    advise_on(&open, a)
}

/// [`fadvise64`] on an open file, the other arguments being as there.
pub(crate) fn advise_on(open: &Arc<OpenFile>, a: Args) -> Result<usize> {
    if open.inode().kind() == fs::FileKind::Fifo {
        return Err(Errno::ESPIPE);
    }
    if a.uint(3) > 5 || a.offset(2) < 0 {
        return Err(Errno::EINVAL);
    }
    let from = u64::try_from(a.offset(1)).unwrap_or(0);
    let end = match u64::try_from(a.offset(2)) {
        Ok(len @ 1..) => from.saturating_add(len),
        _ => u64::MAX,
    };
    fs::vfs::advice::advise(open, from, end, a.uint(3)).map(|()| 0)
}

pub(crate) fn readahead(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get_for(a.fd(0), Access::READ)?;
    if !matches!(open.inode().kind(), fs::FileKind::Regular | fs::FileKind::BlockDevice) {
        return Err(Errno::EINVAL);
    }
    let from = u64::try_from(a.offset(1)).map_err(|_| Errno::EINVAL)?;
    fs::vfs::advice::read_ahead(&open, from, from.saturating_add(a.size(2) as u64)).map(|()| 0)
}
