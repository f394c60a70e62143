//! mprotect(2), msync(2) and mincore(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use abi::general::{MS_ASYNC, MS_INVALIDATE, MS_SYNC};
use base::{Errno, Result};
use hal::paging::{Batch, MapFlags};

use super::fault::{awaits_write, flags_of, kept, writable_at_once};
use super::layout::{Layout, Mapping, range_end};
use super::{AddressSpace, no_memory};
use crate::{Backing, Prot, overcommit};

/// A page-aligned range; its length is rounded up. `EINVAL`, or `overflow` where it leaves the user half.
fn range(addr: usize, len: usize, overflow: Errno) -> Result<usize> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(overflow)?;
    range_end(addr, len).ok_or(overflow)
}

/// May `len` bytes of a mapping get this protection? Private memory that becomes writable is data (RLIMIT_DATA) and promised. `ENOMEM`.
fn may_become(layout: &Layout, mapping: &Mapping, len: usize, prot: Prot) -> Result<()> {
    if mapping.shared || !prot.contains(Prot::WRITE) || mapping.prot.contains(Prot::WRITE) {
        return Ok(());
    }
    if !mapping.grows_down && (layout.data + len) as u64 > layout.limits.data {
        return Err(Errno::ENOMEM);
    }
    if mapping.no_reserve { Ok(()) } else { overcommit::check(len, layout.total) }
}

impl AddressSpace {
    /// mprotect(2). `EINVAL`, `ENOMEM` (something in it is not mapped), `EACCES`.
    pub fn protect(&self, addr: usize, len: usize, prot: Prot) -> Result<()> {
        let end = range(addr, len, Errno::ENOMEM)?;
        let mut layout = self.layout.write();
        // As Linux, mapping by mapping: what comes before the first that can't be changed is changed.
        let mut result = Ok(());
        let mut at = addr;
        while at < end {
            let Some((_, mapping)) = layout.find(at) else {
                result = Err(Errno::ENOMEM);
                break;
            };
            let read_only_file = match &mapping.backing {
                Backing::File { file, .. } => mapping.shared && !file.may_write(),
                Backing::Anonymous => false,
            };
            if prot.contains(Prot::WRITE) && read_only_file {
                result = Err(Errno::EACCES);
                break;
            }
            if let Err(error) = may_become(&layout, mapping, mapping.end.min(end) - at, prot) {
                result = Err(error);
                break;
            }
            at = mapping.end;
        }
        let end = at.min(end);
        if addr == end {
            return result;
        }
        layout.change(addr, end, |mapping| mapping.prot = prot);
        let mut batch = Batch::new();
        for start in layout.starts_in(addr, end) {
            let Some(mapping) = layout.mappings.get(&start) else {
                continue;
            };
            let (from, to) = (start.max(addr), mapping.end.min(end));
            let (shared, private) = (flags_of(mapping, writable_at_once(mapping)), flags_of(mapping, false));
            let change = |old: MapFlags| {
                let keep_write = old.has(MapFlags::WRITE) && prot.contains(Prot::WRITE);
                let flags = if mapping.shared && !awaits_write(old) { shared } else { private };
                flags.with(kept(old)).with(if keep_write { MapFlags::WRITE } else { MapFlags::NONE })
            };
            self.page_table.protect(from, to, &mut batch, change).map_err(no_memory)?;
        }
        self.finish(&mut batch);
        result
    }

    /// Unmaps pages `first` to `last` of a cache wherever this address space maps them.
    pub(crate) fn unmap_cache(&self, cache: &crate::PageCache, first: u64, last: u64) {
        let layout = self.layout.read();
        for (&start, mapping) in &layout.mappings {
            let Some((mapped, index)) = &mapping.cache else {
                continue;
            };
            if !core::ptr::eq(&raw const **mapped, cache) {
                continue;
            }
            let pages = ((mapping.end - start) / PAGE_SIZE) as u64;
            let from = first.max(*index);
            let to = last.saturating_add(1).min(index + pages);
            if from < to {
                let va = |i: u64| start + (i - index) as usize * PAGE_SIZE;
                // Private copies go too: an access past the end gets SIGBUS. Without memory to do it, the pages stay as they are.
                let _ = self.zap(va(from), va(to));
            }
        }
    }

    /// Takes the right to write pages `first` to `last` of a cache away wherever this address space shares them: the next write faults.
    pub(crate) fn protect_cache(&self, cache: &crate::PageCache, first: u64, last: u64) {
        let layout = self.layout.read();
        let mut batch = Batch::new();
        for (&start, mapping) in layout.mappings.iter().filter(|(_, mapping)| mapping.shared) {
            let Some((mapped, index)) = &mapping.cache else {
                continue;
            };
            if !core::ptr::eq(&raw const **mapped, cache) {
                continue;
            }
            let pages = ((mapping.end - start) / PAGE_SIZE) as u64;
            let from = first.max(*index);
            let to = last.saturating_add(1).min(index + pages);
            if from < to {
                let va = |i: u64| start + (i - index) as usize * PAGE_SIZE;
                let flags = flags_of(mapping, false);
                // Without memory for a table that a fork shares, the old entry stays: the page is only written once too rarely.
                let _ = self.page_table.protect(va(from), va(to), &mut batch, |old| flags.with(kept(old)));
            }
        }
        self.finish(&mut batch);
    }

    /// msync(2). Memory and file are the same pages, so only MS_SYNC has something to do: to write them back. `EINVAL`, `ENOMEM`,
    /// `EBUSY`, `EIO`.
    pub fn sync(&self, addr: usize, len: usize, flags: u32) -> Result<()> {
        if flags & !(MS_ASYNC | MS_SYNC | MS_INVALIDATE) != 0 || flags & MS_ASYNC != 0 && flags & MS_SYNC != 0 {
            return Err(Errno::EINVAL);
        }
        let end = range(addr, len, Errno::ENOMEM)?;
        let layout = self.layout.read();
        let locked = |start: usize| layout.mappings.get(&start).is_some_and(|m| m.lock.is_locked());
        if flags & MS_INVALIDATE != 0 && layout.starts_in(addr, end).into_iter().any(locked) {
            return Err(Errno::EBUSY);
        }
        let mut files = Vec::new();
        if flags & MS_SYNC != 0 {
            for start in layout.starts_in(addr, end) {
                let Some(mapping) = layout.mappings.get(&start).filter(|m| m.shared) else { continue };
                if let Backing::File { file, offset } = &mapping.backing {
                    let from = offset + (start.max(addr) - start) as u64;
                    files.push((file.clone(), from, from + (mapping.end.min(end) - start.max(addr)) as u64));
                }
            }
        }
        let covered = layout.covers(addr, end);
        drop(layout);
        for (file, from, to) in files {
            file.sync(from, to)?;
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// mincore(2): for each page, is it in memory? `EINVAL`, `ENOMEM`.
    pub fn resident(&self, addr: usize, len: usize) -> Result<Vec<u8>> {
        let end = range(addr, len, Errno::ENOMEM)?;
        let layout = self.layout.read();
        if !layout.covers(addr, end) {
            return Err(Errno::ENOMEM);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve((end - addr) / PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        for page in (addr..end).step_by(PAGE_SIZE) {
            let mapped = self.page_table.lock().flags(page).is_some();
            let cached = layout.find(page).is_some_and(|(start, m)| {
                let index = |first: &u64| first + ((page - start) / PAGE_SIZE) as u64;
                m.cache.as_ref().is_some_and(|(cache, first)| cache.is_resident(index(first)))
            });
            bytes.push(u8::from(mapped || cached));
        }
        Ok(bytes)
    }
}
