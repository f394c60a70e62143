//! SEM_UNDO: what a process did to semaphores is taken back when it ends.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::registry::Entry;
use super::semaphore::SemaphoreSet;

/// The sets that one process, or several that share it (CLONE_SYSVSEM), have to undo something in. Dropping the last reference does that.
pub struct UndoList {
    number: u64,
    sets: SpinLock<Vec<Weak<Entry<SemaphoreSet>>>>,
    user: AtomicI32,
}

impl UndoList {
    /// An empty list.
    pub fn new() -> Arc<UndoList> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(UndoList {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            sets: SpinLock::new(Vec::new()),
            user: AtomicI32::new(0),
        })
    }

    /// A number that no other list has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Notes which process used it last: what is undone counts as its doing.
    pub(super) fn used_by(&self, pid: i32) {
        self.user.store(pid, Ordering::Relaxed);
    }

    /// From now on a set is to be looked at when the list goes. `ENOMEM`.
    pub(super) fn join(&self, set: &Arc<Entry<SemaphoreSet>>) -> Result<()> {
        let mut sets = self.sets.lock();
        sets.retain(|set| set.strong_count() > 0);
        sets.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        sets.push(Arc::downgrade(set));
        Ok(())
    }
}

impl Drop for UndoList {
    fn drop(&mut self) {
        let pid = self.user.load(Ordering::Relaxed);
        for set in self.sets.get_mut().drain(..).filter_map(|set| set.upgrade()) {
            set.object.undo(self.number, pid);
        }
    }
}
