//! The inodes of a file system that are in memory, by what it knows them by.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::hash::Hash;

use base::{Errno, Result};
use hal::sync::SpinLock;
use hashbrown::HashMap;

use crate::Inode;

/// A table that does not keep its inodes alive: what an inode's file system has of it takes it out when it is dropped.
pub(crate) struct InodeTable<K>(SpinLock<HashMap<K, Weak<Inode>>>);

impl<K: Copy + Eq + Hash> InodeTable<K> {
    pub(crate) fn new() -> InodeTable<K> {
        InodeTable(SpinLock::new(HashMap::new()))
    }

    /// The inode that is known by `key`.
    pub(crate) fn get(&self, key: K) -> Option<Arc<Inode>> {
        self.0.lock().get(&key).and_then(Weak::upgrade)
    }

    /// All that are there.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Makes `inode` known, unless another came first that `is_same` says is the same file: the one that counts. `ENOMEM`.
    pub(crate) fn add(&self, key: K, inode: Arc<Inode>, is_same: impl FnOnce(&Inode) -> bool) -> Result<Arc<Inode>> {
        let mut table = self.0.lock();
        table.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let first = table.get(&key).and_then(Weak::upgrade);
        let counts = first.as_ref().is_some_and(|first| is_same(first));
        if !counts {
            table.insert(key, Arc::downgrade(&inode));
        }
        // Before the one that does not count goes, which takes itself out.
        drop(table);
        Ok(first.filter(|_| counts).unwrap_or(inode))
    }

    /// The inode that was known by `key` is being dropped, but another may have taken its place.
    pub(crate) fn remove(&self, key: K) {
        let mut table = self.0.lock();
        if table.get(&key).is_some_and(|inode| inode.strong_count() == 0) {
            table.remove(&key);
        }
    }
}
