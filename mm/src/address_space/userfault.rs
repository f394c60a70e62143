//! The part of userfaultfd(2) that works on mappings and pages: registering, putting pages in, write protection.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::paging::{Batch, MapFlags};
use hal::user::{USER_END, UserBuf};
use sched::RwLockWriteGuard;

use super::fault::{file_flags, flags_of};
use super::layout::{Layout, Mapping};
use super::{AddressSpace, FaultError, Range, no_memory};
use crate::userfault::{Changes, Features, Kind, Message, Modes, Monitor, Stop, Watch, end_of};
use crate::{Backing, Source};

impl Mapping {
    /// Anonymous memory, or memory that is shared and is its own storage.
    fn is_memory(&self) -> bool {
        self.cache.as_ref().is_none_or(|(cache, _)| !cache.is_paged())
    }

    fn can_be_watched(&self, modes: Modes) -> bool {
        self.is_memory() && (!modes.contains(Modes::MINOR) || self.cache.is_some())
    }

    /// May it be writable, now or later?
    fn may_write(&self) -> bool {
        match &self.backing {
            Backing::File { file, .. } => !self.shared || file.may_write(),
            Backing::Anonymous => true,
        }
    }

    /// The monitor, if it wants to be told of that.
    fn monitor_for(&self, feature: Features) -> Option<&Arc<Monitor>> {
        self.watch.as_ref().map(|watch| &watch.monitor).filter(|monitor| monitor.has(feature))
    }
}

/// What UFFDIO_COPY and its like put in.
pub enum Fill {
    /// Bytes from the caller's memory.
    Copy(usize),
    /// Zeros.
    Zero,
    /// What the shared memory holds there.
    Continue,
}

impl AddressSpace {
    /// UFFDIO_REGISTER. `EINVAL`, `EPERM` (never writable), `EBUSY` (watched by another).
    pub fn watch(&self, monitor: &Arc<Monitor>, start: usize, len: usize, modes: Modes) -> Result<()> {
        let end = end_of(start, len)?;
        let mut layout = self.layout.write();
        if layout.find_from(start).is_none_or(|(at, _)| at >= end) {
            return Err(Errno::EINVAL);
        }
        for mapping in layout.starts_in(start, end).iter().filter_map(|at| layout.mappings.get(at)) {
            if !mapping.can_be_watched(modes) {
                return Err(Errno::EINVAL);
            }
            if !mapping.may_write() {
                return Err(Errno::EPERM);
            }
            if mapping.watch.as_ref().is_some_and(|watch| !Arc::ptr_eq(&watch.monitor, monitor)) {
                return Err(Errno::EBUSY);
            }
        }
        layout.change(start, end, |mapping| mapping.watch = Some(Watch { monitor: monitor.clone(), modes }));
        Ok(())
    }

    /// UFFDIO_UNREGISTER: who waits there goes on. `EINVAL`.
    pub fn unregister(&self, start: usize, len: usize) -> Result<()> {
        let end = end_of(start, len)?;
        let mut layout = self.layout.write();
        if layout.find_from(start).is_none_or(|(at, _)| at >= end) {
            return Err(Errno::EINVAL);
        }
        let starts = layout.starts_in(start, end);
        if !starts.iter().filter_map(|at| layout.mappings.get(at)).all(Mapping::is_memory) {
            return Err(Errno::EINVAL);
        }
        let watchers = self.forget_watches(&mut layout, start, end, |_| true);
        drop(layout);
        watchers.iter().for_each(|watch| watch.monitor.wake(start, end));
        Ok(())
    }

    /// A monitor is gone: it watches nothing any more.
    pub(crate) fn unwatch(&self, monitor: &Arc<Monitor>) {
        let mut layout = self.layout.write();
        let watchers = self.forget_watches(&mut layout, 0, USER_END, |watch| Arc::ptr_eq(&watch.monitor, monitor));
        drop(layout);
        drop(watchers);
    }

    /// Takes watches out of `start..end`, with their write protection.
    pub(super) fn forget_watches(
        &self,
        layout: &mut Layout,
        start: usize,
        end: usize,
        which: impl Fn(&Watch) -> bool,
    ) -> Vec<Watch> {
        let mut gone = Vec::new();
        for at in layout.starts_in(start, end) {
            let Some(mapping) = layout.mappings.get(&at) else { continue };
            let (from, to) = (at.max(start), mapping.end.min(end));
            if mapping.watch.as_ref().is_some_and(&which) {
                layout.change(from, to, |mapping| gone.extend(mapping.watch.take()));
                self.unguard(from, to);
            }
        }
        gone
    }

    /// Ends the write protection of pages. They become writable by the next fault.
    pub(super) fn unguard(&self, start: usize, end: usize) {
        let mut batch = Batch::new();
        // Without memory for a table that a fork shares the mark stays; where nothing is watched it means nothing.
        let _ = self.page_table.protect(start, end, &mut batch, |flags| flags.without(MapFlags::GUARDED));
        self.finish(&mut batch);
    }

    /// Why a fault there would be its monitor's to resolve, if it would.
    fn watched(&self, start: usize, mapping: &Mapping, modes: Modes, page: usize, write: bool) -> Option<Kind> {
        if let Some(flags) = self.page_table.lock().flags(page) {
            let guarded = write && flags.has(MapFlags::GUARDED) && modes.contains(Modes::WRITE_PROTECT);
            return guarded.then_some(Kind::WriteProtected);
        }
        let (there, minor) = match &mapping.cache {
            None => (false, false),
            Some((cache, first)) => {
                let index = first + ((page - start) / PAGE_SIZE) as u64;
                if index >= cache.size().div_ceil(PAGE_SIZE as u64) {
                    return None;
                }
                (matches!(cache.page(index, false), Ok(Some(_))), mapping.shared)
            }
        };
        if there {
            (minor && modes.contains(Modes::MINOR)).then_some(Kind::Minor)
        } else {
            modes.contains(Modes::MISSING).then_some(Kind::Missing)
        }
    }

    /// A fault that a monitor is to resolve: posts it, for the thread to wait without locks and try again. `Bus` where nobody may wait.
    #[inline]
    pub(super) fn intercept(
        &self,
        start: usize,
        mapping: &Mapping,
        address: usize,
        (write, from_user): (bool, bool),
    ) -> Result<Option<Stop>, FaultError> {
        match &mapping.watch {
            None => Ok(None),
            Some(watch) => self.intercept_watched(start, mapping, watch, address, (write, from_user)),
        }
    }

    fn intercept_watched(
        &self,
        start: usize,
        mapping: &Mapping,
        watch: &Watch,
        address: usize,
        (write, from_user): (bool, bool),
    ) -> Result<Option<Stop>, FaultError> {
        let page = address & !(PAGE_SIZE - 1);
        let Some(kind) = self.watched(start, mapping, watch.modes, page, write) else { return Ok(None) };
        watch.monitor.check(from_user)?;
        let Some(stop) = watch.monitor.post(address, write, kind) else { return Ok(None) };
        // Whoever put the page in before the fault was posted has woken nobody.
        Ok(self.watched(start, mapping, watch.modes, page, write).map(|_| stop))
    }

    /// UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE: puts pages in where none are, write-protected if `guard`; how many bytes, which may be
    /// fewer than asked for. `EINVAL`, `ENOENT` (not watched), `EEXIST`, `EFAULT`, `ENOMEM`, `EAGAIN` (a change is under way).
    pub fn fill(&self, monitor: &Monitor, start: usize, len: usize, fill: &Fill, guard: bool) -> Result<usize> {
        let end = end_of(start, len)?;
        let mut page = start;
        while page < end {
            let one = self.fill_page(monitor, (page, end), fill, page - start, guard);
            match one {
                Ok(()) => page += PAGE_SIZE,
                Err(error) if page == start => return Err(error),
                Err(_) => break,
            }
            sched::preempt_point();
        }
        Ok(page - start)
    }

    fn fill_page(
        &self,
        monitor: &Monitor,
        (page, end): (usize, usize),
        fill: &Fill,
        done: usize,
        guard: bool,
    ) -> Result<()> {
        self.check_target(monitor, page, end, fill, guard)?;
        // Reading the source may fault, so no lock is held.
        let frame = match fill {
            Fill::Copy(from) => {
                let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
                let list = [UserBuf::new(from.wrapping_add(done), PAGE_SIZE)];
                if !list[0].in_user_half() || Source::user(&list).take_frame(&frame, 0, PAGE_SIZE)? < PAGE_SIZE {
                    return Err(Errno::EFAULT);
                }
                Some(frame)
            }
            Fill::Zero => Some(Frame::alloc_zeroed().ok_or(Errno::ENOMEM)?),
            Fill::Continue => None,
        };
        let layout = self.layout.read();
        let (start, mapping) = target(&layout, page, end, fill, guard)?;
        match &mapping.cache {
            Some((cache, first)) if mapping.shared => {
                let index = first + ((page - start) / PAGE_SIZE) as u64;
                if index >= cache.size().div_ceil(PAGE_SIZE as u64) {
                    return Err(Errno::EFAULT);
                }
                let frame = match frame {
                    Some(frame) => cache.insert_if_absent(index, frame)?,
                    None => cache.page(index, false)?.ok_or(Errno::EFAULT)?,
                };
                let flags = file_flags(mapping, true);
                if !self.map_absent(page, frame, guarded(flags, guard))? {
                    return Err(Errno::EEXIST);
                }
                self.count_file(mapping, 1);
            }
            _ => {
                let frame = frame.ok_or(Errno::EINVAL)?;
                if !self.map_absent(page, frame, guarded(flags_of(mapping, true), guard))? {
                    return Err(Errno::EEXIST);
                }
                self.count_anonymous(1);
            }
        }
        Ok(())
    }

    fn check_target(&self, monitor: &Monitor, page: usize, end: usize, fill: &Fill, guard: bool) -> Result<()> {
        if monitor.is_changing() {
            return Err(Errno::EAGAIN);
        }
        target(&self.layout.read(), page, end, fill, guard)?;
        if self.page_table.lock().flags(page).is_some() { Err(Errno::EEXIST) } else { Ok(()) }
    }

    /// Maps a frame where nothing is; false where something is.
    fn map_absent(&self, page: usize, frame: Frame, flags: MapFlags) -> Result<bool> {
        let mut tables = self.page_table.lock();
        if tables.flags(page).is_some() {
            return Ok(false);
        }
        tables.map(page, frame, flags).map_err(no_memory)?;
        Ok(true)
    }

    /// UFFDIO_WRITEPROTECT: protects the pages that are there, or ends that. `EINVAL`, `ENOENT`, `EAGAIN`, `ENOMEM`.
    pub fn guard(&self, monitor: &Monitor, start: usize, len: usize, guard: bool) -> Result<()> {
        let end = end_of(start, len)?;
        let layout = self.layout.read();
        if monitor.is_changing() {
            return Err(Errno::EAGAIN);
        }
        let (first, mapping) = layout.find(start).filter(|(_, mapping)| end <= mapping.end).ok_or(Errno::ENOENT)?;
        if !mapping.watch.as_ref().is_some_and(|watch| watch.modes.contains(Modes::WRITE_PROTECT)) {
            return Err(Errno::ENOENT);
        }
        if !guard {
            self.unguard(start, end);
            return Ok(());
        }
        if mapping.shared {
            self.map_present(first, mapping, start, end)?;
        }
        let mut batch = Batch::new();
        let protect = |flags: MapFlags| flags.without(MapFlags::WRITE).with(MapFlags::GUARDED);
        self.page_table.protect(start, end, &mut batch, protect).map_err(no_memory)?;
        self.finish(&mut batch);
        Ok(())
    }

    /// Maps pages of shared memory that are there, so that they can carry the mark.
    fn map_present(&self, first: usize, mapping: &Mapping, start: usize, end: usize) -> Result<()> {
        let Some((cache, index)) = &mapping.cache else { return Ok(()) };
        let flags = file_flags(mapping, false);
        for page in (start..end).step_by(PAGE_SIZE) {
            let index = index + ((page - first) / PAGE_SIZE) as u64;
            if let Some(frame) = cache.page(index, false)?
                && self.map_absent(page, frame, flags)?
            {
                self.count_file(mapping, 1);
            }
        }
        Ok(())
    }

    /// Begins to tell of pages about to be dropped, whoever watches them.
    pub(super) fn removing(&self, start: usize, end: usize) -> Changes {
        let layout = self.layout.read();
        let mut changes = Changes::default();
        for at in layout.starts_in(start, end) {
            let Some(mapping) = layout.mappings.get(&at) else { continue };
            if let Some(monitor) = mapping.monitor_for(Features::EVENT_REMOVE) {
                changes.begin(monitor, Message::Remove(at.max(start), mapping.end.min(end)));
            }
        }
        changes
    }

    /// A mapping was moved: it keeps its watch, which is told, or parts with it.
    pub(super) fn moved(&self, layout: &mut Layout, from: Range, (to, end): (usize, usize)) {
        let Some((_, mapping)) = layout.find(to).filter(|(_, mapping)| mapping.watch.is_some()) else { return };
        match mapping.monitor_for(Features::EVENT_REMAP).cloned() {
            Some(monitor) => {
                layout.changes.begin(&monitor, Message::Remap { from: from.start, to, len: from.len });
            }
            None => drop(self.forget_watches(layout, to, end, |_| true)),
        }
    }
}

/// Lets go of the mappings, and tells those who watch them what has changed.
pub(super) fn tell(mut layout: RwLockWriteGuard<Layout>) {
    let changes = core::mem::take(&mut layout.changes);
    drop(layout);
    changes.tell();
}

/// The child of a fork keeps the watches of monitors that are told of it, with monitors of its own, and parts with the others.
pub(super) fn forking(child: &AddressSpace, inherited: &mut Layout) -> Changes {
    let mut changes = Changes::default();
    let watched: Vec<_> =
        inherited.mappings.iter().filter(|(_, m)| m.watch.is_some()).map(|(&start, m)| (start, m.end)).collect();
    for (start, end) in watched {
        let Some(mapping) = inherited.mappings.get_mut(&start) else { continue };
        let Some(monitor) = mapping.monitor_for(Features::EVENT_FORK).cloned() else {
            drop(child.forget_watches(inherited, start, end, |_| true));
            continue;
        };
        let own = changes.fork_of(&monitor, || monitor.for_child(child.this.clone()));
        if let Some(watch) = &mut mapping.watch {
            watch.monitor = own;
        }
    }
    changes
}

fn guarded(flags: MapFlags, guard: bool) -> MapFlags {
    if guard { flags.without(MapFlags::WRITE).with(MapFlags::GUARDED) } else { flags }
}

/// The mapping to put a page in: `page..end` lies in one that is watched. `ENOENT`, `EINVAL`.
fn target<'a>(layout: &'a Layout, page: usize, end: usize, fill: &Fill, guard: bool) -> Result<(usize, &'a Mapping)> {
    let (start, mapping) = layout.find(page).filter(|(_, mapping)| end <= mapping.end).ok_or(Errno::ENOENT)?;
    let watch = mapping.watch.as_ref().ok_or(Errno::ENOENT)?;
    let wrong = guard && !watch.modes.contains(Modes::WRITE_PROTECT)
        || !mapping.is_memory()
        || matches!(fill, Fill::Continue) && (!mapping.shared || mapping.cache.is_none());
    if wrong { Err(Errno::EINVAL) } else { Ok((start, mapping)) }
}
