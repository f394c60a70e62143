//! Opening files, and descriptors: open, close, dup, fcntl's descriptor part is in `fcntl`.

use alloc::sync::Arc;

use abi::general as c;
use base::{Errno, Result};
use fs::memfd::Sealing;
use fs::vfs::open::{OpenHow, open as open_file};
use fs::vfs::walk::Resolve;
use fs::{Fd, OpenFile, OpenFlags};
use process::{Resource, Task};
use zerocopy::{FromBytes, IntoBytes};

use crate::args::{Args, extensible};
use crate::context::Context;
use crate::path::{AT_FDCWD, At, UserString, open_flags};

/// The caller's RLIMIT_NOFILE.
pub(crate) fn fd_limit(task: &Task) -> u64 {
    task.rlimit(Resource::NoFile).0
}

/// Gives an open file a descriptor.
pub(crate) fn install(task: &Task, open: alloc::sync::Arc<fs::OpenFile>, close_on_exec: bool) -> Result<usize> {
    task.files().install(open, close_on_exec, fd_limit(task)).map(|fd| fd as usize)
}

fn open_at(cx: &Context, dirfd: Fd, path: usize, how: OpenHow) -> Result<usize> {
    let at = At::new(cx.task, dirfd, path)?;
    let opened = open_file(&at.cx, at.base(), at.path(), how);
    // A wait for the other end of a FIFO that a signal ended starts again.
    install(cx.task, opened?, how.flags.contains(OpenFlags::CLOEXEC))
}

pub(crate) fn open(cx: &mut Context, a: Args) -> Result<usize> {
    open_at(
        cx,
        AT_FDCWD,
        a.0[0],
        OpenHow { flags: open_flags(a.uint(1)), mode: a.uint(2) & 0o7777, resolve: Resolve::empty() },
    )
}

pub(crate) fn openat(cx: &mut Context, a: Args) -> Result<usize> {
    open_at(
        cx,
        a.fd(0),
        a.0[1],
        OpenHow { flags: open_flags(a.uint(2)), mode: a.uint(3) & 0o7777, resolve: Resolve::empty() },
    )
}

pub(crate) fn creat(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    open_at(cx, AT_FDCWD, a.0[0], OpenHow { flags, mode: a.uint(1) & 0o7777, resolve: Resolve::empty() })
}

/// `struct open_how`.
#[repr(C)]
#[derive(FromBytes, IntoBytes)]
struct RawHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

pub(crate) fn openat2(cx: &mut Context, a: Args) -> Result<usize> {
    let how = read_how(a.0[2], a.size(3))?;
    open_at(cx, a.fd(0), a.0[1], how)
}

/// openat(2) without a descriptor for the result: the open file, and whether the descriptor is to be closed by exec. With `quick`,
/// `EAGAIN` where the other end of a FIFO would be waited for.
pub(crate) fn opened(
    cx: &Context,
    dirfd: Fd,
    path: usize,
    bits: u32,
    mode: u32,
    quick: bool,
) -> Result<(Arc<OpenFile>, bool)> {
    let how = OpenHow { flags: open_flags(bits), mode: mode & 0o7777, resolve: Resolve::empty() };
    opened_by(cx, dirfd, path, how, quick)
}

/// As [`opened`], by the structure of openat2(2) at `how`; `slot`: it gets no descriptor, so O_CLOEXEC is `EINVAL`.
pub(crate) fn opened_how(
    cx: &Context,
    dirfd: Fd,
    path: usize,
    how: usize,
    size: usize,
    (slot, quick): (bool, bool),
) -> Result<(Arc<OpenFile>, bool)> {
    let how = read_how(how, size)?;
    if slot && how.flags.contains(OpenFlags::CLOEXEC) {
        return Err(Errno::EINVAL);
    }
    opened_by(cx, dirfd, path, how, quick)
}

fn opened_by(cx: &Context, dirfd: Fd, path: usize, how: OpenHow, quick: bool) -> Result<(Arc<OpenFile>, bool)> {
    let at = At::new(cx.task, dirfd, path)?;
    if quick && !how.flags.contains(OpenFlags::NONBLOCK) {
        let found = fs::vfs::walk::lookup_at(&at.cx, at.base(), at.path(), true, false);
        let is_fifo = found.and_then(|path| path.inode().map(|inode| inode.kind() == fs::FileKind::Fifo));
        if is_fifo == Ok(true) {
            return Err(Errno::EAGAIN);
        }
    }
    let opened = open_file(&at.cx, at.base(), at.path(), how)?;
    Ok((opened, how.flags.contains(OpenFlags::CLOEXEC)))
}

/// Reads `struct open_how`. `EINVAL`, `E2BIG`, `EFAULT`.
fn read_how(at: usize, size: usize) -> Result<OpenHow> {
    if size < size_of::<RawHow>() {
        return Err(Errno::EINVAL);
    }
    let raw: RawHow = extensible(at, size)?;
    let flags = u32::try_from(raw.flags).map_err(|_| Errno::EINVAL)?;
    let known = OpenFlags::all().bits() | c::O_ACCMODE;
    let resolve = Resolve::from_bits(raw.resolve).ok_or(Errno::EINVAL)?;
    let makes = flags & (OpenFlags::CREAT | OpenFlags::TMPFILE).bits() != 0;
    if flags & !known != 0 || raw.mode & !0o7777 != 0 || raw.mode != 0 && !makes {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let path_only = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    let flags = open_flags(flags);
    if flags.contains(OpenFlags::PATH) && !path_only.contains(flags) {
        return Err(Errno::EINVAL);
    }
    Ok(OpenHow { flags, mode: raw.mode as u32, resolve })
}

pub(crate) fn close(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.files().close(a.fd(0)).map(|()| 0)
}

pub(crate) fn close_range(cx: &mut Context, a: Args) -> Result<usize> {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    let (first, last, flags) = (a.uint(0), a.uint(1), a.uint(2));
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & UNSHARE != 0 {
        cx.task.unshare_files()?;
    }
    let files = cx.task.files();
    if flags & CLOEXEC != 0 {
        files.set_close_on_exec_range(first, last);
    } else {
        files.close_range(first, last);
    }
    Ok(0)
}

pub(crate) fn dup(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get_any(a.fd(0))?;
    install(cx.task, open, false)
}

pub(crate) fn dup2(cx: &mut Context, a: Args) -> Result<usize> {
    let (old, new) = (a.fd(0), a.fd(1));
    let files = cx.task.files();
    let open = files.get_any(old)?;
    if old != new {
        files.replace(new, open, false, fd_limit(cx.task))?;
    }
    Ok(new as usize)
}

pub(crate) fn dup3(cx: &mut Context, a: Args) -> Result<usize> {
    let (old, new, flags) = (a.fd(0), a.fd(1), a.uint(2));
    if flags & !c::O_CLOEXEC != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    let files = cx.task.files();
    let open = files.get_any(old)?;
    files.replace(new, open, flags != 0, fd_limit(cx.task))?;
    Ok(new as usize)
}

pub(crate) fn memfd_create(cx: &mut Context, a: Args) -> Result<usize> {
    const CLOEXEC: u32 = 1;
    const ALLOW_SEALING: u32 = 2;
    const NOEXEC_SEAL: u32 = 8;
    const EXEC: u32 = 16;
    /// MFD_NAME_MAX_LEN and the NUL.
    const NAME_MAX: usize = 250;
    let flags = crate::path::only(a.uint(1), CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC)?;
    let has = |flag| flags & flag != 0;
    let sealing = match (has(NOEXEC_SEAL), has(ALLOW_SEALING)) {
        (true, _) if has(EXEC) => return Err(Errno::EINVAL),
        (true, _) => Sealing::NoExec,
        (false, true) => Sealing::Allowed,
        (false, false) => Sealing::No,
    };
    let name =
        UserString::read(a.0[0], NAME_MAX).map_err(|e| if e == Errno::ENAMETOOLONG { Errno::EINVAL } else { e })?;
    let open = fs::memfd::create(&cx.task.fs_context(), name.bytes(), sealing)?;
    install(cx.task, open, flags & CLOEXEC != 0)
}
