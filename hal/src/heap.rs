//! The kernel heap: slabs of equal objects with a magazine per processor and size (Bonwick and Adams, "Magazines and Vmem", 2001).
//!
//! Sizes up to 2 KiB come from slabs, larger ones are blocks of frames. A slab is a frame, so an object's address names it; the list of its free objects runs through the objects, its head and count are in the first frame's
//! metadata. Works with interrupts off, so handlers may allocate.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use alloc::vec::Vec;

use crate::arch;
use crate::cpu::PerCpu;
use crate::frame::{FrameBlock, FrameMeta, meta};
use crate::sync::SpinLock;

/// Object sizes. A slab is one frame, so that it can be had however fragmented memory is.
const CLASSES: [usize; 15] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 816, 1024, 1360, 2048];
const LARGEST: usize = 2048;
/// Objects a magazine holds; half of it moves at a time.
const MAGAZINE: usize = 32;
/// The largest block of frames.
const MAX_ORDER: u8 = 10;
const NONE: u32 = u32::MAX;

/// The class for each size in units of 16 bytes.
const CLASS_OF: [u8; LARGEST / 16 + 1] = {
    let mut table = [0; LARGEST / 16 + 1];
    let (mut i, mut class) = (0, 0);
    while i < table.len() {
        if i * 16 > CLASSES[class] {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
};

struct Magazine {
    objects: [*mut u8; MAGAZINE],
    len: usize,
}

/// One processor's magazines. Only that processor uses them, with interrupts off.
struct Magazines(SpinLock<[Magazine; CLASSES.len()]>);

// SAFETY: the pointers are to free objects, which nobody refers to; the lock admits one user.
unsafe impl Sync for Magazines {}

static MAGAZINES: PerCpu<Magazines> = crate::per_cpu!(Magazines(SpinLock::new(
    [const { Magazine { objects: [null_mut(); MAGAZINE], len: 0 } }; CLASSES.len()]
)));

/// Slabs of one size that have free objects: a list through the frames' metadata.
struct Class {
    partial: u32,
    slabs: usize,
    /// Objects that are not in a slab: in use, or in a magazine.
    out: usize,
}

static STATE: [SpinLock<Class>; CLASSES.len()] =
    [const { SpinLock::new(Class { partial: NONE, slabs: 0, out: 0 }) }; CLASSES.len()];
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Heap;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap;

fn class_of(layout: &Layout) -> Option<usize> {
    let size = layout.size().max(layout.align());
    if size > LARGEST {
        return None;
    }
    let mut class = usize::from(CLASS_OF[size.div_ceil(16)]);
    // Objects lie at multiples of their size in an aligned slab, so the size must be a multiple of the alignment.
    while layout.align() > 16 && !CLASSES[class].is_multiple_of(layout.align()) {
        class += 1;
    }
    Some(class)
}

fn order_of(size: usize) -> u8 {
    size.div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros() as u8
}

// SAFETY: objects are handed out once until they come back (free lists hold free objects only), lie in blocks of frames that the heap
// owns, and are as large and as aligned as `class_of` and `order_of` see to.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(&layout) else {
            return alloc_large(&layout);
        };
        let _irq = crate::irq::disable();
        let mut magazines = MAGAZINES.get().0.lock();
        let magazine = &mut magazines[class];
        if magazine.len == 0 {
            refill(class, magazine);
            if magazine.len == 0 {
                return null_mut();
            }
        }
        magazine.len -= 1;
        magazine.objects[magazine.len]
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(class) = class_of(&layout) else {
            // SAFETY: the caller got it from `alloc` with this layout.
            unsafe { free_large(object, &layout) };
            return;
        };
        let _irq = crate::irq::disable();
        let mut magazines = MAGAZINES.get().0.lock();
        let magazine = &mut magazines[class];
        if magazine.len == MAGAZINE {
            drain(class, magazine);
        }
        magazine.objects[magazine.len] = object;
        magazine.len += 1;
    }
}

fn alloc_large(layout: &Layout) -> *mut u8 {
    let order = order_of(layout.size().max(layout.align()));
    if order > MAX_ORDER {
        return null_mut();
    }
    let Some(block) = FrameBlock::alloc(order) else {
        return null_mut();
    };
    LARGE_BYTES.fetch_add(block.size(), Ordering::Relaxed);
    let address = block.as_ptr();
    block.into_first();
    address
}

/// # Safety
/// `object` came from `alloc_large` with the same layout.
unsafe fn free_large(object: *mut u8, layout: &Layout) {
    let order = order_of(layout.size().max(layout.align()));
    LARGE_BYTES.fetch_sub(PAGE_SIZE << order, Ordering::Relaxed);
    // SAFETY: `alloc_large` gave up this very block.
    drop(unsafe { FrameBlock::from_first(arch::virt_to_phys(object) / PAGE_SIZE, order) });
}

fn metadata(frame: u32) -> &'static FrameMeta {
    meta(frame as usize).expect("slabs are memory")
}

/// Takes half a magazine's objects out of slabs with free ones, making a new slab if there is none.
fn refill(class: usize, magazine: &mut Magazine) {
    let mut state = STATE[class].lock();
    while magazine.len < MAGAZINE / 2 {
        if state.partial == NONE {
            drop(state);
            let slab = new_slab(class);
            state = STATE[class].lock();
            match slab {
                Some(slab) => {
                    state.slabs += 1;
                    push(&mut state, slab);
                }
                None if state.partial == NONE => return,
                None => {}
            }
        }
        let slab = state.partial;
        let head = metadata(slab);
        let object = head.data.load(Ordering::Relaxed) as *mut u8;
        // SAFETY: the head of a slab with free objects points to one, whose first word is the next.
        let next = unsafe { object.cast::<u64>().read() };
        head.data.store(next, Ordering::Relaxed);
        head.tag.fetch_add(1, Ordering::Relaxed);
        if next == 0 {
            unlink(&mut state, slab);
        }
        state.out += 1;
        magazine.objects[magazine.len] = object;
        magazine.len += 1;
    }
}

/// Gives half a magazine back to the slabs; slabs that become empty are freed but for the last.
fn drain(class: usize, magazine: &mut Magazine) {
    while magazine.len > MAGAZINE / 2 {
        magazine.len -= 1;
        let object = magazine.objects[magazine.len];
        let slab = (arch::virt_to_phys(object) / PAGE_SIZE) as u32;
        let head = metadata(slab);
        let mut state = STATE[class].lock();
        state.out -= 1;
        let first = head.data.load(Ordering::Relaxed);
        // SAFETY: the object is free and at least 16 bytes long.
        unsafe { object.cast::<u64>().write(first) };
        head.data.store(object as u64, Ordering::Relaxed);
        if first == 0 {
            push(&mut state, slab);
        }
        if head.tag.fetch_sub(1, Ordering::Relaxed) == 1 && state.slabs > 1 {
            unlink(&mut state, slab);
            state.slabs -= 1;
            head.data.store(0, Ordering::Relaxed);
            drop(state);
            // SAFETY: `new_slab` gave up this block, and none of its objects is in use.
            drop(unsafe { FrameBlock::from_first(slab as usize, 0) });
        }
    }
}

/// A block of frames, cut into objects on a free list.
fn new_slab(class: usize) -> Option<u32> {
    let size = CLASSES[class];
    let block = FrameBlock::alloc(0)?;
    let count = block.size() / size;
    let base = block.as_ptr();
    let mut next = 0u64;
    for i in (0..count).rev() {
        // SAFETY: the block is ours and holds `count` objects.
        unsafe {
            let object = base.add(i * size);
            object.cast::<u64>().write(next);
            next = object as u64;
        }
    }
    let first = block.into_first() as u32;
    let head = metadata(first);
    head.data.store(next, Ordering::Relaxed);
    head.tag.store(0, Ordering::Relaxed);
    Some(first)
}

fn push(state: &mut Class, slab: u32) {
    let head = metadata(slab);
    head.prev.store(NONE, Ordering::Relaxed);
    head.next.store(state.partial, Ordering::Relaxed);
    if state.partial != NONE {
        metadata(state.partial).prev.store(slab, Ordering::Relaxed);
    }
    state.partial = slab;
}

fn unlink(state: &mut Class, slab: u32) {
    let head = metadata(slab);
    let (next, prev) = (head.next.load(Ordering::Relaxed), head.prev.load(Ordering::Relaxed));
    if next != NONE {
        metadata(next).prev.store(prev, Ordering::Relaxed);
    }
    if prev != NONE {
        metadata(prev).next.store(next, Ordering::Relaxed);
    } else {
        state.partial = next;
    }
}

/// The slabs of one size of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slabs {
    /// Bytes of an object.
    pub size: usize,
    /// Objects in a slab, which is a page.
    pub per_slab: usize,
    /// How many slabs there are.
    pub slabs: usize,
    /// Objects in use.
    pub active: usize,
}

/// The slabs of each size, for `/proc/slabinfo`.
pub fn slabs() -> Vec<Slabs> {
    let of_class = |class: usize| {
        let (slabs, out) = {
            let state = STATE[class].lock_irq();
            (state.slabs, state.out)
        };
        let kept: usize = MAGAZINES.iter().map(|magazines| magazines.0.lock_irq()[class].len).sum();
        let size = CLASSES[class];
        Slabs { size, per_slab: PAGE_SIZE / size, slabs, active: out.saturating_sub(kept) }
    };
    (0..CLASSES.len()).map(of_class).collect()
}

/// Bytes that the heap holds.
pub fn bytes() -> usize {
    let slabs: usize = STATE.iter().map(|s| s.lock_irq().slabs).sum();
    slabs * PAGE_SIZE + LARGE_BYTES.load(Ordering::Relaxed)
}

/// Bytes in kernel stacks.
pub fn stack_bytes() -> usize {
    arch::stack_bytes()
}

/// A buffer of 64-byte alignment, as XSAVE wants.
pub(crate) struct AlignedBuf {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
#[allow(dead_code, reason = "read through a byte pointer")]
struct Line([u8; 64]);

impl AlignedBuf {
    /// `len` zero bytes; `None` when memory is exhausted.
    pub(crate) fn zeroed(len: usize) -> Option<AlignedBuf> {
        let mut lines = Vec::new();
        lines.try_reserve_exact(len.div_ceil(64)).ok()?;
        lines.resize(len.div_ceil(64), Line([0; 64]));
        Some(AlignedBuf { lines, len })
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the lines are contiguous bytes, at least `len` of them.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
