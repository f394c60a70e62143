//! Page faults.

use abi::PAGE_SIZE;
use base::Errno;
use hal::frame::Frame;
use hal::paging::{Batch, MapFlags};
use hal::regs::PageFault;
use hal::sync::Once;

use super::AddressSpace;
use super::layout::{Mapping, STACK_GAP};
use crate::Prot;

/// Why a fault can't be resolved; says which signal it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped there: SIGSEGV, SEGV_MAPERR.
    NotMapped,
    /// The mapping does not allow it: SIGSEGV, SEGV_ACCERR.
    Denied,
    /// Past the end of the file, or it can't be read: SIGBUS, BUS_ADRERR.
    Bus,
    /// No memory: the OOM killer has to act.
    NoMemory,
    /// A signal came before the page did: nothing has happened.
    Interrupted,
}

/// How [`AddressSpace::populate`] touches pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Populate {
    /// As reads do.
    Read,
    /// As writes do.
    Write,
    /// So that no access needs to fault: private pages that can be written are made so.
    Fully,
}

/// Pages that are mapped together around a fault on a file, if they are in memory: an aligned window of so many.
const AROUND: usize = 16;
/// File pages that are dropped when there is no memory for a fault.
const RECLAIM: usize = 256;

static ZEROS: Once<Frame> = Once::new();

/// The page of zeros that reads of untouched private memory share.
fn zero_page() -> Option<Frame> {
    if let Some(frame) = ZEROS.get() {
        return Some(frame.clone());
    }
    let _ = ZEROS.set(Frame::alloc_zeroed()?);
    ZEROS.get().cloned()
}

/// What the page table may allow at once. Private pages are made writable by the write that needs it.
pub(super) fn flags_of(mapping: &Mapping, writable: bool) -> MapFlags {
    let mut flags = if mapping.prot.is_empty() { MapFlags::NONE } else { MapFlags::READ };
    if writable && mapping.prot.contains(Prot::WRITE) {
        flags = flags.with(MapFlags::WRITE);
    }
    if mapping.prot.contains(Prot::EXEC) {
        flags = flags.with(MapFlags::EXEC);
    }
    if mapping.shared {
        flags = flags.with(MapFlags::SHARED);
    }
    flags
}

/// As [`flags_of`], for a page of the mapping's cache.
pub(super) fn file_flags(mapping: &Mapping, writable: bool) -> MapFlags {
    let kind = if mapping.is_shmem() { MapFlags::FILE.with(MapFlags::SHMEM) } else { MapFlags::FILE };
    flags_of(mapping, writable).with(kind)
}

/// The marks of an entry that outlive changes of what it allows.
pub(super) fn kept(old: MapFlags) -> MapFlags {
    let one = |flag: MapFlags| if old.has(flag) { flag } else { MapFlags::NONE };
    let kind = one(MapFlags::FILE).with(one(MapFlags::SHMEM)).with(one(MapFlags::ZEROS));
    kind.with(one(MapFlags::GUARDED)).with(one(MapFlags::UNCHANGED))
}

/// Does somebody wait for the next write to the page?
pub(super) fn awaits_write(flags: MapFlags) -> bool {
    flags.has(MapFlags::GUARDED) || flags.has(MapFlags::UNCHANGED)
}

/// What a fault becomes when the file's page can't be had.
fn fault_of(error: Errno) -> FaultError {
    if error == Errno::ENOMEM { FaultError::NoMemory } else { FaultError::Bus }
}

/// May pages of a shared mapping be mapped so that writes need no fault? Not where there is storage to write them back to.
pub(super) fn writable_at_once(mapping: &Mapping) -> bool {
    mapping.shared && (mapping.cache.is_none() || mapping.is_shmem())
}

impl AddressSpace {
    /// Resolves a page fault of a thread that lives here.
    pub fn handle_fault(&self, fault: &PageFault) -> Result<(), FaultError> {
        match self.resolve(fault) {
            // Clean file pages go before anybody is killed for want of memory.
            Err(FaultError::NoMemory) if crate::shrink(RECLAIM) > 0 => self.resolve(fault),
            result => result,
        }
    }

    fn resolve(&self, fault: &PageFault) -> Result<(), FaultError> {
        let page = fault.address & !(PAGE_SIZE - 1);
        loop {
            {
                let layout = self.layout.read();
                if let Some((start, mapping)) = layout.find(page) {
                    let allowed = if fault.write {
                        mapping.prot.contains(Prot::WRITE)
                    } else if fault.execute {
                        mapping.prot.contains(Prot::EXEC)
                    } else {
                        !mapping.prot.is_empty()
                    };
                    if !allowed {
                        return Err(FaultError::Denied);
                    }
                    match self.intercept(start, mapping, fault.address, (fault.write, fault.from_user))? {
                        None => return self.bring_in(start, mapping, page, fault.write),
                        Some(stop) => {
                            drop(layout);
                            stop.wait(fault.from_user)?;
                            continue;
                        }
                    }
                }
            }
            self.grow_stack(page)?;
        }
    }

    /// Makes `page` of a mapping present, and writable if `write`.
    pub(super) fn bring_in(&self, start: usize, mapping: &Mapping, page: usize, write: bool) -> Result<(), FaultError> {
        match &mapping.cache {
            None => self.bring_in_anonymous(mapping, page, write),
            Some((cache, first)) => {
                let index = first + ((page - start) / PAGE_SIZE) as u64;
                if index >= cache.size().div_ceil(PAGE_SIZE as u64) {
                    return Err(FaultError::Bus);
                }
                let changes = write && mapping.shared && cache.is_paged();
                let frame = if changes { cache.make_dirty(index).map(Some) } else { cache.page(index, true) };
                let frame = frame.map_err(fault_of)?.ok_or(FaultError::Bus)?;
                if mapping.shared {
                    self.bring_in_shared(mapping, page, frame, write)?;
                    if changes {
                        // Write-back may have taken the mark before the page was mapped, and so not taken the right to write it.
                        cache.touch(index);
                    }
                } else {
                    self.bring_in_private(mapping, page, &frame, write)?;
                }
                if !write && mapping.watch.is_none() {
                    self.map_around(start, mapping, page);
                }
                Ok(())
            }
        }
    }

    fn bring_in_anonymous(&self, mapping: &Mapping, page: usize, write: bool) -> Result<(), FaultError> {
        let current = self.page_table.lock().flags(page);
        if current.is_some() {
            return self.touch_present(mapping, page, write);
        }
        let frame = if write { Frame::alloc_zeroed() } else { zero_page() }.ok_or(FaultError::NoMemory)?;
        let flags = if write { flags_of(mapping, true) } else { flags_of(mapping, false).with(MapFlags::ZEROS) };
        let mut tables = self.page_table.lock();
        if tables.flags(page).is_some() {
            drop(tables);
            return self.touch_present(mapping, page, write);
        }
        tables.map(page, frame, flags).map_err(|_| FaultError::NoMemory)?;
        drop(tables);
        self.count_anonymous(isize::from(write));
        Ok(())
    }

    fn bring_in_shared(&self, mapping: &Mapping, page: usize, frame: Frame, write: bool) -> Result<(), FaultError> {
        let flags = file_flags(mapping, write || writable_at_once(mapping));
        let mut tables = self.page_table.lock();
        if let Some(now) = tables.flags(page) {
            let flags = if now.has(MapFlags::WRITE) { file_flags(mapping, true) } else { flags };
            let waits = awaits_write(now) && !write;
            let flags = if waits { flags.without(MapFlags::WRITE).with(kept(now)) } else { flags };
            // Another thread was faster, the page was only read so far, or a table shared since a fork has to be copied to get the right to write.
            tables.set_flags(page, flags).map_err(|_| FaultError::NoMemory)?;
        } else {
            tables.map(page, frame, flags).map_err(|_| FaultError::NoMemory)?;
            self.count_file(mapping, 1);
        }
        drop(tables);
        self.page_table.flush_local(page);
        Ok(())
    }

    fn bring_in_private(&self, mapping: &Mapping, page: usize, frame: &Frame, write: bool) -> Result<(), FaultError> {
        if self.page_table.lock().flags(page).is_some() {
            return self.touch_present(mapping, page, write);
        }
        if write {
            let copy = Frame::alloc().ok_or(FaultError::NoMemory)?;
            copy.copy_from(frame);
            let mut tables = self.page_table.lock();
            if tables.flags(page).is_some() {
                drop(tables);
                return self.touch_present(mapping, page, write);
            }
            tables.map(page, copy, flags_of(mapping, true)).map_err(|_| FaultError::NoMemory)?;
            drop(tables);
            self.count_anonymous(1);
            return Ok(());
        }
        let mut tables = self.page_table.lock();
        if tables.flags(page).is_none() {
            let flags = file_flags(mapping, false);
            tables.map(page, frame.clone(), flags).map_err(|_| FaultError::NoMemory)?;
            self.count_file(mapping, 1);
        }
        Ok(())
    }

    /// A private page is there: nothing to do for a read; a write makes it ours, by a copy unless nobody else has it.
    fn touch_present(&self, mapping: &Mapping, page: usize, write: bool) -> Result<(), FaultError> {
        let mut tables = self.page_table.lock();
        let Some(flags) = tables.flags(page) else {
            return Ok(());
        };
        let enough = flags.has(MapFlags::READ) && (!write || flags.has(MapFlags::WRITE));
        if enough {
            // Another thread was faster; this processor may remember the old entry.
            drop(tables);
            self.page_table.flush_local(page);
            return Ok(());
        }
        if !write {
            let kept = kept(flags);
            tables.set_flags(page, flags_of(mapping, false).with(kept)).map_err(|_| FaultError::NoMemory)?;
            drop(tables);
            self.page_table.flush_local(page);
            return Ok(());
        }
        let exclusive = tables.exclusive(page).map_err(|_| FaultError::NoMemory)?;
        if exclusive && !flags.has(MapFlags::FILE) && !flags.has(MapFlags::ZEROS) {
            tables.set_flags(page, flags_of(mapping, true)).map_err(|_| FaultError::NoMemory)?;
            drop(tables);
            self.page_table.flush_local(page);
            return Ok(());
        }
        let Some((shared, _)) = tables.get(page) else {
            return Ok(());
        };
        let copy = Frame::alloc().ok_or(FaultError::NoMemory)?;
        copy.copy_from(&shared);
        let old = tables.map(page, copy, flags_of(mapping, true)).map_err(|_| FaultError::NoMemory)?;
        drop(tables);
        let mut batch = Batch::new();
        batch.touch(page, page + PAGE_SIZE);
        if let Some(old) = old {
            batch.free_later(old);
        }
        if flags.has(MapFlags::FILE) || flags.has(MapFlags::ZEROS) {
            self.count_anonymous(1);
        }
        if flags.has(MapFlags::FILE) {
            self.count_file(mapping, -1);
        }
        self.finish(&mut batch);
        Ok(())
    }

    /// Maps the neighbours of a file page that are in memory and need nothing else, read-only where private.
    fn map_around(&self, start: usize, mapping: &Mapping, page: usize) {
        let Some((cache, first)) = &mapping.cache else {
            return;
        };
        let window = page & !(AROUND * PAGE_SIZE - 1);
        let from = window.max(start);
        let to = (window + AROUND * PAGE_SIZE).min(mapping.end);
        let flags = file_flags(mapping, writable_at_once(mapping));
        let pages = cache.size().div_ceil(PAGE_SIZE as u64);
        let mut mapped = 0;
        let mut tables = self.page_table.lock();
        for va in (from..to).step_by(PAGE_SIZE).filter(|&va| va != page) {
            let index = first + ((va - start) / PAGE_SIZE) as u64;
            if index < pages
                && let Ok(Some(frame)) = cache.page(index, false)
            {
                mapped += isize::from(tables.map_if_easy(va, &frame, flags));
            }
        }
        drop(tables);
        self.count_file(mapping, mapped);
    }

    /// Extends a mapping that grows down to hold `page`, within RLIMIT_STACK and short of the gap to the mapping below.
    fn grow_stack(&self, page: usize) -> Result<(), FaultError> {
        let mut layout = self.layout.write();
        if layout.find(page).is_some() {
            return Ok(());
        }
        let (start, mapping) = layout.find_from(page).ok_or(FaultError::NotMapped)?;
        let (end, growth) = (mapping.end, start - page);
        let below = layout.mappings.range(..start).next_back().map_or(0, |(_, m)| m.end);
        let fits = mapping.grows_down
            && (end - page) as u64 <= layout.limits.stack
            && page >= below.saturating_add(STACK_GAP)
            && (layout.total + growth) as u64 <= layout.limits.address_space;
        if !fits {
            return Err(FaultError::NotMapped);
        }
        if let Some(mapping) = layout.mappings.remove(&start) {
            layout.count(start, &mapping, false);
            layout.count(page, &mapping, true);
            layout.mappings.insert(page, mapping);
        }
        Ok(())
    }

    /// Brings in every page of `start..end` as `access` would. The error of the first that can't be.
    pub(super) fn populate(&self, start: usize, end: usize, access: Populate) -> Result<(), FaultError> {
        let mut page = start;
        while page < end {
            let layout = self.layout.read();
            let (first, mapping) = layout.find(page).ok_or(FaultError::NotMapped)?;
            let writable = mapping.prot.contains(Prot::WRITE);
            let (allowed, write) = match access {
                Populate::Read => (mapping.prot.contains(Prot::READ), false),
                Populate::Write => (writable, true),
                Populate::Fully => (!mapping.prot.is_empty(), writable && !mapping.shared),
            };
            if !allowed {
                return Err(FaultError::Denied);
            }
            if let Some(stop) = self.intercept(first, mapping, page, (write, false))? {
                drop(layout);
                stop.wait(false)?;
                continue;
            }
            self.bring_in(first, mapping, page, write)?;
            drop(layout);
            page += PAGE_SIZE;
            sched::preempt_point();
        }
        Ok(())
    }
}
