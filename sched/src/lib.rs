//! Module 1, process scheduling: threads, run queues and scheduling classes, wait queues, timers and locks that sleep.
//!
//! Knows nothing of processes: a thread carries an opaque extension for the layers above ([`Thread::ext`]). May depend on `hal`.
//!
//! Lock order (outermost first): sleeping locks -> threads that wait by the real-time clock -> wait queue -> timer queue -> thread state -> run queue (by processor number).
//! All of these spin locks are taken with interrupts off, since interrupt handlers wake threads.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

/// What the files that `tests/models` includes take from here, and there from loom.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicUsize, Ordering, fence};
}
mod fair;
mod mutex;
mod presence;
pub mod realtime;
mod rw_state;
mod rwlock;
mod schedule;
pub mod statistics;
pub mod thread;
pub mod time;
pub mod timer;
pub mod transfers;
mod wait_queue;

pub use mutex::{Mutex, MutexGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use schedule::reschedule;
pub use thread::{Thread, current, preempt_point, with_current, yield_now};
pub use wait_queue::{Notify, WaitQueue};

use base::Errno;

/// What may end a sleep besides a wake-up and the deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// Nothing (state D).
    Uninterruptible,
    /// Any [`Thread::interrupt`] (state S).
    Interruptible,
    /// Only [`Thread::interrupt_fatal`] (state D, as Linux's TASK_KILLABLE).
    Killable,
}

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SleepEnd {
    /// By a wake-up.
    Woken,
    /// By its deadline.
    TimedOut,
    /// By an interrupt (a signal is pending).
    Interrupted,
}

/// Why waiting for a condition ended without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitError {
    /// The deadline passed.
    TimedOut,
    /// A signal is pending.
    Interrupted,
}

impl From<WaitError> for Errno {
    /// `ETIMEDOUT`; `ERESTARTSYS` for the system-call exit to turn into a restart or `EINTR`.
    fn from(error: WaitError) -> Errno {
        match error {
            WaitError::TimedOut => Errno::ETIMEDOUT,
            WaitError::Interrupted => Errno::ERESTARTSYS,
        }
    }
}

/// Makes the boot flow of this processor its idle thread. On the boot processor before anything sleeps, on others first of all.
pub fn init_cpu() {
    if hal::cpu::id() == 0 {
        thread::RUNNING.bind();
    }
    schedule::adopt_boot_flow();
}

/// This processor's idle loop.
pub fn run() -> ! {
    schedule::idle_loop()
}

/// hal's timer hook.
pub fn on_timer() {
    schedule::on_timer();
}

/// hal's reschedule hook.
pub fn on_kick() {
    schedule::on_kick();
}
