//! The mask of blocked signals.

use base::{Errno, Result};

use super::SigSet;
use crate::Task;

/// Signals that are pending for the calling thread and blocked: sigpending(2).
pub fn pending(task: &Task) -> SigSet {
    task.own_pending().or(task.process().pending()).and(task.blocked())
}

/// Sets the calling thread's mask. What it no longer blocks is delivered on the way to user mode; what it newly blocks of the
/// process's signals, another thread is told of.
pub fn set_mask(task: &Task, mask: SigSet) {
    let before = task.blocked();
    task.store_blocked(mask);
    let shared = task.process().pending();
    let newly_blocked = task.blocked().without(before).and(shared);
    if !newly_blocked.is_empty() {
        retarget(task, newly_blocked);
    }
    if task.has_signal()
        && let Some(thread) = task.thread()
    {
        thread.interrupt();
    }
}

/// Interrupts other threads that can take the process's signals that this one now blocks (or leaves behind when it exits).
pub(crate) fn retarget(task: &Task, signals: SigSet) {
    let group = task.process().group.lock_irq();
    for other in group.threads.iter().filter(|other| !core::ptr::eq(&***other, task)) {
        if !signals.without(other.blocked()).is_empty()
            && let Some(thread) = other.thread()
        {
            thread.interrupt();
        }
    }
}

/// Runs `wait` with another mask, as ppoll(2), pselect(2), epoll_pwait(2) and sigsuspend(2) do. If it was interrupted (`EINTR` or
/// `ERESTARTNOHAND`), the old mask comes back only after the signal's handler was set up, so that the signal gets through.
pub fn with_temporary_mask<R>(task: &Task, mask: Option<SigSet>, wait: impl FnOnce() -> Result<R>) -> Result<R> {
    let Some(mask) = mask else { return wait() };
    let old = task.blocked();
    set_mask(task, mask);
    let result = wait();
    let interrupted = matches!(result, Err(Errno::EINTR | Errno::ERESTARTNOHAND | Errno::ERESTARTSYS));
    if interrupted && task.has_signal() {
        *task.saved_mask.lock() = Some(old);
    } else {
        set_mask(task, old);
    }
    result
}
