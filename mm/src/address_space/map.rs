//! mmap(2), munmap(2) and brk(2).

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::user::USER_END;

use super::layout::{LOWEST, Layout, Mapping, range_end};
use super::userfault::unmapping;
use super::{AddressSpace, MapRequest};
use crate::userfault::Change;
use crate::{Backing, MappingName, PageCache, Prot};

/// Mappings at most (vm.max_map_count).
const MAX_MAPPINGS: usize = 65530;
/// MAP_32BIT gives addresses below.
const LOW_CEILING: usize = 1 << 31;

impl AddressSpace {
    /// mmap(2): the address. `ENOMEM`, `EEXIST`, `EINVAL`, `EPERM` (below mmap_min_addr), `EAGAIN` (locked), `EACCES`.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        let populate = request.populate || request.locked;
        let len = request.len;
        let (addr, changes) = self.map_locked(request)?;
        changes.into_iter().for_each(Change::tell);
        if populate {
            // As on Linux, that not all could be brought in is no error.
            let _ = self.populate(addr, addr + len, false);
        }
        Ok(addr)
    }

    fn map_locked(&self, request: MapRequest) -> Result<(usize, Vec<Change>)> {
        let mut layout = self.layout.write();
        let addr = place(&layout, &request)?;
        let end = range_end(addr, request.len).ok_or(Errno::ENOMEM)?;
        check_limits(&layout, &request)?;
        let cache = match (&request.backing, request.shared) {
            (Backing::File { file, offset }, _) => {
                if request.shared && request.prot.contains(Prot::WRITE) && !file.may_write() {
                    return Err(Errno::EACCES);
                }
                Some((file.page_cache(), offset / PAGE_SIZE as u64))
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
        let mut changes = Vec::new();
        if request.fixed && !layout.is_free(addr, end) {
            let removed = layout.remove(addr, end);
            changes = unmapping(&removed, addr, end);
            self.zap(addr, end)?;
            drop(removed);
        }
        layout.insert(
            addr,
            Mapping {
                end,
                prot: request.prot,
                shared: request.shared,
                grows_down: request.grows_down,
                locked: request.locked,
                not_inherited: false,
                wiped_on_fork: false,
                backing: request.backing,
                cache,
                name: request.name,
                watch: None,
            },
        );
        Ok((addr, changes))
    }

    /// munmap(2), of a page-aligned range. `EINVAL`, `ENOMEM`.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<()> {
        let end = range_end(addr, len).filter(|_| len > 0 && addr.is_multiple_of(PAGE_SIZE)).ok_or(Errno::EINVAL)?;
        let removed = {
            let mut layout = self.layout.write();
            if layout.mappings.len() >= MAX_MAPPINGS {
                return Err(Errno::ENOMEM);
            }
            let removed = layout.remove(addr, end);
            if !removed.is_empty() {
                self.zap(addr, end)?;
            }
            removed
        };
        let changes = unmapping(&removed, addr, end);
        // The last reference to a file may go here, which may take locks of its own.
        drop(removed);
        changes.into_iter().for_each(Change::tell);
        Ok(())
    }

    /// Takes out all mappings, when the last thread leaves.
    pub fn clear(&self) {
        let removed = {
            let mut layout = self.layout.write();
            let _ = self.zap(0, USER_END);
            layout.remove(0, USER_END)
        };
        drop(removed);
    }

    /// brk(2): the break after the call.
    pub fn brk(&self, addr: usize) -> usize {
        let mut layout = self.layout.write();
        let old = layout.brk;
        if addr < layout.brk_start || addr > USER_END {
            return old;
        }
        let (from, to) = (old.next_multiple_of(PAGE_SIZE), addr.next_multiple_of(PAGE_SIZE));
        if to < from {
            layout.remove(to, from);
            if self.zap(to, from).is_err() {
                return old;
            }
        } else if to > from {
            let data_limit = layout.limits.data;
            let fits = (addr - layout.brk_start) as u64 <= data_limit && layout.is_free(from, to + PAGE_SIZE);
            let mut request = MapRequest::anonymous(to - from, Prot::READ | Prot::WRITE);
            request.name = MappingName::Heap;
            if !fits || check_limits(&layout, &request).is_err() {
                return old;
            }
            layout.insert(
                from,
                Mapping {
                    end: to,
                    prot: Prot::READ | Prot::WRITE,
                    shared: false,
                    grows_down: false,
                    locked: false,
                    not_inherited: false,
                    wiped_on_fork: false,
                    backing: Backing::Anonymous,
                    cache: None,
                    name: MappingName::Heap,
                    watch: None,
                },
            );
        }
        layout.brk = addr;
        addr
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
    if layout.mappings.len() >= MAX_MAPPINGS {
        return Err(Errno::ENOMEM);
    }
    let after = |sum: usize| (sum as u64).saturating_add(request.len as u64);
    let is_data = !request.shared && request.prot.contains(Prot::WRITE) && !request.grows_down;
    if after(layout.total) > layout.limits.address_space || is_data && after(layout.data) > layout.limits.data {
        return Err(Errno::ENOMEM);
    }
    if request.locked && after(layout.locked) > layout.limits.locked {
        return Err(Errno::EAGAIN);
    }
    if is_data && !request.no_reserve && request.len as u64 > crate::frames::total_bytes() {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}
