//! Linux's binary interface for x86-64: constants and structures, from `linux-raw-sys` and, where it has none, from here.
#![no_std]

pub use linux_raw_sys::*;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: usize = 12;
