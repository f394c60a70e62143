//! mprotect(2), madvise(2), mlock(2), msync(2) and mincore(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use abi::general::{
    MADV_COLD, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE,
    MADV_KEEPONFORK, MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ,
    MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL, MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK,
    MS_ASYNC, MS_INVALIDATE, MS_SYNC,
};
use base::{Errno, Result};
use hal::paging::{Batch, MapFlags};

use super::fault::{flags_of, kept, writable_at_once};
use super::layout::range_end;
use super::{AddressSpace, FaultError, no_memory};
use crate::userfault::Change;
use crate::{Backing, Prot};

/// A page-aligned range; its length is rounded up. `EINVAL`, or `overflow` where it leaves the user half.
fn range(addr: usize, len: usize, overflow: Errno) -> Result<usize> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(overflow)?;
    range_end(addr, len).ok_or(overflow)
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
                let flags = if mapping.shared && !old.has(MapFlags::GUARDED) { shared } else { private };
                flags.with(kept(old)).with(if keep_write { MapFlags::WRITE } else { MapFlags::NONE })
            };
            self.page_table.lock().protect(from, to, &mut batch, change).map_err(no_memory)?;
        }
        self.finish(&mut batch);
        result
    }

    /// madvise(2). `EINVAL`, `ENOMEM`, `EACCES`, `EFAULT`.
    pub fn advise(&self, addr: usize, len: usize, advice: u32) -> Result<()> {
        let end = range(addr, len, Errno::EINVAL)?;
        if !is_advice(advice) {
            return Err(Errno::EINVAL);
        }
        if addr == end {
            return Ok(());
        }
        if matches!(advice, MADV_DONTNEED | MADV_FREE | MADV_REMOVE) {
            self.removing(addr, end).into_iter().for_each(Change::tell);
        }
        match advice {
            MADV_DONTNEED | MADV_FREE => self.discard(addr, end, advice)?,
            MADV_REMOVE => self.remove_backing(addr, end)?,
            MADV_POPULATE_READ | MADV_POPULATE_WRITE => {
                let populated = self.populate(addr, end, advice == MADV_POPULATE_WRITE);
                return populated.map_err(|error| match error {
                    FaultError::NotMapped | FaultError::NoMemory => Errno::ENOMEM,
                    FaultError::Denied => Errno::EINVAL,
                    FaultError::Bus => Errno::EFAULT,
                    FaultError::Interrupted => Errno::EINTR,
                });
            }
            MADV_DONTFORK | MADV_DOFORK => {
                self.layout.write().change(addr, end, |m| m.not_inherited = advice == MADV_DONTFORK);
            }
            MADV_WIPEONFORK | MADV_KEEPONFORK => {
                let mut layout = self.layout.write();
                let private =
                    |start: usize| layout.mappings.get(&start).is_some_and(|m| m.cache.is_none() && !m.shared);
                if advice == MADV_WIPEONFORK && !layout.starts_in(addr, end).into_iter().all(private) {
                    return Err(Errno::EINVAL);
                }
                layout.change(addr, end, |m| m.wiped_on_fork = advice == MADV_WIPEONFORK);
            }
            // Hints that nothing here acts on.
            _ => {}
        }
        if self.layout.read().covers(addr, end) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Drops the pages of a range: private ones read as zeros or as the file again.
    fn discard(&self, addr: usize, end: usize, advice: u32) -> Result<()> {
        let layout = self.layout.read();
        let starts = layout.starts_in(addr, end);
        for &start in &starts {
            let Some(mapping) = layout.mappings.get(&start) else {
                continue;
            };
            if mapping.locked || advice == MADV_FREE && (mapping.cache.is_some() || mapping.shared) {
                return Err(Errno::EINVAL);
            }
            self.zap(start.max(addr), mapping.end.min(end))?;
        }
        Ok(())
    }

    /// Punches holes into what shared mappings of the range show.
    fn remove_backing(&self, addr: usize, end: usize) -> Result<()> {
        let mut holes = Vec::new();
        {
            let layout = self.layout.read();
            for start in layout.starts_in(addr, end) {
                let Some(mapping) = layout.mappings.get(&start) else {
                    continue;
                };
                let Some((cache, first)) = mapping.cache.as_ref().filter(|_| mapping.shared && !mapping.locked) else {
                    return Err(Errno::EINVAL);
                };
                if !mapping.prot.contains(Prot::WRITE) {
                    return Err(Errno::EACCES);
                }
                let base = first * PAGE_SIZE as u64;
                let (from, to) = (start.max(addr) - start, mapping.end.min(end) - start);
                holes.push((cache.clone(), base + from as u64, base + to as u64));
            }
        }
        // Without the lock: the cache will come back to us to unmap.
        holes.into_iter().try_for_each(|(cache, from, to)| cache.punch_hole(from, to))
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
                let _ = self.page_table.lock().protect(va(from), va(to), &mut batch, |old| flags.with(kept(old)));
            }
        }
        self.finish(&mut batch);
    }

    /// mlock(2) and munlock(2). `ENOMEM`, `EAGAIN`, `EINVAL`.
    pub fn lock(&self, addr: usize, len: usize, lock: bool) -> Result<()> {
        let start = addr & !(PAGE_SIZE - 1);
        let len = len.checked_add(addr - start).ok_or(Errno::EINVAL)?;
        let end = range(start, len, Errno::EINVAL)?;
        {
            let mut layout = self.layout.write();
            if lock && (layout.locked + (end - start)) as u64 > layout.limits.locked {
                return Err(Errno::ENOMEM);
            }
            if !layout.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            layout.change(start, end, |m| m.locked = lock);
        }
        if lock {
            self.populate(start, end, false).map_err(|_| Errno::ENOMEM)?;
        }
        Ok(())
    }

    /// mlockall(MCL_CURRENT) and munlockall(2). `ENOMEM`.
    pub fn lock_all(&self, lock: bool) -> Result<()> {
        let ranges: Vec<(usize, usize)> = {
            let mut layout = self.layout.write();
            if lock && layout.total as u64 > layout.limits.locked {
                return Err(Errno::ENOMEM);
            }
            layout.change(0, hal::user::USER_END, |m| m.locked = lock);
            layout.mappings.iter().map(|(&s, m)| (s, m.end)).collect()
        };
        if lock {
            for (start, end) in ranges {
                // What can't be brought in (no access, past a file's end) is left, as on Linux.
                let _ = self.populate(start, end, false);
            }
        }
        Ok(())
    }

    /// msync(2). Memory and file are the same pages, so only MS_SYNC has something to do: to write them back. `EINVAL`, `ENOMEM`,
    /// `EBUSY`, `EIO`.
    pub fn sync(&self, addr: usize, len: usize, flags: u32) -> Result<()> {
        if flags & !(MS_ASYNC | MS_SYNC | MS_INVALIDATE) != 0 || flags & MS_ASYNC != 0 && flags & MS_SYNC != 0 {
            return Err(Errno::EINVAL);
        }
        let end = range(addr, len, Errno::ENOMEM)?;
        let layout = self.layout.read();
        let locked = |start: usize| layout.mappings.get(&start).is_some_and(|m| m.locked);
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
                m.cache.as_ref().is_some_and(|(cache, first)| matches!(cache.page(index(first), false), Ok(Some(_))))
            });
            bytes.push(u8::from(mapped || cached));
        }
        Ok(bytes)
    }
}

/// The advice that Linux knows and that means something without KSM, hwpoison and soft-offline.
fn is_advice(advice: u32) -> bool {
    matches!(
        advice,
        MADV_NORMAL
            | MADV_RANDOM
            | MADV_SEQUENTIAL
            | MADV_WILLNEED
            | MADV_DONTNEED
            | MADV_FREE
            | MADV_REMOVE
            | MADV_DONTFORK
            | MADV_DOFORK
            | MADV_MERGEABLE
            | MADV_UNMERGEABLE
            | MADV_HUGEPAGE
            | MADV_NOHUGEPAGE
            | MADV_DONTDUMP
            | MADV_DODUMP
            | MADV_WIPEONFORK
            | MADV_KEEPONFORK
            | MADV_COLD
            | MADV_PAGEOUT
            | MADV_POPULATE_READ
            | MADV_POPULATE_WRITE
    )
}
