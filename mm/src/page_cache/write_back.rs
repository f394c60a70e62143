//! Dirty pages and writing them back.
//!
//! A page is taken for writing in this order: its dirty mark goes, it is marked as being written, the right to write it goes from all
//! mappings, and only then is it read by the pager. Whoever changes it after that makes it dirty again. A fault that maps it for
//! writing marks it before and after it is mapped, so that the mark is never lost to a write-back that comes in between.

use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::transfers;

use super::{DIRTY, PAGE, Page, PageCache, RESERVED, TOTAL, USED, WRITING};
use crate::Source;

/// Pages that go to the pager at a time (1 MiB).
const BATCH: usize = 256;

static DIRTY_PAGES: AtomicUsize = AtomicUsize::new(0);
static WRITING_PAGES: AtomicUsize = AtomicUsize::new(0);
static EVER_DIRTIED: AtomicU64 = AtomicU64::new(0);
static EVER_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// How much is dirty, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Dirty.
    pub dirty: usize,
    /// Being written.
    pub writing: usize,
    /// Made dirty since boot.
    pub dirtied: u64,
    /// Written since boot.
    pub written: u64,
}

/// How much is dirty now.
pub fn figures() -> Figures {
    Figures {
        dirty: DIRTY_PAGES.load(Ordering::Relaxed),
        writing: WRITING_PAGES.load(Ordering::Relaxed),
        dirtied: EVER_DIRTIED.load(Ordering::Relaxed),
        written: EVER_WRITTEN.load(Ordering::Relaxed),
    }
}

/// So many dirty pages are given up unwritten.
pub(super) fn give_up_dirty(count: usize) {
    transfers::cancelled(count * PAGE_SIZE);
    forget_dirty(count);
}

fn forget_dirty(count: usize) {
    DIRTY_PAGES.fetch_sub(count, Ordering::Relaxed);
}

/// Errors of writing back, numbered, so that everybody who has the file open hears of each once.
pub(super) struct ErrorSequence(SpinLock<(u64, Option<Errno>)>);

impl ErrorSequence {
    pub(super) const fn new() -> ErrorSequence {
        ErrorSequence(SpinLock::new((0, None)))
    }

    fn note(&self, error: Errno) {
        let mut last = self.0.lock();
        *last = (last.0 + 1, Some(error));
    }
}

impl PageCache {
    /// The number of the last error of writing back, for who opens the file now.
    pub fn error_number(&self) -> u64 {
        self.errors.0.lock().0
    }

    /// The error of writing back that came after number `seen`, which is brought up to date. `EIO`, `ENOSPC`.
    pub fn check_error(&self, seen: &AtomicU64) -> Result<()> {
        let (number, error) = *self.errors.0.lock();
        match error {
            Some(error) if seen.swap(number, Ordering::Relaxed) != number => Err(error),
            _ => Ok(()),
        }
    }

    /// Is a page dirty or being written?
    pub fn is_dirty(&self) -> bool {
        self.pages.lock().dirty.len() > 0
    }

    /// Is the page at `index` dirty?
    pub fn is_page_dirty(&self, index: u64) -> bool {
        self.pages.lock().dirty.get(index).is_some()
    }

    /// The next dirty page from `index` on.
    pub fn next_dirty(&self, index: u64) -> Option<u64> {
        self.pages.lock().dirty.next(index)
    }

    /// Reads the page at `index` in, reserves what writing it takes, and marks it dirty: its bytes may then be changed. `EIO`, `ENOSPC`,
    /// `ENOMEM`.
    pub fn make_dirty(&self, index: u64) -> Result<Frame> {
        loop {
            let frame = self.fill(index)?;
            self.reserve(index)?;
            if self.mark_dirty(index, Some(&frame), true) {
                return Ok(frame);
            }
        }
    }

    /// The page was changed.
    pub(crate) fn touch(&self, index: u64) {
        if self.is_paged() {
            self.mark_dirty(index, None, false);
        }
    }

    /// Has the pager reserve for the page, unless it is dirty and so has.
    fn reserve(&self, index: u64) -> Result<()> {
        let reserved = self.pages.lock().tree.get(index).is_some_and(|page| page.state & RESERVED != 0);
        match &self.pager {
            Some(pager) if !reserved => pager.reserve(index),
            _ => Ok(()),
        }
    }

    /// Marks the page dirty if it is there (and is `frame`); `reserved`: the caller has called [`PageCache::reserve`].
    fn mark_dirty(&self, index: u64, frame: Option<&Frame>, reserved: bool) -> bool {
        let mut surplus = reserved;
        let mut first = false;
        let mut marked = false;
        {
            let mut pages = self.pages.lock();
            let pages = &mut *pages;
            if let Some(page) = pages.tree.get_mut(index).filter(|page| frame.is_none_or(|f| *f == page.frame)) {
                marked = true;
                if reserved && page.state & RESERVED == 0 {
                    page.state |= RESERVED;
                    surplus = false;
                } else if reserved && page.state & DIRTY != 0 {
                    // It was reserved already when the caller looked.
                    surplus = false;
                }
                page.state |= USED;
                if page.state & DIRTY == 0 {
                    page.state |= DIRTY;
                    first = pages.dirty.len() == 0;
                    pages.dirty.insert(index, ());
                    DIRTY_PAGES.fetch_add(1, Ordering::Relaxed);
                    transfers::to_storage(PAGE_SIZE);
                    EVER_DIRTIED.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if let Some(pager) = &self.pager {
            if surplus {
                pager.release(1);
            }
            if first {
                pager.dirtied();
            }
        }
        marked
    }

    /// Writes into the page at `index` of a cache with a pager.
    pub(super) fn write_paged(&self, index: u64, within: usize, len: usize, source: &mut Source) -> Result<usize> {
        let start = index * PAGE;
        let size = self.size();
        let old_end = size.saturating_sub(start).min(PAGE) as usize;
        let whole = within == 0 && len >= old_end;
        let absent = || self.pages.lock().tree.get(index).is_none();
        if !whole || !absent() {
            let frame = self.make_dirty(index)?;
            let moved = source.take_frame(&frame, within, len);
            self.touch(index);
            return moved;
        }
        let frame = super::reclaim::alloc_frame().ok_or(Errno::ENOMEM)?;
        let moved = source.take_frame(&frame, within, len)?;
        if moved < len && old_end > 0 {
            // Of what was to be overwritten, a part has to stay.
            let page = self.make_dirty(index)?;
            page.copy_part(within, &frame, within, moved);
            self.touch(index);
            return Ok(moved);
        }
        frame.zero_range(moved, PAGE_SIZE - moved);
        self.reserve(index)?;
        let inserted = {
            let mut pages = self.pages.lock();
            let free = pages.tree.get(index).is_none();
            if free {
                pages.tree.insert(index, Page { frame: frame.clone(), state: USED });
                TOTAL.fetch_add(1, Ordering::Relaxed);
            }
            free
        };
        if inserted {
            self.mark_dirty(index, Some(&frame), true);
        } else {
            if let Some(pager) = &self.pager {
                pager.release(1);
            }
            let page = self.make_dirty(index)?;
            page.copy_part(within, &frame, within, moved);
            self.touch(index);
        }
        Ok(moved)
    }

    /// What follows when pages were taken out of the cache.
    pub(super) fn dropped(&self, pages: &[Page]) {
        TOTAL.fetch_sub(pages.len(), Ordering::Relaxed);
        self.give_room(pages.len());
        let reserved = pages.iter().filter(|page| page.state & RESERVED != 0).count();
        if let Some(pager) = self.pager.as_ref().filter(|_| reserved > 0) {
            pager.release(reserved);
        }
    }

    /// Writes the dirty pages from `first` to `last` back, at most `max` of them, and waits until they are written. How many there were.
    /// Errors are also kept for [`PageCache::check_error`]. `EIO`, `ENOSPC`.
    pub fn write_back(&self, first: u64, last: u64, max: usize) -> Result<usize> {
        let Some(pager) = &self.pager else { return Ok(0) };
        let (mut next, mut done, mut result) = (first, 0, Ok(()));
        while done < max {
            let (batch, reserved) = self.take_dirty(&mut next, last, BATCH.min(max - done));
            if batch.is_empty() {
                break;
            }
            self.protect(&batch);
            WRITING_PAGES.fetch_add(batch.len(), Ordering::Relaxed);
            let written = pager.write(&batch);
            pager.release(reserved);
            self.written(&batch);
            if let Err(error) = written {
                self.errors.note(error);
                result = Err(error);
            }
            done += batch.len();
        }
        result.map(|()| done)
    }

    /// Writes what is dirty from `first` to `last`, and waits for what others are writing. `EIO`, `ENOSPC`.
    pub fn sync_range(&self, first: u64, last: u64) -> Result<()> {
        if !self.is_paged() {
            return Ok(());
        }
        self.wait_written(first, last);
        let result = self.write_back(first, last, usize::MAX).map(drop);
        self.wait_written(first, last);
        result
    }

    /// Takes up to `count` dirty pages from `next` on to be written; how many of them were reserved for.
    fn take_dirty(&self, next: &mut u64, last: u64, count: usize) -> (Vec<(u64, Frame)>, usize) {
        let mut batch = Vec::new();
        let mut reserved = 0;
        let mut pages = self.pages.lock();
        let pages = &mut *pages;
        while batch.len() < count
            && let Some(index) = pages.dirty.next(*next).filter(|&i| i <= last)
        {
            *next = index.saturating_add(1);
            let Some(page) = pages.tree.get_mut(index) else { continue };
            // Somebody is writing it: it stays dirty, and is written again another time.
            if page.state & WRITING != 0 {
                continue;
            }
            reserved += usize::from(page.state & RESERVED != 0);
            page.state = page.state & !(DIRTY | RESERVED) | WRITING;
            batch.push((index, page.frame.clone()));
            pages.dirty.remove(index);
            forget_dirty(1);
        }
        (batch, reserved)
    }

    /// Takes the right to write the pages from all mappings.
    fn protect(&self, batch: &[(u64, Frame)]) {
        let mappers: Vec<_> = self.mappers.lock().iter().filter_map(Weak::upgrade).collect();
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return };
        for space in mappers {
            space.protect_cache(self, first.0, last.0);
        }
    }

    fn written(&self, batch: &[(u64, Frame)]) {
        {
            let mut pages = self.pages.lock();
            for (index, frame) in batch {
                if let Some(page) = pages.tree.get_mut(*index).filter(|page| page.frame == *frame) {
                    page.state &= !WRITING;
                }
            }
        }
        WRITING_PAGES.fetch_sub(batch.len(), Ordering::Relaxed);
        EVER_WRITTEN.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.waiters.wake_all();
    }

    /// Waits until no page from `first` to `last` is being written.
    fn wait_written(&self, first: u64, last: u64) {
        let mut next = first;
        loop {
            let writing = {
                let pages = self.pages.lock();
                let mut at = pages.tree.next(next).filter(|&i| i <= last);
                while let Some(index) = at
                    && pages.tree.get(index).is_some_and(|page| page.state & WRITING == 0)
                {
                    at = index.checked_add(1).and_then(|i| pages.tree.next(i)).filter(|&i| i <= last);
                }
                at
            };
            let Some(index) = writing else { return };
            self.wait_while(index, WRITING);
            next = index;
        }
    }
}
