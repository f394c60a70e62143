//! The frame allocator: a buddy system (Knowlton 1965) with a magazine of single frames per processor, behind [`hal::frame::FrameSource`].
//!
//! Free blocks of each order are lists through the frames' metadata, so that the allocator needs no memory of its own and no unsafe code:
//! it deals in frame numbers, and hal checks that none is given out twice.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use arrayvec::ArrayVec;
use hal::cpu::PerCpu;
use hal::frame::{FrameMeta, FrameSource};
use hal::sync::SpinLock;

/// Orders 0 to 10: blocks of 4 KiB to 4 MiB.
pub const ORDERS: usize = 11;
/// Bounds of the kernel's reserve: 1 to 16 MiB.
const MIN_RESERVE: usize = 256;
const MAX_RESERVE: usize = 4096;
/// Frames that a processor keeps at hand.
const MAGAZINE: usize = 64;
const NONE: u32 = u32::MAX;
/// In a frame's flags while it heads a free block: this bit and the order.
const FREE: u32 = 1 << 31;

/// Where the metadata of frames is found: hal's on the target, an array in tests.
trait Metas {
    fn meta(&self, number: usize) -> Option<&FrameMeta>;
}

struct HalMetas;

impl Metas for HalMetas {
    fn meta(&self, number: usize) -> Option<&FrameMeta> {
        hal::frame::meta(number)
    }
}

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Pressure {
    /// Not at all.
    None = 0,
    /// Programs get no more: only the kernel's reserve is left. What would make the kernel's own structures grow should be refused.
    Low = 1,
    /// Half of the reserve is gone as well: something has to be given up before anything else is done.
    Critical = 2,
}

static LEVEL: AtomicU8 = AtomicU8::new(Pressure::None as u8);

/// Is so little free that what can be had again should be given up, before anybody is refused?
static SCARCE: AtomicBool = AtomicBool::new(false);

/// Is it time to drop clean pages of files, and names that nobody uses?
#[inline]
pub fn is_scarce() -> bool {
    SCARCE.load(Ordering::Relaxed)
}

fn note_level(free: usize) {
    let reserve = RESERVE.load(Ordering::Relaxed);
    let scarce = free < 2 * reserve;
    if SCARCE.load(Ordering::Relaxed) != scarce {
        SCARCE.store(scarce, Ordering::Relaxed);
    }
    let level = u8::from(free < reserve) + u8::from(free < reserve / 2);
    if LEVEL.load(Ordering::Relaxed) != level {
        LEVEL.store(level, Ordering::Relaxed);
    }
}

/// How short memory is now.
#[inline]
pub fn pressure() -> Pressure {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Pressure::None,
        1 => Pressure::Low,
        _ => Pressure::Critical,
    }
}

/// The lists of free blocks.
struct Buddy {
    heads: [u32; ORDERS],
    counts: [usize; ORDERS],
    /// Frames in all lists.
    free: usize,
}

impl Buddy {
    const fn new() -> Buddy {
        Buddy { heads: [NONE; ORDERS], counts: [0; ORDERS], free: 0 }
    }

    fn push(&mut self, metas: &impl Metas, first: usize, order: usize) {
        let Some(meta) = metas.meta(first) else {
            return;
        };
        let old = self.heads[order];
        meta.flags.store(FREE | order as u32, Ordering::Relaxed);
        meta.prev.store(NONE, Ordering::Relaxed);
        meta.next.store(old, Ordering::Relaxed);
        if let Some(next) = metas.meta(old as usize).filter(|_| old != NONE) {
            next.prev.store(first as u32, Ordering::Relaxed);
        }
        self.heads[order] = first as u32;
        self.counts[order] += 1;
        self.free += 1 << order;
        note_level(self.free);
    }

    fn unlink(&mut self, metas: &impl Metas, first: usize, order: usize) {
        let Some(meta) = metas.meta(first) else {
            return;
        };
        let (next, prev) = (meta.next.load(Ordering::Relaxed), meta.prev.load(Ordering::Relaxed));
        if next != NONE
            && let Some(m) = metas.meta(next as usize)
        {
            m.prev.store(prev, Ordering::Relaxed);
        }
        if prev == NONE {
            self.heads[order] = next;
        } else if let Some(m) = metas.meta(prev as usize) {
            m.next.store(next, Ordering::Relaxed);
        }
        meta.flags.store(0, Ordering::Relaxed);
        self.counts[order] -= 1;
        self.free -= 1 << order;
        note_level(self.free);
    }

    /// A block of `order`, split off the smallest that is large enough.
    fn alloc(&mut self, metas: &impl Metas, order: usize) -> Option<usize> {
        let from = (order..ORDERS).find(|&o| self.heads[o] != NONE)?;
        let first = self.heads[from] as usize;
        self.unlink(metas, first, from);
        for half in (order..from).rev() {
            self.push(metas, first + (1 << half), half);
        }
        Some(first)
    }

    /// Takes a block back and merges it with its buddy as far as that is free.
    fn free(&mut self, metas: &impl Metas, mut first: usize, mut order: usize) {
        while order + 1 < ORDERS {
            let buddy = first ^ (1 << order);
            let is_free = metas
                .meta(buddy)
                .is_some_and(|m| m.flags.load(Ordering::Relaxed) == FREE | order as u32 && m.refs() == 0);
            if !is_free {
                break;
            }
            self.unlink(metas, buddy, order);
            first = first.min(buddy);
            order += 1;
        }
        self.push(metas, first, order);
    }

    /// Adds `start..end` as blocks as large as alignment allows.
    fn add_range(&mut self, metas: &impl Metas, mut start: usize, end: usize) {
        while start < end {
            let aligned = (start.trailing_zeros() as usize).min(ORDERS - 1);
            let fits = (end - start).ilog2() as usize;
            let order = aligned.min(fits);
            self.push(metas, start, order);
            start += 1 << order;
        }
    }
}

static BUDDY: SpinLock<Buddy> = SpinLock::new(Buddy::new());
static MAGAZINES: PerCpu<SpinLock<ArrayVec<u32, MAGAZINE>>> = hal::per_cpu!(SpinLock::new(ArrayVec::new_const()));
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// Free frames that only the kernel itself may use, so that it can go on while programs have used up the rest.
static RESERVE: AtomicUsize = AtomicUsize::new(0);

struct Source;

static SOURCE: Source = Source;

impl FrameSource for Source {
    #[inline]
    fn alloc(&self, order: u8, for_kernel: bool) -> Option<usize> {
        if order != 0 {
            let mut buddy = BUDDY.lock_irq();
            let refused = !for_kernel && buddy.free < RESERVE.load(Ordering::Relaxed);
            return if refused { None } else { buddy.alloc(&HalMetas, usize::from(order)) };
        }
        let mut magazine = MAGAZINES.get().lock_irq();
        if let Some(frame) = magazine.pop() {
            return Some(frame as usize);
        }
        let mut buddy = BUDDY.lock();
        if !for_kernel && buddy.free < RESERVE.load(Ordering::Relaxed) {
            return None;
        }
        while magazine.len() < MAGAZINE / 2 {
            let Some(frame) = buddy.alloc(&HalMetas, 0) else {
                break;
            };
            magazine.push(frame as u32);
        }
        magazine.pop().map(|frame| frame as usize)
    }

    #[inline]
    fn free(&self, first: usize, order: u8) {
        if order != 0 {
            BUDDY.lock_irq().free(&HalMetas, first, usize::from(order));
            return;
        }
        let mut magazine = MAGAZINES.get().lock_irq();
        if magazine.is_full() {
            let mut buddy = BUDDY.lock();
            for frame in magazine.drain(..MAGAZINE / 2) {
                buddy.free(&HalMetas, frame as usize, 0);
            }
        }
        magazine.push(first as u32);
    }
}

/// Memory figures for `/proc/meminfo` and sysinfo(2), in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct MemoryStats {
    /// All that the kernel manages.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// In page caches (shmem included).
    pub cached: u64,
    /// In tmpfs and shared anonymous memory.
    pub shmem: u64,
    /// Anonymous, mapped.
    pub anonymous: u64,
    /// In the kernel heap's slabs.
    pub slab: u64,
    /// In page tables.
    pub page_tables: u64,
    /// In kernel stacks.
    pub kernel_stacks: u64,
}

fn free_frames() -> usize {
    let blocks: usize = free_blocks().iter().enumerate().map(|(order, count)| count << order).sum();
    blocks + MAGAZINES.iter().map(|m| m.lock_irq().len()).sum::<usize>()
}

/// The figures now.
pub fn stats() -> MemoryStats {
    let page = PAGE_SIZE as u64;
    let cached = crate::page_cache::total_pages() as u64 * page;
    MemoryStats {
        total: TOTAL.load(Ordering::Relaxed) as u64 * page,
        free: free_frames() as u64 * page,
        cached,
        shmem: cached,
        anonymous: crate::address_space::anonymous_pages() as u64 * page,
        slab: hal::heap::bytes() as u64,
        page_tables: 0,
        kernel_stacks: hal::heap::stack_bytes() as u64,
    }
}

/// All memory that the kernel manages, in bytes.
pub fn total_bytes() -> u64 {
    (TOTAL.load(Ordering::Relaxed) * PAGE_SIZE) as u64
}

/// Free blocks per order (0 to 10), for `/proc/buddyinfo`.
pub fn free_blocks() -> [usize; ORDERS] {
    BUDDY.lock_irq().counts
}

/// Adds memory that was reserved until now (the rest of the initial RAM disk) to the total; its frames come by being freed.
pub fn note_more(frames: usize) {
    TOTAL.fetch_add(frames, Ordering::Relaxed);
}

/// Sets the buddy allocator up over the memory that hal has left. Once, at boot.
pub fn init() {
    let mut total = 0;
    {
        let mut buddy = BUDDY.lock_irq();
        for range in hal::frame::take_free_ranges() {
            total += range.len();
            buddy.add_range(&HalMetas, range.start, range.end);
        }
    }
    TOTAL.store(total, Ordering::Relaxed);
    RESERVE.store((total / 32).clamp(MIN_RESERVE, MAX_RESERVE), Ordering::Relaxed);
    hal::frame::set_source(&SOURCE);
    log::info!("memory: {} MiB", (total * PAGE_SIZE) >> 20);
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    struct TestMetas(Vec<FrameMeta>);

    impl Metas for TestMetas {
        fn meta(&self, number: usize) -> Option<&FrameMeta> {
            self.0.get(number)
        }
    }

    fn setup(frames: usize) -> (TestMetas, Buddy) {
        let metas = TestMetas((0..frames).map(|_| FrameMeta::for_tests()).collect());
        let mut buddy = Buddy::new();
        buddy.add_range(&metas, 1, frames);
        (metas, buddy)
    }

    fn free(buddy: &Buddy) -> usize {
        buddy.counts.iter().enumerate().map(|(o, c)| c << o).sum()
    }

    #[test]
    fn blocks_are_aligned_disjoint_and_merge_again() {
        let (metas, mut buddy) = setup(5000);
        let start = buddy.counts;
        let mut taken = Vec::new();
        let mut used = std::collections::HashSet::new();
        for i in 0..1000 {
            let order = [0, 3, 1, 0, 5][i % 5];
            let Some(first) = buddy.alloc(&metas, order) else {
                continue;
            };
            assert!(first.is_multiple_of(1 << order));
            for f in first..first + (1 << order) {
                assert!((1..5000).contains(&f) && used.insert(f), "frame {f} twice");
            }
            taken.push((first, order));
        }
        assert_eq!(free(&buddy) + used.len(), 4999);
        for i in (0..taken.len()).step_by(2).chain((1..taken.len()).step_by(2)) {
            buddy.free(&metas, taken[i].0, taken[i].1);
        }
        assert_eq!(free(&buddy), 4999);
        assert_eq!(buddy.counts, start, "all buddies merged");
    }

    #[test]
    fn exhaustion_is_none() {
        let (metas, mut buddy) = setup(9);
        assert!(buddy.alloc(&metas, 4).is_none());
        assert!((0..8).all(|_| buddy.alloc(&metas, 0).is_some()));
        assert!(buddy.alloc(&metas, 0).is_none());
    }
}
