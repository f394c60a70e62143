//! Delivery: what a thread does about pending signals on its way to user mode.

use core::sync::atomic::Ordering;

use hal::regs::UserRegs;

use super::action::{SA_NODEFER, SA_RESETHAND};
use super::{
    Action, Disposition, SIGALRM, SIGKILL, SIGSEGV, SigFields, SigInfo, SigSet, Signal, frame, restart, send, stop,
};
use crate::{Task, exit, ptrace, rseq};

/// Everything that a thread has to do before user mode: exit if it must, stop if its process is stopped, take signals, restart the
/// interrupted system call, fix up restartable sequences. The hook for hal.
pub fn before_user(regs: &mut UserRegs) {
    let exits = crate::with_current(|task| {
        let exits = work(task, regs);
        if exits {
            ptrace::exit_event(task, regs);
        }
        exits
    });
    if exits {
        exit::exit_thread();
    }
}

/// All of it but the exit itself; true if the thread has to exit.
fn work(task: &Task, regs: &mut UserRegs) -> bool {
    rseq::before_user(task, regs);
    let restarts = task.take_restart_note();
    loop {
        if let Some(thread) = task.thread() {
            thread.clear_interrupt();
        }
        if task.is_dying() {
            return true;
        }
        let traced = task.traced.load(Ordering::SeqCst);
        if traced {
            if ptrace::stop_if_asked(task, regs) {
                continue;
            }
        } else if task.process().stop_requested.load(Ordering::SeqCst) {
            stop::park(task);
            continue;
        }
        let Some(mut info) = dequeue(task, SigSet::ALL.without(task.blocked())) else { break };
        if traced && info.signal != SIGKILL {
            match ptrace::signal_stop(task, regs, info) {
                Some(chosen) => info = chosen,
                None => continue,
            }
        }
        act(task, regs, &info);
    }
    // A result that only looks like a wish to restart (a supervisor may give any) is left alone.
    if restarts {
        restart::without_handler(regs);
    }
    let saved = task.saved_mask.lock().take();
    if let Some(mask) = saved {
        super::set_mask(task, mask);
    }
    // set_mask may have unblocked a signal; it then interrupted us, and hal comes back here.
    task.is_dying()
}

/// Takes the next pending signal of `wanted` out: the thread's own first. Re-arms the timer that sent it.
pub fn dequeue(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    let process = task.process();
    if task.own_pending().or(process.pending()).and(wanted).is_empty() {
        return None;
    }
    let mut group = process.group.lock_irq();
    let own = task.with_queue(|queue| queue.take(wanted));
    let shared = own.is_none();
    let taken = own.or_else(|| group.queue.take(wanted));
    process.pending.store(group.queue.set().0, Ordering::SeqCst);
    let mut info = taken?;
    if info.signal.stops() {
        group.stop_allowed = true;
    }
    drop(group);
    if let SigFields::Timer { id, overrun, .. } = &mut info.fields {
        *overrun = process.timers.taken(*id);
    } else if shared && info.signal == SIGALRM {
        process.timers.alarm_taken();
    }
    Some(info)
}

fn act(task: &Task, regs: &mut UserRegs, info: &SigInfo) {
    let process = task.process();
    let signal = info.signal;
    let actions = process.actions();
    let action = actions.get(signal);
    if action.is_ignore() {
        return;
    }
    if !action.is_default() {
        if action.flags & SA_RESETHAND != 0 {
            actions.set(signal, Action { handler: 0, ..action });
        }
        return handle(task, regs, info, &action);
    }
    if process.unkillable.load(Ordering::Relaxed) && signal != SIGKILL {
        return;
    }
    match signal.default_disposition() {
        Disposition::Ignore | Disposition::Continue => {}
        Disposition::Stop => stop::begin(task, signal),
        // A core dump would be announced in the status; none is written, so it is not.
        Disposition::Terminate | Disposition::Core => exit::exit_group(task, signal.number()),
    }
}

/// Makes the handler run.
fn handle(task: &Task, regs: &mut UserRegs, info: &SigInfo, action: &Action) {
    restart::before_handler(regs, action);
    rseq::on_signal(task, regs);
    let saved = task.saved_mask.lock().take();
    let return_mask = saved.unwrap_or(task.blocked());
    if frame::set_up(task, regs, info, action, return_mask).is_err() {
        // Its stack is no good. If it was SIGSEGV's own handler that could not run, there is no second try.
        force_segv(task, info.signal);
        return;
    }
    let mut mask = task.blocked().or(SigSet(action.mask));
    if action.flags & SA_NODEFER == 0 {
        mask.add(info.signal);
    }
    super::set_mask(task, mask);
}

/// SIGSEGV because a signal frame could not be written or read.
pub(crate) fn force_segv(task: &Task, during: Signal) {
    if during == SIGSEGV {
        task.process().actions().set(SIGSEGV, Action::DEFAULT);
    }
    send::force(task, SigInfo::kernel(SIGSEGV));
}
