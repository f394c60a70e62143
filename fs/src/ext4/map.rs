//! From a block of a file to a block of the disk, whichever way the inode keeps that.

use base::{Errno, Result};

use super::inode::{RawInode, flag};
use super::volume::Volume;

/// What is behind some blocks of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapped {
    /// The first block on the disk; `None` for a hole.
    pub(crate) block: Option<u64>,
    /// How many blocks follow each other so (at least one).
    pub(crate) len: u32,
    /// They are allocated but were never written: they read as zeros.
    pub(crate) unwritten: bool,
}

impl Mapped {
    pub(super) fn hole(len: u32) -> Mapped {
        Mapped { block: None, len, unwritten: false }
    }

    /// The block to read; `None` where there are only zeros.
    pub(crate) fn readable(&self) -> Option<u64> {
        self.block.filter(|_| !self.unwritten)
    }
}

impl Volume {
    /// What is behind block `at` of a file, and up to `max - 1` that follow. `EUCLEAN`, `EBADMSG`, `EIO`.
    pub(crate) fn map(&mut self, inode: &RawInode, at: u32, max: u32) -> Result<Mapped> {
        let found = if inode.has(flag::EXTENTS) {
            self.find_extent(inode, at, max.max(1))?
        } else {
            self.find_indirect(inode, at, max.max(1))?
        };
        match found.block {
            Some(block) if !self.sb.contains(block, u64::from(found.len)) => Err(Errno::EUCLEAN),
            _ => Ok(found),
        }
    }

    /// Makes `len` blocks of the disk from `block` on, which are taken, the file's from its block `at` on, where it has a hole. The
    /// caller puts the inode back. `ENOSPC`, `EFBIG`, `EIO`.
    pub(crate) fn insert(
        &mut self,
        inode: &mut RawInode,
        at: u32,
        block: u64,
        len: u32,
        unwritten: bool,
    ) -> Result<()> {
        inode.count_blocks(i64::from(len), self.sb.block_size);
        if inode.has(flag::EXTENTS) {
            return self.insert_extent(inode, at, block, len, unwritten);
        }
        (0..len).try_for_each(|i| self.insert_indirect(inode, at + i, block + u64::from(i)))
    }

    /// Frees the file's blocks from `first` to `last`, the last ones first, in steps that fit a transaction: true when all are gone. The
    /// caller puts the inode back.
    pub(crate) fn remove(&mut self, inode: &mut RawInode, first: u32, last: u32) -> Result<bool> {
        if inode.has(flag::EXTENTS) {
            self.remove_extents(inode, first, last)
        } else {
            self.remove_indirect(inode, first, last)
        }
    }

    /// The block of the disk behind a file's block that must be there (a directory's). `EUCLEAN`.
    pub(super) fn must_map(&mut self, inode: &RawInode, at: u32) -> Result<u64> {
        self.map(inode, at, 1)?.readable().ok_or(Errno::EUCLEAN)
    }

    /// Where a block at `at` of the file is best looked for: behind the one before it.
    pub(crate) fn goal(&mut self, inode: &RawInode, at: u32) -> u64 {
        let before = at.checked_sub(1).and_then(|before| self.map(inode, before, 1).ok()).and_then(|found| found.block);
        before.map_or_else(|| self.goal_for(inode.number), |block| block + 1)
    }
}
