//! The kernel's half of the virtual address space.
//!
//! | from | what |
//! |---|---|
//! | ffff8880_00000000 | all physical memory (the direct map), never executable |
//! | ffffc900_00000000 | kernel stacks with guard pages |
//! | ffffe000_00000000 | device memory, uncached |
//! | ffffffff_80000000 | the kernel image; text read-only, data never executable |

/// Where the kernel image is linked: physical address 0 of its mapping.
pub(super) const KERNEL_BASE: usize = 0xffff_ffff_8000_0000;
/// Where physical address 0 is seen.
pub(super) const DIRECT_BASE: usize = 0xffff_8880_0000_0000;
/// Its slot in the top-level table.
pub(super) const DIRECT_SLOT: usize = (DIRECT_BASE >> 39) & 511;
/// Kernel stacks.
pub(super) const STACKS_BASE: usize = 0xffff_c900_0000_0000;
/// Device memory.
pub(super) const MMIO_BASE: usize = 0xffff_e000_0000_0000;
