//! A readers-writer lock whose waiters sleep. Writers that wait hold off new readers.

use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicUsize;

use hal::sync::lockdep::{Class, Kind};
use hal::sync::rw_cell::{ReadAccess, RwCell, WriteAccess};

use crate::rw_state::RwState;
use crate::{Sleep, WaitQueue};

/// Data that many may read or one may change; holders may sleep.
pub struct RwLock<T: ?Sized> {
    class: Class,
    state: RwState,
    waiters: WaitQueue,
    value: RwCell<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock::of(Class::new(), WaitQueue::new(), value)
    }

    /// As [`RwLock::new`], for locks that are taken in an order of their own where several are held: see
    /// [`hal::sync::lockdep::Class::ranked`].
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub const fn ranked(rank: u8, value: T) -> RwLock<T> {
        RwLock::of(Class::ranked(rank), WaitQueue::new(), value)
    }

    const fn of(class: Class, waiters: WaitQueue, value: T) -> RwLock<T> {
        RwLock { class, state: RwState::new(AtomicUsize::new(0)), waiters, value: RwCell::new(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes it for reading.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.class.acquire::<T>(Kind::Sleep, true);
        if !self.state.take_read() {
            let _ = self.waiters.wait_until(Sleep::Uninterruptible, None, || self.state.take_read().then_some(()));
        }
        RwLockReadGuard { lock: self, value: Some(self.value.read()) }
    }

    /// Takes it for writing.
    #[inline]
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.class.acquire::<T>(Kind::Sleep, true);
        if !self.state.take_write() {
            let _ = self.waiters.wait_until(Sleep::Uninterruptible, None, || {
                if self.state.take_write() {
                    return Some(());
                }
                self.state.announce_writer();
                self.state.take_write().then_some(())
            });
        }
        RwLockWriteGuard { lock: self, value: Some(self.value.write()) }
    }
}

/// Read access; unlocks when dropped.
pub struct RwLockReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    value: Option<ReadAccess<'a, T>>,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until drop")
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.value = None;
        self.lock.class.release();
        if self.lock.state.leave_read() && self.lock.waiters.has_waiters() {
            self.lock.waiters.wake_all();
        }
    }
}

/// Write access; unlocks when dropped.
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    value: Option<WriteAccess<'a, T>>,
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until drop")
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until drop")
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.value = None;
        self.lock.class.release();
        self.lock.state.leave_write();
        if self.lock.waiters.has_waiters() {
            self.lock.waiters.wake_all();
        }
    }
}
