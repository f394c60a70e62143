//! Reading pages in, and reading ahead of who reads on.
//!
//! Each miss reads a window of pages. A miss that begins where the last window ended doubles it, any other starts small again. Who reads on into
//! a window has a thread read the next meanwhile.

use alloc::collections::VecDeque;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use super::{PAGE, Page, PageCache, READING, TOTAL, USED};
use crate::frames::{Pressure, pressure};

/// Pages of the first window, and of the largest (256 KiB).
const MIN_WINDOW: u32 = 4;
const MAX_WINDOW: u32 = 64;
/// No page.
const NOWHERE: u64 = u64::MAX;
/// Windows that may wait for the threads; further ones are read when they are missed.
const WAITING_MAX: usize = 64;
/// Threads that read ahead.
const THREADS: usize = 2;

/// Pages of a cache that are to be read: their first, and their frames, which are in the cache already.
type Window = (Weak<PageCache>, u64, Vec<Frame>);

static WAITING: SpinLock<VecDeque<Window>> = SpinLock::new(VecDeque::new());
static IDLE: WaitQueue = WaitQueue::new();

/// Starts the threads that read ahead. Once, at boot.
pub fn start_read_ahead() {
    for _ in 0..THREADS {
        sched::thread::spawn_kernel("read-ahead", || {
            loop {
                let next = IDLE.wait_until(Sleep::Uninterruptible, None, || WAITING.lock().pop_front());
                let Ok((cache, first, frames)) = next else { continue };
                if let Some(cache) = cache.upgrade() {
                    // What can't be read now, who wants it will be told.
                    let _ = cache.read_claimed(first, &frames);
                }
            }
        });
    }
}

/// Where reading ahead stands. Races between readers cost a badly chosen window, nothing more.
pub(super) struct ReadAhead {
    /// The index after the last window.
    next: AtomicU64,
    window: AtomicU32,
    /// The largest window: what posix_fadvise(2) changes.
    max: AtomicU32,
    /// Who gets to this page wants the next window.
    mark: AtomicU64,
}

impl ReadAhead {
    pub(super) const fn new() -> ReadAhead {
        ReadAhead {
            next: AtomicU64::new(0),
            window: AtomicU32::new(0),
            max: AtomicU32::new(MAX_WINDOW),
            mark: AtomicU64::new(NOWHERE),
        }
    }

    /// How many pages to read for a miss at `index`.
    fn on_miss(&self, index: u64) -> u64 {
        let max = self.max.load(Ordering::Relaxed);
        let last = self.window.load(Ordering::Relaxed);
        let follows = index == self.next.load(Ordering::Relaxed);
        let window = if follows { (last * 2).max(MIN_WINDOW) } else { MIN_WINDOW }.min(max);
        self.window.store(window, Ordering::Relaxed);
        self.next.store(index + u64::from(window), Ordering::Relaxed);
        let mark = if follows && window > 1 { index + u64::from(window) / 2 } else { NOWHERE };
        self.mark.store(mark, Ordering::Relaxed);
        u64::from(window)
    }

    /// The window to read, first page and count, now that somebody has got to page `index`.
    fn on_hit(&self, index: u64) -> Option<(u64, u64)> {
        self.mark.compare_exchange(index, NOWHERE, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        let first = self.next.load(Ordering::Relaxed);
        let window = (self.window.load(Ordering::Relaxed) * 2).min(self.max.load(Ordering::Relaxed));
        self.window.store(window, Ordering::Relaxed);
        self.next.store(first + u64::from(window), Ordering::Relaxed);
        self.mark.store(first, Ordering::Relaxed);
        Some((first, u64::from(window)))
    }
}

/// How a file is going to be read (posix_fadvise(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Nothing is known.
    Normal,
    /// Here and there: read nothing ahead.
    Random,
    /// From the beginning to the end: read far ahead.
    Sequential,
}

impl PageCache {
    /// Says how it is going to be read.
    pub fn set_pattern(&self, pattern: Pattern) {
        let max = match pattern {
            Pattern::Normal => MAX_WINDOW,
            Pattern::Random => 1,
            Pattern::Sequential => 2 * MAX_WINDOW,
        };
        self.read_ahead.max.store(max, Ordering::Relaxed);
    }

    /// Reads pages `first` to `last` in, as far as the file goes (readahead(2), POSIX_FADV_WILLNEED). `EIO`, `ENOMEM`.
    pub fn read_in(&self, first: u64, last: u64) -> Result<()> {
        let end = self.size().div_ceil(PAGE).min(last.saturating_add(1));
        let mut next = first;
        while next < end && self.is_paged() {
            if self.lookup(next).is_none() {
                self.read_window(next, (end - next).min(u64::from(MAX_WINDOW)))?;
            }
            next += 1;
        }
        Ok(())
    }

    /// The page at `index` for a read; `None` for a hole of a cache without a pager. `EIO`, `ENOMEM`.
    #[inline]
    pub(super) fn page_to_read(&self, index: u64) -> Result<Option<Frame>> {
        let found = match self.lookup(index) {
            None if self.is_paged() => self.fill(index).map(Some),
            found => Ok(found),
        };
        if self.read_ahead.mark.load(Ordering::Relaxed) == index
            && self.may_read_ahead()
            && let Some((first, count)) = self.read_ahead.on_hit(index)
        {
            self.start_window(first, count);
        }
        found
    }

    /// May a thread read for it? Only where that needs nobody's help: a program that does not answer must not keep others from reading.
    fn may_read_ahead(&self) -> bool {
        let prompt = self.pager.as_ref().is_some_and(|pager| pager.is_prompt());
        prompt && !crate::frames::is_scarce() && WAITING.lock().len() < WAITING_MAX
    }

    /// Has a thread read a window, as far as the file goes.
    fn start_window(&self, first: u64, count: u64) {
        let count = count.min(self.size().div_ceil(PAGE).saturating_sub(first));
        if count == 0 {
            return;
        }
        if let Ok(frames) = self.claim(first, count)
            && !frames.is_empty()
        {
            WAITING.lock().push_back((self.own.clone(), first, frames));
            IDLE.wake_all();
        }
    }

    /// The page at `index`, read in if need be. `EIO`, `ENOMEM`.
    pub(super) fn fill(&self, index: u64) -> Result<Frame> {
        loop {
            if let Some(frame) = self.lookup(index) {
                return Ok(frame);
            }
            let is_there = self.pages.lock().tree.get(index).is_some();
            if is_there {
                self.wait_while(index, READING);
                continue;
            }
            let pages = self.size().div_ceil(PAGE);
            let window = self.read_ahead.on_miss(index).min(pages.saturating_sub(index)).max(1);
            let window = if pressure() > Pressure::None { 1 } else { window };
            if self.read_window(index, window).is_err() && window > 1 {
                // Perhaps it is a later page that can't be read.
                self.read_window(index, 1)?;
            } else if window == 1 && self.pages.lock().tree.get(index).is_none() {
                self.read_window(index, 1)?;
            }
        }
    }

    /// Reads up to `count` pages from `first` on that are not there, ending at the first that is. `EIO`, `ENOMEM`.
    fn read_window(&self, first: u64, count: u64) -> Result<()> {
        let frames = self.claim(first, count)?;
        if frames.is_empty() { Ok(()) } else { self.read_claimed(first, &frames) }
    }

    /// Puts up to `count` pages in from `first` on that are not there, ending at the first that is: whoever claims them has to read them.
    /// `ENOMEM`.
    fn claim(&self, first: u64, count: u64) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        frames.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..count {
            match super::reclaim::alloc_frame() {
                Some(frame) => frames.push(frame),
                None => break,
            }
        }
        if frames.is_empty() {
            return Err(Errno::ENOMEM);
        }
        let taken = {
            let mut pages = self.pages.lock();
            let absent = |i: &usize| pages.tree.get(first + *i as u64).is_none();
            let taken = (0..frames.len()).take_while(absent).count();
            for (i, frame) in frames.iter().take(taken).enumerate() {
                pages.tree.insert(first + i as u64, Page { frame: frame.clone(), state: READING | USED });
            }
            taken
        };
        TOTAL.fetch_add(taken, Ordering::Relaxed);
        frames.truncate(taken);
        Ok(frames)
    }

    /// Reads pages that were claimed. `EIO`.
    fn read_claimed(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let Some(pager) = &self.pager else { return Ok(()) };
        let result = pager.read(first, frames);
        let mut dropped = Vec::new();
        {
            let mut pages = self.pages.lock();
            for (i, frame) in frames.iter().enumerate() {
                let index = first + i as u64;
                // It may have been truncated away, and another be there now.
                let Some(page) = pages.tree.get_mut(index).filter(|page| page.frame == *frame) else { continue };
                page.state &= !READING;
                if result.is_err() {
                    dropped.extend(pages.take(index));
                }
            }
        }
        self.waiters.wake_all();
        self.dropped(&dropped);
        result
    }

    /// Waits until the page at `index` is no longer in `state`.
    pub(super) fn wait_while(&self, index: u64, state: u8) {
        let _ = self.waiters.wait_until(Sleep::Uninterruptible, None, || {
            let pages = self.pages.lock();
            pages.tree.get(index).is_none_or(|page| page.state & state == 0).then_some(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_for_who_reads_on_and_starts_again_elsewhere() {
        let ahead = ReadAhead::new();
        let mut at = 0;
        let mut sizes = Vec::new();
        for _ in 0..7 {
            let n = ahead.on_miss(at);
            sizes.push(n);
            at += n;
        }
        assert_eq!(sizes, [4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(ahead.on_miss(5000), 4);
        ahead.max.store(1, Ordering::Relaxed);
        assert_eq!((ahead.on_miss(5004), ahead.on_miss(5005)), (1, 1));
    }

    #[test]
    fn who_reads_on_has_the_next_window_read_before_it_is_missed() {
        let ahead = ReadAhead::new();
        assert_eq!(ahead.on_miss(0), 4);
        let windows: Vec<(u64, u64)> = (0..200).filter_map(|index| ahead.on_hit(index)).collect();
        assert_eq!(windows, [(4, 8), (12, 16), (28, 32), (60, 64), (124, 64), (188, 64), (252, 64)]);
        // Elsewhere nothing is read until somebody reads on there.
        assert_eq!((ahead.on_miss(5000), ahead.on_hit(5002)), (4, None));
    }
}
