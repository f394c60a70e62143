//! From the trap to the handler: one table lookup, no lock, no allocation.

use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Result};
use hal::regs::UserRegs;
use process::ptrace::{self, Point};
use process::{SyscallWork, Task, seccomp, user_dispatch};

use crate::args::Args;
use crate::context::Context;
use crate::table::{COUNT, ENTRIES, HANDLERS};

/// Numbers that were called in vain and logged, one bit each.
static LOGGED: [AtomicU64; COUNT.div_ceil(64)] = [const { AtomicU64::new(0) }; COUNT.div_ceil(64)];

/// Carries out the system call that `regs` asks for and stores its result in `rax`. The hook for hal.
pub fn dispatch(regs: &mut UserRegs) {
    // Linux looks at the low 32 bits alone.
    let number = regs.orig_rax as u32 as usize;
    let args = Args(regs.args());
    let result = process::with_current(|task| {
        if !task.syscall_work().is_empty() {
            return watched(task, regs);
        }
        if mm::frames::pressure() == mm::frames::Pressure::Critical {
            process::oom::relieve(task);
        }
        let handler = HANDLERS.get(number).copied().unwrap_or(missing);
        let result = handler(&mut Context { task, regs }, args);
        if let Err(error) = result {
            task.note_restart(error);
        }
        result
    });
    regs.rax = match result {
        Ok(value) => value,
        Err(error) => error.to_return(),
    };
}

/// The same for a thread whose calls somebody watches: itself, its tracer, its seccomp filters, in Linux's order.
#[cold]
fn watched(task: &Task, regs: &mut UserRegs) -> Result<usize> {
    let work = task.syscall_work();
    if work.contains(SyscallWork::DISPATCH) && user_dispatch::intercepts(task, regs) {
        return Ok(regs.rax);
    }
    regs.rax = Errno::ENOSYS.to_return();
    if work.contains(SyscallWork::TRACE) {
        ptrace::syscall_stop(task, regs, Point::Entry);
    }
    let made = !task.is_dying()
        && (!work.contains(SyscallWork::SECCOMP) || seccomp::check(task, regs) == seccomp::Outcome::Made);
    let number = regs.orig_rax as u32 as usize;
    let args = Args(regs.args());
    // A tracer skips the call by making its number -1.
    if made && number != u32::MAX as usize {
        let handler = HANDLERS.get(number).copied().unwrap_or(missing);
        let result = handler(&mut Context { task, regs }, args);
        if let Err(error) = result {
            task.note_restart(error);
        }
        regs.rax = result.unwrap_or_else(Errno::to_return);
    }
    // exit(2) never returns, so nobody sees it do so.
    if task.syscall_work().contains(SyscallWork::TRACE) && !task.is_dying() {
        ptrace::syscall_stop(task, regs, Point::Exit);
    }
    Ok(regs.rax)
}

/// The handler of numbers that have none: `ENOSYS`, and a line in the kernel's log the first time.
pub(crate) fn missing(cx: &mut Context<'_>, _: Args) -> Result<usize> {
    let number = cx.regs.orig_rax as u32 as usize;
    let first = LOGGED.get(number / 64).is_some_and(|word| {
        let bit = 1 << (number % 64);
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    });
    if first && let Some(entry) = ENTRIES.get(number).filter(|entry| !entry.name.is_empty()) {
        log::info!("system call {number} ({}) is not implemented", entry.name);
    }
    Err(Errno::ENOSYS)
}
