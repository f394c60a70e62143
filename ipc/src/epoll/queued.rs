//! Whether an item is on its instance's ready list. Who has news marks it and, if it was not marked, puts it on the list; who takes it off
//! unmarks it and then looks at the file. `tests/models` explores every order of the two: no news are lost, and no item is on the list twice.

use crate::atomic::{AtomicBool, Ordering};

/// The mark.
pub(crate) struct Queued(AtomicBool);

impl Queued {
    /// Starts from this, `false`.
    pub(crate) const fn new(no: AtomicBool) -> Queued {
        Queued(no)
    }

    /// Marks it; false if it was marked.
    pub(crate) fn mark(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Unmarks it. An exchange, not a store: news that came before are seen by whoever looks after.
    pub(crate) fn unmark(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}
