//! The write-back thread: writes dirty pages after a while, and earlier when there are many.
//!
//! Whatever keeps dirty data (a mounted file system, a disk's own page cache) registers as a [`DirtyStore`]. The thread looks after them every
//! [`PERIOD`]; who writes faster than disks take it is made to write back himself ([`balance`]).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Nanos, Result};
use hal::sync::SpinLock;
use mm::PageCache;
use sched::{Sleep, WaitQueue};

/// How often the thread looks (dirty_writeback_centisecs).
const PERIOD: Nanos = 5_000_000_000;
/// How long something may stay dirty (dirty_expire_centisecs).
const EXPIRE: Nanos = 30_000_000_000;
/// Hundredths of memory that may be dirty before the thread writes regardless of age, and before writers wait
/// (dirty_background_ratio, dirty_ratio).
const BACKGROUND_RATIO: usize = 10;
const RATIO: usize = 20;
/// Pages that a writer who is too fast writes back at a time.
const PENANCE: usize = 1024;

/// Something that has dirty data.
pub trait DirtyStore: Send + Sync {
    /// Writes what has been dirty since before `older_than` on the monotonic clock; everything, if `None`. `EIO`, `ENOSPC`.
    fn write_back(&self, older_than: Option<Nanos>) -> Result<()>;

    /// Makes everything last. `EIO`, `ENOSPC`.
    fn sync(&self) -> Result<()>;

    /// Forgets names and inodes that nobody uses and that it can read again. How many.
    fn prune(&self) -> usize {
        0
    }
}

static STORES: SpinLock<Vec<Weak<dyn DirtyStore>>> = SpinLock::new(Vec::new());
static THREAD: WaitQueue = WaitQueue::new();
static WANTED: AtomicBool = AtomicBool::new(false);

/// Makes a store known until it is dropped.
pub fn register(store: Weak<dyn DirtyStore>) {
    let mut stores = STORES.lock();
    stores.retain(|store| store.strong_count() > 0);
    stores.push(store);
}

fn stores() -> Vec<Arc<dyn DirtyStore>> {
    STORES.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Starts the thread. Once, at boot.
pub fn start() {
    sched::thread::spawn_kernel("writeback", || {
        loop {
            let deadline = sched::time::now() + PERIOD;
            // Woken early or not, it looks.
            let _ = THREAD.wait_until(Sleep::Uninterruptible, Some(deadline), || {
                WANTED.swap(false, Ordering::AcqRel).then_some(())
            });
            run();
        }
    });
}

fn run() {
    if mm::frames::is_scarce() {
        prune();
    }
    for store in stores() {
        let many = exceeds(BACKGROUND_RATIO);
        let older_than = sched::time::now().saturating_sub(EXPIRE);
        if let Err(error) = store.write_back(if many { None } else { Some(older_than) }) {
            // Whoever has the file open hears of it through fsync(2); this is for the others.
            log::warn!("write-back: {error}");
        }
    }
}

/// Forgets names and inodes that nobody uses (`/proc/sys/vm/drop_caches`). How many.
pub fn prune() -> usize {
    stores().iter().map(|store| store.prune()).sum()
}

/// A name was remembered: sees to it that unused ones are forgotten where memory is short.
#[inline]
pub(crate) fn relieve() {
    if mm::frames::is_scarce() {
        WANTED.store(true, Ordering::Release);
        THREAD.wake_all();
    }
}

/// Is more than `percent` of memory dirty?
fn exceeds(percent: usize) -> bool {
    let pages = mm::frames::total_bytes() as usize / abi::PAGE_SIZE;
    mm::dirty_figures().dirty > pages / 100 * percent
}

/// Somebody has made pages of `cache` dirty: sees to it that there are not too many. May take as long as writing some back; no lock
/// that writing back takes may be held.
#[inline]
pub fn balance(cache: &PageCache) {
    if cache.is_paged() && exceeds(BACKGROUND_RATIO) {
        WANTED.store(true, Ordering::Release);
        THREAD.wake_all();
        if exceeds(RATIO) {
            // Its error is kept with the cache, for fsync(2).
            let _ = cache.write_back(0, u64::MAX, PENANCE);
        }
    }
}

/// sync(2): makes everything last. Errors are for who has the files open.
pub fn sync_all() {
    for store in stores() {
        if let Err(error) = store.sync() {
            log::warn!("sync: {error}");
        }
    }
}
