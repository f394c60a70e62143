//! mremap(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use abi::general::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE};
use base::{Errno, Result};
use hal::paging::Batch;

use super::fault::Populate;
use super::layout::{LOWEST, Layout, Mapping, range_end};
use super::map::check_limits;
use super::userfault::tell;
use super::{AddressSpace, MapRequest, no_memory};
use crate::Lock;

/// Pages that are mapped: a page-aligned address and a length, perhaps 0, that ends in the user half.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First address.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl AddressSpace {
    /// mremap(2) with its flags: the new address. With `may_lock`, RLIMIT_MEMLOCK does not count. `EINVAL`, `EFAULT`, `ENOMEM`, `EAGAIN`.
    pub fn remap(&self, from: Range, new_len: usize, flags: u32, new: usize, may_lock: bool) -> Result<usize> {
        let Range { start: old, len: old_len } = from;
        let moves = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0;
        if !moves && new_len <= old_len {
            // Also a check that something is there.
            if self.layout.read().find(old).is_none() {
                return Err(Errno::EFAULT);
            }
            if new_len < old_len {
                self.unmap(old + new_len, old_len - new_len)?;
            }
            return Ok(old);
        }
        let (addr, grown_from, lock) = if moves {
            self.remap_to(from, new_len, flags, new, may_lock)?
        } else {
            self.remap_larger(from, new_len, flags, may_lock)?
        };
        if lock == Lock::Now && new_len > grown_from {
            let _ = self.populate(addr + grown_from, addr + new_len, Populate::Fully);
        }
        Ok(addr)
    }

    /// Grows in place, or moves to where there is room: the address, the length that was there before, and how the mapping is locked.
    fn remap_larger(&self, from: Range, new_len: usize, flags: u32, may_lock: bool) -> Result<(usize, usize, Lock)> {
        let mut layout = self.layout.write();
        let (start, mapping) = resized(&layout, from, new_len, false, may_lock)?;
        let (old, old_end) = (from.start, from.start + from.len);
        if from.len > 0 && old_end == mapping.end {
            let target = range_end(old, new_len).filter(|&end| layout.is_free(old_end, end));
            if let Some(end) = target {
                let mut tail = mapping.clone();
                tail.end = end;
                if let Some(found) = layout.mappings.remove(&start) {
                    layout.count(start, &found, false);
                }
                layout.insert(start, tail);
                return Ok((old, from.len, mapping.lock));
            }
        }
        if flags & MREMAP_MAYMOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        let target = layout.find_room(new_len, layout.map_base).ok_or(Errno::ENOMEM)?;
        self.move_to(&mut layout, start, &mapping, from, (target, new_len), false)?;
        tell(layout);
        Ok((target, from.len, mapping.lock))
    }

    /// Moves to `new` (MREMAP_FIXED) or anywhere, and with MREMAP_DONTUNMAP leaves an empty mapping behind: as [`AddressSpace::remap_larger`].
    fn remap_to(
        &self,
        from: Range,
        new_len: usize,
        flags: u32,
        new: usize,
        may_lock: bool,
    ) -> Result<(usize, usize, Lock)> {
        // The last reference to a file may go here, which may take locks of its own: after the lock of the mappings.
        let mut gone = Vec::new();
        let mut layout = self.layout.write();
        let moved = self.remap_locked(&mut layout, &mut gone, from, new_len, (flags, new), may_lock);
        // What was taken out before a failure is told as well.
        tell(layout);
        moved
    }

    fn remap_locked(
        &self,
        layout: &mut Layout,
        gone: &mut Vec<(usize, Mapping)>,
        mut from: Range,
        new_len: usize,
        (flags, new): (u32, usize),
        may_lock: bool,
    ) -> Result<(usize, usize, Lock)> {
        layout.find(from.start).ok_or(Errno::EFAULT)?;
        let fixed = flags & MREMAP_FIXED != 0;
        check_target(from, new_len, fixed, new)?;
        if layout.is_full() {
            return Err(Errno::ENOMEM);
        }
        if fixed {
            self.take_out(layout, gone, new, new + new_len)?;
        }
        if from.len > new_len {
            self.take_out(layout, gone, from.start + new_len, from.start + from.len)?;
            from.len = new_len;
        }
        let keep = flags & MREMAP_DONTUNMAP != 0;
        let (start, mapping) = resized(layout, from, new_len, keep, may_lock)?;
        let target = if fixed { new } else { layout.find_room(new_len, layout.map_base).ok_or(Errno::ENOMEM)? };
        self.move_to(layout, start, &mapping, from, (target, new_len), keep)?;
        Ok((target, from.len, mapping.lock))
    }

    fn take_out(&self, layout: &mut Layout, gone: &mut Vec<(usize, Mapping)>, start: usize, end: usize) -> Result<()> {
        let mut removed = layout.remove(start, end);
        if removed.is_empty() {
            return Ok(());
        }
        gone.append(&mut removed);
        self.zap(start, end)
    }

    /// Makes the mapping at the target, takes the pages over, and takes the old one out unless it is to be kept.
    fn move_to(
        &self,
        layout: &mut Layout,
        start: usize,
        mapping: &Mapping,
        from: Range,
        (target, new_len): (usize, usize),
        keep: bool,
    ) -> Result<()> {
        self.move_mapping(layout, start, mapping, (from.start, from.len), (target, new_len), keep)?;
        self.moved(layout, from, (target, target + new_len));
        if !keep && from.len > 0 {
            let rest = layout.remove(from.start, from.start + from.len);
            self.zap(from.start, from.start + from.len)?;
            drop(rest);
        }
        Ok(())
    }

    /// Makes the mapping at the target and takes the pages over.
    fn move_mapping(
        &self,
        layout: &mut Layout,
        start: usize,
        mapping: &Mapping,
        (old, len): (usize, usize),
        (target, new_len): (usize, usize),
        keep: bool,
    ) -> Result<()> {
        let mut moved = mapping.clone();
        let skipped = old - start;
        if let Some((_, first)) = &mut moved.cache {
            *first += (skipped / PAGE_SIZE) as u64;
        }
        if let crate::Backing::File { offset, .. } = &mut moved.backing {
            *offset += skipped as u64;
        }
        moved.end = target + new_len;
        moved.grows_down = false;
        layout.insert(target, moved);
        let mut batch = Batch::new();
        self.page_table.lock().relocate(old, target, len, &mut batch).map_err(no_memory)?;
        self.finish(&mut batch);
        if keep {
            layout.change(old, old + len, |m| m.lock = Lock::No);
        }
        Ok(())
    }
}

/// The mapping that is moved or grown, and its start, if it may be. `EINVAL`, `EFAULT`, `EAGAIN`, `ENOMEM`.
fn resized(layout: &Layout, from: Range, new_len: usize, keep: bool, may_lock: bool) -> Result<(usize, Mapping)> {
    let (start, mapping) = layout.find(from.start).ok_or(Errno::EFAULT)?;
    if from.len == 0 && !mapping.shared || keep && mapping.is_special() {
        return Err(Errno::EINVAL);
    }
    if from.len > mapping.end - from.start || new_len > from.len && mapping.is_special() {
        return Err(Errno::EFAULT);
    }
    // What stays behind is one more mapping.
    let more = if keep { new_len } else { new_len - from.len };
    if more > 0 {
        let mut request = MapRequest::anonymous(more, mapping.prot);
        (request.shared, request.no_reserve) = (mapping.shared, mapping.no_reserve);
        (request.lock, request.may_lock) = (mapping.lock, may_lock);
        check_limits(layout, &request)?;
    }
    Ok((start, mapping.clone()))
}

/// May the mapping go to `new`? `EINVAL`, `EPERM` (below mmap_min_addr).
fn check_target(from: Range, new_len: usize, fixed: bool, new: usize) -> Result<()> {
    // Linux looks at the address even where it means nothing but with MREMAP_FIXED.
    let end = range_end(new, new_len).filter(|_| new.is_multiple_of(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
    let old_end = from.start.saturating_add(from.len);
    if new < old_end && from.start < end {
        return Err(Errno::EINVAL);
    }
    if fixed && new < LOWEST { Err(Errno::EPERM) } else { Ok(()) }
}
