//! The tracer's side: what ptrace(2) asks of a tracee that is stopped.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use hal::regs::UserRegs;

use super::{Event, Point, Resume, Stopped, attach, detach, options};
use crate::signal::{SIGKILL, SIGSTOP, SigInfo, SigSet, Signal, send};
use crate::{Pid, Process, SyscallWork, Task, inspect, seccomp, tree};

/// `struct user_regs_struct`: the general registers, and what else a debugger wants.
#[repr(C)]
#[derive(Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[allow(missing_docs, reason = "as in <sys/user.h>")]
pub struct AllRegs {
    pub general: UserRegs,
    pub fs_base: usize,
    pub gs_base: usize,
    pub ds: usize,
    pub es: usize,
    pub fs: usize,
    pub gs: usize,
}

/// What a tracee is stopped at.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// Around a system call?
    pub point: Point,
    /// Its registers.
    pub regs: UserRegs,
}

/// PTRACE_TRACEME: the calling thread's parent traces it. `EPERM`.
pub fn trace_me(task: &Task) -> Result<()> {
    let parent = tree::process(task.process().ppid()).ok_or(Errno::EPERM)?;
    let me = tree::task(task.tid()).ok_or(Errno::EPERM)?;
    if task.traced.load(Ordering::SeqCst) {
        return Err(Errno::EPERM);
    }
    if let Some(tracer) = parent.any_thread() {
        fs::landlock::may_trace(&tracer.cred(), &task.cred())?;
    }
    attach(&me, &parent, false, 0);
    Ok(())
}

/// PTRACE_ATTACH, or PTRACE_SEIZE with its options. `ESRCH`, `EPERM`, `EINVAL` (options).
pub fn attach_to(tracer: &Task, tid: Pid, seize: Option<u32>) -> Result<()> {
    let target = tree::task(tid).ok_or(Errno::ESRCH)?;
    let options = seize.unwrap_or(0);
    if options & !options::ALL != 0 {
        return Err(Errno::EIO);
    }
    check_options(tracer, options)?;
    let own = Arc::ptr_eq(target.process(), tracer.process());
    if own || target.process().is_init() || target.traced.load(Ordering::SeqCst) {
        return Err(Errno::EPERM);
    }
    inspect::check(tracer, &target)?;
    if target.exiting.load(Ordering::SeqCst) {
        return Err(Errno::EPERM);
    }
    attach(&target, tracer.process(), seize.is_some(), options);
    if seize.is_none() {
        send::to_task(&target, SigInfo::from_user(SIGSTOP, 0, tracer.pid(), tracer.cred().uid))?;
    }
    if let Some(thread) = target.thread() {
        thread.interrupt();
    }
    Ok(())
}

/// The thread `tid` if `tracer` traces it. `ESRCH`.
pub fn tracee(tracer: &Process, tid: Pid) -> Result<Arc<Task>> {
    let task = tree::task(tid).ok_or(Errno::ESRCH)?;
    let mine = task.trace.lock_irq().as_ref().is_some_and(|trace| trace.tracer_pid == tracer.pid());
    if mine { Ok(task) } else { Err(Errno::ESRCH) }
}

/// Runs `f` on a tracee's stop. `ESRCH` if it is not stopped.
fn with_stop<R>(task: &Task, f: impl FnOnce(&mut Stopped) -> Result<R>) -> Result<R> {
    let mut slot = task.trace.lock_irq();
    f(slot.as_mut().and_then(|trace| trace.stopped.as_mut()).ok_or(Errno::ESRCH)?)
}

/// Fails with `ESRCH` unless it is stopped.
pub fn check_stopped(task: &Task) -> Result<()> {
    with_stop(task, |_| Ok(()))
}

/// PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP: goes on, with a signal if given. `ESRCH`.
pub fn resume(task: &Task, how: Resume, signal: Option<Signal>) -> Result<()> {
    {
        let mut slot = task.trace.lock_irq();
        let trace = slot.as_mut().ok_or(Errno::ESRCH)?;
        let stopped = trace.stopped.take().ok_or(Errno::ESRCH)?;
        trace.left = Some(stopped);
        (trace.inject, trace.resume) = (signal, how);
    }
    if how == Resume::Syscall {
        task.add_syscall_work(SyscallWork::TRACE);
    } else {
        task.remove_syscall_work(SyscallWork::TRACE);
    }
    task.trace_wait.wake_all();
    Ok(())
}

/// PTRACE_DETACH. `ESRCH`.
pub fn let_go(task: &Arc<Task>, signal: Option<Signal>) -> Result<()> {
    check_stopped(task)?;
    detach(task, signal);
    Ok(())
}

/// PTRACE_KILL.
pub fn kill(task: &Task) {
    let _ = send::to_process(task.process(), SigInfo::kernel(SIGKILL));
}

/// PTRACE_INTERRUPT. `EIO` unless it was seized.
pub fn interrupt(task: &Task) -> Result<()> {
    {
        let mut slot = task.trace.lock_irq();
        let trace = slot.as_mut().ok_or(Errno::ESRCH)?;
        if !trace.seized {
            return Err(Errno::EIO);
        }
        if trace.stopped.is_some() {
            return Ok(());
        }
        trace.trap = true;
    }
    if let Some(thread) = task.thread() {
        thread.interrupt();
    }
    Ok(())
}

/// PTRACE_LISTEN. `EIO` unless it is in a group stop or trap of a seized thread.
pub fn listen(task: &Task) -> Result<()> {
    with_stop(task, |stopped| {
        if stopped.code >> 8 != Event::Stop as i32 {
            return Err(Errno::EIO);
        }
        stopped.listening = true;
        Ok(())
    })?;
    task.trace_wait.wake_all();
    Ok(())
}

/// May the tracer set these options? `EPERM`.
fn check_options(tracer: &Task, options: u32) -> Result<()> {
    if options & options::SUSPEND_SECCOMP != 0 { seccomp::check_suspension(tracer) } else { Ok(()) }
}

/// PTRACE_SETOPTIONS. `EINVAL`, `EPERM`, `ESRCH`.
pub fn set_options(tracer: &Task, task: &Task, new: u32) -> Result<()> {
    if new & !options::ALL != 0 {
        return Err(Errno::EINVAL);
    }
    check_options(tracer, new)?;
    let mut slot = task.trace.lock_irq();
    let trace = slot.as_mut().filter(|trace| trace.stopped.is_some()).ok_or(Errno::ESRCH)?;
    trace.options = new;
    Ok(())
}

/// PTRACE_GETEVENTMSG. `ESRCH`.
pub fn message(task: &Task) -> Result<u64> {
    check_stopped(task)?;
    task.trace.lock_irq().as_ref().map(|trace| trace.message).ok_or(Errno::ESRCH)
}

/// PTRACE_GETSIGINFO. `EINVAL` in a group stop, `ESRCH`.
pub fn info(task: &Task) -> Result<SigInfo> {
    with_stop(task, |stopped| stopped.info.ok_or(Errno::EINVAL))
}

/// PTRACE_SETSIGINFO. `EINVAL`, `ESRCH`.
pub fn set_info(task: &Task, info: SigInfo) -> Result<()> {
    with_stop(task, |stopped| stopped.info.as_mut().map(|old| *old = info).ok_or(Errno::EINVAL))
}

/// PTRACE_PEEKSIGINFO: the signal at that place among those that are queued for the thread, or for its process.
pub fn pending(task: &Task, shared: bool, at: usize) -> Option<SigInfo> {
    if shared { task.process().group.lock_irq().queue.peek(at) } else { task.with_queue(|queue| queue.peek(at)) }
}

/// The registers. `ESRCH`.
pub fn regs(task: &Task) -> Result<AllRegs> {
    with_stop(task, |stopped| {
        let (fs_base, gs_base) = stopped.bases;
        Ok(AllRegs { general: stopped.regs, fs_base, gs_base, ds: 0, es: 0, fs: 0, gs: 0 })
    })
}

/// Sets the registers; what user mode may not change stays. `EIO` (a base outside the user half), `ESRCH`.
pub fn set_regs(task: &Task, new: &AllRegs) -> Result<()> {
    if new.fs_base >= hal::user::USER_END || new.gs_base >= hal::user::USER_END {
        return Err(Errno::EIO);
    }
    with_stop(task, |stopped| {
        stopped.regs = new.general;
        stopped.regs.sanitize();
        stopped.bases = (new.fs_base, new.gs_base);
        Ok(())
    })
}

/// The floating-point state: an XSAVE image. `ESRCH`.
pub fn fpu(task: &Task) -> Result<Vec<u8>> {
    with_stop(task, |stopped| Ok(stopped.fpu.clone()))
}

/// Sets the first bytes of the floating-point state. `ESRCH`.
pub fn set_fpu(task: &Task, bytes: &[u8]) -> Result<()> {
    with_stop(task, |stopped| {
        let len = bytes.len().min(stopped.fpu.len());
        stopped.fpu[..len].copy_from_slice(&bytes[..len]);
        stopped.fpu_changed = true;
        Ok(())
    })
}

/// What it is stopped at. `ESRCH`.
pub fn at(task: &Task) -> Result<At> {
    with_stop(task, |stopped| Ok(At { point: stopped.point, regs: stopped.regs }))
}

/// PTRACE_SETSIGMASK. `ESRCH`.
pub fn set_mask(task: &Task, mask: u64) -> Result<()> {
    check_stopped(task)?;
    task.store_blocked(SigSet(mask));
    Ok(())
}
