//! Kernel stacks, each above an unmapped guard page, so that an overflow faults instead of corrupting a neighbour.

use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{kernel_map, layout, tlb};
use crate::frame::Frame;
use crate::sync::SpinLock;

/// 16 KiB would do for the deepest paths seen; the rest is for what was not seen.
const FRAMES: usize = 8;
const SIZE: usize = abi::PAGE_SIZE * FRAMES;

/// A stack's memory: single frames, which can be had however fragmented memory is.
type Memory = ArrayVec<Frame, FRAMES>;
/// From one stack's slot to the next; the lower half is the guard.
const STRIDE: usize = 2 * SIZE;
/// Stacks kept mapped for the next thread.
const KEPT: usize = 128;

struct Pool {
    /// Mapped and free.
    ready: Vec<(usize, Memory)>,
    /// Slots whose stack was unmapped.
    empty: Vec<usize>,
    next: usize,
}

static POOL: SpinLock<Pool> = SpinLock::new(Pool { ready: Vec::new(), empty: Vec::new(), next: 0 });
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// A stack with one owner.
pub(super) struct KernelStack {
    slot: usize,
    memory: Option<Memory>,
}

fn bottom(slot: usize) -> usize {
    layout::STACKS_BASE + slot * STRIDE + SIZE
}

impl KernelStack {
    /// A stack; `None` when memory is exhausted.
    pub(super) fn new() -> Option<KernelStack> {
        IN_USE.fetch_add(1, Ordering::Relaxed);
        let ready = POOL.lock_irq().ready.pop();
        if let Some((slot, memory)) = ready {
            return Some(KernelStack { slot, memory: Some(memory) });
        }
        let memory: Memory = (0..FRAMES).map_while(|_| Frame::alloc()).collect();
        if !memory.is_full() {
            IN_USE.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let slot = {
            let mut pool = POOL.lock_irq();
            pool.empty.pop().unwrap_or_else(|| {
                pool.next += 1;
                pool.next - 1
            })
        };
        kernel_map::map_stack(bottom(slot), &memory);
        Some(KernelStack { slot, memory: Some(memory) })
    }

    /// One past its highest byte; 16-aligned.
    #[inline]
    pub(super) fn top(&self) -> usize {
        bottom(self.slot) + SIZE
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        let Some(memory) = self.memory.take() else {
            return;
        };
        // Unmapping needs all processors to forget it, which can't be waited for with interrupts off (the last reference to a thread
        // may go right after a switch): such stacks are kept in any case.
        let may_wait = crate::irq::enabled();
        let mut pool = POOL.lock_irq();
        if pool.ready.len() < KEPT || !may_wait {
            pool.ready.push((self.slot, memory));
            return;
        }
        drop(pool);
        kernel_map::unmap_stack(bottom(self.slot), SIZE);
        tlb::flush_kernel(bottom(self.slot), bottom(self.slot) + SIZE);
        drop(memory);
        POOL.lock_irq().empty.push(self.slot);
    }
}

/// Is the address in the guard below some stack?
pub(super) fn is_guard(address: usize) -> bool {
    let next = POOL.try_lock().map_or(usize::MAX, |pool| pool.next);
    (layout::STACKS_BASE..layout::MMIO_BASE).contains(&address) && {
        let offset = address - layout::STACKS_BASE;
        offset / STRIDE < next && offset % STRIDE < SIZE
    }
}

/// Bytes in kernel stacks that threads use.
pub(crate) fn bytes() -> usize {
    IN_USE.load(Ordering::Relaxed) * SIZE
}
