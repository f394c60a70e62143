//! Upcalls: what the layers above do on a system call, a fault or a tick. Set once at boot.

use crate::regs::{Exception, PageFault, UserRegs};
use crate::sync::Once;

/// The functions that hal calls.
pub struct Hooks {
    /// A system call: number in `rax`, arguments in `rdi rsi rdx r10 r8 r9`; the result goes to `rax`. Interrupts on.
    pub syscall: fn(&mut UserRegs),
    /// The current task's work word is not zero on the way to user mode: do it all and clear the bits. Interrupts on.
    pub before_user: fn(&mut UserRegs),
    /// An exception in user mode that is not a page fault. Interrupts on.
    pub user_exception: fn(&mut UserRegs, Exception),
    /// A page fault on a user address, from user mode or from a copy in [`crate::user`]: true once the access can be tried again.
    /// From user mode, false must leave a signal pending. Interrupts on; may sleep.
    pub page_fault: fn(&PageFault) -> bool,
    /// The timer of this processor expired ([`crate::clock::set_timer`]). Interrupts off.
    pub timer: fn(),
    /// Another processor called [`crate::cpu::kick`]. Interrupts off.
    pub reschedule: fn(),
    /// The idle loop of a processor other than the first, entered once, never returns.
    pub secondary_main: fn() -> !,
}

static HOOKS: Once<Hooks> = Once::new();

/// Sets the hooks. Panics if they were set before.
pub fn install(hooks: Hooks) {
    assert!(HOOKS.set(hooks).is_ok(), "hal hooks are installed twice");
}

/// The hooks. Panics before [`install`].
#[inline]
pub(crate) fn get() -> &'static Hooks {
    HOOKS.get().expect("a trap before the kernel installed its hooks")
}
