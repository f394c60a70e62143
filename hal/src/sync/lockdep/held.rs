//! What a task holds.

use core::panic::Location;

use arrayvec::ArrayVec;

use super::Kind;

/// More locks than a task ever holds at once.
const MOST: usize = 40;

/// A lock that is held or about to be.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) class: u16,
    pub(super) kind: Kind,
    /// It has an order of its own among those of its class.
    pub(super) ranked: bool,
    /// Its address, to tell it from others of its class.
    pub(super) lock: usize,
    pub(super) at: &'static Location<'static>,
}

/// The locks that a task holds, in the order in which it took them.
pub(crate) struct HeldLocks {
    locks: ArrayVec<Taken, MOST>,
    /// Those before this were taken by what an interrupt handler that now runs has interrupted.
    interrupted: Option<usize>,
}

impl HeldLocks {
    pub(crate) const fn new() -> HeldLocks {
        HeldLocks { locks: ArrayVec::new_const(), interrupted: None }
    }

    pub(super) fn push(&mut self, taken: Taken) {
        self.locks.push(taken);
    }

    /// Forgets a lock, usually the newest. One that was taken before there were tasks is not known.
    pub(super) fn remove(&mut self, lock: usize) {
        if let Some(at) = self.locks.iter().rposition(|taken| taken.lock == lock) {
            self.locks.remove(at);
        }
    }

    /// What the running context holds: in an interrupt handler, what that took.
    pub(super) fn here(&self) -> &[Taken] {
        &self.locks[self.interrupted.unwrap_or(0)..]
    }

    pub(super) fn spin_lock(&self) -> Option<Taken> {
        self.here().iter().find(|taken| taken.kind == Kind::Spin).copied()
    }

    pub(super) fn in_interrupt(&self) -> bool {
        self.interrupted.is_some()
    }

    pub(super) fn begin_interrupt(&mut self) {
        self.interrupted = Some(self.locks.len());
    }

    pub(super) fn end_interrupt(&mut self) {
        self.interrupted = None;
    }
}
