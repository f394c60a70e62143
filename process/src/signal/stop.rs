//! Stopping and continuing: job control's half of signals.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use sched::Sleep;

use super::info_codes::{CLD_CONTINUED, CLD_STOPPED};
use super::{SIGCHLD, SIGCONT, SIGSTOP, SigFields, SigInfo, Signal, send};
use crate::accounting::to_ticks;
use crate::group::{Group, Stop};
use crate::{Process, Task, tree};

/// Ends a stop, under the group lock. `report`: it was SIGCONT, which the parent is told of if the stop was complete.
pub(crate) fn resume(process: &Process, group: &mut Group, report: bool) {
    group.stop_allowed = false;
    let Some(stop) = group.stop.take() else { return };
    if stop.complete && report {
        group.stop_to_report = None;
        group.continue_to_report = true;
        group.tell_continued = true;
    }
    process.stop_requested.store(false, Ordering::SeqCst);
    process.stop_wait.wake_all();
    for task in &group.threads {
        task.passed_stop.store(false, Ordering::SeqCst);
        task.trace_wait.wake_all();
    }
}

/// The default action of a stop signal that the calling thread took out of a queue.
pub(crate) fn begin(task: &Task, signal: Signal) {
    let process = task.process();
    // Nobody could continue an orphaned group from its terminal.
    if signal != SIGSTOP && tree::is_orphaned(process.pgid()) {
        return;
    }
    let mut group = process.group.lock_irq();
    // SIGCONT or the end came after the signal was taken out.
    if !group.stop_allowed || group.exit.is_some() || group.exec.is_some() {
        return;
    }
    if group.stop.is_none() {
        group.stop = Some(Stop { signal, complete: false });
        group.continue_to_report = false;
        process.stop_requested.store(true, Ordering::SeqCst);
        for other in group.threads.iter().filter(|other| !core::ptr::eq(&***other, task)) {
            if let Some(thread) = other.thread() {
                thread.interrupt();
            }
        }
    }
}

/// Sleeps while the process is stopped.
pub(crate) fn park(task: &Task) {
    let process = task.process();
    task.stopped.store(true, Ordering::SeqCst);
    let completed = complete(process, &mut process.group.lock_irq());
    if let Some(signal) = completed {
        tell_parent(process, CLD_STOPPED, signal.number());
    }
    // Ends for SIGKILL and the end of the group too, which `is_dying` then shows.
    let _ = process.stop_wait.wait_until(Sleep::Killable, None, || {
        (task.is_dying() || !process.stop_requested.load(Ordering::SeqCst)).then_some(())
    });
    task.stopped.store(false, Ordering::SeqCst);
    let tell = core::mem::take(&mut process.group.lock_irq().tell_continued);
    if tell {
        tell_parent(process, CLD_CONTINUED, SIGCONT.number());
    }
}

/// A traced thread takes part in a stop: the last one tells the parent.
pub(crate) fn mark_stopped(task: &Task) {
    let process = task.process();
    task.stopped.store(true, Ordering::SeqCst);
    let completed = complete(process, &mut process.group.lock_irq());
    if let Some(signal) = completed {
        tell_parent(process, CLD_STOPPED, signal.number());
    }
}

/// If all threads have now stopped, marks the stop complete and gives its signal: the caller tells the parent, without the lock.
pub(crate) fn complete(_process: &Process, group: &mut Group) -> Option<Signal> {
    let all = group.threads.iter().all(|task| task.stopped.load(Ordering::SeqCst));
    let stop = group.stop.as_mut()?;
    if stop.complete || !all {
        return None;
    }
    stop.complete = true;
    group.stop_to_report = Some(stop.signal);
    Some(stop.signal)
}

/// Tells the parent that the process stopped or continued: SIGCHLD unless it doesn't want it, and its waiters.
pub(crate) fn tell_parent(process: &Arc<Process>, code: i32, status: i32) {
    let (parent, leader) = {
        let tree = tree::lock();
        (tree.parent(process.pid()).cloned(), tree.tasks.get(&process.pid()).cloned())
    };
    let Some(parent) = parent else { return };
    let action = parent.actions().get(SIGCHLD);
    if !action.is_ignore() && action.flags & super::action::SA_NOCLDSTOP == 0 {
        let (user, system) = process.cpu_time();
        let fields = SigFields::Child {
            pid: process.pid(),
            uid: leader.map_or(0, |leader| leader.cred().uid),
            status,
            utime: to_ticks(user) as i64,
            stime: to_ticks(system) as i64,
        };
        let _ = send::to_process(&parent, SigInfo { signal: SIGCHLD, errno: 0, code, fields });
    }
    parent.child_wait.wake_all();
}
