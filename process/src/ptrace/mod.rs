//! Tracing: ptrace(2).
//!
//! A traced thread (the tracee) stops on its way in and out of the kernel: it leaves a copy of its registers in its [`Trace`], tells the
//! tracer, and sleeps. The tracer reads and changes the copy ([`request`]) and lets it go on; the tracee takes the copy back. Lock order:
//! the list of tracees of a process -> `Task::trace`; neither is held while signals are sent.

pub mod request;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use hal::regs::UserRegs;
use sched::Sleep;

use crate::accounting::to_ticks;
use crate::signal::info_codes::{CLD_TRAPPED, SI_KERNEL};
use crate::signal::{SIGCHLD, SIGKILL, SIGSTOP, SIGTRAP, SigFields, SigInfo, Signal, send};
use crate::{Pid, Process, SyscallWork, Task};

/// PTRACE_O_* as bits.
#[allow(missing_docs, reason = "ptrace(2) documents each")]
pub mod options {
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEFORK: u32 = 1 << 1;
    pub const TRACEVFORK: u32 = 1 << 2;
    pub const TRACECLONE: u32 = 1 << 3;
    pub const TRACEEXEC: u32 = 1 << 4;
    pub const TRACEVFORKDONE: u32 = 1 << 5;
    pub const TRACEEXIT: u32 = 1 << 6;
    pub const TRACESECCOMP: u32 = 1 << 7;
    pub const EXITKILL: u32 = 1 << 20;
    pub const SUSPEND_SECCOMP: u32 = 1 << 21;
    /// All that are accepted.
    pub const ALL: u32 = 0xff | EXITKILL | SUSPEND_SECCOMP;
}

/// PTRACE_EVENT_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Event {
    Fork = 1,
    Vfork = 2,
    Clone = 3,
    Exec = 4,
    VforkDone = 5,
    Exit = 6,
    Seccomp = 7,
    Stop = 128,
}

impl Event {
    fn option(self) -> u32 {
        match self {
            Event::Stop => 0,
            event => 1 << event as u8,
        }
    }
}

/// What a tracee is doing, for PTRACE_GET_SYSCALL_INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Neither of the others.
    None,
    /// Before a system call.
    Entry,
    /// After one.
    Exit,
    /// A seccomp filter asked for the tracer, with this detail.
    Seccomp(u32),
}

/// How a tracee goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// PTRACE_CONT.
    Continue,
    /// PTRACE_SYSCALL: until the next system call begins or ends.
    Syscall,
    /// PTRACE_SINGLESTEP.
    Step,
}

/// A stop that the tracer can look into.
pub(crate) struct Stopped {
    /// What wait(2) reports above the 0x7f: a signal and an event.
    code: i32,
    /// Not yet waited for.
    unreported: bool,
    info: Option<SigInfo>,
    point: Point,
    pub(crate) regs: UserRegs,
    fpu: Vec<u8>,
    fpu_changed: bool,
    bases: (usize, usize),
    /// PTRACE_LISTEN: stays stopped, but wants to hear of SIGCONT.
    listening: bool,
}

/// That a thread is traced, and by whom.
pub(crate) struct Trace {
    pub(crate) tracer: Weak<Process>,
    pub(crate) tracer_pid: Pid,
    seized: bool,
    options: u32,
    pub(crate) stopped: Option<Stopped>,
    /// The stop that the tracer has just ended: the tracee takes its registers back from here.
    left: Option<Stopped>,
    /// The signal that the tracer lets through.
    inject: Option<Signal>,
    resume: Resume,
    message: u64,
    /// PTRACE_INTERRUPT, or a seized thread's first stop.
    trap: bool,
}

impl Trace {
    fn new(tracer: &Arc<Process>, seized: bool, options: u32) -> Trace {
        Trace {
            tracer: Arc::downgrade(tracer),
            tracer_pid: tracer.pid(),
            seized,
            options,
            stopped: None,
            left: None,
            inject: None,
            resume: Resume::Continue,
            message: 0,
            trap: false,
        }
    }
}

/// Makes `task` traced by `tracer`.
fn attach(task: &Arc<Task>, tracer: &Arc<Process>, seized: bool, options: u32) {
    *task.trace.lock_irq() = Some(Trace::new(tracer, seized, options));
    task.traced.store(true, Ordering::SeqCst);
    tracer.tracees.lock_irq().push(task.clone());
}

/// Ends the tracing of `task` and lets it go on, with a signal if given.
pub(crate) fn detach(task: &Arc<Task>, signal: Option<Signal>) {
    let trace = {
        let mut slot = task.trace.lock_irq();
        task.traced.store(false, Ordering::SeqCst);
        task.remove_syscall_work(SyscallWork::TRACE);
        slot.take()
    };
    let Some(trace) = trace else { return };
    if let Some(tracer) = trace.tracer.upgrade() {
        tracer.tracees.lock_irq().retain(|other| !Arc::ptr_eq(other, task));
    }
    // Registers that the tracer changed are left for the thread to take.
    *task.left_by_tracer.lock_irq() = Some((trace.left.or(trace.stopped), signal));
    task.trace_wait.wake_all();
    if let Some(thread) = task.thread() {
        thread.interrupt();
    }
}

/// The tracer is ending: its tracees go on alone, or end with it (PTRACE_O_EXITKILL).
pub(crate) fn tracer_exits(process: &Process) {
    let tracees = core::mem::take(&mut *process.tracees.lock_irq());
    for task in tracees {
        let kill = task.trace.lock_irq().as_ref().is_some_and(|trace| trace.options & options::EXITKILL != 0);
        detach(&task, None);
        if kill {
            let _ = send::to_process(task.process(), SigInfo::kernel(SIGKILL));
        }
    }
}

/// A traced thread is exiting with wait status `status`: the tracer can wait for it, unless it is the parent waiting for a process.
pub(crate) fn tracee_exits(task: &Task, status: i32) {
    let trace = task.trace.lock_irq().take();
    task.traced.store(false, Ordering::SeqCst);
    let Some(tracer) = trace.and_then(|trace| trace.tracer.upgrade()) else { return };
    tracer.tracees.lock_irq().retain(|other| !core::ptr::eq(&**other, task));
    let waits_as_parent = task.is_leader() && task.process().ppid() == tracer.pid();
    if !waits_as_parent {
        tracer.lost_tracees.lock_irq().push((task.tid(), status));
        tracer.child_wait.wake_all();
    }
}

/// Nobody traces the thread any more.
struct Untraced;

/// Stops the calling thread for its tracer until that lets it go on. The signal that the tracer lets through, if any.
fn stop(
    task: &Task,
    regs: &mut UserRegs,
    code: i32,
    info: Option<SigInfo>,
    point: Point,
) -> Result<Option<SigInfo>, Untraced> {
    let mut fpu = Vec::new();
    let mut bases = (0, 0);
    if let Some(thread) = task.thread() {
        thread.task().fpu_image(&mut fpu);
        bases = (thread.task().fs_base(), thread.task().gs_base());
    }
    let tracer = {
        let mut slot = task.trace.lock_irq();
        let Some(trace) = &mut *slot else { return Err(Untraced) };
        if trace.resume == Resume::Step {
            regs.rflags &= !TRAP_FLAG;
        }
        let (regs, unreported) = (*regs, true);
        trace.stopped =
            Some(Stopped { code, unreported, info, point, regs, fpu, fpu_changed: false, bases, listening: false });
        trace.inject = None;
        trace.tracer.upgrade()
    };
    if let Some(tracer) = tracer {
        tell(&tracer, task, code & 0x7f);
    }
    wait_for_tracer(task, code >> 8 == Event::Exit as i32);
    Ok(take_back(task, regs))
}

/// SIGCHLD and a wake-up for the tracer.
fn tell(tracer: &Arc<Process>, task: &Task, status: i32) {
    let action = tracer.actions().get(SIGCHLD);
    if !action.is_ignore() && action.flags & crate::signal::SA_NOCLDSTOP == 0 {
        let used = task.used();
        let fields = SigFields::Child {
            pid: task.tid(),
            uid: task.cred().uid,
            status,
            utime: to_ticks(used.user) as i64,
            stime: to_ticks(used.system) as i64,
        };
        let _ = send::to_process(tracer, SigInfo { signal: SIGCHLD, errno: 0, code: CLD_TRAPPED, fields });
    }
    tracer.child_wait.wake_all();
}

/// Waits until the tracer lets go, or for what kills the thread, unless it `ends` anyway.
fn wait_for_tracer(task: &Task, ends: bool) {
    let sleep = if ends { Sleep::Uninterruptible } else { Sleep::Killable };
    // Ends for SIGKILL too, which `is_dying` then shows.
    let _ = task.trace_wait.wait_until(sleep, None, || {
        let slot = task.trace.lock_irq();
        let stopped = slot.as_ref().and_then(|trace| trace.stopped.as_ref());
        let goes_on = match stopped {
            None => true,
            Some(stopped) => stopped.listening && !task.process().stop_requested.load(Ordering::SeqCst),
        };
        (goes_on || !ends && task.is_dying()).then_some(())
    });
}

/// The trap flag: an exception after each instruction.
const TRAP_FLAG: usize = 0x100;

/// Takes the registers as the tracer left them, and the signal that it lets through.
fn take_back(task: &Task, regs: &mut UserRegs) -> Option<SigInfo> {
    let (left, signal, step) = {
        let mut slot = task.trace.lock_irq();
        match &mut *slot {
            Some(trace) => {
                let left = trace.left.take().or_else(|| trace.stopped.take());
                // SIGCONT ended a stop that the tracer listened to: it hears of it by another.
                trace.trap |= left.as_ref().is_some_and(|left| left.listening);
                (left, trace.inject.take(), trace.resume == Resume::Step)
            }
            None => {
                let (left, signal) = task.left_by_tracer.lock_irq().take().unzip();
                (left.flatten(), signal.flatten(), false)
            }
        }
    };
    let left = left?;
    *regs = left.regs;
    if let Some(thread) = task.thread() {
        // The tracer's values were checked when it set them.
        let _ = thread.task().set_fs_base(left.bases.0);
        let _ = thread.task().set_gs_base(left.bases.1);
        if left.fpu_changed {
            // An image that the processor refuses leaves the state as it was.
            let _ = thread.task().set_fpu_image(&left.fpu);
        }
    }
    if step {
        regs.rflags |= TRAP_FLAG;
    }
    regs.sanitize();
    let signal = signal?;
    // The tracer may have chosen another signal than the one that came.
    Some(left.info.filter(|info| info.signal == signal).unwrap_or(SigInfo::from_user(
        signal,
        0,
        task.pid(),
        task.cred().uid,
    )))
}

/// A signal was taken out of a queue: the tracer decides. What is delivered instead, if anything.
pub(crate) fn signal_stop(task: &Task, regs: &mut UserRegs, info: SigInfo) -> Option<SigInfo> {
    stop(task, regs, info.signal.number(), Some(info), Point::None).unwrap_or(Some(info))
}

/// Before a system call and after it.
pub fn syscall_stop(task: &Task, regs: &mut UserRegs, point: Point) {
    let good = task.trace.lock_irq().as_mut().is_some_and(|trace| {
        // PTRACE_EVENTMSG_SYSCALL_ENTRY, PTRACE_EVENTMSG_SYSCALL_EXIT.
        trace.message = if point == Point::Entry { 1 } else { 2 };
        trace.options & options::TRACESYSGOOD != 0
    });
    let code = SIGTRAP.number() | if good { 0x80 } else { 0 };
    let info = SigInfo { code, ..SigInfo::from_user(SIGTRAP, 0, task.tid(), task.cred().uid) };
    if let Ok(Some(info)) = stop(task, regs, code, Some(info), point) {
        // As on Linux, the tracer may send a signal from here.
        send::to_self(task, info);
    }
}

/// The tracee's part of stops that are asked for, and of group stops; true if it stopped.
pub(crate) fn stop_if_asked(task: &Task, regs: &mut UserRegs) -> bool {
    let group_signal = task.process().group.lock_irq().stop.map(|stop| stop.signal);
    let group = task.process().stop_requested.load(Ordering::SeqCst) && !task.passed_stop.load(Ordering::SeqCst);
    let (trap, seized) = {
        let mut slot = task.trace.lock_irq();
        let Some(trace) = &mut *slot else { return false };
        (core::mem::take(&mut trace.trap), trace.seized)
    };
    if !trap && !group {
        return false;
    }
    let event = (Event::Stop as i32) << 8;
    let signal = group_signal.filter(|_| group).unwrap_or(SIGTRAP);
    let code = signal.number() | if seized { event } else { 0 };
    let info = seized.then(|| SigInfo { code, ..SigInfo::from_user(SIGTRAP, 0, task.tid(), task.cred().uid) });
    if group {
        crate::signal::stop::mark_stopped(task);
        task.passed_stop.store(true, Ordering::SeqCst);
    }
    let inject = stop(task, regs, code, info, Point::None);
    task.stopped.store(false, Ordering::SeqCst);
    if let Ok(Some(info)) = inject {
        send::to_self(task, info);
    }
    true
}

/// An event that the tracer may have asked for by its options; true if it stopped for it.
pub(crate) fn event(task: &Task, regs: &mut UserRegs, event: Event, message: u64) -> bool {
    let wanted = {
        let mut slot = task.trace.lock_irq();
        let Some(trace) = &mut *slot else { return false };
        trace.message = message;
        trace.options & event.option() != 0
    };
    let point = if event == Event::Seccomp { Point::Seccomp(message as u32) } else { Point::None };
    if wanted {
        let code = SIGTRAP.number() | (event as i32) << 8;
        let info = SigInfo { code, ..SigInfo::from_user(SIGTRAP, 0, task.tid(), task.cred().uid) };
        if let Ok(Some(info)) = stop(task, regs, code, Some(info), point) {
            send::to_self(task, info);
        }
    }
    wanted
}

/// A traced thread is about to end; its memory and registers can still be looked at (PTRACE_EVENT_EXIT).
pub(crate) fn exit_event(task: &Task, regs: &mut UserRegs) {
    if task.traced.load(Ordering::SeqCst) {
        let status = task.process().group.lock_irq().exit.unwrap_or(task.exit_status());
        event(task, regs, Event::Exit, status as u64);
    }
}

/// Did the tracer ask for an event?
pub(crate) fn wants(task: &Task, event: Event) -> bool {
    task.trace.lock_irq().as_ref().is_some_and(|trace| trace.options & event.option() != 0)
}

/// Did the tracer suspend seccomp for it (PTRACE_O_SUSPEND_SECCOMP)?
pub(crate) fn suspends_seccomp(task: &Task) -> bool {
    task.traced.load(Ordering::Relaxed)
        && task.trace.lock_irq().as_ref().is_some_and(|trace| trace.options & options::SUSPEND_SECCOMP != 0)
}

/// After exec: the event, or for old-style tracers a SIGTRAP.
pub(crate) fn after_exec(task: &Task, regs: &mut UserRegs, old_tid: Pid) {
    if !task.traced.load(Ordering::Relaxed) || event(task, regs, Event::Exec, old_tid as u64) {
        return;
    }
    let seized = task.trace.lock_irq().as_ref().is_none_or(|trace| trace.seized);
    if !seized {
        send::to_self(task, SigInfo { code: SI_KERNEL, ..SigInfo::from_user(SIGTRAP, 0, task.pid(), task.cred().uid) });
    }
}

/// Which event a clone is, for a traced thread that asked for it.
pub(crate) fn clone_event(task: &Task, vfork: bool, exit_signal: i32) -> Option<Event> {
    let event = match () {
        () if vfork => Event::Vfork,
        () if exit_signal != SIGCHLD.number() => Event::Clone,
        () => Event::Fork,
    };
    let slot = task.trace.lock_irq();
    slot.as_ref().filter(|trace| trace.options & event.option() != 0).map(|_| event)
}

/// The new child of a traced thread is traced alike, and stops before its first instruction.
pub(crate) fn inherit(parent: &Task, child: &Arc<Task>) {
    let found = {
        let slot = parent.trace.lock_irq();
        slot.as_ref().and_then(|trace| Some((trace.tracer.upgrade()?, trace.seized, trace.options)))
    };
    let Some((tracer, seized, options)) = found else { return };
    attach(child, &tracer, seized, options);
    if seized {
        if let Some(trace) = &mut *child.trace.lock_irq() {
            trace.trap = true;
        }
    } else {
        child.with_queue(|queue| queue.push(SigInfo::kernel(SIGSTOP), None));
    }
    if let Some(thread) = child.thread() {
        thread.interrupt();
    }
}

/// What wait(2) finds: the code of a stop that has not been waited for.
pub(crate) fn take_report(task: &Task, keep: bool) -> Option<i32> {
    let mut slot = task.trace.lock_irq();
    let stopped = slot.as_mut()?.stopped.as_mut().filter(|stopped| stopped.unreported)?;
    stopped.unreported = keep;
    Some(stopped.code)
}

/// Is the thread stopped for its tracer?
pub(crate) fn is_stopped(task: &Task) -> bool {
    task.trace.lock_irq().as_ref().is_some_and(|trace| trace.stopped.is_some())
}

/// The tracer's number, for `/proc/PID/status`; 0 for none.
pub(crate) fn tracer_of(task: &Task) -> Pid {
    task.trace.lock_irq().as_ref().map_or(0, |trace| trace.tracer_pid)
}
