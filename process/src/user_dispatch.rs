//! Syscall user dispatch: a thread's system calls from outside one range of code come back to it as SIGSYS (prctl(2)'s
//! PR_SET_SYSCALL_USER_DISPATCH), for programs that make another system's calls.

use base::{Errno, Result};
use hal::regs::UserRegs;
use hal::user::{USER_END, UserPtr};

use crate::seccomp::CallData;
use crate::signal::{SIGSEGV, SIGSYS, SigFields, SigInfo, send};
use crate::task::SyscallWork;
use crate::{Task, exit};

/// Which calls are made, and how the thread switches.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Dispatch {
    /// Calls from here are made always.
    start: usize,
    len: usize,
    /// Where the thread says whether others are, too; 0 for never.
    selector: usize,
}

/// PR_SET_SYSCALL_USER_DISPATCH. `EINVAL`, `EFAULT`.
pub fn set(task: &Task, on: bool, start: usize, len: usize, selector: usize) -> Result<()> {
    if !on {
        if start != 0 || len != 0 || selector != 0 {
            return Err(Errno::EINVAL);
        }
        task.remove_syscall_work(SyscallWork::DISPATCH);
        return Ok(());
    }
    if start != 0 && start.wrapping_add(len) <= start {
        return Err(Errno::EINVAL);
    }
    if selector >= USER_END {
        return Err(Errno::EFAULT);
    }
    *task.dispatch.lock() = Dispatch { start, len, selector };
    task.add_syscall_work(SyscallWork::DISPATCH);
    Ok(())
}

/// Does the call that the thread is about to make come back to it? Then SIGSYS is pending, and the registers are as before the call.
pub fn intercepts(task: &Task, regs: &mut UserRegs) -> bool {
    const ALLOW: u8 = 0;
    const BLOCK: u8 = 1;
    const SYS_USER_DISPATCH: i32 = 2;
    let Dispatch { start, len, selector } = *task.dispatch.lock();
    if regs.rip.wrapping_sub(start) < len {
        return false;
    }
    if selector != 0 {
        match UserPtr::<u8>::new(selector).read() {
            Ok(ALLOW) => return false,
            Ok(BLOCK) => {}
            Ok(_) => {
                exit::exit_group(task, SIGSYS.number());
                return true;
            }
            Err(_) => {
                exit::exit_group(task, SIGSEGV.number());
                return true;
            }
        }
    }
    let data = CallData::new(regs);
    regs.rax = regs.orig_rax;
    let fields = SigFields::Syscall { addr: regs.rip, number: data.number, arch: data.arch };
    send::force(task, SigInfo { signal: SIGSYS, errno: 0, code: SYS_USER_DISPATCH, fields });
    true
}
