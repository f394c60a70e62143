//! The same names, without effect or cost.

use super::Kind;

/// What a lock carries to be checked: nothing.
pub struct Class;

impl Class {
    /// A lock's class.
    #[allow(clippy::new_without_default, reason = "a const fn, for statics")]
    pub const fn new() -> Class {
        Class
    }

    /// The class of locks with an order of their own.
    pub const fn ranked(_rank: u8) -> Class {
        Class
    }

    /// The lock is about to be taken.
    #[inline(always)]
    pub fn acquire<T: ?Sized>(&self, _kind: Kind, _waits: bool) {}

    /// The lock is about to be let go.
    #[inline(always)]
    pub fn release(&self) {}
}

/// The caller may sleep.
#[inline(always)]
pub fn may_sleep() {}

#[inline(always)]
pub(crate) fn may_fault() {}

#[inline(always)]
pub(crate) fn interrupts_go_on() {}

#[inline(always)]
pub(crate) fn no_spin_lock_is_held() {}

/// A page fault is handled while it lives.
pub(crate) struct FaultGuard;

impl FaultGuard {
    #[inline(always)]
    pub(crate) fn new() -> FaultGuard {
        FaultGuard
    }
}

/// An interrupt is handled while it lives.
pub(crate) struct InterruptGuard;

impl InterruptGuard {
    #[inline(always)]
    pub(crate) fn new() -> InterruptGuard {
        InterruptGuard
    }
}
