//! What was read or decompressed last, so that it is not made again for its next bytes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;

/// Pieces by a key; the oldest make room. It is searched from end to end: for tens of pieces.
pub(crate) struct Cache<K, T> {
    kept: SpinLock<Vec<(K, Arc<T>)>>,
    most: usize,
    bytes: usize,
}

impl<K: Copy + PartialEq, T: AsRef<[u8]>> Cache<K, T> {
    /// A cache of at most so many pieces, with at most so many bytes, or with one piece that is larger.
    pub(crate) fn new(most: usize, bytes: usize) -> Cache<K, T> {
        Cache { kept: SpinLock::new(Vec::new()), most, bytes }
    }

    /// The piece of that key, where it is kept.
    pub(crate) fn known(&self, key: K) -> Option<Arc<T>> {
        self.kept.lock().iter().find(|(its_key, _)| *its_key == key).map(|(_, value)| value.clone())
    }

    /// What is kept of `key`, or what `make` makes of it. `ENOMEM`, and `make`'s errors.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        // What makes room is freed without the lock.
        while let Some(oldest) = self.add(key, &made)? {
            drop(oldest);
        }
        Ok(made)
    }

    /// Adds a piece, or takes the oldest out where there is no room. `ENOMEM`.
    fn add(&self, key: K, made: &Arc<T>) -> Result<Option<Arc<T>>> {
        let mut kept = self.kept.lock();
        let len = |value: &Arc<T>| (**value).as_ref().len();
        let bytes: usize = kept.iter().map(|(_, value)| len(value)).sum();
        if !kept.is_empty() && (kept.len() >= self.most || bytes.saturating_add(len(made)) > self.bytes) {
            return Ok(Some(kept.remove(0).1));
        }
        kept.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        kept.push((key, made.clone()));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_by_number_and_by_bytes() {
        let cache: Cache<u32, Vec<u8>> = Cache::new(3, 100);
        let add = |key: u32, len: usize| cache.get(key, || Ok(alloc::vec![0; len])).expect("there is memory").len();
        for key in 0..4 {
            assert_eq!(add(key, 10), 10);
        }
        assert!(cache.known(0).is_none() && cache.known(1).is_some());
        assert_eq!(add(3, 99), 10, "what is kept is not made again");
        assert_eq!(add(4, 85), 85);
        assert!(cache.known(2).is_none() && cache.known(3).is_some());
        assert_eq!(add(5, 500), 500);
        assert!(cache.known(4).is_none() && cache.known(5).is_some());
    }
}
