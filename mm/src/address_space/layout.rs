//! The set of mappings of an address space, without its page table: pure bookkeeping.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Bound;
use core::sync::atomic::Ordering;

use abi::PAGE_SIZE;
use hal::user::USER_END;

use super::{Limits, MapRequest};
use crate::overcommit::{self, Promise};
use crate::userfault::{Changes, Watch};
use crate::{AccessOrder, Backing, Lock, MappingInfo, MappingName, PageCache, Prot};

/// Nothing is mapped below (vm.mmap_min_addr).
pub(crate) const LOWEST: usize = 0x1_0000;
/// Pages that stay free below a mapping that grows down.
pub(super) const STACK_GAP: usize = 256 * PAGE_SIZE;

/// One mapping.
#[derive(Clone)]
pub(super) struct Mapping {
    pub(super) end: usize,
    pub(super) prot: Prot,
    pub(super) shared: bool,
    pub(super) grows_down: bool,
    pub(super) lock: Lock,
    /// MADV_DONTFORK.
    pub(super) not_inherited: bool,
    /// MADV_WIPEONFORK.
    pub(super) wiped_on_fork: bool,
    /// MADV_DONTDUMP.
    pub(super) not_dumped: bool,
    /// What madvise(2) said of the order of accesses.
    pub(super) order: AccessOrder,
    /// Not counted as memory that was promised, MAP_NORESERVE.
    pub(super) no_reserve: bool,
    pub(super) backing: Backing,
    /// The pages behind a file mapping or shared memory, and the index of the first.
    pub(super) cache: Option<(Arc<PageCache>, u64)>,
    pub(super) name: MappingName,
    /// Who resolves faults in it.
    pub(super) watch: Option<Watch>,
    /// It is new, or part of it, since somebody asked what changes: all its pages count as changed.
    pub(super) changed: bool,
}

impl Mapping {
    /// What a request makes, up to `end`; without its cache.
    pub(super) fn new(end: usize, request: MapRequest) -> Mapping {
        Mapping {
            end,
            prot: request.prot,
            shared: request.shared,
            grows_down: request.grows_down,
            lock: request.lock,
            not_inherited: false,
            wiped_on_fork: false,
            not_dumped: false,
            order: AccessOrder::Normal,
            no_reserve: !overcommit::is_promised(request.no_reserve),
            backing: request.backing,
            cache: None,
            name: request.name,
            watch: None,
            changed: true,
        }
    }

    /// The part from `offset` bytes on.
    fn advanced(&self, offset: usize) -> Mapping {
        let mut part = self.clone();
        if let Some((_, index)) = &mut part.cache {
            *index += (offset / PAGE_SIZE) as u64;
        }
        if let Backing::File { offset: at, .. } = &mut part.backing {
            *at += offset as u64;
        }
        part
    }

    /// Are its pages memory that is its own storage: shared memory, or files in memory?
    pub(super) fn is_shmem(&self) -> bool {
        self.cache.as_ref().is_some_and(|(cache, _)| !cache.is_paged())
    }

    /// One of the kernel's own pages, which are never locked and can't be dumped at will.
    pub(super) fn is_special(&self) -> bool {
        matches!(self.name, MappingName::Vdso | MappingName::Vvar)
    }

    /// Bytes of memory promised to a mapping of `len` bytes: what may have to be there one day and nothing else backs. Shared memory
    /// counts where it is made.
    fn promised(&self, len: usize) -> usize {
        if self.shared || self.no_reserve || !self.prot.contains(Prot::WRITE) { 0 } else { len }
    }

    /// Private, writable and no stack: what RLIMIT_DATA counts.
    pub(super) fn is_data(&self) -> bool {
        !self.shared && self.prot.contains(Prot::WRITE) && !self.grows_down
    }

    /// Could `next`, which starts where this ends, be one mapping with it? `len` is this one's length.
    fn continues_into(&self, len: usize, next: &Mapping) -> bool {
        let same_pages = match (&self.cache, &next.cache) {
            (None, None) => true,
            (Some((a, i)), Some((b, j))) => Arc::ptr_eq(a, b) && i + (len / PAGE_SIZE) as u64 == *j,
            _ => false,
        };
        let same_backing = match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::File { file: a, .. }, Backing::File { file: b, .. }) => {
                core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
            }
            _ => false,
        };
        same_pages
            && same_backing
            && self.prot == next.prot
            && self.shared == next.shared
            && self.lock == next.lock
            && self.name == next.name
            && !self.grows_down
            && !next.grows_down
            && self.not_inherited == next.not_inherited
            && self.wiped_on_fork == next.wiped_on_fork
            && self.not_dumped == next.not_dumped
            && self.order == next.order
            && self.no_reserve == next.no_reserve
            && Watch::same(&self.watch, &next.watch)
    }
}

/// All mappings, by start address, and the sums that limits are about.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) mappings: BTreeMap<usize, Mapping>,
    pub(super) limits: Limits,
    pub(super) map_base: usize,
    /// Room is looked for below this first.
    pub(super) hint: usize,
    pub(super) brk_start: usize,
    pub(super) brk: usize,
    /// Bytes.
    pub(super) total: usize,
    pub(super) peak_total: usize,
    pub(super) data: usize,
    pub(super) locked: usize,
    pub(super) promised: Promise,
    /// How new mappings are locked: mlockall(MCL_FUTURE).
    pub(super) future: Lock,
    /// What those who watch mappings are to be told when the lock is let go of ([`super::userfault::tell`]).
    pub(super) changes: Changes,
}

impl Layout {
    pub(super) fn new() -> Layout {
        let none = u64::MAX;
        Layout {
            mappings: BTreeMap::new(),
            limits: Limits { address_space: none, data: none, stack: none, locked: none },
            map_base: 0x7fff_f7ff_f000,
            hint: 0x7fff_f7ff_f000,
            brk_start: 0,
            brk: 0,
            total: 0,
            peak_total: 0,
            data: 0,
            locked: 0,
            promised: Promise::default(),
            future: Lock::No,
            changes: Changes::default(),
        }
    }

    /// Are there as many mappings as there may be (vm.max_map_count)?
    pub(super) fn is_full(&self) -> bool {
        self.mappings.len() as u64 >= overcommit::MAX_MAPPINGS.load(Ordering::Relaxed)
    }

    /// The mapping that holds `addr`.
    #[inline]
    pub(super) fn find(&self, addr: usize) -> Option<(usize, &Mapping)> {
        let (&start, mapping) = self.mappings.range(..=addr).next_back()?;
        (addr < mapping.end).then_some((start, mapping))
    }

    /// The first mapping that ends above `addr`.
    pub(super) fn find_from(&self, addr: usize) -> Option<(usize, &Mapping)> {
        if let found @ Some(_) = self.find(addr) {
            return found;
        }
        self.mappings.range(addr..).next().map(|(&start, m)| (start, m))
    }

    /// Is nothing mapped in `start..end`?
    pub(super) fn is_free(&self, start: usize, end: usize) -> bool {
        self.find_from(start).is_none_or(|(s, _)| s >= end)
    }

    /// The starts of the mappings that touch `start..end`.
    pub(super) fn starts_in(&self, start: usize, end: usize) -> alloc::vec::Vec<usize> {
        let first = self.find(start).map_or(start, |(s, _)| s);
        self.mappings.range((Bound::Included(first), Bound::Excluded(end.max(first)))).map(|(&s, _)| s).collect()
    }

    /// Is every page of `start..end` mapped?
    pub(super) fn covers(&self, start: usize, end: usize) -> bool {
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some((_, mapping)) => at = mapping.end,
                None => return false,
            }
        }
        true
    }

    /// The highest free `len` bytes below the base of mappings, keeping the gap below stacks.
    pub(super) fn find_room(&self, len: usize, ceiling: usize) -> Option<usize> {
        if self.hint <= ceiling
            && let Some(start) = self.hint.checked_sub(len).filter(|&s| s >= LOWEST)
            && self.is_free_with_gap(start, self.hint)
        {
            return Some(start);
        }
        let mut end = ceiling;
        loop {
            let start = end.checked_sub(len).filter(|&s| s >= LOWEST)?;
            // The lowest mapping that would be in the way decides where to look next.
            match self.mappings.range(..end).next_back() {
                Some((&s, m)) if m.end > start => end = s,
                _ => match self.find_from(end) {
                    Some((s, m)) if m.grows_down && s - end < STACK_GAP => end = s.checked_sub(STACK_GAP)?,
                    _ => return Some(start),
                },
            }
        }
    }

    fn is_free_with_gap(&self, start: usize, end: usize) -> bool {
        self.find_from(start).is_none_or(|(s, m)| s >= end && (!m.grows_down || s - end >= STACK_GAP))
    }

    /// Puts a mapping in, where nothing is, and merges it with its neighbours.
    pub(super) fn insert(&mut self, start: usize, mapping: Mapping) {
        self.count(start, &mapping, true);
        let end = mapping.end;
        self.mappings.insert(start, mapping);
        self.merge_at(end);
        self.merge_at(start);
        if end == self.hint || start < self.hint && end > self.hint {
            self.hint = start;
        }
    }

    /// Merges the mapping that ends at `at` with the one that starts there, if they can be one.
    pub(super) fn merge_at(&mut self, at: usize) {
        let Some((&left_start, left)) = self.mappings.range(..at).next_back() else {
            return;
        };
        if left.end != at {
            return;
        }
        let Some(right) = self.mappings.get(&at) else {
            return;
        };
        if !left.continues_into(at - left_start, right) {
            return;
        }
        let (end, changed) = (right.end, right.changed);
        self.mappings.remove(&at);
        if let Some(left) = self.mappings.get_mut(&left_start) {
            left.end = end;
            left.changed |= changed;
        }
    }

    /// Makes `at` a boundary between mappings.
    pub(super) fn split(&mut self, at: usize) {
        let Some((start, mapping)) = self.find(at) else {
            return;
        };
        if start == at {
            return;
        }
        let mut right = mapping.advanced(at - start);
        right.grows_down = false;
        if let Some(left) = self.mappings.get_mut(&start) {
            right.end = left.end;
            left.end = at;
        }
        self.mappings.insert(at, right);
    }

    /// Takes all mappings out of `start..end`; gives them.
    pub(super) fn remove(&mut self, start: usize, end: usize) -> alloc::vec::Vec<(usize, Mapping)> {
        self.split(start);
        self.split(end);
        let mut removed = alloc::vec::Vec::new();
        for at in self.starts_in(start, end) {
            if let Some(mapping) = self.mappings.remove(&at) {
                self.count(at, &mapping, false);
                removed.push((at, mapping));
            }
        }
        if end > self.hint {
            self.hint = end.min(self.map_base);
        }
        removed.iter().for_each(|(_, mapping)| self.changes.unmapped(mapping.watch.as_ref(), start, end));
        removed
    }

    /// Changes the mappings of `start..end` by `change`, splitting at the ends and merging after.
    pub(super) fn change(&mut self, start: usize, end: usize, mut change: impl FnMut(&mut Mapping)) {
        self.split(start);
        self.split(end);
        let starts = self.starts_in(start, end);
        for &at in &starts {
            if let Some(mut mapping) = self.mappings.remove(&at) {
                self.count(at, &mapping, false);
                change(&mut mapping);
                self.count(at, &mapping, true);
                self.mappings.insert(at, mapping);
            }
        }
        self.merge_at(end);
        for &at in starts.iter().rev() {
            self.merge_at(at);
        }
    }

    /// Keeps the sums right when a mapping comes or goes.
    pub(super) fn count(&mut self, start: usize, mapping: &Mapping, comes: bool) {
        let len = mapping.end - start;
        let apply = |sum: &mut usize, part: usize| *sum = if comes { *sum + part } else { sum.saturating_sub(part) };
        apply(&mut self.total, len);
        apply(&mut self.data, if mapping.is_data() { len } else { 0 });
        apply(&mut self.locked, if mapping.lock.is_locked() { len } else { 0 });
        self.promised.change(mapping.promised(len), comes);
        self.peak_total = self.peak_total.max(self.total);
    }

    pub(super) fn info(&self, start: usize, mapping: &Mapping) -> MappingInfo {
        MappingInfo {
            start,
            end: mapping.end,
            prot: mapping.prot,
            shared: mapping.shared,
            grows_down: mapping.grows_down,
            lock: mapping.lock,
            not_inherited: mapping.not_inherited,
            wiped_on_fork: mapping.wiped_on_fork,
            not_dumped: mapping.not_dumped,
            order: mapping.order,
            no_reserve: mapping.no_reserve,
            changed: mapping.changed,
            backing: mapping.backing.clone(),
            name: mapping.name,
        }
    }
}

/// The end of a range of the user half, `None` where it overflows or leaves it.
pub(super) fn range_end(start: usize, len: usize) -> Option<usize> {
    start.checked_add(len).filter(|&end| end <= USER_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    fn mapping(end: usize, prot: Prot) -> Mapping {
        Mapping {
            end,
            prot,
            shared: false,
            grows_down: false,
            lock: Lock::No,
            not_inherited: false,
            wiped_on_fork: false,
            not_dumped: false,
            order: AccessOrder::Normal,
            no_reserve: false,
            backing: Backing::Anonymous,
            cache: None,
            name: MappingName::None,
            watch: None,
            changed: true,
        }
    }

    const RW: Prot = Prot::READ.union(Prot::WRITE);
    const P: usize = PAGE_SIZE;

    #[test]
    fn equal_neighbours_merge_and_different_ones_do_not() {
        let mut l = Layout::new();
        l.insert(0x10_0000, mapping(0x10_0000 + P, RW));
        l.insert(0x10_0000 + 2 * P, mapping(0x10_0000 + 3 * P, RW));
        assert_eq!(l.mappings.len(), 2);
        l.insert(0x10_0000 + P, mapping(0x10_0000 + 2 * P, RW));
        assert_eq!((l.mappings.len(), l.total), (1, 3 * P));
        l.change(0x10_0000 + P, 0x10_0000 + 2 * P, |m| m.prot = Prot::READ);
        assert_eq!((l.mappings.len(), l.data), (3, 2 * P));
        l.change(0x10_0000 + P, 0x10_0000 + 2 * P, |m| m.prot = RW);
        assert_eq!((l.mappings.len(), l.data), (1, 3 * P));
    }

    #[test]
    fn removing_the_middle_leaves_the_ends() {
        let mut l = Layout::new();
        l.insert(0x10_0000, mapping(0x10_0000 + 10 * P, RW));
        let removed = l.remove(0x10_0000 + 3 * P, 0x10_0000 + 5 * P);
        assert_eq!(removed.len(), 1);
        assert_eq!((l.mappings.len(), l.total), (2, 8 * P));
        assert!(l.is_free(0x10_0000 + 3 * P, 0x10_0000 + 5 * P) && !l.covers(0x10_0000, 0x10_0000 + 10 * P));
    }

    #[test]
    fn room_is_found_from_the_top_and_reused() {
        let mut l = Layout::new();
        let first = l.find_room(4 * P, l.map_base).expect("room");
        assert_eq!(first, l.map_base - 4 * P);
        l.insert(first, mapping(first + 4 * P, RW));
        let second = l.find_room(P, l.map_base).expect("room");
        l.insert(second, mapping(second + P, Prot::READ));
        assert_eq!(second, first - P);
        l.remove(first, first + 4 * P);
        assert_eq!(l.find_room(4 * P, l.map_base), Some(first));
    }
}
