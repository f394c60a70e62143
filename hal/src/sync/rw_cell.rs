//! The value inside a readers-writer lock: checks, on its own account, that the lock above it keeps its word.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

const WRITER: usize = usize::MAX;

/// A value with dynamically checked access from many threads. Panics, rather than waits, on a conflict: sleeping and fairness are the
/// business of the lock built around it.
pub struct RwCell<T: ?Sized> {
    users: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: `users` admits either readers, who share the value (T: Sync), or one writer, who may move it about (T: Send).
unsafe impl<T: ?Sized + Send + Sync> Sync for RwCell<T> {}
// SAFETY: the cell owns its value.
unsafe impl<T: ?Sized + Send> Send for RwCell<T> {}

impl<T> RwCell<T> {
    /// A cell around `value`.
    pub const fn new(value: T) -> RwCell<T> {
        RwCell { users: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    /// The value, when the cell is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwCell<T> {
    /// Read access. Panics while there is a writer.
    #[inline]
    pub fn read(&self) -> ReadAccess<'_, T> {
        let was = self.users.fetch_add(1, Ordering::Acquire);
        assert!(was < WRITER / 2, "a reader and a writer at once");
        ReadAccess { cell: self }
    }

    /// Write access. Panics while there is anybody else.
    #[inline]
    pub fn write(&self) -> WriteAccess<'_, T> {
        let free = self.users.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok();
        assert!(free, "a writer and somebody else at once");
        WriteAccess { cell: self }
    }

    /// The value, without checks: the caller holds the only reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Shared access.
pub struct ReadAccess<'a, T: ?Sized> {
    cell: &'a RwCell<T>,
}

impl<T: ?Sized> Deref for ReadAccess<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `users` counts us as a reader, so there is no writer.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T: ?Sized> Drop for ReadAccess<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.users.fetch_sub(1, Ordering::Release);
    }
}

/// Exclusive access.
pub struct WriteAccess<'a, T: ?Sized> {
    cell: &'a RwCell<T>,
}

impl<T: ?Sized> Deref for WriteAccess<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `users` says WRITER, which is us.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteAccess<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `users` says WRITER, which is us.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T: ?Sized> Drop for WriteAccess<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.users.store(0, Ordering::Release);
    }
}
