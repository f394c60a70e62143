//! Page tables of user address spaces.
//!
//! A page-table entry owns a reference to its frame. Last-level tables (2 MiB each) are shared between parent and child after a
//! fork ([`Tables::share_with`]) and copied only when one of them changes something there, so fork costs one entry per 2 MiB.
//! What is unmapped is collected in a [`Batch`] and freed by [`PageTable::flush`] after every processor has forgotten it.

pub use crate::arch::page_table::{PageTable, Tables};

use alloc::vec::Vec;
use bitflags_lite::flags;

use crate::frame::Frame;

mod bitflags_lite {
    macro_rules! flags {
        ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $bit:ident = $value:expr;)* }) => {
            $(#[$meta])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
            pub struct $name(u16);

            impl $name {
                $($(#[$doc])* pub const $bit: $name = $name($value);)*

                /// Both sets together.
                #[must_use]
                pub const fn with(self, other: $name) -> $name {
                    $name(self.0 | other.0)
                }

                /// Without the bits of `other`.
                #[must_use]
                pub const fn without(self, other: $name) -> $name {
                    $name(self.0 & !other.0)
                }

                /// Is every bit of `other` set?
                pub const fn has(self, other: $name) -> bool {
                    self.0 & other.0 == other.0
                }
            }
        };
    }
    pub(super) use flags;
}

flags! {
    /// What an entry allows, and what the kernel remembers in it.
    MapFlags {
        /// Nothing: present in memory, but every access faults (PROT_NONE).
        NONE = 0;
        /// May be read.
        READ = 1;
        /// May be written.
        WRITE = 2;
        /// May be executed.
        EXEC = 4;
        /// Belongs to a shared mapping: stays writable over a fork.
        SHARED = 8;
        /// A page of a file (or shared memory), not anonymous.
        FILE = 16;
        /// Given back by queries: has been written since it was mapped.
        DIRTY = 32;
        /// Given back by queries: has been touched since it was last aged.
        ACCESSED = 64;
        /// Write-protected for whoever watches the page (userfaultfd): a mark that the processor does not see.
        GUARDED = 128;
        /// Not written since somebody asked to know (soft-dirty bits): write-protected, a mark that the processor does not see.
        UNCHANGED = 256;
        /// The page of zeros that all share: counts as nobody's memory.
        ZEROS = 512;
        /// With FILE: of memory that programs share, which is its own storage.
        SHMEM = 1024;
    }
}

/// An entry of a page table, as queries see it.
pub struct Mapped<'a> {
    /// The page's address.
    pub va: usize,
    /// What it allows. A page in a table that is shared since a fork may show as writable here.
    pub flags: MapFlags,
    /// Page tables that have this very entry, in a table that they share.
    pub holders: u32,
    pub(crate) frame: &'a dyn Fn() -> Frame,
}

impl Mapped<'_> {
    /// Another reference to the frame.
    pub fn frame(&self) -> Frame {
        (self.frame)()
    }
}

/// No frame for a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

/// Pages that were unmapped or changed, to be flushed from TLBs and then freed.
#[derive(Default)]
pub struct Batch {
    pub(crate) frames: Vec<Frame>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Anonymous pages taken out.
    pub anonymous: usize,
    /// File pages taken out, without those of shared memory.
    pub file: usize,
    /// Pages of shared memory taken out.
    pub shmem: usize,
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Batch {
        Batch { frames: Vec::new(), start: usize::MAX, end: 0, anonymous: 0, file: 0, shmem: 0 }
    }

    /// Counts a page that was taken out.
    #[cfg_attr(target_os = "none", expect(dead_code, reason = "hardware's entries are counted by their bits"))]
    pub(crate) fn count(&mut self, flags: MapFlags) {
        if flags.has(MapFlags::SHMEM) {
            self.shmem += 1;
        } else if flags.has(MapFlags::FILE) {
            self.file += 1;
        } else if !flags.has(MapFlags::ZEROS) {
            self.anonymous += 1;
        }
    }

    /// Notes that translations of `start..end` changed.
    pub fn touch(&mut self, start: usize, end: usize) {
        self.start = self.start.min(start);
        self.end = self.end.max(end);
    }

    /// Keeps a frame until after the flush.
    pub fn free_later(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// Is there nothing to flush?
    pub fn is_empty(&self) -> bool {
        self.start >= self.end && self.frames.is_empty()
    }

    /// Are so many frames waiting that it is time to flush?
    pub fn is_large(&self) -> bool {
        self.frames.len() >= 512
    }
}
