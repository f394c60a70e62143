//! A test-and-test-and-set spin lock.
//!
//! The kernel is not preempted except where it says so (`sched::preempt_point`, sleeping, return to user mode), so a holder in
//! thread context only loses the processor to interrupts. Data that an interrupt handler touches is taken with
//! [`SpinLock::lock_irq`]; all other data with [`SpinLock::lock`]. A holder must not sleep.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use super::lockdep::{Class, Kind};
use crate::irq::{self, IrqGuard};

/// Data that one processor at a time may use.
pub struct SpinLock<T: ?Sized> {
    class: Class,
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `locked` admits one guard at a time, so sharing the lock moves the value between threads but never aliases it.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: the lock owns its value.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock around `value`.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new(value: T) -> SpinLock<T> {
        SpinLock::of(Class::new(), value)
    }

    /// As [`SpinLock::new`], for locks that are taken in an order of their own where several are held: see
    /// [`lockdep::Class::ranked`](super::lockdep::Class::ranked).
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn ranked(rank: u8, value: T) -> SpinLock<T> {
        SpinLock::of(Class::ranked(rank), value)
    }

    /// A lock that [`lockdep`](super::lockdep) does not check: its own.
    #[cfg(feature = "lockdep")]
    pub(crate) const fn untracked(value: T) -> SpinLock<T> {
        SpinLock::of(Class::untracked(), value)
    }

    const fn of(class: Class, value: T) -> SpinLock<T> {
        SpinLock { class, locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, when the lock is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    #[inline(always)]
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn acquire(&self) {
        self.class.acquire::<T>(Kind::Spin, true);
        if self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin(&self.locked);
        }
    }

    /// Takes the lock. For data that no interrupt handler locks.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.acquire();
        SpinGuard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let free = self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free {
            self.class.acquire::<T>(Kind::Spin, false);
        }
        free.then_some(SpinGuard { lock: self })
    }

    /// Takes the lock with interrupts off on this processor until the guard goes.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn lock_irq(&self) -> IrqSpinGuard<'_, T> {
        let irq = irq::disable();
        self.acquire();
        IrqSpinGuard { inner: SpinGuard { lock: self }, _irq: irq }
    }

    /// The value, without locking: the caller holds the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Is it taken by anyone? For diagnostics: the answer is old when it arrives.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}

/// Takes a lock that somebody has.
#[cold]
fn spin(locked: &AtomicBool) {
    while locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        while locked.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
    }
}

impl<T: Default> Default for SpinLock<T> {
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn default() -> Self {
        SpinLock::new(T::default())
    }
}

/// Access to the value; unlocks when dropped.
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one until it drops (`acquire`), so nothing else refers to the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and `&mut self` excludes other borrows through this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.class.release();
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// As [`SpinGuard`]; unlocks, then restores the interrupt flag.
pub struct IrqSpinGuard<'a, T: ?Sized> {
    inner: SpinGuard<'a, T>,
    _irq: IrqGuard,
}

impl<T: ?Sized> Deref for IrqSpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for IrqSpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
