//! Waiting for signals: sigsuspend(2), pause(2), sigtimedwait(2).

use core::sync::atomic::Ordering;

use base::{Errno, Nanos, Result};
use sched::{Sleep, SleepEnd, WaitQueue};

use super::{SigInfo, SigSet, deliver};
use crate::Task;

/// Sleeps until a signal is delivered. Gives `ERESTARTNOHAND`: if its action is to be ignored the sleep goes on.
pub fn pause(task: &Task) -> Errno {
    // Nobody wakes this queue: only a signal ends the sleep.
    let nothing = WaitQueue::new();
    let _ = nothing.wait_until(Sleep::Interruptible, None, || task.has_signal().then_some(()));
    Errno::ERESTARTNOHAND
}

/// Takes one of `wanted` out of the queues, sleeping for it until `deadline` (monotonic; `None`: for ever).
/// `EAGAIN` at the deadline, `EINTR`.
pub fn timed_wait(task: &Task, wanted: SigSet, deadline: Option<Nanos>) -> Result<SigInfo> {
    let wanted = wanted.without(SigSet::UNBLOCKABLE);
    if let Some(info) = deliver::dequeue(task, wanted) {
        return Ok(info);
    }
    if deadline.is_some_and(|deadline| deadline <= sched::time::now()) {
        return Err(Errno::EAGAIN);
    }
    let Some(thread) = task.thread() else { return Err(Errno::EINTR) };
    task.awaited.store(wanted.0, Ordering::SeqCst);
    let result = loop {
        // The interrupt that announces a wanted signal must not be mistaken for another's.
        thread.prepare_to_sleep(Sleep::Interruptible);
        if let Some(info) = deliver::dequeue(task, wanted) {
            thread.cancel_sleep();
            break Ok(info);
        }
        if task.has_signal() {
            thread.cancel_sleep();
            break Err(Errno::EINTR);
        }
        match thread.sleep(deadline) {
            SleepEnd::TimedOut => break Err(Errno::EAGAIN),
            SleepEnd::Interrupted => {
                thread.clear_interrupt();
                if let Some(info) = deliver::dequeue(task, wanted) {
                    break Ok(info);
                }
                if task.has_signal() || task.process().stop_requested.load(Ordering::SeqCst) {
                    break Err(Errno::EINTR);
                }
            }
            SleepEnd::Woken => {}
        }
    };
    task.awaited.store(0, Ordering::SeqCst);
    // The flag that was cleared may have announced a signal that is still there.
    if task.has_signal() || task.process().stop_requested.load(Ordering::SeqCst) {
        thread.interrupt();
    }
    result
}
