//! mmap(2), munmap(2) and brk(2).

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::user::USER_END;

use super::fault::Populate;
use super::layout::{LOWEST, Layout, Mapping, range_end};
use super::userfault::tell;
use super::{AddressSpace, MapRequest};
use crate::{Backing, Lock, MappingName, PageCache, Prot, overcommit};

/// MAP_32BIT gives addresses below.
const LOW_CEILING: usize = 1 << 31;

impl AddressSpace {
    /// mmap(2): the address. `ENOMEM`, `EEXIST`, `EINVAL`, `EPERM` (below mmap_min_addr), `EAGAIN` (locked), `EACCES`.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        let (populate, len) = (request.populate, request.len);
        let (addr, lock) = self.insert(request)?;
        if populate || lock == Lock::Now {
            // As on Linux, that not all could be brought in is no error.
            let _ = self.populate(addr, addr + len, Populate::Fully);
        }
        Ok(addr)
    }

    /// Where it went, and how it is locked.
    fn insert(&self, mut request: MapRequest) -> Result<(usize, Lock)> {
        let mut layout = self.layout.write();
        request.lock = match layout.future {
            Lock::OnFault => Lock::OnFault,
            future if request.lock == Lock::No => future,
            _ => request.lock,
        };
        let addr = place(&layout, &request)?;
        let end = range_end(addr, request.len).ok_or(Errno::ENOMEM)?;
        check_limits(&layout, &request)?;
        let cache = match (&request.backing, request.shared) {
            (Backing::File { file, offset }, _) => {
                if request.shared && request.prot.contains(Prot::WRITE) && !file.may_write() {
                    return Err(Errno::EACCES);
                }
                file.page_cache().map(|pages| (pages, offset / PAGE_SIZE as u64))
            }
            (Backing::Anonymous, true) => {
                let cache = PageCache::new();
                cache.resize(request.len as u64)?;
                Some((cache, 0))
            }
            (Backing::Anonymous, false) => None,
        };
        if let Some((cache, _)) = &cache {
            cache.add_mapper(&self.this);
        }
        if request.fixed && !layout.is_free(addr, end) {
            let removed = layout.remove(addr, end);
            self.zap(addr, end)?;
            drop(removed);
        }
        let lock = request.lock;
        layout.insert(addr, Mapping { cache, ..Mapping::new(end, request) });
        tell(layout);
        Ok((addr, lock))
    }

    /// munmap(2), of a page-aligned range. `EINVAL`, `ENOMEM`.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<()> {
        let end = range_end(addr, len).filter(|_| len > 0 && addr.is_multiple_of(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
        let (removed, layout) = {
            let mut layout = self.layout.write();
            // Taking out the middle of a mapping makes one more.
            let splits = layout.find(addr).is_some_and(|(start, mapping)| start < addr && mapping.end > end);
            if splits && layout.is_full() {
                return Err(Errno::ENOMEM);
            }
            let removed = layout.remove(addr, end);
            if !removed.is_empty() {
                self.zap(addr, end)?;
            }
            (removed, layout)
        };
        tell(layout);
        // The last reference to a file may go here, which may take locks of its own.
        drop(removed);
        Ok(())
    }

    /// Takes out all mappings, when the last thread leaves.
    pub fn clear(&self) {
        let removed = {
            let mut layout = self.layout.write();
            let _ = self.zap(0, USER_END);
            let removed = layout.remove(0, USER_END);
            // The end of a process is no news.
            layout.changes.forget();
            removed
        };
        drop(removed);
    }

    /// brk(2): the break after the call. With `may_lock`, RLIMIT_MEMLOCK does not count where the heap is locked.
    pub fn brk(&self, addr: usize, may_lock: bool) -> usize {
        let (at, from) = self.move_brk(addr, may_lock);
        if let Some(from) = from {
            let _ = self.populate(from, at.next_multiple_of(PAGE_SIZE), Populate::Fully);
        }
        at
    }

    /// The break after it, and from where on new memory is to be brought in.
    fn move_brk(&self, addr: usize, may_lock: bool) -> (usize, Option<usize>) {
        let mut layout = self.layout.write();
        let old = layout.brk;
        if addr < layout.brk_start || addr > USER_END {
            return (old, None);
        }
        let mut populate = None;
        let (from, to) = (old.next_multiple_of(PAGE_SIZE), addr.next_multiple_of(PAGE_SIZE));
        if to < from {
            layout.remove(to, from);
            if self.zap(to, from).is_err() {
                return (old, None);
            }
        } else if to > from {
            let data_limit = layout.limits.data;
            let fits = (addr - layout.brk_start) as u64 <= data_limit && layout.is_free(from, to + PAGE_SIZE);
            let mut request = MapRequest::anonymous(to - from, Prot::READ | Prot::WRITE);
            request.name = MappingName::Heap;
            (request.lock, request.may_lock) = (layout.future, may_lock);
            if !fits || check_limits(&layout, &request).is_err() {
                return (old, None);
            }
            populate = (request.lock == Lock::Now).then_some(from);
            layout.insert(from, Mapping::new(to, request));
        }
        layout.brk = addr;
        tell(layout);
        (addr, populate)
    }

    /// Where the heap starts, set by exec.
    pub fn set_brk_start(&self, addr: usize) {
        let mut layout = self.layout.write();
        layout.brk_start = addr;
        layout.brk = addr;
    }

    /// Where the heap starts and where the break is.
    pub fn brk_range(&self) -> (usize, usize) {
        let layout = self.layout.read();
        (layout.brk_start, layout.brk)
    }
}

/// Where the request goes.
fn place(layout: &Layout, request: &MapRequest) -> Result<usize> {
    if request.fixed || request.no_replace {
        if !request.addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let end = range_end(request.addr, request.len).ok_or(Errno::ENOMEM)?;
        if request.addr < LOWEST {
            return Err(Errno::EPERM);
        }
        if request.no_replace && !layout.is_free(request.addr, end) {
            return Err(Errno::EEXIST);
        }
        return Ok(request.addr);
    }
    let hint = request.addr & !(PAGE_SIZE - 1);
    if hint >= LOWEST && range_end(hint, request.len).is_some_and(|end| layout.is_free(hint, end)) {
        return Ok(hint);
    }
    let ceiling = if request.low { LOW_CEILING } else { layout.map_base };
    layout.find_room(request.len, ceiling).or_else(|| layout.find_room(request.len, USER_END)).ok_or(Errno::ENOMEM)
}

/// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, the number of mappings, and (overcommit mode 0) what can't possibly be there.
pub(super) fn check_limits(layout: &Layout, request: &MapRequest) -> Result<()> {
    if layout.is_full() {
        return Err(Errno::ENOMEM);
    }
    let after = |sum: usize| (sum as u64).saturating_add(request.len as u64);
    if request.lock.is_locked() && !request.may_lock && after(layout.locked) > layout.limits.locked {
        return Err(Errno::EAGAIN);
    }
    let is_data = !request.shared && request.prot.contains(Prot::WRITE) && !request.grows_down;
    if after(layout.total) > layout.limits.address_space || is_data && after(layout.data) > layout.limits.data {
        return Err(Errno::ENOMEM);
    }
    let promised = !request.shared && request.prot.contains(Prot::WRITE);
    if promised && overcommit::is_promised(request.no_reserve) {
        overcommit::check(request.len, layout.total)
    } else {
        Ok(())
    }
}
