//! Making, ending and waiting for processes and threads.

use core::sync::atomic::Ordering;

use base::{Errno, Result};
use hal::user::UserPtr;
use process::exit::exited;
use process::fork::{self, CloneArgs, flags, may_make_namespaces};
use process::wait::{self, Report, Which};
use process::{FsState, Pid, pidfd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::{Args, extensible};
use crate::context::Context;
use crate::resource::Rusage;

/// The signal in the low bits of clone(2)'s flags.
const CSIGNAL: u64 = 0xff;

pub(crate) fn fork(cx: &mut Context, _: Args) -> Result<usize> {
    fork::clone(cx.task, cx.regs, &fork::fork_args()).map(|pid| pid as usize)
}

pub(crate) fn vfork(cx: &mut Context, _: Args) -> Result<usize> {
    fork::clone(cx.task, cx.regs, &fork::vfork_args()).map(|pid| pid as usize)
}

pub(crate) fn clone(cx: &mut Context, a: Args) -> Result<usize> {
    let all = u64::from(a.uint(0));
    let mut args = CloneArgs {
        flags: all & !CSIGNAL,
        exit_signal: (all & CSIGNAL) as i32,
        stack: a.size(1),
        parent_tid: a.size(2),
        pidfd: a.size(2),
        child_tid: a.size(3),
        tls: a.size(4),
        set_tid: None,
    };
    // Both results would go to the same word.
    if args.flags & (flags::CLONE_PIDFD | flags::CLONE_PARENT_SETTID) == flags::CLONE_PIDFD | flags::CLONE_PARENT_SETTID
    {
        return Err(Errno::EINVAL);
    }
    if args.flags & flags::CLONE_THREAD != 0 {
        args.exit_signal = 0;
    }
    fork::clone(cx.task, cx.regs, &args).map(|pid| pid as usize)
}

/// `struct clone_args`, third version.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct UserCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(crate) fn clone3(cx: &mut Context, a: Args) -> Result<usize> {
    let user = read_clone_args(a.size(0), a.size(1))?;
    if user.flags & !0x3_ffff_ffff != 0 {
        return Err(Errno::EINVAL);
    }
    // CLONE_NEWTIME shares its bit with the signal of the old call, CLONE_DETACHED is gone.
    if user.flags & (flags::CLONE_DETACHED | CSIGNAL & !flags::CLONE_NEWTIME) != 0 {
        return Err(Errno::EINVAL);
    }
    let threadlike = user.flags & (flags::CLONE_THREAD | flags::CLONE_PARENT) != 0;
    if user.exit_signal > 64 || threadlike && user.exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    let stack = match (user.stack, user.stack_size) {
        (0, 0) => 0,
        (0, _) | (_, 0) => return Err(Errno::EINVAL),
        (base, size) => base.checked_add(size).filter(|&top| top <= hal::user::USER_END as u64).ok_or(Errno::EINVAL)?,
    };
    let args = CloneArgs {
        flags: user.flags,
        pidfd: user.pidfd as usize,
        child_tid: user.child_tid as usize,
        parent_tid: user.parent_tid as usize,
        exit_signal: user.exit_signal as i32,
        stack: stack as usize,
        tls: user.tls as usize,
        set_tid: read_set_tid(user.set_tid as usize, user.set_tid_size)?,
    };
    fork::clone(cx.task, cx.regs, &args).map(|pid| pid as usize)
}

/// One number, since there is one PID namespace.
fn read_set_tid(at: usize, count: u64) -> Result<Option<Pid>> {
    match (at, count) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => Err(Errno::EINVAL),
        (at, 1) => UserPtr::<Pid>::new(at).read().map(Some),
        _ => Err(Errno::EINVAL),
    }
}

/// clone3(2)'s arguments. `E2BIG`, `EINVAL`, `EFAULT`.
fn read_clone_args(at: usize, size: usize) -> Result<UserCloneArgs> {
    const FIRST_VERSION: usize = 64;
    if size < FIRST_VERSION { Err(Errno::EINVAL) } else { extensible(at, size) }
}

pub(crate) fn exit(cx: &mut Context, a: Args) -> Result<usize> {
    process::exit::exit(cx.task, exited(a.int(0)));
    Ok(0)
}

pub(crate) fn exit_group(cx: &mut Context, a: Args) -> Result<usize> {
    process::exit::exit_group(cx.task, exited(a.int(0)));
    Ok(0)
}

pub(crate) fn wait4(cx: &mut Context, a: Args) -> Result<usize> {
    const ALLOWED: u32 =
        wait::WNOHANG | wait::WUNTRACED | wait::WCONTINUED | wait::WNOTHREAD | wait::WCLONE | wait::WALL;
    let (pid, options) = (a.int(0), a.uint(2));
    if options & !ALLOWED != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(cx.task.process().pgid()),
        1.. => Which::Process(pid),
        _ => Which::Group(-pid),
    };
    let Some(report) = wait::wait(cx.task, which, options | wait::WEXITED)? else { return Ok(0) };
    if let Some(status) = a.ptr::<i32>(1).non_null() {
        status.write(&report.status)?;
    }
    if let Some(rusage) = a.ptr::<Rusage>(3).non_null() {
        rusage.write(&Rusage::of(&report.used))?;
    }
    Ok(report.pid as usize)
}

/// The part of `siginfo_t` that waitid(2) fills in.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct ChildInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    status: i32,
}

impl ChildInfo {
    fn of(report: &Report) -> ChildInfo {
        let signo = process::signal::SIGCHLD.number();
        let Report { pid, uid, code, value, .. } = *report;
        ChildInfo { signo, errno: 0, code, pad: 0, pid, uid, status: value }
    }
}

pub(crate) fn waitid(cx: &mut Context, a: Args) -> Result<usize> {
    const WHAT: u32 = wait::WEXITED | wait::WUNTRACED | wait::WCONTINUED;
    const ALLOWED: u32 = WHAT | wait::WNOHANG | wait::WNOWAIT | wait::WNOTHREAD | wait::WCLONE | wait::WALL;
    let (kind, id, mut options) = (a.int(0), a.int(1), a.uint(3));
    if options & !ALLOWED != 0 || options & WHAT == 0 {
        return Err(Errno::EINVAL);
    }
    let mut nonblocking_pidfd = false;
    let which = match kind {
        0 => Which::Any,
        1 if id > 0 => Which::Process(id),
        2 if id > 0 => Which::Group(id),
        2 if id == 0 => Which::Group(cx.task.process().pgid()),
        3 if id >= 0 => {
            let (process, nonblock) = pidfd::process_of(&*cx.task.files().get(id)?)?;
            nonblocking_pidfd = nonblock && options & wait::WNOHANG == 0;
            Which::Process(process.pid())
        }
        _ => return Err(Errno::EINVAL),
    };
    if nonblocking_pidfd {
        options |= wait::WNOHANG;
    }
    let report = wait::wait(cx.task, which, options)?;
    if report.is_none() && nonblocking_pidfd {
        return Err(Errno::EAGAIN);
    }
    if let (Some(report), Some(rusage)) = (&report, a.ptr::<Rusage>(4).non_null()) {
        rusage.write(&Rusage::of(&report.used))?;
    }
    if let Some(info) = a.ptr::<ChildInfo>(2).non_null() {
        info.write(&report.as_ref().map_or(ChildInfo::default(), ChildInfo::of))?;
    }
    Ok(0)
}

pub(crate) fn getpid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.pid() as usize)
}

pub(crate) fn gettid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.tid() as usize)
}

pub(crate) fn getppid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.process().ppid() as usize)
}

pub(crate) fn set_tid_address(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.set_clear_child_tid(a.size(0));
    Ok(cx.task.tid() as usize)
}

pub(crate) fn unshare(cx: &mut Context, a: Args) -> Result<usize> {
    let asked = a.size(0) as u64;
    let known = flags::NAMESPACES
        | flags::CLONE_FS
        | flags::CLONE_FILES
        | flags::CLONE_SYSVSEM
        | flags::CLONE_THREAD
        | flags::CLONE_SIGHAND
        | flags::CLONE_VM;
    if asked & !known != 0 {
        return Err(Errno::EINVAL);
    }
    // Memory and signal actions can't be unshared from living threads.
    let bound = flags::CLONE_THREAD | flags::CLONE_SIGHAND | flags::CLONE_VM;
    if asked & bound != 0 && cx.task.process().thread_count() > 1 {
        return Err(Errno::EINVAL);
    }
    may_make_namespaces(cx.task, asked)?;
    if asked & flags::CLONE_NEWNS != 0 {
        let copy = cx.task.fs().with_own_namespace();
        cx.task.replace_fs(copy);
    } else if asked & flags::CLONE_FS != 0 {
        let copy: FsState = cx.task.fs().duplicate();
        cx.task.replace_fs(copy);
    }
    if asked & flags::CLONE_FILES != 0 {
        cx.task.unshare_files()?;
    }
    if asked & flags::CLONE_SYSVSEM != 0 {
        cx.task.leave_semaphore_undo();
    }
    Ok(0)
}

pub(crate) fn personality(cx: &mut Context, a: Args) -> Result<usize> {
    let new = a.uint(0);
    let old = cx.task.personality.load(Ordering::Relaxed);
    if new != u32::MAX {
        cx.task.personality.store(new, Ordering::Relaxed);
    }
    Ok(old as usize)
}

pub(crate) fn umask(cx: &mut Context, a: Args) -> Result<usize> {
    Ok(cx.task.fs().set_umask(a.uint(0)) as usize)
}
