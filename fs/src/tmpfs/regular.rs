//! Regular files of tmpfs, and memfds with their seals.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use mm::PageCache;

use crate::tmpfs::InodeSlot;
use crate::xattr::{XattrStore, Xattrs};
use crate::{Inode, InodeOps, SetAttributes};

/// Seals, in the bits of fcntl(F_ADD_SEALS).
#[allow(missing_docs, reason = "fcntl(2) documents each")]
pub mod seal {
    pub const SEAL: u32 = 1;
    pub const SHRINK: u32 = 2;
    pub const GROW: u32 = 4;
    pub const WRITE: u32 = 8;
    pub const FUTURE_WRITE: u32 = 16;
    pub const EXEC: u32 = 32;
    pub const ALL: u32 = 63;
}

const PAGE: u64 = abi::PAGE_SIZE as u64;

/// A regular file.
pub struct Regular {
    cache: Arc<PageCache>,
    seals: AtomicU32,
    xattrs: Xattrs,
    /// None for memfds, which no instance limits.
    slot: Option<InodeSlot>,
}

impl Regular {
    pub(crate) fn new(slot: Option<InodeSlot>) -> Regular {
        Regular {
            cache: match &slot {
                Some(slot) => PageCache::within(slot.0.clone()),
                None => PageCache::new(),
            },
            // Only memfd_create(MFD_ALLOW_SEALING) leaves room for seals.
            seals: AtomicU32::new(seal::SEAL),
            xattrs: Xattrs::default(),
            slot,
        }
    }

    /// A memfd with these seals from the start.
    pub(crate) fn memfd(seals: u32) -> Regular {
        let file = Regular::new(None);
        file.seals.store(seals, Ordering::Relaxed);
        file
    }

    /// The seals (F_GET_SEALS).
    pub fn seals(&self) -> u32 {
        self.seals.load(Ordering::Acquire)
    }

    /// Adds seals (F_ADD_SEALS); that a file stays executable seals what it holds. `EPERM` once F_SEAL_SEAL is set, `EINVAL`, `EBUSY` for F_SEAL_WRITE while it is mapped for writing.
    pub fn add_seals(&self, inode: &Inode, seals: u32) -> Result<()> {
        if seals & !seal::ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let _held = inode.content.lock();
        if self.seals() & seal::SEAL != 0 {
            return Err(Errno::EPERM);
        }
        let stays_executable = seals & seal::EXEC != 0 && inode.mode() & 0o111 != 0;
        let content = seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE;
        let seals = if stays_executable { seals | content } else { seals };
        let mapped = inode.writable_mappings.load(Ordering::Acquire) != 0;
        if seals & seal::WRITE != 0 && self.seals() & seal::WRITE == 0 && mapped {
            return Err(Errno::EBUSY);
        }
        self.seals.fetch_or(seals, Ordering::AcqRel);
        Ok(())
    }

    /// May a shared mapping become writable (`may`), if it is so from the start (`now`)? `EPERM` where that is sealed.
    pub fn may_map_shared(&self, may: bool, now: bool) -> Result<bool> {
        if self.seals() & (seal::WRITE | seal::FUTURE_WRITE) == 0 {
            return Ok(may);
        }
        if now { Err(Errno::EPERM) } else { Ok(false) }
    }

    /// Sees to it that a range has pages. `EPERM` (it may not grow), `ENOSPC`, `ENOMEM`.
    fn allocate_pages(&self, inode: &Inode, offset: u64, end: u64, keep_size: bool) -> Result<()> {
        let grows = end > self.cache.size();
        if grows && self.seals() & seal::GROW != 0 {
            return Err(Errno::EPERM);
        }
        if let Some(slot) = &self.slot
            && self.room(offset, end, slot.0.free())? < end
        {
            return Err(Errno::ENOSPC);
        }
        if grows && !keep_size {
            inode.ops().may_resize(inode, end)?;
            self.cache.resize(end)?;
        }
        for index in offset / PAGE..end.min(self.cache.size()).div_ceil(PAGE) {
            self.cache.allocate(index)?;
            sched::preempt_point();
        }
        Ok(())
    }

    /// The byte up to which `offset..end` can be written with `free` pages left. Holes and bytes past the end need a page each.
    fn room(&self, offset: u64, end: u64, free: u64) -> Result<u64> {
        if end.div_ceil(PAGE) - offset / PAGE <= free {
            return Ok(end);
        }
        let mut left = free;
        for index in offset / PAGE..end.div_ceil(PAGE) {
            if self.cache.page(index, false)?.is_some() {
                continue;
            }
            if left == 0 {
                let reach = (index * PAGE).max(offset);
                return if reach == offset { Err(Errno::ENOSPC) } else { Ok(reach) };
            }
            left -= 1;
        }
        Ok(end)
    }
}

impl InodeOps for Regular {
    fn set_attributes(&self, inode: &Inode, change: &SetAttributes) -> Result<()> {
        let executable = |mode: u32| mode & 0o111;
        let changes = change.mode.is_some_and(|mode| executable(mode) != executable(inode.mode()));
        if changes && self.seals() & seal::EXEC != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        Some(&self.cache)
    }

    fn reserve(&self, _inode: &Inode, offset: u64, end: u64) -> Result<u64> {
        let seals = self.seals();
        let grows = end > self.cache.size() && seals & seal::GROW != 0;
        if grows || seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        match &self.slot {
            Some(slot) if end > offset => self.room(offset, end, slot.0.free()),
            _ => Ok(end),
        }
    }

    fn may_resize(&self, _inode: &Inode, size: u64) -> Result<()> {
        let (seals, old) = (self.seals(), self.cache.size());
        let sealed = size < old && seals & seal::SHRINK != 0 || size > old && seals & seal::GROW != 0;
        if sealed { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn allocate(&self, inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        let end = offset + len;
        match mode {
            0 | KEEP_SIZE => self.allocate_pages(inode, offset, end, mode == KEEP_SIZE),
            _ if mode != PUNCH_HOLE | KEEP_SIZE => Err(Errno::EOPNOTSUPP),
            _ if self.seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0 => Err(Errno::EPERM),
            _ => self.cache.punch_hole(offset, end.min(self.cache.size().max(offset))),
        }
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(&self.xattrs)
    }
}
