//! Module 2, memory management: page frames, address spaces, the page cache.
//!
//! [`frames`] is the buddy allocator behind hal's frames; [`AddressSpace`] is what a process's memory looks like (mappings, faults,
//! fork); [`PageCache`] holds the pages of one file or shared memory object; [`Source`] and [`Sink`] carry bytes between user or kernel
//! memory and files. May depend on `sched` and `hal`.
//!
//! Lock order (outermost first): `AddressSpace` mappings -> page cache -> page table -> frame allocator.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod address_space;
pub mod frames;
mod io;
mod mapping;
pub mod overcommit;
mod page_cache;
mod radix_tree;
pub mod userfault;

pub use address_space::{
    AddressSpace, CleanDirty, FaultError, Fill, Limits, MapRequest, PageState, Pages, Range, Residency, Usage,
};
pub use io::{FramePart, Sink, Source};
pub use mapping::{AccessOrder, Backing, Lock, Mappable, MappingInfo, MappingName, Prot};
pub use page_cache::{
    Figures as DirtyFigures, PageCache, Pager, Pattern, Room, drop_clean, figures as dirty_figures, shrink,
    start_read_ahead,
};
