//! mremap(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use abi::general::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE};
use base::{Errno, Result};
use hal::paging::Batch;

use super::layout::{LOWEST, range_end};
use super::map::check_limits;
use super::userfault::unmapping;
use super::{AddressSpace, MapRequest, no_memory};
use crate::userfault::Change;

impl AddressSpace {
    /// mremap(2) with its flags: the new address. `EINVAL`, `EFAULT`, `ENOMEM`, `EAGAIN`.
    pub fn remap(&self, old: usize, old_len: usize, new_len: usize, flags: u32, new: usize) -> Result<usize> {
        let old_len = old_len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let new_len = new_len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        check_arguments(old, old_len, new_len, flags, new)?;
        let fixed = flags & MREMAP_FIXED != 0;
        let moves = fixed || flags & MREMAP_DONTUNMAP != 0;
        if !moves && new_len <= old_len && old_len > 0 {
            // Also a check that something is there.
            if self.layout.read().find(old).is_none() {
                return Err(Errno::EFAULT);
            }
            if new_len < old_len {
                self.unmap(old + new_len, old_len - new_len)?;
            }
            return Ok(old);
        }
        let result = self.remap_larger(old, old_len, new_len, flags, new)?;
        let (addr, grown_from, locked, changes) = result;
        changes.into_iter().for_each(Change::tell);
        if locked && new_len > grown_from {
            let _ = self.populate(addr + grown_from, addr + new_len, false);
        }
        Ok(addr)
    }

    /// Grows in place or moves: the address, the length that was there before, whether the mapping is locked, and what is to be told.
    fn remap_larger(
        &self,
        old: usize,
        old_len: usize,
        new_len: usize,
        flags: u32,
        new: usize,
    ) -> Result<(usize, usize, bool, Vec<Change>)> {
        let mut layout = self.layout.write();
        let (start, mapping) = layout.find(old).ok_or(Errno::EFAULT)?;
        let old_end = range_end(old, old_len).ok_or(Errno::EINVAL)?;
        if old_end > mapping.end {
            return Err(Errno::EFAULT);
        }
        let mapping = mapping.clone();
        let keep = flags & MREMAP_DONTUNMAP != 0;
        if old_len == 0 && !mapping.shared || keep && (mapping.shared || mapping.cache.is_some()) {
            return Err(Errno::EINVAL);
        }
        let mut request = MapRequest::anonymous(new_len.saturating_sub(old_len).max(PAGE_SIZE), mapping.prot);
        (request.shared, request.locked) = (mapping.shared, mapping.locked);
        if new_len > old_len {
            check_limits(&layout, &request)?;
        }
        let moves = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0;
        if !moves && old_len > 0 && old_end == mapping.end {
            let target = range_end(old, new_len).filter(|&end| layout.is_free(old_end, end));
            if let Some(end) = target {
                let mut tail = mapping.clone();
                tail.end = end;
                if let Some(found) = layout.mappings.remove(&start) {
                    layout.count(start, &found, false);
                }
                layout.insert(start, tail);
                return Ok((old, old_len, mapping.locked, Vec::new()));
            }
        }
        if flags & MREMAP_MAYMOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        let target = if flags & MREMAP_FIXED != 0 {
            new
        } else {
            layout.find_room(new_len, layout.map_base).ok_or(Errno::ENOMEM)?
        };
        let target_end = range_end(target, new_len).ok_or(Errno::ENOMEM)?;
        let replaced = layout.remove(target, target_end);
        let mut changes = unmapping(&replaced, target, target_end);
        if !replaced.is_empty() {
            self.zap(target, target_end)?;
        }
        self.move_mapping(&mut layout, start, &mapping, (old, old_len.min(new_len)), (target, new_len), keep)?;
        changes.extend(self.moving(&mut layout, (old, old_len), (target, target_end)));
        if !keep && old_len > 0 {
            let rest = layout.remove(old, old_end);
            changes.extend(unmapping(&rest, old, old_end));
            self.zap(old, old_end)?;
            drop(rest);
        }
        drop(replaced);
        Ok((target, old_len.min(new_len), mapping.locked, changes))
    }

    /// Makes the mapping at the target and takes the pages over.
    fn move_mapping(
        &self,
        layout: &mut super::Layout,
        start: usize,
        mapping: &super::layout::Mapping,
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
            layout.change(old, old + len, |m| m.locked = false);
        }
        Ok(())
    }
}

/// The checks that need no look at what is mapped.
fn check_arguments(old: usize, old_len: usize, new_len: usize, flags: u32, new: usize) -> Result<()> {
    let known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    if flags & !known != 0 || !old.is_multiple_of(PAGE_SIZE) || new_len == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 && flags & MREMAP_MAYMOVE == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MREMAP_DONTUNMAP != 0 && old_len != new_len {
        return Err(Errno::EINVAL);
    }
    if flags & MREMAP_FIXED != 0 {
        let end = range_end(new, new_len).filter(|_| new.is_multiple_of(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
        let old_end = range_end(old, old_len).ok_or(Errno::EINVAL)?;
        if new < old_end && old < end {
            return Err(Errno::EINVAL);
        }
        if new < LOWEST {
            return Err(Errno::EPERM);
        }
    }
    Ok(())
}
