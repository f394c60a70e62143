//! madvise(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use abi::general::{
    MADV_COLD, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE,
    MADV_HUGEPAGE, MADV_KEEPONFORK, MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ,
    MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL, MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK,
};
use base::{Errno, Result};

use super::fault::Populate;
use super::layout::{Mapping, range_end};
use super::{AddressSpace, FaultError};
use crate::{AccessOrder, Backing, Prot};

impl AddressSpace {
    /// madvise(2). As on Linux, mapping by mapping, up to the first that the advice can't be for; holes are told at the end. `EINVAL`,
    /// `ENOMEM`, `EACCES`, `EFAULT`.
    pub fn advise(&self, addr: usize, len: usize, advice: u32) -> Result<()> {
        if !is_advice(advice) || !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if addr == end {
            return Ok(());
        }
        range_end(addr, len).ok_or(Errno::ENOMEM)?;
        if matches!(advice, MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE | MADV_REMOVE) {
            self.removing(addr, end).tell();
        }
        match advice {
            MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE => self.discard(addr, end, advice)?,
            MADV_REMOVE => self.remove_backing(addr, end)?,
            MADV_POPULATE_READ | MADV_POPULATE_WRITE => {
                let access = if advice == MADV_POPULATE_WRITE { Populate::Write } else { Populate::Read };
                let populated = self.populate(addr, end, access);
                return populated.map_err(|error| match error {
                    FaultError::NotMapped | FaultError::NoMemory => Errno::ENOMEM,
                    FaultError::Denied => Errno::EINVAL,
                    FaultError::Bus => Errno::EFAULT,
                    FaultError::Interrupted => Errno::EINTR,
                });
            }
            MADV_COLD | MADV_PAGEOUT => self.refuse_locked(addr, end)?,
            // Hints that nothing here acts on.
            MADV_WILLNEED | MADV_MERGEABLE | MADV_UNMERGEABLE | MADV_HUGEPAGE | MADV_NOHUGEPAGE => {}
            _ => self.mark(addr, end, advice)?,
        }
        if self.layout.read().covers(addr, end) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Notes the advice in the mappings of a range.
    fn mark(&self, addr: usize, end: usize, advice: u32) -> Result<()> {
        let mut layout = self.layout.write();
        for start in layout.starts_in(addr, end) {
            let Some((at, mapping)) = layout.find(start.max(addr)) else { continue };
            check_mark(mapping, advice)?;
            let (from, to) = (at.max(addr), mapping.end.min(end));
            layout.change(from, to, |mapping| match advice {
                MADV_NORMAL => mapping.order = AccessOrder::Normal,
                MADV_RANDOM => mapping.order = AccessOrder::Random,
                MADV_SEQUENTIAL => mapping.order = AccessOrder::Sequential,
                MADV_DONTFORK | MADV_DOFORK => mapping.not_inherited = advice == MADV_DONTFORK,
                MADV_WIPEONFORK | MADV_KEEPONFORK => mapping.wiped_on_fork = advice == MADV_WIPEONFORK,
                _ => mapping.not_dumped = advice == MADV_DONTDUMP,
            });
        }
        Ok(())
    }

    /// `EINVAL` where a mapping of the range is locked.
    fn refuse_locked(&self, addr: usize, end: usize) -> Result<()> {
        let layout = self.layout.read();
        let locked = |start: usize| layout.mappings.get(&start).is_some_and(|m| m.lock.is_locked());
        if layout.starts_in(addr, end).into_iter().any(locked) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Drops the pages of a range: private ones read as zeros or as the file again.
    fn discard(&self, addr: usize, end: usize, advice: u32) -> Result<()> {
        let layout = self.layout.read();
        for start in layout.starts_in(addr, end) {
            let Some(mapping) = layout.mappings.get(&start) else {
                continue;
            };
            let locked = mapping.lock.is_locked() && advice != MADV_DONTNEED_LOCKED;
            if locked || advice == MADV_FREE && (mapping.cache.is_some() || mapping.shared) {
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
                let Some((cache, first)) = mapping.cache.as_ref().filter(|_| !mapping.lock.is_locked()) else {
                    return Err(Errno::EINVAL);
                };
                if !mapping.shared || !mapping.prot.contains(Prot::WRITE) {
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
}

/// May a mapping be marked so? `EINVAL`.
fn check_mark(mapping: &Mapping, advice: u32) -> Result<()> {
    let wrong = match advice {
        MADV_WIPEONFORK => mapping.shared || matches!(mapping.backing, Backing::File { .. }),
        MADV_DOFORK | MADV_DODUMP => mapping.is_special(),
        _ => false,
    };
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The advice that Linux knows and that means something without huge pages of its choice, hwpoison and soft-offline.
fn is_advice(advice: u32) -> bool {
    matches!(
        advice,
        MADV_NORMAL
            | MADV_RANDOM
            | MADV_SEQUENTIAL
            | MADV_WILLNEED
            | MADV_DONTNEED
            | MADV_DONTNEED_LOCKED
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
