//! Signals.

use base::{Errno, Result};
use hal::user::UserPtr;
use process::signal::info_codes::{SI_TKILL, SI_USER};
use process::signal::{self, Action, SA_KNOWN, SIGINFO_SIZE, SigInfo, SigSet, Signal, StackT, send, wait};
use process::{Pid, pidfd};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

const SIG_BLOCK: i32 = 0;
const SIG_UNBLOCK: i32 = 1;
const SIG_SETMASK: i32 = 2;

/// The kernel's `sigset_t` is 8 bytes: any other size is refused.
pub(crate) fn check_set_size(size: usize) -> Result<()> {
    if size == size_of::<u64>() { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(crate) fn rt_sigaction(cx: &mut Context, a: Args) -> Result<usize> {
    check_set_size(a.size(3))?;
    let signal = Signal::new(a.int(0))?;
    let new = a.ptr::<Action>(1).non_null().map(UserPtr::read).transpose()?;
    let process = cx.task.process();
    let actions = process.actions();
    let old = match new {
        Some(_) if signal.is_kernel_only() => return Err(Errno::EINVAL),
        Some(mut action) => {
            action.flags &= SA_KNOWN;
            action.mask &= !SigSet::UNBLOCKABLE.0;
            let old = actions.set(signal, action);
            send::flush_ignored(process, signal);
            old
        }
        None => actions.get(signal),
    };
    if let Some(to) = a.ptr::<Action>(2).non_null() {
        to.write(&old)?;
    }
    Ok(0)
}

pub(crate) fn rt_sigprocmask(cx: &mut Context, a: Args) -> Result<usize> {
    check_set_size(a.size(3))?;
    let old = cx.task.blocked();
    if let Some(new) = a.ptr::<u64>(1).non_null() {
        let set = SigSet(new.read()?);
        let mask = match a.int(0) {
            SIG_BLOCK => old.or(set),
            SIG_UNBLOCK => old.without(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        signal::set_mask(cx.task, mask);
    }
    if let Some(to) = a.ptr::<u64>(2).non_null() {
        to.write(&old.0)?;
    }
    Ok(0)
}

pub(crate) fn rt_sigpending(cx: &mut Context, a: Args) -> Result<usize> {
    if a.size(1) > size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    let set = signal::pending(cx.task).0.to_ne_bytes();
    hal::user::copy_out(a.size(0), &set[..a.size(1)])?;
    Ok(0)
}

pub(crate) fn rt_sigsuspend(cx: &mut Context, a: Args) -> Result<usize> {
    check_set_size(a.size(1))?;
    let mask = SigSet(a.ptr::<u64>(0).read()?);
    signal::with_temporary_mask(cx.task, Some(mask), || Err(wait::pause(cx.task)))
}

pub(crate) fn pause(cx: &mut Context, _: Args) -> Result<usize> {
    Err(wait::pause(cx.task))
}

pub(crate) fn rt_sigtimedwait(cx: &mut Context, a: Args) -> Result<usize> {
    check_set_size(a.size(3))?;
    let wanted = SigSet(a.ptr::<u64>(0).read()?);
    let timeout = Timespec::read_optional(a.ptr(2))?;
    let deadline = timeout.map(|timeout| sched::time::now().saturating_add(timeout));
    let info = wait::timed_wait(cx.task, wanted, deadline)?;
    if let Some(to) = a.ptr::<[u8; SIGINFO_SIZE]>(1).non_null() {
        to.write(&info.to_bytes())?;
    }
    Ok(info.signal.number() as usize)
}

pub(crate) fn rt_sigreturn(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(signal::sigreturn(cx.task, cx.regs))
}

pub(crate) fn sigaltstack(cx: &mut Context, a: Args) -> Result<usize> {
    let new = a.ptr::<StackT>(0).non_null().map(UserPtr::read).transpose()?;
    let old = signal::alt_stack(cx.task, new, cx.regs.rsp)?;
    if let Some(to) = a.ptr::<StackT>(1).non_null() {
        to.write(&old)?;
    }
    Ok(0)
}

pub(crate) fn kill(cx: &mut Context, a: Args) -> Result<usize> {
    let signal = Signal::or_zero(a.int(1))?;
    send::kill(cx.task, a.int(0), signal)?;
    Ok(0)
}

fn from_caller(cx: &Context, signal: Option<Signal>, code: i32) -> Option<SigInfo> {
    signal.map(|signal| SigInfo::from_user(signal, code, cx.task.pid(), cx.task.cred().uid))
}

pub(crate) fn tkill(cx: &mut Context, a: Args) -> Result<usize> {
    let tid = positive(a.int(0))?;
    let signal = Signal::or_zero(a.int(1))?;
    send::thread_kill(cx.task, None, tid, signal, from_caller(cx, signal, SI_TKILL))?;
    Ok(0)
}

pub(crate) fn tgkill(cx: &mut Context, a: Args) -> Result<usize> {
    let (tgid, tid) = (positive(a.int(0))?, positive(a.int(1))?);
    let signal = Signal::or_zero(a.int(2))?;
    send::thread_kill(cx.task, Some(tgid), tid, signal, from_caller(cx, signal, SI_TKILL))?;
    Ok(0)
}

fn positive(pid: Pid) -> Result<Pid> {
    if pid > 0 { Ok(pid) } else { Err(Errno::EINVAL) }
}

/// Reads a `siginfo_t` that a process wants to send; what only the kernel and kill(2) may say is for itself alone.
fn read_info(
    cx: &Context,
    at: UserPtr<[u8; SIGINFO_SIZE]>,
    signal: Option<Signal>,
    to: Pid,
) -> Result<Option<SigInfo>> {
    let bytes = at.read()?;
    let info = signal.map(|signal| SigInfo::from_bytes(signal, &bytes));
    let code = i32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if (code >= 0 || code == SI_TKILL) && to != cx.task.pid() {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

pub(crate) fn rt_sigqueueinfo(cx: &mut Context, a: Args) -> Result<usize> {
    let pid = a.int(0);
    let signal = Signal::or_zero(a.int(1))?;
    let info = read_info(cx, a.ptr(2), signal, pid)?;
    send::kill_one(cx.task, pid, signal, info)?;
    Ok(0)
}

pub(crate) fn rt_tgsigqueueinfo(cx: &mut Context, a: Args) -> Result<usize> {
    let (tgid, tid) = (positive(a.int(0))?, positive(a.int(1))?);
    let signal = Signal::or_zero(a.int(2))?;
    let info = read_info(cx, a.ptr(3), signal, tgid)?;
    send::thread_kill(cx.task, Some(tgid), tid, signal, info)?;
    Ok(0)
}

pub(crate) fn pidfd_send_signal(cx: &mut Context, a: Args) -> Result<usize> {
    if a.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let process = pidfd::process_or_directory(&*cx.task.files().get_any(a.fd(0))?)?;
    let signal = Signal::or_zero(a.int(1))?;
    let info = match a.ptr::<[u8; SIGINFO_SIZE]>(2).non_null() {
        Some(at) => {
            let bytes = at.read()?;
            let named = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if named != a.int(1) {
                return Err(Errno::EINVAL);
            }
            read_info(cx, at, signal, process.pid())?
        }
        None => from_caller(cx, signal, SI_USER),
    };
    if process.is_reaped() {
        return Err(Errno::ESRCH);
    }
    send::kill_one(cx.task, process.pid(), signal, info)?;
    Ok(0)
}
