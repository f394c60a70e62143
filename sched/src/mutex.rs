//! A mutual-exclusion lock whose waiters sleep.

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use hal::sync::lockdep::{Class, Kind};
use hal::sync::rw_cell::{RwCell, WriteAccess};

use crate::{Sleep, WaitQueue};

/// Data that one thread at a time may use; the holder may sleep. Not for interrupt handlers.
pub struct Mutex<T: ?Sized> {
    class: Class,
    held: AtomicBool,
    waiters: WaitQueue,
    value: RwCell<T>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex around `value`.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex::of(Class::new(), WaitQueue::new(), value)
    }

    /// As [`Mutex::new`], for locks that are taken in an order of their own where several are held: see
    /// [`hal::sync::lockdep::Class::ranked`].
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn ranked(rank: u8, value: T) -> Mutex<T> {
        Mutex::of(Class::ranked(rank), WaitQueue::new(), value)
    }

    const fn of(class: Class, waiters: WaitQueue, value: T) -> Mutex<T> {
        Mutex { class, held: AtomicBool::new(false), waiters, value: RwCell::new(value) }
    }

    /// The value, when the lock is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock, sleeping for it if need be.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.class.acquire::<T>(Kind::Sleep, true);
        if !self.take() {
            let _ = self.waiters.wait_exclusive(Sleep::Uninterruptible, None, || self.take().then_some(()));
        }
        MutexGuard { mutex: self, value: Some(self.value.write()) }
    }

    /// Takes the lock if it is free.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if !self.take() {
            return None;
        }
        self.class.acquire::<T>(Kind::Sleep, false);
        Some(MutexGuard { mutex: self, value: Some(self.value.write()) })
    }

    fn take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The value, without locking: the caller holds the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for Mutex<T> {
    #[cfg_attr(feature = "lockdep", track_caller)]
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

/// Access to the value; unlocks when dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    value: Option<WriteAccess<'a, T>>,
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until drop")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until drop")
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.value = None;
        self.mutex.class.release();
        self.mutex.held.store(false, Ordering::Release);
        self.mutex.waiters.wake_one();
    }
}
