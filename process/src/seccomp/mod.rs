//! Seccomp: a thread that lets a program decide which system calls it may make (seccomp(2)).
//!
//! [`filter`] is the chain of programs that a thread has, [`notify`] the way to a supervisor. Threads and children inherit the chain;
//! nobody can take a filter away. Lock order: group of a process -> `Task::seccomp`; neither is held while a filter runs.

mod filter;
mod notify;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Capability, Cred, Errno, Result};
use bpf::Instruction;
use fs::Fd;
use hal::regs::UserRegs;

pub use filter::{Action, CallData, Filter};
pub use notify::SIZES as NOTIFY_SIZES;

use crate::ptrace::{self, Event};
use crate::signal::{SIGKILL, SIGSYS, SigFields, SigInfo, send};
use crate::task::SyscallWork;
use crate::{Pid, Task, exit};
use notify::{Listener, Verdict};

/// SECCOMP_FILTER_FLAG_*.
#[allow(missing_docs, reason = "seccomp(2) documents each")]
pub mod flags {
    pub const TSYNC: u32 = 1;
    pub const LOG: u32 = 2;
    pub const SPEC_ALLOW: u32 = 4;
    pub const NEW_LISTENER: u32 = 8;
    pub const TSYNC_ESRCH: u32 = 16;
    pub const WAIT_KILLABLE_RECV: u32 = 32;
    pub const ALL: u32 = 63;
}

/// How a thread's system calls are restricted.
#[derive(Clone, Default)]
pub enum Mode {
    /// Not at all.
    #[default]
    Off,
    /// To read, write, exit and rt_sigreturn.
    Strict,
    /// As its filters say.
    Filters(Arc<Filter>),
}

impl Mode {
    /// SECCOMP_MODE_*.
    pub fn number(&self) -> u8 {
        match self {
            Mode::Off => 0,
            Mode::Strict => 1,
            Mode::Filters(_) => 2,
        }
    }

    /// The newest filter, if there is one.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        if let Mode::Filters(filter) = self { Some(filter) } else { None }
    }
}

/// What becomes of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is made.
    Made,
    /// It is not; `rax` is what the thread gets.
    Skipped,
}

impl Task {
    /// How its system calls are restricted.
    pub fn seccomp(&self) -> Mode {
        self.seccomp.lock_irq().clone()
    }

    fn set_seccomp(&self, mode: Mode) {
        let old = core::mem::replace(&mut *self.seccomp.lock_irq(), mode);
        self.add_syscall_work(SyscallWork::SECCOMP);
        drop(old);
    }

    /// A new thread or child starts with what its maker has. Under the lock of the maker's group, so that SECCOMP_FILTER_FLAG_TSYNC can't
    /// miss it.
    pub(crate) fn inherit_seccomp(&self, maker: &Task) {
        let mode = maker.seccomp();
        if !matches!(mode, Mode::Off) {
            self.set_seccomp(mode);
        }
    }

    /// At its end: lets go of its filters, for whoever listens to hear of it.
    pub(crate) fn leave_seccomp(&self) {
        let old = core::mem::take(&mut *self.seccomp.lock_irq());
        drop(old);
    }
}

/// SECCOMP_SET_MODE_STRICT. `EINVAL` with filters.
pub fn set_strict(task: &Task) -> Result<()> {
    if let Mode::Filters(_) = task.seccomp() {
        return Err(Errno::EINVAL);
    }
    task.set_seccomp(Mode::Strict);
    Ok(())
}

/// May the thread restrict itself? Not where a program that gets privileges by exec could be misled. `EACCES`.
pub fn check_rights(cred: &Cred) -> Result<()> {
    if cred.no_new_privs || cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EACCES) }
}

/// SECCOMP_SET_MODE_FILTER: 0, a listener's descriptor, or with [`flags::TSYNC`] the thread that could not follow. `EINVAL`, `ENOMEM`,
/// `EBUSY` (a second listener), `EMFILE`, `ESRCH`.
pub fn add_filter(task: &Task, instructions: Vec<Instruction>, flags: u32) -> Result<usize> {
    if !filter::is_for_calls(&instructions) {
        return Err(Errno::EINVAL);
    }
    let listens = flags & flags::NEW_LISTENER != 0;
    let listener = listens.then(|| Listener::new(flags & flags::WAIT_KILLABLE_RECV != 0));
    let logs = flags & flags::LOG != 0;
    // Nobody but the thread itself changes its mode, but for another thread's TSYNC: that needs the lock of the group.
    let process = task.process().clone();
    let fd = listener.as_ref().map(|listener| notify::install(task, listener)).transpose()?;
    let installed = {
        let group = process.group.lock_irq();
        let others = if flags & flags::TSYNC != 0 { &group.threads[..] } else { &[] };
        install(task, others, listens, |previous| Filter::new(instructions, logs, listener, previous))
    };
    match installed {
        Ok(()) => Ok(fd.map_or(0, |fd| fd as usize)),
        Err(refused) => {
            take_back(task, fd);
            match refused {
                Refused::ByThread(_) if flags & flags::TSYNC_ESRCH != 0 => Err(Errno::ESRCH),
                Refused::ByThread(tid) => Ok(tid as usize),
                Refused::For(error) => Err(error),
            }
        }
    }
}

fn take_back(task: &Task, fd: Option<Fd>) {
    if let Some(fd) = fd {
        let _ = task.files().close(fd);
    }
}

/// Why a filter could not be added.
enum Refused {
    /// A thread has other filters.
    ByThread(Pid),
    For(Errno),
}

/// Puts a filter in front of the thread's, and gives all to the other threads. With the lock of the group held.
fn install(
    task: &Task,
    others: &[Arc<Task>],
    listens: bool,
    make: impl FnOnce(Option<Arc<Filter>>) -> Result<Arc<Filter>>,
) -> core::result::Result<(), Refused> {
    let mode = task.seccomp();
    if matches!(mode, Mode::Strict) {
        return Err(Refused::For(Errno::EINVAL));
    }
    let has_listener = |filter: &Filter| filter.listener.as_ref().is_some_and(|listener| listener.is_open());
    if listens && mode.filter().is_some_and(|filter| filter.chain().any(|filter| has_listener(filter))) {
        return Err(Refused::For(Errno::EBUSY));
    }
    let others = || others.iter().filter(|other| !core::ptr::eq(&***other, task));
    if let Some(stubborn) = others().find(|other| !can_follow(&other.seccomp(), &mode)) {
        return Err(Refused::ByThread(stubborn.tid()));
    }
    let filter = make(mode.filter().cloned()).map_err(Refused::For)?;
    let cred = task.cred();
    for other in others() {
        if cred.no_new_privs && !other.cred().no_new_privs {
            other.set_cred(Arc::new(Cred { no_new_privs: true, ..Cred::clone(&other.cred()) }));
        }
        other.set_seccomp(Mode::Filters(filter.clone()));
    }
    task.set_seccomp(Mode::Filters(filter));
    Ok(())
}

/// Can a thread with `theirs` go over to filters on top of `ours`? Only if it has none that the other has not.
fn can_follow(theirs: &Mode, ours: &Mode) -> bool {
    match theirs {
        Mode::Off => true,
        Mode::Strict => false,
        Mode::Filters(theirs) => {
            ours.filter().is_some_and(|ours| ours.chain().any(|filter| Arc::ptr_eq(filter, theirs)))
        }
    }
}

/// Decides about the system call that the calling thread, with registers `regs`, is about to make.
pub fn check(task: &Task, regs: &mut UserRegs) -> Outcome {
    match task.seccomp() {
        Mode::Off => Outcome::Made,
        _ if ptrace::suspends_seccomp(task) => Outcome::Made,
        Mode::Strict => check_strict(task, regs),
        Mode::Filters(filter) => check_filters(task, regs, &filter, true),
    }
}

fn check_strict(task: &Task, regs: &UserRegs) -> Outcome {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const SIGRETURN: u32 = 15;
    const EXIT: u32 = 60;
    if matches!(regs.orig_rax as u32, READ | WRITE | SIGRETURN | EXIT) {
        return Outcome::Made;
    }
    exit::exit(task, SIGKILL.number());
    Outcome::Skipped
}

/// `may_trace`: the tracer has not been asked yet.
fn check_filters(task: &Task, regs: &mut UserRegs, filter: &Arc<Filter>, may_trace: bool) -> Outcome {
    let data = CallData::new(regs);
    let (result, by) = filter.decide(&data);
    let detail = result & 0xffff;
    let action = Action::of(result);
    if by.logs || action == Some(Action::Log) {
        log::info!("seccomp: thread {} call {} result {result:#x}", task.tid(), data.number);
    }
    match action {
        Some(Action::Allow | Action::Log) => return Outcome::Made,
        Some(Action::Errno) => regs.rax = (-i64::from(detail.min(4095))) as usize,
        Some(Action::Trap) => {
            regs.rax = regs.orig_rax;
            send::force(task, fault(&data, detail));
        }
        Some(Action::Trace) if may_trace => return ask_tracer(task, regs, filter, detail),
        Some(Action::Trace) => return Outcome::Made,
        Some(Action::Notify) => return ask_supervisor(task, regs, by, data),
        Some(Action::KillThread) if task.process().thread_count() > 1 => exit::exit(task, SIGSYS.number()),
        Some(Action::KillThread | Action::KillProcess) | None => {
            regs.rax = regs.orig_rax;
            exit::exit_group(task, SIGSYS.number());
        }
    }
    Outcome::Skipped
}

/// SIGSYS's `siginfo_t`.
fn fault(data: &CallData, detail: u32) -> SigInfo {
    const SYS_SECCOMP: i32 = 1;
    let fields = SigFields::Syscall { addr: data.instruction_pointer as usize, number: data.number, arch: data.arch };
    SigInfo { signal: SIGSYS, errno: detail as i32, code: SYS_SECCOMP, fields }
}

fn ask_tracer(task: &Task, regs: &mut UserRegs, filter: &Arc<Filter>, detail: u32) -> Outcome {
    if !ptrace::wants(task, Event::Seccomp) {
        regs.rax = Errno::ENOSYS.to_return();
        return Outcome::Skipped;
    }
    ptrace::event(task, regs, Event::Seccomp, u64::from(detail));
    // The tracer may have ended it, or taken the call away by making its number -1.
    if task.is_dying() || regs.orig_rax as u32 as i32 == -1 {
        return Outcome::Skipped;
    }
    // The call may be another by now.
    check_filters(task, regs, filter, false)
}

fn ask_supervisor(task: &Task, regs: &mut UserRegs, by: &Filter, data: CallData) -> Outcome {
    let verdict = by.listener.as_ref().ok_or(Errno::ENOSYS).and_then(|listener| listener.ask(task, data));
    regs.rax = match verdict {
        Ok(Verdict::Continue) => return Outcome::Made,
        Ok(Verdict::Result(value)) => value as usize,
        Ok(Verdict::Error(error)) => i64::from(error) as usize,
        Err(error) => {
            task.note_restart(error);
            error.to_return()
        }
    };
    Outcome::Skipped
}

/// The `number`th filter of a thread as its tracer gets it, from the oldest, and the flags it was made with. `EINVAL` (no filters),
/// `ENOENT`, `EACCES` (no CAP_SYS_ADMIN, or the tracer is restricted itself).
pub fn nth_filter(tracer: &Task, task: &Task, number: usize) -> Result<(Vec<Instruction>, u64)> {
    if !tracer.cred().capable(Capability::SysAdmin) || !matches!(tracer.seccomp(), Mode::Off) {
        return Err(Errno::EACCES);
    }
    let mode = task.seccomp();
    let filter = mode.filter().ok_or(Errno::EINVAL)?;
    let count = filter.chain().count();
    let index = count.checked_sub(number + 1).ok_or(Errno::ENOENT)?;
    let found = filter.chain().nth(index).ok_or(Errno::ENOENT)?;
    let flags = if found.logs { u64::from(flags::LOG) } else { 0 };
    Ok((found.instructions().to_vec(), flags))
}

/// How many filters a thread has.
pub fn count(task: &Task) -> usize {
    task.seccomp().filter().map_or(0, |filter| filter.chain().count())
}

/// A thread that can't be restricted further than it is traced: PTRACE_O_SUSPEND_SECCOMP needs this. `EPERM`.
pub fn check_suspension(tracer: &Task) -> Result<()> {
    let free = matches!(tracer.seccomp(), Mode::Off) && !ptrace::suspends_seccomp(tracer);
    if free && tracer.cred().capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
}

const _: () = assert!(NOTIFY_SIZES[0] == 80 && NOTIFY_SIZES[1] == 24 && NOTIFY_SIZES[2] == 64);
