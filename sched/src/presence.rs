//! Whether anybody waits, known without a lock: a waker changes the condition and then looks here; a waiter says that it is here and then
//! looks at the condition. The fences between see to it that one of them sees the other. `tests/models` explores every order of the two.

use crate::atomic::{AtomicUsize, Ordering, fence};

/// How many wait.
pub(crate) struct Presence(AtomicUsize);

impl Presence {
    /// Starts from this number, 0.
    pub(crate) const fn new(nobody: AtomicUsize) -> Presence {
        Presence(nobody)
    }

    /// One more has come, so that so many wait. It looks at the condition after this.
    #[inline]
    pub(crate) fn arrive(&self, count: usize) {
        self.leave(count);
        fence(Ordering::SeqCst);
    }

    /// Somebody has left, so that so many wait. All changes are made under the lock of the queue.
    #[inline]
    pub(crate) fn leave(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// Does anybody wait? The condition was changed before.
    #[inline]
    pub(crate) fn anybody(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) != 0
    }
}
