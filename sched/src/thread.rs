//! Threads: the unit that is scheduled.

use alloc::sync::Arc;
use alloc::boxed::Box;
use alloc::string::String;
use core::any::Any;

use base::Nanos;
use hal::regs::UserRegs;

use crate::{Sleep, SleepEnd};

/// A kernel thread, or the kernel side of a user thread.
pub struct Thread {
    ext: Option<Box<dyn Any + Send + Sync>>,
}

/// The thread that is running.
pub fn current() -> Arc<Thread> {
    todo!()
}

/// Runs `f` on the running thread, without counting a reference.
pub fn with_current<R>(f: impl FnOnce(&Thread) -> R) -> R {
    let _ = f;
    todo!()
}

/// Gives the processor to others that are ready.
pub fn yield_now() {
    todo!()
}

/// Yields if the scheduler wants this processor back. For long loops in the kernel, which is not preempted otherwise.
pub fn preempt_point() {
    todo!()
}

/// Ends the running thread. Its `Arc` goes when the last holder lets go.
pub fn exit_current() -> ! {
    todo!()
}

/// Sleeps until `deadline` on the monotonic clock.
pub fn sleep_until(how: Sleep, deadline: Nanos) -> SleepEnd {
    let _ = (how, deadline);
    todo!()
}

/// Starts a kernel thread.
pub fn spawn_kernel(name: &str, body: impl FnOnce() + Send + 'static) -> Arc<Thread> {
    let _ = (name, body);
    todo!()
}

/// How a user thread starts.
pub struct UserStart {
    /// The registers with which it enters user mode.
    pub regs: UserRegs,
    /// Runs in the kernel, in the new thread, before it enters user mode (set_tid, ptrace stop, ...).
    pub first: Box<dyn FnOnce(&mut UserRegs) + Send>,
    /// Its address space.
    pub page_table: Arc<hal::paging::PageTable>,
    /// Copy the current thread's FPU state and TLS bases (fork, clone) rather than start clean.
    pub inherit: bool,
}

impl Thread {
    /// A user thread, not yet started. Inherits scheduling policy, nice value and affinity from the current thread. `ext` belongs to the layer above.
    pub fn new_user(start: UserStart, ext: Box<dyn Any + Send + Sync>) -> Option<Arc<Thread>> {
        let _ = (start, ext);
        todo!()
    }

    /// Makes a new thread ready to run.
    pub fn start(self: &Arc<Thread>) {
        todo!()
    }

    /// The extension that the layer above attached, if it is a `T`.
    #[inline]
    pub fn ext<T: Any>(&self) -> Option<&T> {
        self.ext.as_ref()?.downcast_ref()
    }

    /// Makes it ready if it sleeps; true if it did.
    pub fn wake(self: &Arc<Thread>) -> bool {
        todo!()
    }

    /// Ends an interruptible sleep, now or (if it is about to sleep) next: sets the "interrupt" flag that [`Thread::clear_interrupt`] clears, and makes a
    /// thread in user mode pass through `before_user`.
    pub fn interrupt(self: &Arc<Thread>) {
        todo!()
    }

    /// As [`Thread::interrupt`], and also ends killable sleeps.
    pub fn interrupt_fatal(self: &Arc<Thread>) {
        todo!()
    }

    /// No interrupt is pending any more: no deliverable signal is left. The caller rechecks its queues after.
    pub fn clear_interrupt(&self) {
        todo!()
    }

    /// Is an interrupt pending?
    pub fn interrupted(&self) -> bool {
        todo!()
    }

    /// First half of a sleep: from here on a wake-up is not lost.
    pub fn prepare_to_sleep(&self, how: Sleep) {
        let _ = how;
        todo!()
    }

    /// Takes [`Thread::prepare_to_sleep`] back.
    pub fn cancel_sleep(&self) {
        todo!()
    }

    /// Second half of a sleep of the current thread.
    pub fn sleep(self: &Arc<Thread>, deadline: Option<Nanos>) -> SleepEnd {
        let _ = deadline;
        todo!()
    }

    /// Switches the current thread to another address space (exec).
    pub fn set_page_table(&self, page_table: Arc<hal::paging::PageTable>) {
        let _ = page_table;
        todo!()
    }

    /// hal's part: TLS bases, FPU state, registers when stopped.
    pub fn task(&self) -> &hal::task::Task {
        todo!()
    }

    /// One letter as in `/proc/PID/stat` for the scheduler's part of the state: R, S, D (the layer above knows T, t, Z, X).
    pub fn state_letter(&self) -> char {
        todo!()
    }

    /// The scheduling parameters.
    pub fn params(&self) -> Params {
        todo!()
    }

    /// Changes policy, priority and nice value.
    pub fn set_params(self: &Arc<Thread>, params: Params) {
        let _ = params;
        todo!()
    }

    /// The processors it may run on, bit n being processor n.
    pub fn affinity(&self) -> u64 {
        todo!()
    }

    /// Restricts it to the processors of `mask` (not empty, within the online ones); moves it if it must.
    pub fn set_affinity(self: &Arc<Thread>, mask: u64) {
        let _ = mask;
        todo!()
    }

    /// The processor it runs on or ran on last.
    pub fn cpu(&self) -> usize {
        todo!()
    }

    /// Time spent.
    pub fn times(&self) -> Times {
        todo!()
    }

    /// The name that debuggers show (kernel threads); user threads' `comm` is kept by the layer above.
    pub fn name(&self) -> String {
        todo!()
    }
}

/// Scheduling policy, as sched(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Policy {
    /// SCHED_OTHER.
    Other = 0,
    /// SCHED_FIFO.
    Fifo = 1,
    /// SCHED_RR.
    RoundRobin = 2,
    /// SCHED_BATCH.
    Batch = 3,
    /// SCHED_IDLE.
    Idle = 5,
}

/// A thread's scheduling parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// The policy.
    pub policy: Policy,
    /// -20 (most) to 19 (least), for OTHER and BATCH.
    pub nice: i8,
    /// 1 (least) to 99 (most) for FIFO and RR, else 0.
    pub rt_priority: u8,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
}

/// Processor time and switches of a thread.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    /// In user mode, in nanoseconds.
    pub user: Nanos,
    /// In the kernel, in nanoseconds.
    pub system: Nanos,
    /// Switches because it slept.
    pub voluntary: u64,
    /// Switches because it was preempted.
    pub involuntary: u64,
    /// Nanoseconds spent ready but not running.
    pub waited: Nanos,
}
