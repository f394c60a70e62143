//! Sending: who may, what happens to the receiver at once, and which thread is told.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Capability, Cred, Errno, Result};

use super::{Disposition, SIGCONT, SIGKILL, SIGSTOP, SigInfo, SigSet, Signal};
use crate::group::{Group, Life};
use crate::rlimit::Resource;
use crate::{Pid, Process, Task, tree};

pub use super::info_codes::{SI_KERNEL, SI_QUEUE, SI_TIMER, SI_TKILL, SI_USER};

/// Sends to the process as a whole: any thread that does not block the signal takes it. `EAGAIN` (a queueing signal, and
/// RLIMIT_SIGPENDING is used up). Callable with interrupts off.
pub fn to_process(process: &Arc<Process>, info: SigInfo) -> Result<()> {
    let mut group = process.group.lock_irq();
    post(process, &mut group, None, info)
}

/// Sends to one thread. `EAGAIN`. Callable with interrupts off.
pub fn to_task(task: &Arc<Task>, info: SigInfo) -> Result<()> {
    let process = task.process();
    let mut group = process.group.lock_irq();
    post(process, &mut group, Some(task), info)
}

/// Sends to the calling thread.
pub fn to_self(task: &Task, info: SigInfo) {
    let process = task.process();
    let mut group = process.group.lock_irq();
    let found = group.threads.iter().find(|thread| core::ptr::eq(&***thread, task)).cloned();
    // Failing means that the queue is full, in which case standard signals are kept as a bit all the same.
    let _ = found.map(|thread| post(process, &mut group, Some(&thread), info));
}

/// Sends the calling thread a signal that its own instructions caused: it can be neither blocked nor ignored.
pub fn force(task: &Task, info: SigInfo) {
    let process = task.process();
    let actions = process.actions();
    let mut action = actions.get(info.signal);
    if task.blocked().has(info.signal) || action.is_ignore() {
        action.handler = 0;
        actions.set(info.signal, action);
        let mut mask = task.blocked();
        mask.remove(info.signal);
        task.store_blocked(mask);
    }
    if action.is_default() {
        process.unkillable.store(false, Ordering::Relaxed);
    }
    to_self(task, info);
}

/// Puts `info` where it belongs and tells a thread. `to` is the receiving thread, or `None` for the process.
fn post(process: &Arc<Process>, group: &mut Group, to: Option<&Arc<Task>>, info: SigInfo) -> Result<()> {
    let signal = info.signal;
    if group.life != Life::Alive {
        return Ok(());
    }
    prepare(process, group, signal);
    let target = to.or_else(|| group.threads.first());
    let Some(target) = target.cloned() else { return Ok(()) };
    if is_ignored(process, &target, signal) {
        return Ok(());
    }
    let used = process.queued_signals.load(Ordering::Relaxed);
    // The kernel's signals and kill(2)'s standard ones are not lost for want of room.
    let exempt = !signal.is_realtime() && info.code >= 0;
    let room = exempt || (used as u64) < process.limit(Resource::Sigpending).soft;
    if !room && signal.is_realtime() && info.code != SI_USER {
        return Err(Errno::EAGAIN);
    }
    let queued = match to {
        Some(task) => task.with_queue(|queue| queue.push(info, room)),
        None => {
            let queued = group.queue.push(info, room);
            process.pending.store(group.queue.set().0, Ordering::SeqCst);
            queued
        }
    };
    process.queued_signals.fetch_add(usize::from(queued), Ordering::Relaxed);
    process.signal_wait.wake_all();
    tell(process, group, to, signal);
    Ok(())
}

/// What SIGCONT and the stop signals do by being sent, whether blocked or ignored.
fn prepare(process: &Arc<Process>, group: &mut Group, signal: Signal) {
    let lost = if signal.stops() {
        group.discard(SigSet::of(&[SIGCONT]))
    } else if signal == SIGCONT {
        let lost = group.discard(SigSet::STOPPING);
        super::stop::resume(process, group, true);
        lost
    } else {
        if signal == SIGKILL {
            super::stop::resume(process, group, false);
        }
        0
    };
    if lost > 0 {
        process.queued_signals.fetch_sub(lost, Ordering::Relaxed);
    }
    process.pending.store(group.queue.set().0, Ordering::SeqCst);
}

fn is_ignored(process: &Process, target: &Task, signal: Signal) -> bool {
    if target.blocked().has(signal) {
        return false;
    }
    // A tracer wants to see it.
    if target.traced.load(Ordering::Relaxed) && signal != SIGKILL {
        return false;
    }
    let action = process.actions().get(signal);
    let unkillable = process.unkillable.load(Ordering::Relaxed);
    action.discards(signal) || unkillable && action.is_default()
}

/// Chooses a thread that can take the signal, and interrupts it; ends the whole process at once where that is what will happen.
fn tell(process: &Arc<Process>, group: &mut Group, to: Option<&Arc<Task>>, signal: Signal) {
    let wants = |task: &&Arc<Task>| {
        let awaited = SigSet(task.awaited.load(Ordering::SeqCst)).has(signal);
        (!task.blocked().has(signal) || awaited)
            && !task.exiting.load(Ordering::Relaxed)
            && (signal == SIGKILL || !task.stopped.load(Ordering::Relaxed))
    };
    let chosen = match to {
        Some(task) => Some(task).filter(wants),
        None => group.threads.iter().find(wants),
    };
    let Some(chosen) = chosen else { return };
    let action = process.actions().get(signal);
    let fatal = signal == SIGKILL
        || action.is_default()
            && signal.default_disposition() == Disposition::Terminate
            && !chosen.blocked().has(signal)
            && !chosen.traced.load(Ordering::Relaxed)
            && !process.unkillable.load(Ordering::Relaxed);
    if fatal && group.exit.is_none() {
        end_all(group, signal.number());
    } else if let Some(thread) = chosen.thread() {
        thread.interrupt();
    }
}

/// Starts the end of the process with wait status `status`: every thread exits on its way to user mode.
pub(crate) fn end_all(group: &mut Group, status: i32) {
    let status = *group.exit.get_or_insert(status);
    for task in &group.threads {
        task.make_exit(status);
    }
}

/// May a process with `sender`'s credentials send `signal` to `target`? `EPERM`.
pub fn check(sender: &Task, target: &Task, signal: Option<Signal>) -> Result<()> {
    if Arc::ptr_eq(sender.process(), target.process()) {
        return Ok(());
    }
    let same_session = sender.process().sid() == target.process().sid();
    if allowed(&sender.cred(), &target.cred()) || signal == Some(SIGCONT) && same_session {
        return Ok(());
    }
    Err(Errno::EPERM)
}

fn allowed(sender: &Cred, target: &Cred) -> bool {
    let matches = |id: u32| id == target.uid || id == target.suid;
    matches(sender.euid) || matches(sender.uid) || sender.capable(Capability::Kill)
}

/// kill(2). `signal` `None` tests only. `ESRCH`, `EPERM`.
pub fn kill(sender: &Task, pid: Pid, signal: Option<Signal>) -> Result<()> {
    let make = |signal| SigInfo::from_user(signal, SI_USER, sender.pid(), sender.cred().uid);
    match pid {
        1.. => kill_one(sender, pid, signal, signal.map(make)),
        0 => kill_many(sender, tree::group(sender.process().pgid()), signal, signal.map(make)),
        -1 => {
            let mut all = tree::processes();
            all.retain(|process| !process.is_init() && process.pid() != sender.pid());
            kill_all(sender, &all, signal, signal.map(make))
        }
        _ => kill_many(sender, tree::group(pid.checked_neg().ok_or(Errno::ESRCH)?), signal, signal.map(make)),
    }
}

/// Sends `info` to process `pid` if `sender` may. `ESRCH`, `EPERM`, `EAGAIN`.
pub fn kill_one(sender: &Task, pid: Pid, signal: Option<Signal>, info: Option<SigInfo>) -> Result<()> {
    let target = tree::task(pid).ok_or(Errno::ESRCH)?;
    check(sender, &target, signal)?;
    match info {
        Some(info) => to_process(target.process(), info),
        None => Ok(()),
    }
}

/// Sends to the members of a group: fine if it worked for one of them.
fn kill_many(
    sender: &Task,
    members: alloc::vec::Vec<Arc<Process>>,
    signal: Option<Signal>,
    info: Option<SigInfo>,
) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for process in members {
        match kill_one(sender, process.pid(), signal, info) {
            Ok(()) => result = Ok(()),
            Err(error) if result.is_err() => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

/// Sends to everyone: being refused by some is no error, having nobody is.
fn kill_all(sender: &Task, all: &[Arc<Process>], signal: Option<Signal>, info: Option<SigInfo>) -> Result<()> {
    let mut result = if all.is_empty() { Err(Errno::ESRCH) } else { Ok(()) };
    for process in all {
        match kill_one(sender, process.pid(), signal, info) {
            Err(Errno::EPERM) | Ok(()) => {}
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Sends to every process of a group on the kernel's behalf (a terminal's SIGINT, SIGHUP, ...). Callable with interrupts off.
pub fn to_group(pgid: Pid, info: SigInfo) {
    for process in tree::group(pgid) {
        let _ = to_process(&process, info);
    }
}

/// tgkill(2) and tkill(2): to thread `tid`, which must be of process `tgid` where that is given. `ESRCH`, `EPERM`, `EAGAIN`.
pub fn thread_kill(
    sender: &Task,
    tgid: Option<Pid>,
    tid: Pid,
    signal: Option<Signal>,
    info: Option<SigInfo>,
) -> Result<()> {
    let target = tree::task(tid).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|tgid| tgid != target.pid()) {
        return Err(Errno::ESRCH);
    }
    check(sender, &target, signal)?;
    match info {
        Some(info) => to_task(&target, info),
        None => Ok(()),
    }
}

/// What sigaction(2) does besides: a signal that is now ignored is no longer pending.
pub fn flush_ignored(process: &Process, signal: Signal) {
    if !process.actions().get(signal).discards(signal) || signal == SIGSTOP {
        return;
    }
    let mut group = process.group.lock_irq();
    let lost = group.discard(SigSet::of(&[signal]));
    process.pending.store(group.queue.set().0, Ordering::SeqCst);
    process.queued_signals.fetch_sub(lost, Ordering::Relaxed);
}
