//! What a system-call handler gets besides its arguments.

use hal::regs::UserRegs;
use process::Task;

/// The calling thread and its registers.
pub struct Context<'a> {
    /// The calling thread.
    pub task: &'a Task,
    /// Its registers: only fork, exec, sigreturn and the like touch them. The dispatcher stores the result in `rax`.
    pub regs: &'a mut UserRegs,
}
