//! A page table without hardware: a map from pages to frames with the semantics of the real one, for tests of memory management.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::PAGE_SIZE;

use crate::frame::Frame;
use crate::paging::{Batch, MapFlags, Mapped, OutOfFrames};
use crate::sync::{SpinGuard, SpinLock};

type Entries = BTreeMap<usize, (Frame, MapFlags)>;

/// The page table of a user address space.
pub struct PageTable {
    entries: SpinLock<Entries>,
}

impl PageTable {
    /// An empty one.
    pub fn new() -> Option<Arc<PageTable>> {
        Some(Arc::new(PageTable { entries: SpinLock::new(BTreeMap::new()) }))
    }

    /// Takes the lock to change entries.
    pub fn lock(&self) -> Tables<'_> {
        Tables { entries: self.entries.lock() }
    }

    /// Frees what the batch holds.
    pub fn flush(&self, batch: &mut Batch) {
        batch.frames.clear();
        (batch.start, batch.end) = (usize::MAX, 0);
    }

    /// There is no TLB.
    pub fn flush_local(&self, _va: usize) {}

    /// There is one processor.
    pub fn used_elsewhere(&self) -> bool {
        false
    }

    /// Calls `f` on every entry that is in use in `start..end`.
    pub fn for_each(&self, start: usize, end: usize, mut f: impl FnMut(&Mapped<'_>)) {
        for (&va, (frame, flags)) in self.entries.lock().range(start..end) {
            f(&Mapped { va, flags: *flags, holders: 1, frame: &|| frame.clone() });
        }
    }

    /// Changes the flags of everything in `start..end`.
    pub fn protect(
        &self,
        start: usize,
        end: usize,
        batch: &mut Batch,
        mut change: impl FnMut(MapFlags) -> MapFlags,
    ) -> Result<(), OutOfFrames> {
        for (_, entry) in self.entries.lock().range_mut(start..end) {
            entry.1 = change(entry.1);
        }
        batch.touch(start, end);
        Ok(())
    }

    /// Makes pages of `start..end` that `which` chooses look as if nobody had used them.
    pub fn forget_accesses(
        &self,
        start: usize,
        end: usize,
        batch: &mut Batch,
        which: impl Fn(MapFlags) -> bool,
    ) -> Result<(), OutOfFrames> {
        for (_, (_, flags)) in self.entries.lock().range_mut(start..end).filter(|(_, (_, flags))| which(*flags)) {
            *flags = flags.without(MapFlags::ACCESSED);
        }
        batch.touch(start, end);
        Ok(())
    }
}

/// A locked page table.
pub struct Tables<'a> {
    entries: SpinGuard<'a, Entries>,
}

impl Tables<'_> {
    /// What is mapped at `va`.
    pub fn get(&self, va: usize) -> Option<(Frame, MapFlags)> {
        self.entries.get(&va).map(|(f, flags)| (f.clone(), *flags))
    }

    /// The flags at `va`.
    pub fn flags(&self, va: usize) -> Option<MapFlags> {
        self.entries.get(&va).map(|e| e.1)
    }

    /// Maps `frame` at `va`; gives what was there.
    pub fn map(&mut self, va: usize, frame: Frame, flags: MapFlags) -> Result<Option<Frame>, OutOfFrames> {
        Ok(self.entries.insert(va, (frame, flags)).map(|e| e.0))
    }

    /// Maps `frame` at `va` only if nothing is there.
    pub fn map_if_easy(&mut self, va: usize, frame: &Frame, flags: MapFlags) -> bool {
        if self.entries.contains_key(&va) {
            return false;
        }
        self.entries.insert(va, (frame.clone(), flags));
        true
    }

    /// Is the page at `va` mapped by this entry alone?
    pub fn exclusive(&mut self, va: usize) -> Result<bool, OutOfFrames> {
        Ok(self.entries.get(&va).is_some_and(|e| e.0.refs() == 1))
    }

    /// Changes the flags at `va` if something is mapped.
    pub fn set_flags(&mut self, va: usize, flags: MapFlags) -> Result<(), OutOfFrames> {
        if let Some(entry) = self.entries.get_mut(&va) {
            entry.1 = flags;
        }
        Ok(())
    }

    /// Takes out everything in `start..end`.
    pub fn unmap(&mut self, start: usize, end: usize, batch: &mut Batch) -> Result<usize, OutOfFrames> {
        let pages: Vec<usize> = self.entries.range(start..end).map(|e| *e.0).collect();
        for va in pages {
            if let Some((frame, flags)) = self.entries.remove(&va) {
                batch.count(flags);
                batch.free_later(frame);
                batch.touch(va, va + PAGE_SIZE);
            }
        }
        Ok(end)
    }

    /// Moves the entries of `len` bytes from `old` to `new`.
    pub fn relocate(&mut self, old: usize, new: usize, len: usize, batch: &mut Batch) -> Result<(), OutOfFrames> {
        for offset in (0..len).step_by(PAGE_SIZE) {
            if let Some(entry) = self.entries.remove(&(old + offset)) {
                self.entries.insert(new + offset, (entry.0, entry.1.without(MapFlags::UNCHANGED)));
            }
        }
        batch.touch(old, old + len);
        Ok(())
    }

    /// Gives `child` all that is mapped here, private pages write-protected in both.
    pub fn share_with(&mut self, child: &mut Tables<'_>) -> Result<(), OutOfFrames> {
        for (&va, (frame, flags)) in self.entries.iter_mut() {
            if !flags.has(MapFlags::SHARED) {
                *flags = flags.without(MapFlags::WRITE);
            }
            child.entries.insert(va, (frame.clone(), *flags));
        }
        Ok(())
    }
}
