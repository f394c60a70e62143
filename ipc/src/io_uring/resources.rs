//! Registered files and buffers: tables whose slots requests name by index. A slot may carry a tag; when what it held is no longer used, the
//! program gets a completion with it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::OpenFile;
use hal::user::UserBuf;

/// Where a completion with a tag goes.
pub trait Untag: Send + Sync {
    /// What carried the tag is gone.
    fn untag(&self, tag: u64);
}

/// What a slot holds. Requests hold it too while they run, so the tag comes back when the last lets go.
pub struct Resource<T> {
    /// The file or buffer.
    pub value: T,
    tag: u64,
    owner: Option<Arc<dyn Untag>>,
}

impl<T> Resource<T> {
    /// A resource; `owner` hears of its end if the tag is not 0.
    pub fn new(value: T, tag: u64, owner: Arc<dyn Untag>) -> Arc<Resource<T>> {
        Arc::new(Resource { value, tag, owner: (tag != 0).then_some(owner) })
    }
}

impl<T> Drop for Resource<T> {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.untag(self.tag);
        }
    }
}

/// A table of slots.
pub struct Table<T> {
    slots: Vec<Option<Arc<Resource<T>>>>,
    /// Where the search for a free slot begins, and its bounds (IORING_REGISTER_FILE_ALLOC_RANGE).
    hint: usize,
    range: (usize, usize),
}

/// Registered files.
pub type Files = Table<Arc<OpenFile>>;
/// Registered buffers.
pub type Buffers = Table<UserBuf>;

impl<T> Table<T> {
    /// A table of empty slots. `ENOMEM`.
    pub fn new(len: usize) -> Result<Table<T>> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        slots.resize_with(len, || None);
        Ok(Table { slots, hint: 0, range: (0, len) })
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Has it no slots?
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What the slot holds.
    pub fn get(&self, index: usize) -> Option<Arc<Resource<T>>> {
        self.slots.get(index)?.clone()
    }

    /// Puts something (or nothing) into a slot; what it held, to be dropped without locks. `EINVAL`.
    pub fn set(&mut self, index: usize, new: Option<Arc<Resource<T>>>) -> Result<Option<Arc<Resource<T>>>> {
        let slot = self.slots.get_mut(index).ok_or(Errno::EINVAL)?;
        Ok(core::mem::replace(slot, new))
    }

    /// The free slot to use next. `ENFILE`.
    pub fn free(&mut self) -> Result<usize> {
        let (start, end) = self.range;
        let hint = self.hint.clamp(start, end);
        let found = (hint..end).chain(start..hint).find(|&index| self.slots[index].is_none()).ok_or(Errno::ENFILE)?;
        self.hint = found + 1;
        Ok(found)
    }

    /// Slots that [`Table::free`] gives out. `EINVAL`.
    pub fn set_range(&mut self, offset: usize, len: usize) -> Result<()> {
        let end = offset.checked_add(len).filter(|&end| end <= self.slots.len()).ok_or(Errno::EINVAL)?;
        (self.range, self.hint) = ((offset, end), offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    struct Heard(AtomicU64);
    impl Untag for Heard {
        fn untag(&self, tag: u64) {
            self.0.store(tag, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_tag_comes_back_when_the_last_user_lets_go() {
        let heard = Arc::new(Heard(AtomicU64::new(0)));
        let mut table = Table::new(2).unwrap();
        table.set(1, Some(Resource::new(5, 7, heard.clone()))).unwrap();
        let used = table.get(1).unwrap();
        drop(table.set(1, None).unwrap());
        assert_eq!(heard.0.load(Ordering::Relaxed), 0);
        drop(used);
        assert_eq!(heard.0.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn free_slots_are_found_in_turn_within_the_range() {
        let heard: Arc<dyn Untag> = Arc::new(Heard(AtomicU64::new(0)));
        let mut table: Table<i32> = Table::new(4).unwrap();
        table.set_range(1, 2).unwrap();
        for expected in [1, 2] {
            let index = table.free().unwrap();
            assert_eq!(index, expected);
            table.set(index, Some(Resource::new(0, 0, heard.clone()))).unwrap();
        }
        assert_eq!(table.free(), Err(Errno::ENFILE));
        drop(table.set(1, None).unwrap());
        assert_eq!(table.free(), Ok(1));
        assert_eq!(table.set_range(3, 2), Err(Errno::EINVAL));
    }
}
