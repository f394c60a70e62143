//! Kernel threads as the processor sees them: a stack, saved registers, an address space; and the switch between them.
//!
//! The scheduler above decides who runs; what makes that safe is here. A [`Task`] is entered only by [`Running::switch_to`], which waits until the
//! task has left every other processor, and a started task keeps itself alive until it has switched away for the last time.

pub use crate::arch::task::{Running, Task, interrupted_user};

use crate::regs::UserRegs;
use alloc::boxed::Box;

/// Something that a [`Task`] is part of: the scheduler's thread.
pub trait HasTask: Send + Sync + 'static {
    /// The task.
    fn task(&self) -> &Task;
}

/// What a new task does first.
pub enum Start {
    /// A kernel thread: runs this, which must not return.
    Kernel(Box<dyn FnOnce() + Send>),
    /// A user thread: runs this in the kernel with the registers that it will enter user mode with.
    User(Box<dyn FnOnce(&mut UserRegs) + Send>),
}

/// Bits of the work word ([`Task::set_work`]): something to do before the task enters user mode.
pub mod work {
    /// The scheduler wants the processor back.
    pub const RESCHEDULE: u32 = 1;
    /// Signals, or whatever the layer above has noted.
    pub const SIGNAL: u32 = 2;
    /// The task was moved or preempted since it left user mode (rseq).
    pub const RSEQ: u32 = 4;
}
