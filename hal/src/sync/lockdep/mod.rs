//! Lock-order checking in kernels built with the feature `lockdep`; without it everything here is empty.
//!
//! Locks made at the same place for the same type are one class. Each task has a list of what it holds, and whenever a lock is taken while
//! others are held, an order between the classes is learned. A wrong order is reported the first time it *could* end in a deadlock, with no
//! need for the deadlock to happen:
//! * two classes are taken in both orders, directly or by way of others;
//! * two locks of one class are taken neither always by rising nor always by falling addresses;
//! * a class that an interrupt handler waits for is held with interrupts on, or while one that is held so is waited for;
//! * a task that may sleep holds a spin lock, or has interrupts off. Copies to and from user space count as taking a lock of their own,
//!   which page faults hold, because any of them may fault.
//!
//! A report names the chains of locks with where they were taken, and is a panic. (The idea is that of Linux's lock validator,
//! `Documentation/locking/lockdep-design.rst`.)

#[cfg(feature = "lockdep")]
mod class;
#[cfg(feature = "lockdep")]
mod graph;
#[cfg(feature = "lockdep")]
mod held;
#[cfg(feature = "lockdep")]
pub use class::{Class, may_sleep};
#[cfg(feature = "lockdep")]
#[cfg_attr(
    not(target_os = "none"),
    allow(unused_imports, reason = "hosted builds have no traps and do not switch")
)]
pub(crate) use {
    class::{FaultGuard, InterruptGuard, interrupts_go_on, may_fault, no_spin_lock_is_held},
    held::HeldLocks,
};

#[cfg(not(feature = "lockdep"))]
mod unchecked;
#[cfg(not(feature = "lockdep"))]
pub use unchecked::{Class, may_sleep};
#[cfg(not(feature = "lockdep"))]
#[cfg_attr(
    not(target_os = "none"),
    allow(unused_imports, reason = "hosted builds have no traps and do not switch")
)]
pub(crate) use unchecked::{FaultGuard, InterruptGuard, interrupts_go_on, may_fault, no_spin_lock_is_held};

/// How one waits for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Spinning: the holder must not sleep.
    Spin,
    /// Sleeping.
    Sleep,
}
