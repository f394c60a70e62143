//! The page cache: the pages of one file, of one shared-memory object, or of one disk.
//!
//! It is the storage itself for what lives in memory (tmpfs, shared anonymous memory): a page that was never written is a hole and
//! reads as zeros. Where a [`Pager`] is behind it, pages are read in when they are first used ([`fill`]), are dirty from being changed
//! until they are written back ([`write_back`]), and clean ones may be dropped ([`reclaim`]).
//!
//! A page's states while it is in a cache with a pager:
//!
//! ```text
//! absent -> READING -> clean -> DIRTY -> WRITING -> clean -> absent
//!                        ^                  |
//!                        +---- DIRTY <------+  changed while it was written: once more
//! ```

mod direct;
mod fill;
mod pager;
mod reclaim;
mod room;
mod write_back;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::WaitQueue;

use crate::radix_tree::RadixTree;
use crate::{AddressSpace, FramePart, Sink, Source};

pub use fill::{Pattern, start_read_ahead};
pub use pager::Pager;
pub use reclaim::{drop_clean, shrink};
pub use room::Room;
pub use write_back::{Figures, figures};

const PAGE: u64 = PAGE_SIZE as u64;

static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Pages in all caches.
pub(crate) fn total_pages() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

/// The page is being read in; its contents mean nothing yet.
const READING: u8 = 1;
/// It was changed since it was last written.
const DIRTY: u8 = 2;
/// It is being written.
const WRITING: u8 = 4;
/// The pager has reserved what writing it may need.
const RESERVED: u8 = 8;
/// It was used since reclaim last looked.
const USED: u8 = 16;

/// A page in a cache.
struct Page {
    frame: Frame,
    state: u8,
}

struct Pages {
    tree: RadixTree<Page>,
    /// The indices of dirty pages.
    dirty: RadixTree<()>,
}

/// The pages of one file. Reads and writes may run from any number of threads at once; a page's bytes may tear, as POSIX allows.
pub struct PageCache {
    /// Itself.
    own: Weak<PageCache>,
    pages: SpinLock<Pages>,
    size: AtomicU64,
    /// Address spaces that map or have mapped it, to be told of truncation.
    mappers: SpinLock<Vec<Weak<AddressSpace>>>,
    /// The storage behind it; none where it is the storage.
    pager: Option<Arc<dyn Pager>>,
    /// What limits the pages of one that is the storage.
    room: Option<Arc<dyn Room>>,
    /// Who waits for a page to be read or written.
    waiters: WaitQueue,
    read_ahead: fill::ReadAhead,
    errors: write_back::ErrorSequence,
}

impl PageCache {
    /// An empty cache that is its own storage.
    #[allow(clippy::new_ret_no_self, reason = "a cache is always shared between its inode and mappings")]
    pub fn new() -> Arc<PageCache> {
        PageCache::with(None, None, 0)
    }

    /// As [`PageCache::new`], with pages that count against `room`.
    pub fn within(room: Arc<dyn Room>) -> Arc<PageCache> {
        PageCache::with(None, Some(room), 0)
    }

    /// An empty cache of `size` bytes in front of a pager. It is known to reclaim until it is dropped.
    pub fn with_pager(pager: Arc<dyn Pager>, size: u64) -> Arc<PageCache> {
        let cache = PageCache::with(Some(pager), None, size);
        reclaim::register(&cache);
        cache
    }

    fn with(pager: Option<Arc<dyn Pager>>, room: Option<Arc<dyn Room>>, size: u64) -> Arc<PageCache> {
        Arc::new_cyclic(|own| PageCache {
            own: own.clone(),
            pages: SpinLock::new(Pages { tree: RadixTree::new(), dirty: RadixTree::new() }),
            size: AtomicU64::new(size),
            mappers: SpinLock::new(Vec::new()),
            pager,
            room,
            waiters: WaitQueue::new(),
            read_ahead: fill::ReadAhead::new(),
            errors: write_back::ErrorSequence::new(),
        })
    }

    /// Is there storage behind it?
    #[inline]
    pub fn is_paged(&self) -> bool {
        self.pager.is_some()
    }

    /// The file's size in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Sets the size. Shrinking drops the pages behind it, zeroes the rest of the last and takes them out of all mappings (whose
    /// accesses then get SIGBUS). `EIO`, `ENOSPC` where there is a pager: then nothing has changed.
    pub fn resize(&self, size: u64) -> Result<()> {
        let shrinks = size < self.size();
        let within = (size % PAGE) as usize;
        if shrinks && within != 0 && self.is_paged() {
            self.make_dirty(size / PAGE)?;
        }
        self.size.store(size, Ordering::Release);
        if shrinks {
            self.drop_pages(size.div_ceil(PAGE), u64::MAX);
            if within != 0
                && let Some(frame) = self.lookup(size / PAGE)
            {
                frame.zero_range(within, PAGE_SIZE - within);
                self.touch(size / PAGE);
            }
        }
        Ok(())
    }

    /// Sets the size and nothing else: who calls it has seen to the pages.
    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Drops the pages from `first` to `last`, whatever their state: what is behind them is no longer what it was. Takes them out of
    /// mappings.
    pub fn forget(&self, first: u64, last: u64) {
        self.drop_pages(first, last);
    }

    /// The page at `index` if it is there and read in.
    #[inline]
    fn lookup(&self, index: u64) -> Option<Frame> {
        let mut pages = self.pages.lock();
        let page = pages.tree.get_mut(index).filter(|page| page.state & READING == 0)?;
        page.state |= USED;
        Some(page.frame.clone())
    }

    /// How many of the `len` bytes from `offset` on are in pages that are there, up to the first that is not.
    pub fn in_memory(&self, offset: u64, len: usize) -> usize {
        let end = offset.saturating_add(len as u64);
        let absent = (offset / PAGE..end.div_ceil(PAGE)).find(|&index| self.lookup(index).is_none());
        (absent.map_or(end, |index| index * PAGE).max(offset) - offset) as usize
    }

    /// Is the page at `index` there, as mincore(2) means it? What was allocated in advance and nobody touched is not.
    pub(crate) fn is_resident(&self, index: u64) -> bool {
        let used = |page: &Page| page.state & READING == 0 && (self.is_paged() || page.state & USED != 0);
        self.pages.lock().tree.get(index).is_some_and(used)
    }

    /// Sees to it that there is a page at `index` of a cache without a pager, without touching it (fallocate(2)). `ENOMEM`, `ENOSPC`.
    pub fn allocate(&self, index: u64) -> Result<()> {
        if self.pages.lock().tree.get(index).is_some() {
            return Ok(());
        }
        let frame = Frame::alloc_zeroed().ok_or(Errno::ENOMEM)?;
        self.insert_new(index, Page { frame, state: 0 }, |_, _| {}).map(drop)
    }

    /// Frees the pages from `first` to `last` and unmaps them everywhere.
    fn drop_pages(&self, first: u64, last: u64) {
        let mut next = first;
        loop {
            let mut dropped = Vec::new();
            {
                let mut pages = self.pages.lock();
                while dropped.len() < 256
                    && let Some(index) = pages.tree.next(next).filter(|&i| i <= last)
                {
                    dropped.extend(pages.take(index));
                    next = index + 1;
                }
            }
            self.dropped(&dropped);
            if dropped.len() < 256 {
                break;
            }
        }
        let mappers: Vec<_> = self.mappers.lock().iter().filter_map(Weak::upgrade).collect();
        for space in mappers {
            space.unmap_cache(self, first, last);
        }
    }

    /// Remembers an address space that maps it.
    pub(crate) fn add_mapper(&self, space: &Weak<AddressSpace>) {
        let mut mappers = self.mappers.lock();
        if mappers.iter().any(|m| m.ptr_eq(space)) {
            return;
        }
        if mappers.len() == mappers.capacity() {
            mappers.retain(|m| m.strong_count() > 0);
        }
        mappers.push(space.clone());
    }

    /// Reads from `offset` until the sink is full or the file ends; the number of bytes. `EFAULT`; `EIO` and `ENOMEM` with a pager.
    pub fn read(&self, offset: u64, sink: &mut Sink) -> Result<usize> {
        let mut at = offset;
        let mut done = 0;
        while sink.remaining() > 0 {
            let left = self.size().saturating_sub(at);
            if left == 0 {
                break;
            }
            let within = (at % PAGE) as usize;
            let len = (PAGE_SIZE - within).min(sink.remaining()).min(usize::try_from(left).unwrap_or(usize::MAX));
            let moved = match self.page_to_read(at / PAGE) {
                Ok(Some(frame)) => sink.put_frame(&frame, within, len),
                Ok(None) => sink.put_zeros(len),
                Err(error) => Err(error),
            };
            match moved {
                Ok(n) => {
                    done += n;
                    at += n as u64;
                    if n < len {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes at `offset`, growing the file; the number of bytes. `EFAULT`, `ENOMEM`; `EIO` and `ENOSPC` with a pager.
    pub fn write(&self, offset: u64, source: &mut Source) -> Result<usize> {
        let mut at = offset;
        let mut done = 0;
        while source.remaining() > 0 {
            let within = (at % PAGE) as usize;
            let len = (PAGE_SIZE - within).min(source.remaining());
            let written = match self.pager {
                None => self.write_page(at / PAGE, within, len, source),
                Some(_) => self.write_paged(at / PAGE, within, len, source),
            };
            match written {
                Ok(n) => {
                    done += n;
                    at += n as u64;
                    self.size.fetch_max(at, Ordering::AcqRel);
                    if n < len {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_page(&self, index: u64, within: usize, len: usize, source: &mut Source) -> Result<usize> {
        if let Some(frame) = self.lookup(index) {
            return source.take_frame(&frame, within, len);
        }
        let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
        if len < PAGE_SIZE {
            frame.zero_range(0, within);
            frame.zero_range(within + len, PAGE_SIZE - within - len);
        }
        let moved = source.take_frame(&frame, within, len)?;
        // A fault may have cut the copy short: what was not written must not show the frame's old contents.
        frame.zero_range(within + moved, len - moved);
        self.insert_new(index, Page { frame, state: USED }, |ours, theirs| {
            theirs.copy_part(within, ours, within, moved);
        })?;
        Ok(moved)
    }

    /// The bytes from `offset` on where they are: up to the end of their page, of the file, and `len`. `None` at the end, and in a hole of a
    /// cache without a pager. `EIO`, `ENOMEM`.
    pub fn part(&self, offset: u64, len: usize) -> Result<Option<FramePart>> {
        let within = (offset % PAGE) as usize;
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(PAGE_SIZE - within).min(left);
        if len == 0 {
            return Ok(None);
        }
        let frame = self.page_to_read(offset / PAGE)?;
        Ok(frame.map(|frame| FramePart { frame, offset: within, len }))
    }

    /// Puts a page in unless another thread was faster, in which case `merge(ours, theirs)` decides what becomes of the data. `ENOSPC` where
    /// there is no room for it.
    fn insert_new(&self, index: u64, page: Page, merge: impl FnOnce(&Frame, &Frame)) -> Result<Frame> {
        self.take_room()?;
        let frame = page.frame.clone();
        let other = {
            let mut pages = self.pages.lock();
            let other = pages.tree.get(index).map(|page| page.frame.clone());
            if other.is_none() {
                pages.tree.insert(index, page);
                TOTAL.fetch_add(1, Ordering::Relaxed);
            }
            other
        };
        match other {
            None => Ok(frame),
            Some(theirs) => {
                self.give_room(1);
                merge(&frame, &theirs);
                Ok(theirs)
            }
        }
    }

    /// The page at `index`. With `create`, it is read in, and a hole gets a page of zeros; without, what is not in memory is `None`.
    /// `ENOMEM`, `EIO`, `ENOSPC`.
    #[inline]
    pub fn page(&self, index: u64, create: bool) -> Result<Option<Frame>> {
        if let Some(frame) = self.lookup(index) {
            return Ok(Some(frame));
        }
        if !create {
            return Ok(None);
        }
        if self.pager.is_some() {
            return self.fill(index).map(Some);
        }
        let frame = Frame::alloc_zeroed().ok_or(Errno::ENOMEM)?;
        self.insert_new(index, Page { frame, state: USED }, |_, _| {}).map(Some)
    }

    /// Puts a frame in as the page at `index` of a cache without a pager. `EEXIST` where there is one, `ENOSPC`.
    pub(crate) fn insert_if_absent(&self, index: u64, frame: Frame) -> Result<Frame> {
        let ours = frame.number();
        let there = self.insert_new(index, Page { frame, state: USED }, |_, _| {})?;
        if there.number() == ours { Ok(there) } else { Err(Errno::EEXIST) }
    }

    /// Puts a frame in as the page at `index` (initramfs without copying) of a cache without a pager, which has no page there and no lack of
    /// room. The caller sets the size.
    pub fn insert(&self, index: u64, frame: Frame) {
        // What has no limit has nothing to refuse.
        let _ = self.take_room();
        let old = self.pages.lock().tree.insert(index, Page { frame, state: USED });
        if old.is_none() {
            TOTAL.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Zeroes `start..end` and frees whole pages in it (FALLOC_FL_PUNCH_HOLE). With a pager, what is behind the whole pages is the
    /// caller's to free. `EIO`, `ENOSPC`.
    pub fn punch_hole(&self, start: u64, end: u64) -> Result<()> {
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if self.is_paged() {
            for index in [start / PAGE, end / PAGE].into_iter().filter(|i| !(first..last).contains(i)) {
                if index * PAGE < self.size() {
                    self.make_dirty(index)?;
                }
            }
        }
        let zero = |from: u64, to: u64| {
            if from < to
                && let Some(frame) = self.lookup(from / PAGE)
            {
                frame.zero_range((from % PAGE) as usize, (to - from) as usize);
                self.touch(from / PAGE);
            }
        };
        if first > last {
            zero(start, end);
            return Ok(());
        }
        zero(start, first * PAGE);
        zero(last * PAGE, end);
        if first < last {
            self.drop_pages(first, last - 1);
        }
        Ok(())
    }

    /// The number of pages held.
    pub fn pages(&self) -> usize {
        self.pages.lock().tree.len()
    }

    /// The next offset from `offset` that has data (`data`) or is in a hole (`!data`), page by page; `None` past the end.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let size = self.size();
        if offset >= size {
            return None;
        }
        let pages = self.pages.lock();
        let mut index = offset / PAGE;
        if data {
            let found = pages.tree.next(index)? * PAGE;
            return (found < size).then_some(found.max(offset));
        }
        while pages.tree.get(index).is_some() {
            index += 1;
        }
        Some((index * PAGE).max(offset).min(size))
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        let pages = self.pages.get_mut();
        if let Some(pager) = &self.pager {
            let mut reserved = 0;
            let mut next = pages.dirty.next(0);
            while let Some(index) = next {
                reserved += usize::from(pages.tree.get(index).is_some_and(|page| page.state & RESERVED != 0));
                next = index.checked_add(1).and_then(|index| pages.dirty.next(index));
            }
            pager.release(reserved);
        }
        TOTAL.fetch_sub(pages.tree.len(), Ordering::Relaxed);
        if let Some(room) = &self.room {
            room.give(pages.tree.len());
        }
        write_back::give_up_dirty(pages.dirty.len());
    }
}

impl Pages {
    /// Takes a page out.
    fn take(&mut self, index: u64) -> Option<Page> {
        if self.dirty.remove(index).is_some() {
            write_back::give_up_dirty(1);
        }
        self.tree.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;

    fn read(cache: &PageCache, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xee; len];
        let n = cache.read(offset, &mut Sink::kernel(&mut out)).expect("kernel memory does not fault");
        out.truncate(n);
        out
    }

    #[test]
    fn holes_read_as_zeros_and_sizes_follow_writes() {
        let cache = PageCache::new();
        assert_eq!(cache.write(10_000, &mut Source::kernel(b"abc")), Ok(3));
        assert_eq!((cache.size(), cache.pages()), (10_003, 1));
        assert_eq!(read(&cache, 9_998, 100), b"\0\0abc");
        assert_eq!(read(&cache, 0, 10_003)[..10_000], vec![0; 10_000]);
        assert_eq!(
            (cache.seek(0, true), cache.seek(0, false), cache.seek(8192, false)),
            (Some(8192), Some(0), Some(10_003))
        );
    }

    #[test]
    fn shrinking_and_growing_again_shows_zeros() {
        let cache = PageCache::new();
        let data = vec![7u8; 3 * PAGE_SIZE];
        cache.write(0, &mut Source::kernel(&data)).expect("memory");
        cache.resize(100).expect("shrinks");
        assert_eq!(cache.pages(), 1);
        cache.resize(5000).expect("grows");
        let now = read(&cache, 0, 6000);
        assert_eq!(now.len(), 5000);
        assert!(now[..100].iter().all(|&b| b == 7) && now[100..].iter().all(|&b| b == 0));
    }

    #[test]
    fn punching_a_hole_keeps_the_edges() {
        let cache = PageCache::new();
        cache.write(0, &mut Source::kernel(&vec![1u8; 4 * PAGE_SIZE])).expect("memory");
        cache.punch_hole(100, 2 * PAGE + 50).expect("punches");
        let now = read(&cache, 0, 4 * PAGE_SIZE);
        assert_eq!(cache.pages(), 3);
        assert!(now[..100].iter().all(|&b| b == 1) && now[100..2 * PAGE_SIZE + 50].iter().all(|&b| b == 0));
        assert!(now[2 * PAGE_SIZE + 50..].iter().all(|&b| b == 1));
    }
}
