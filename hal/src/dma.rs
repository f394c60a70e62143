//! Memory that devices read and write.

use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};

use crate::arch;
use crate::frame::FrameBlock;

/// Physically contiguous memory shared with a device. Since the device may change it at any time, it is accessed by volatile loads and
/// stores of values only.
#[derive(Clone)]
pub struct DmaBuffer {
    block: Arc<FrameBlock>,
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        /// Loads a value. Panics where it is outside the buffer or not aligned.
        #[inline]
        pub fn $load(&self, offset: usize) -> $type {
            self.check(offset, size_of::<$type>());
            // SAFETY: inside the block, which the buffer keeps allocated.
            unsafe { self.block.as_ptr().add(offset).cast::<$type>().read_volatile() }
        }

        /// Stores a value. Panics where it is outside the buffer or not aligned.
        #[inline]
        pub fn $store(&self, offset: usize, value: $type) {
            self.check(offset, size_of::<$type>());
            // SAFETY: as for the load.
            unsafe { self.block.as_ptr().add(offset).cast::<$type>().write_volatile(value) };
        }
    };
}

impl DmaBuffer {
    /// At least `len` bytes of zeros, page-aligned. `None` when there are none.
    pub fn new(len: usize) -> Option<DmaBuffer> {
        let order = len.div_ceil(abi::PAGE_SIZE).next_power_of_two().trailing_zeros() as u8;
        let block = FrameBlock::alloc(order)?;
        for page in 0..1 << order {
            // SAFETY: the block is ours and has that many pages.
            unsafe { arch::zero_page(block.as_ptr().add(page * abi::PAGE_SIZE)) };
        }
        Some(DmaBuffer { block: Arc::new(block) })
    }

    /// The address for the device.
    pub fn physical(&self) -> u64 {
        self.block.physical() as u64
    }

    /// Bytes.
    #[allow(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.block.size()
    }

    fn check(&self, offset: usize, size: usize) {
        assert!(offset <= self.len() && size <= self.len() - offset && offset.is_multiple_of(size));
    }

    access!(load16, store16, u16);
    access!(load32, store32, u32);
    access!(load64, store64, u64);

    /// Copies out. Panics past the end.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        assert!(offset <= self.len() && dst.len() <= self.len() - offset);
        // SAFETY: inside the block; the copy tolerates that the device writes meanwhile.
        unsafe { arch::copy_bytes(dst.as_mut_ptr(), self.block.as_ptr().add(offset), dst.len()) };
    }

    /// Copies in. Panics past the end.
    pub fn write(&self, offset: usize, src: &[u8]) {
        assert!(offset <= self.len() && src.len() <= self.len() - offset);
        // SAFETY: as for `read`.
        unsafe { arch::copy_bytes(self.block.as_ptr().add(offset), src.as_ptr(), src.len()) };
    }
}

/// All that was written before is seen by the device before what is written after; and the same for reads.
#[inline]
pub fn barrier() {
    fence(Ordering::SeqCst);
}
