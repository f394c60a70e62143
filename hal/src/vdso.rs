//! The vDSO: clock calls that programs make without entering the kernel (vdso(7)).

use crate::frame::Frame;

/// The data page and the ELF image, to be mapped next to each other, the data first and read-only. `None` when memory is exhausted, or where
/// the processor has no such thing (hosted).
pub fn pages() -> Option<(Frame, Frame)> {
    crate::arch::vdso_pages()
}
