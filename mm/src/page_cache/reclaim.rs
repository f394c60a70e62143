//! Dropping clean pages that can be read again: second chance (clock) over the caches in turn.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use hal::frame::Frame;
use hal::sync::SpinLock;

use super::{PageCache, TOTAL, USED};

/// Caches with a pager, the next to look at in front.
static CACHES: SpinLock<VecDeque<Weak<PageCache>>> = SpinLock::new(VecDeque::new());
/// Pages that one look at a cache examines.
const LOOK: usize = 512;
/// Pages dropped when a page is needed and there is none.
const BATCH: usize = 128;

pub(super) fn register(cache: &Arc<PageCache>) {
    let mut caches = CACHES.lock();
    if caches.len() == caches.capacity() {
        caches.retain(|cache| cache.strong_count() > 0);
    }
    caches.push_back(Arc::downgrade(cache));
}

/// A frame for a page, for which clean pages are dropped if there is no other. `None` when that does not help.
pub(super) fn alloc_frame() -> Option<Frame> {
    if crate::frames::is_scarce() {
        shrink(BATCH);
    }
    if let Some(frame) = Frame::alloc() {
        return Some(frame);
    }
    if shrink(BATCH) == 0 {
        return None;
    }
    Frame::alloc()
}

/// Drops about `wanted` clean pages that were not used since it last came by; how many went. May be called wherever one may sleep.
pub fn shrink(wanted: usize) -> usize {
    let mut done = 0;
    // Twice around: the first time takes the marks of use away.
    let mut left = 2 * CACHES.lock().len();
    while done < wanted && left > 0 {
        left -= 1;
        let Some(next) = CACHES.lock().pop_front() else { break };
        let Some(cache) = next.upgrade() else { continue };
        CACHES.lock().push_back(next);
        done += cache.drop_unused(wanted - done);
        sched::preempt_point();
    }
    done
}

/// Drops all clean pages that nobody maps (`/proc/sys/vm/drop_caches`).
pub fn drop_clean() {
    let all: Vec<Arc<PageCache>> = CACHES.lock().iter().filter_map(Weak::upgrade).collect();
    for cache in all {
        cache.drop_clean(0, u64::MAX);
    }
}

impl PageCache {
    /// Drops the clean pages from `first` to `last` that nobody maps or uses (POSIX_FADV_DONTNEED, direct I/O). How many.
    pub fn drop_clean(&self, first: u64, last: u64) -> usize {
        let mut next = first;
        let mut total = 0;
        while self.is_paged() {
            let (dropped, at) = self.drop_where(next, last, LOOK, |_| true);
            total += dropped;
            match at {
                Some(at) => next = at,
                None => break,
            }
            sched::preempt_point();
        }
        total
    }

    fn drop_unused(&self, wanted: usize) -> usize {
        let mut next = 0;
        let mut total = 0;
        loop {
            let (dropped, at) = self.drop_where(next, u64::MAX, LOOK, |used| !used);
            total += dropped;
            match at {
                Some(at) if total < wanted => next = at,
                _ => return total,
            }
        }
    }

    /// Looks at up to `count` pages from `next` on and drops those that are clean, not in use, and that `choose(used lately)` wants; takes
    /// the marks of use away. How many went, and where to go on.
    fn drop_where(&self, next: u64, last: u64, count: usize, choose: impl Fn(bool) -> bool) -> (usize, Option<u64>) {
        let mut dropped = Vec::new();
        let mut next = Some(next);
        {
            let mut pages = self.pages.lock();
            for _ in 0..count {
                let Some(index) = next.and_then(|i| pages.tree.next(i)).filter(|&i| i <= last) else {
                    next = None;
                    break;
                };
                next = index.checked_add(1);
                let Some(page) = pages.tree.get_mut(index) else { continue };
                let used = page.state & USED != 0;
                page.state &= !USED;
                // The tree's own reference, and no other: nobody maps it or is about to.
                if page.state == 0 && page.frame.refs() == 1 && choose(used) {
                    dropped.extend(pages.take(index));
                }
            }
        }
        TOTAL.fetch_sub(dropped.len(), Ordering::Relaxed);
        (dropped.len(), next)
    }
}
