//! The word of a readers-writer lock. `tests/models` explores every order in which threads take and leave it.

use crate::atomic::{AtomicUsize, Ordering};

const WRITER: usize = 1 << 63;
const WAITING: usize = 1 << 62;
const READERS: usize = WAITING - 1;

/// WRITER, WAITING (a writer waits, and holds off new readers) and the number of readers.
pub(crate) struct RwState(AtomicUsize);

impl RwState {
    /// Starts from this word, 0: free.
    pub(crate) const fn new(free: AtomicUsize) -> RwState {
        RwState(free)
    }

    /// Takes it for reading, unless a writer has it or waits.
    #[inline]
    pub(crate) fn take_read(&self) -> bool {
        let one_more = |state: usize| (state & (WRITER | WAITING) == 0).then_some(state + 1);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_ok()
    }

    /// Takes it for writing if nobody holds it. That clears WAITING: other writers that wait set it again when they are woken in vain.
    #[inline]
    pub(crate) fn take_write(&self) -> bool {
        let mine = |state: usize| (state & (WRITER | READERS) == 0).then_some(WRITER);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, mine).is_ok()
    }

    /// A writer waits.
    pub(crate) fn announce_writer(&self) {
        self.0.fetch_or(WAITING, Ordering::SeqCst);
    }

    /// A reader leaves; true if it was the last, whom waiters have waited for.
    #[inline]
    pub(crate) fn leave_read(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Release) & READERS == 1
    }

    /// The writer leaves.
    #[inline]
    pub(crate) fn leave_write(&self) {
        self.0.store(0, Ordering::Release);
    }
}
