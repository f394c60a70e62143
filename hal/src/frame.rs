//! Page frames: 4 KiB of physical memory, owned by counted handles.
//!
//! Who decides which frame is given out is a [`FrameSource`] above (mm's buddy allocator). hal does not trust it: handing out a
//! frame moves its count from 0 to 1 atomically and panics if it was not 0, so a faulty allocator cannot alias memory. The contents
//! of a frame may be mapped by user programs that write at any time, so they are never lent as a slice: they are copied in and out.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::PAGE_SIZE;

use crate::arch;
use crate::sync::Once;

/// A count that says "never given out": holes, the kernel image, firmware's memory.
pub(crate) const RESERVED: u32 = u32::MAX;

/// What is kept about each frame, 32 bytes. All but the count is at the disposal of the frame's owner, or of the frame source while
/// it is free.
#[repr(C)]
pub struct FrameMeta {
    refs: AtomicU32,
    /// Bits for the owner (dirty, referenced, ...) or the source (free, order).
    pub flags: AtomicU32,
    /// For lists: frame numbers.
    pub next: AtomicU32,
    /// For lists: frame numbers.
    pub prev: AtomicU32,
    /// How many page-table entries map it; in a page-table frame, how many entries it holds.
    pub maps: AtomicU32,
    /// Room for the owner.
    pub tag: AtomicU32,
    /// Room for the owner.
    pub data: AtomicU64,
}

impl FrameMeta {
    /// References held; 0 is free, `u32::MAX` never to be given out.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Relaxed)
    }

    /// The metadata of a free frame, for hosted memory and tests of allocators.
    #[cfg(not(target_os = "none"))]
    pub fn for_tests() -> FrameMeta {
        FrameMeta {
            refs: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            maps: AtomicU32::new(0),
            tag: AtomicU32::new(0),
            data: AtomicU64::new(0),
        }
    }

    /// Counts down unless that were the last reference: true if it did.
    pub(crate) fn drop_unless_last(&self) -> bool {
        self.refs.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |refs| (refs > 1).then(|| refs - 1)).is_ok()
    }

    pub(crate) fn reserve(&self) {
        self.refs.store(RESERVED, Ordering::Relaxed);
    }
}

/// Where frames come from.
pub trait FrameSource: Sync {
    /// The first of 2^order free, naturally aligned frames; `None` when there are none, even after reclaim where the caller may sleep.
    /// The kernel's own needs (`for_kernel`) may be met from a reserve that pages of programs and files may not touch.
    fn alloc(&self, order: u8, for_kernel: bool) -> Option<usize>;
    /// Takes back what `alloc` gave.
    fn free(&self, first: usize, order: u8);
}

static METAS: Once<&'static [FrameMeta]> = Once::new();
static SOURCE: Once<&'static dyn FrameSource> = Once::new();

pub(crate) fn set_metas(metas: &'static [FrameMeta]) {
    assert!(METAS.set(metas).is_ok(), "frame metadata is set twice");
}

/// Registers the allocator. Before that, hal serves itself from the boot memory map.
pub fn set_source(source: &'static dyn FrameSource) {
    assert!(SOURCE.set(source).is_ok(), "the frame source is set twice");
}

/// The memory that is free when the kernel starts, as ranges of frame numbers: once, for the frame source to manage.
pub fn take_free_ranges() -> arrayvec::ArrayVec<Range<usize>, 32> {
    arch::take_free_ranges()
}

/// The metadata of frame `number`; `None` past the end of memory.
#[inline]
pub fn meta(number: usize) -> Option<&'static FrameMeta> {
    METAS.get()?.get(number)
}

/// One past the highest frame number.
pub fn end() -> usize {
    METAS.get().map_or(0, |m| m.len())
}

fn claim(first: usize, order: u8) {
    for number in first..first + (1 << order) {
        let meta = meta(number).expect("the frame source gave a frame that is not memory");
        let was = meta.refs.swap(1, Ordering::Relaxed);
        assert!(was == 0, "the frame source gave frame {number:#x} that is in use ({was} references)");
    }
}

fn acquire(order: u8, for_kernel: bool) -> Option<usize> {
    let first = match SOURCE.get() {
        Some(source) => source.alloc(order, for_kernel)?,
        None => arch::boot_alloc(order)?,
    };
    claim(first, order);
    Some(first)
}

fn release(first: usize, order: u8) {
    match SOURCE.get() {
        Some(source) => source.free(first, order),
        None => arch::boot_free(first, order),
    }
}

/// A reference to one frame. Cloning counts up; dropping the last gives it back to the source.
#[derive(PartialEq, Eq)]
pub struct Frame(u32);

impl Frame {
    /// A frame with whatever it held before: for the kernel's eyes only until it is overwritten. `None` when memory is exhausted.
    #[inline]
    pub fn alloc() -> Option<Frame> {
        acquire(0, false).map(|n| Frame(n as u32))
    }

    /// A frame of zeros for a page table, which may come from the kernel's reserve.
    pub(crate) fn alloc_table() -> Option<Frame> {
        let frame = acquire(0, true).map(|n| Frame(n as u32))?;
        frame.zero();
        Some(frame)
    }

    /// A frame of zeros. `None` when memory is exhausted.
    #[inline]
    pub fn alloc_zeroed() -> Option<Frame> {
        let frame = Frame::alloc()?;
        frame.zero();
        Some(frame)
    }

    /// The frame that holds the physical address, if it is inside the initial RAM disk: hands that memory over, once per frame.
    pub fn from_initrd(physical: usize) -> Option<Frame> {
        if !physical.is_multiple_of(PAGE_SIZE) || !arch::in_initrd(physical..physical + PAGE_SIZE) {
            return None;
        }
        let number = physical / PAGE_SIZE;
        meta(number)?.refs.compare_exchange(RESERVED, 1, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some(Frame(number as u32))
    }

    /// Its number: physical address / 4096.
    #[inline]
    pub fn number(&self) -> usize {
        self.0 as usize
    }

    /// Its physical address.
    #[inline]
    pub fn physical(&self) -> usize {
        self.number() * PAGE_SIZE
    }

    /// Its metadata.
    #[inline]
    pub fn meta(&self) -> &'static FrameMeta {
        &METAS.get().expect("frames exist, so does their metadata")[self.number()]
    }

    /// How many handles (page-table entries included) there are.
    #[inline]
    pub fn refs(&self) -> u32 {
        self.meta().refs.load(Ordering::Acquire)
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        arch::phys_to_virt(self.physical())
    }

    /// Copies out of it. Panics where `offset + dst.len()` exceeds the page.
    #[inline]
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && dst.len() <= PAGE_SIZE - offset);
        // SAFETY: the range is inside the frame, which this handle keeps allocated; `dst` is ours. User writes may race: the copy is
        // a volatile one in assembly on the target, so a race gives torn bytes, nothing worse.
        unsafe { arch::copy_bytes(dst.as_mut_ptr(), self.base().add(offset), dst.len()) }
    }

    /// Copies into it. Panics where `offset + src.len()` exceeds the page.
    #[inline]
    pub fn write(&self, offset: usize, src: &[u8]) {
        assert!(offset <= PAGE_SIZE && src.len() <= PAGE_SIZE - offset);
        // SAFETY: as for `read`, the other way round.
        unsafe { arch::copy_bytes(self.base().add(offset), src.as_ptr(), src.len()) }
    }

    /// Copies `len` bytes of `other`, from its `start` on, to `offset`. Panics where either range exceeds its page.
    pub fn copy_part(&self, offset: usize, other: &Frame, start: usize, len: usize) {
        assert!(offset.max(start) <= PAGE_SIZE && len <= PAGE_SIZE - offset.max(start));
        // SAFETY: both ranges are inside frames that handles keep allocated; the rest as for `read`. Ranges of one frame that overlap may
        // tear, as if a user's write had raced.
        unsafe { arch::copy_bytes(self.base().add(offset), other.base().add(start), len) }
    }

    /// Reads the 32-bit word at `offset` at once, ordered before what is read after it. Panics where it is not aligned or not in the page.
    #[inline]
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// Writes the 32-bit word at `offset` at once, ordered after what was written before it. Panics as [`Frame::load_u32`].
    #[inline]
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// Sets and clears bits of the 32-bit word at `offset` in one step. Panics as [`Frame::load_u32`].
    pub fn change_u32(&self, offset: usize, set: u32, clear: u32) {
        let word = self.word(offset);
        word.fetch_or(set, Ordering::SeqCst);
        word.fetch_and(!clear, Ordering::SeqCst);
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset <= PAGE_SIZE - 4);
        // SAFETY: aligned and inside the frame, which this handle keeps allocated; whoever else has it mapped, the kernel only
        // reaches this word by atomic accesses while it is shared, and user mode's plain ones are outside of the language.
        unsafe { &*self.base().add(offset).cast::<AtomicU32>() }
    }

    /// Fills `len` bytes from `offset` with zeros. Panics where that exceeds the page.
    pub fn zero_range(&self, offset: usize, len: usize) {
        assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
        // SAFETY: as for `write`.
        unsafe { arch::zero_bytes(self.base().add(offset), len) }
    }

    /// Fills it with zeros.
    #[inline]
    pub fn zero(&self) {
        // SAFETY: the whole frame, kept allocated by this handle.
        unsafe { arch::zero_page(self.base()) }
    }

    /// Copies the whole of `other` into it.
    #[inline]
    pub fn copy_from(&self, other: &Frame) {
        // SAFETY: both frames are kept allocated by their handles; equal frames would be a copy onto itself, which is harmless.
        unsafe { arch::copy_page(self.base(), other.base()) }
    }

    /// Gives up the handle without counting down; pairs with [`Frame::from_number`].
    #[inline]
    pub(crate) fn into_number(self) -> usize {
        let number = self.number();
        core::mem::forget(self);
        number
    }

    /// Takes up the handle that [`Frame::into_number`] gave up.
    ///
    /// # Safety
    /// The caller owns one reference to the frame, and gives it up.
    #[inline]
    pub(crate) unsafe fn from_number(number: usize) -> Frame {
        Frame(number as u32)
    }

    /// The page's bytes, for page tables and kernel structures in frames that are never mapped to user space.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.base()
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Frame {
        let was = self.meta().refs.fetch_add(1, Ordering::Relaxed);
        assert!(was < RESERVED / 2, "too many references to frame {:#x}", self.0);
        Frame(self.0)
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if self.meta().refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            release(self.number(), 0);
        }
    }
}

impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frame({:#x})", self.0)
    }
}

/// 2^order contiguous frames with one owner.
#[derive(Debug)]
pub struct FrameBlock {
    first: u32,
    order: u8,
}

impl FrameBlock {
    /// 2^order naturally aligned frames with whatever they held before. `None` when there are none.
    pub fn alloc(order: u8) -> Option<FrameBlock> {
        acquire(order, true).map(|n| FrameBlock { first: n as u32, order })
    }

    /// The physical address of the first.
    pub fn physical(&self) -> usize {
        self.first as usize * PAGE_SIZE
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// Log2 of the number of frames.
    pub fn order(&self) -> u8 {
        self.order
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        arch::phys_to_virt(self.physical())
    }

    /// Splits the block into single frames.
    pub fn into_frames(self) -> impl Iterator<Item = Frame> {
        let (first, count) = (self.first, 1u32 << self.order);
        core::mem::forget(self);
        (first..first + count).map(Frame)
    }

    pub(crate) fn into_first(self) -> usize {
        let first = self.first as usize;
        core::mem::forget(self);
        first
    }

    /// Takes up the block that [`FrameBlock::into_first`] gave up.
    ///
    /// # Safety
    /// The caller owns the block of that order, and gives it up.
    pub(crate) unsafe fn from_first(first: usize, order: u8) -> FrameBlock {
        FrameBlock { first: first as u32, order }
    }
}

impl Drop for FrameBlock {
    fn drop(&mut self) {
        let first = self.first as usize;
        for number in first..first + (1 << self.order) {
            let was = meta(number).expect("blocks are memory").refs.swap(0, Ordering::AcqRel);
            assert!(was == 1, "frame {number:#x} of a block has {was} references");
        }
        release(first, self.order);
    }
}
