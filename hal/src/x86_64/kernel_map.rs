//! The kernel's half of every address space: direct map, image with W^X, kernel stacks, device memory.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::PAGE_SIZE;

use super::layout::{DIRECT_BASE, KERNEL_BASE, MMIO_BASE, STACKS_BASE};
use super::page_table::{A, ADDRESS, D, G, NX, P, PS, Table, W, index};
use super::{features, symbols};
use crate::frame::Frame;
use crate::sync::{Once, SpinLock};

static ROOT: Once<Frame> = Once::new();
/// Serialises changes of the kernel's half after boot.
static CHANGES: SpinLock<()> = SpinLock::new(());
static NEXT_MMIO: AtomicUsize = AtomicUsize::new(MMIO_BASE);

/// No write-through, no cache: for device memory.
const UNCACHED: u64 = 0x18;

/// The kernel's root table. Panics before [`init`].
pub(super) fn root() -> Table {
    Table::of(ROOT.get().expect("the kernel map is made at boot"))
}

/// What to load while no user address space is wanted.
pub(super) fn physical() -> usize {
    ROOT.get().expect("the kernel map is made at boot").physical()
}

/// Builds the map over the given RAM (bytes) and loads it.
pub(super) fn init(ram: &[Range<usize>]) {
    let frame = boot_frame();
    let top = Table::of(&frame);
    assert!(ROOT.set(frame).is_ok());
    // Every top-level slot that the kernel ever uses exists from now on, so user tables can copy them.
    for va in [STACKS_BASE, MMIO_BASE, KERNEL_BASE] {
        below(top, index(va, 4));
    }
    let image = symbols::image();
    let constant = image.text.start - KERNEL_BASE..image.rodata.end - KERNEL_BASE;
    let data = P | W | A | D | G | super::nx_bit();
    for range in ram {
        // The image's read-only part must not be writable through the direct map either.
        let pieces = [
            range.start..constant.start.clamp(range.start, range.end),
            constant.end.clamp(range.start, range.end)..range.end,
        ];
        for piece in pieces {
            map(DIRECT_BASE + piece.start, piece.start, piece.len(), data);
        }
        let fixed = constant.start.max(range.start)..constant.end.min(range.end);
        if !fixed.is_empty() {
            map(DIRECT_BASE + fixed.start, fixed.start, fixed.len(), data & !(W | D));
        }
    }
    map(image.text.start, image.text.start - KERNEL_BASE, image.text.len(), P | A | G);
    map(image.rodata.start, image.rodata.start - KERNEL_BASE, image.rodata.len(), P | A | G | super::nx_bit());
    map(image.data.start, image.data.start - KERNEL_BASE, image.data.len(), data);
    // SAFETY: the new map holds everything that the boot map gave to code, data, stack and direct map.
    unsafe { super::cpu_regs::write_cr3(physical()) };
}

fn boot_frame() -> Frame {
    Frame::alloc_table().expect("not enough memory for the kernel's page tables")
}

/// The table below slot `i`, made if missing.
fn below(table: Table, i: usize) -> Table {
    let entry = table.load(i);
    if entry != 0 {
        assert!(entry & PS == 0, "a kernel mapping overlaps a large page");
        return Table::of(&core::mem::ManuallyDrop::new(
            // SAFETY: kernel tables are never freed; the handle is not dropped.
            unsafe { Frame::from_number(((entry & ADDRESS) >> 12) as usize) },
        ));
    }
    let frame = boot_frame();
    let next = Table::of(&frame);
    let address = frame.physical() as u64;
    frame.into_number();
    table.store(i, address | P | W | A);
    next
}

/// Maps `len` bytes at `va` to `pa` (all page-aligned) with the largest pages that fit.
fn map(va: usize, pa: usize, len: usize, flags: u64) {
    let gigantic = features::get().pdpe1gb;
    let mut done = 0;
    while done < len {
        let (v, p, left) = (va + done, pa + done, len - done);
        let fits = |size: usize| v.is_multiple_of(size) && p.is_multiple_of(size) && left >= size;
        let directory_pointer = below(root(), index(v, 4));
        if gigantic && fits(1 << 30) {
            directory_pointer.store(index(v, 3), p as u64 | flags | PS);
            done += 1 << 30;
            continue;
        }
        let directory = below(directory_pointer, index(v, 3));
        if fits(2 << 20) {
            directory.store(index(v, 2), p as u64 | flags | PS);
            done += 2 << 20;
            continue;
        }
        below(directory, index(v, 2)).store(index(v, 1), p as u64 | flags);
        done += PAGE_SIZE;
    }
}

/// Maps device memory, uncached: where it is seen. The mapping stays for ever.
pub(crate) fn map_device(physical: usize, len: usize) -> usize {
    let start = physical & !(PAGE_SIZE - 1);
    let size = (physical + len - start).next_multiple_of(PAGE_SIZE);
    let _guard = CHANGES.lock_irq();
    let va = NEXT_MMIO.fetch_add(size + PAGE_SIZE, Ordering::Relaxed);
    for offset in (0..size).step_by(PAGE_SIZE) {
        let directory = below(below(root(), index(va + offset, 4)), index(va + offset, 3));
        below(directory, index(va + offset, 2))
            .store(index(va + offset, 1), (start + offset) as u64 | P | W | A | D | G | UNCACHED | super::nx_bit());
    }
    va + physical - start
}

/// Maps frames at `va` in the stack region.
pub(super) fn map_stack(va: usize, frames: &[Frame]) {
    let _guard = CHANGES.lock_irq();
    for (i, frame) in frames.iter().enumerate() {
        let at = va + i * PAGE_SIZE;
        let directory = below(below(root(), index(at, 4)), index(at, 3));
        below(directory, index(at, 2))
            .store(index(at, 1), frame.physical() as u64 | P | W | A | D | G | super::nx_bit());
    }
}

/// Takes a stack's mapping away. The caller flushes all processors before the frames are used again.
pub(super) fn unmap_stack(va: usize, len: usize) {
    let _guard = CHANGES.lock_irq();
    for offset in (0..len).step_by(PAGE_SIZE) {
        let directory = below(below(root(), index(va + offset, 4)), index(va + offset, 3));
        below(directory, index(va + offset, 2)).store(index(va + offset, 1), 0);
    }
}

/// The NX bit must not be set where EFER.NXE isn't.
pub(super) const fn nx(supported: bool) -> u64 {
    if supported { NX } else { 0 }
}
