//! What procfs shows of an address space, and what it lets others reset there.

use core::sync::atomic::Ordering;

use abi::PAGE_SIZE;
use alloc::vec::Vec;
use base::{Errno, Result};
use hal::paging::{Batch, MapFlags, Mapped};

use super::fault::kept;
use super::{AddressSpace, Usage, no_memory};
use crate::{MappingInfo, Prot};

/// What one page counts for in shares.
const WHOLE: usize = 4096;

/// What `smaps` tells of a range: pages, and shares of pages in 1/4096.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Pages that are there.
    pub resident: usize,
    /// Each divided by how many map it.
    pub share: usize,
    /// Of that, pages that were written.
    pub share_dirty: usize,
    /// Of `share`, anonymous memory.
    pub share_anonymous: usize,
    /// Of `share`, shared memory.
    pub share_shmem: usize,
    /// Pages that others map too, as they were read or as they were written.
    pub shared: CleanDirty,
    /// Pages that nobody else maps.
    pub private: CleanDirty,
    /// Pages that were used since somebody asked.
    pub referenced: usize,
    /// Pages of no file.
    pub anonymous: usize,
}

/// Pages by whether storage has what they hold.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct CleanDirty {
    /// It has.
    pub clean: usize,
    /// They were written, or there is no storage.
    pub dirty: usize,
}

impl Residency {
    fn add_page(&mut self, page: &Mapped<'_>) {
        if page.flags.has(MapFlags::ZEROS) {
            return;
        }
        let (file, shmem) = (page.flags.has(MapFlags::FILE), page.flags.has(MapFlags::SHMEM));
        let dirty = !file || shmem || page.flags.has(MapFlags::DIRTY);
        let (users, count) = (users(page), |yes| usize::from(yes));
        self.resident += 1;
        self.share += WHOLE / users;
        self.share_dirty += count(dirty) * (WHOLE / users);
        self.share_anonymous += count(!file) * (WHOLE / users);
        self.share_shmem += count(shmem) * (WHOLE / users);
        self.referenced += count(page.flags.has(MapFlags::ACCESSED));
        self.anonymous += count(!file);
        let kind = if users == 1 { &mut self.private } else { &mut self.shared };
        *(if dirty { &mut kind.dirty } else { &mut kind.clean }) += 1;
    }
}

impl core::ops::AddAssign for Residency {
    fn add_assign(&mut self, other: Residency) {
        self.resident += other.resident;
        self.share += other.share;
        self.share_dirty += other.share_dirty;
        self.share_anonymous += other.share_anonymous;
        self.share_shmem += other.share_shmem;
        for (kind, more) in [(&mut self.shared, other.shared), (&mut self.private, other.private)] {
            kind.clean += more.clean;
            kind.dirty += more.dirty;
        }
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
    }
}

/// How many address spaces map a page.
fn users(page: &Mapped<'_>) -> usize {
    let frame = page.frame();
    // The handle at hand is none, nor is the cache's of a file page; a table that is shared since a fork counts for each who has it.
    let handles = if page.flags.has(MapFlags::FILE) { 2 } else { 1 };
    ((frame.refs() + page.holders).saturating_sub(handles + 1) as usize).max(1)
}

/// A page as `pagemap` shows it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct PageState {
    /// The number of its frame, if it is there.
    pub frame: Option<usize>,
    /// It is a file's, or shared memory.
    pub file: bool,
    /// Nobody else maps it.
    pub alone: bool,
    /// It is write-protected for a monitor (userfaultfd).
    pub guarded: bool,
    /// It was written since [`AddressSpace::watch_changes`].
    pub changed: bool,
}

/// Which pages [`AddressSpace::forget_accesses`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// All.
    All,
    /// Those of no file.
    Anonymous,
    /// Those of files and shared memory.
    File,
}

impl AddressSpace {
    /// Calls `f` on each mapping from `addr` up until it gives false.
    pub fn for_each_mapping(&self, addr: usize, mut f: impl FnMut(&MappingInfo) -> bool) {
        let layout = self.layout.read();
        let first = layout.find(addr).map_or(addr, |(start, _)| start);
        for (&start, mapping) in layout.mappings.range(first..) {
            if !f(&layout.info(start, mapping)) {
                break;
            }
        }
    }

    /// The mapping that holds `addr`.
    pub fn mapping_at(&self, addr: usize) -> Option<MappingInfo> {
        let layout = self.layout.read();
        layout.find(addr).map(|(start, mapping)| layout.info(start, mapping))
    }

    /// What is there of `start..end`.
    pub fn residency(&self, start: usize, end: usize) -> Residency {
        let mut sums = Residency::default();
        self.page_table.for_each(start, end, |page| sums.add_page(page));
        sums
    }

    /// The state of each page of `start..end` (page-aligned). `ENOMEM`.
    pub fn page_states(&self, start: usize, end: usize) -> Result<Vec<PageState>> {
        let mut states = Vec::new();
        states.try_reserve_exact((end - start) / PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        states.resize((end - start) / PAGE_SIZE, PageState::default());
        let layout = self.layout.read();
        self.page_table.for_each(start, end, |page| {
            let zeros = page.flags.has(MapFlags::ZEROS);
            // Counted before there is another handle.
            let alone = !zeros && users(page) == 1;
            states[(page.va - start) / PAGE_SIZE] = PageState {
                frame: Some(page.frame().number()),
                file: page.flags.has(MapFlags::FILE),
                alone,
                guarded: page.flags.has(MapFlags::GUARDED),
                changed: !zeros && !page.flags.has(MapFlags::UNCHANGED),
            };
        });
        for at in layout.starts_in(start, end) {
            let Some(mapping) = layout.mappings.get(&at).filter(|mapping| mapping.changed) else { continue };
            let (from, to) = (at.max(start), mapping.end.min(end));
            states[(from - start) / PAGE_SIZE..(to - start) / PAGE_SIZE]
                .iter_mut()
                .for_each(|page| page.changed = true);
        }
        Ok(states)
    }

    /// From now on pages count as changed only once they are written (soft-dirty bits). `ENOMEM`.
    pub fn watch_changes(&self) -> Result<()> {
        let mut layout = self.layout.write();
        let mut batch = Batch::new();
        let protect = |old: MapFlags| {
            old.without(MapFlags::WRITE.with(MapFlags::DIRTY)).with(kept(old)).with(MapFlags::UNCHANGED)
        };
        for (&start, mapping) in &mut layout.mappings {
            mapping.changed = false;
            self.page_table.protect(start, mapping.end, &mut batch, protect).map_err(no_memory)?;
        }
        self.finish(&mut batch);
        Ok(())
    }

    /// From now on pages count as used only once they are. `ENOMEM`.
    pub fn forget_accesses(&self, pages: Pages) -> Result<()> {
        let layout = self.layout.read();
        let mut batch = Batch::new();
        for (&start, mapping) in &layout.mappings {
            let meant = |flags: MapFlags| match pages {
                Pages::All => true,
                Pages::Anonymous => !flags.has(MapFlags::FILE),
                Pages::File => flags.has(MapFlags::FILE),
            };
            self.page_table.forget_accesses(start, mapping.end, &mut batch, meant).map_err(no_memory)?;
        }
        self.finish(&mut batch);
        Ok(())
    }

    /// Makes the present size the largest that there was.
    pub fn forget_peak(&self) {
        self.peak_rss.store(0, Ordering::Relaxed);
        self.note_peak();
    }

    /// Sums, for statm and status.
    pub fn usage(&self) -> Usage {
        self.note_peak();
        let layout = self.layout.read();
        let pages = |bytes: usize| bytes / PAGE_SIZE;
        let count = |sum: &core::sync::atomic::AtomicIsize| usize::try_from(sum.load(Ordering::Relaxed)).unwrap_or(0);
        let mut usage = Usage {
            total: pages(layout.total),
            peak_total: pages(layout.peak_total),
            rss_anon: count(&self.rss_anon),
            rss_file: count(&self.rss_file),
            rss_shmem: count(&self.rss_shmem),
            peak_rss: self.peak_rss.load(Ordering::Relaxed),
            data: pages(layout.data),
            stack: 0,
            text: 0,
            locked: pages(layout.locked),
            page_tables: 0,
        };
        for (&start, mapping) in &layout.mappings {
            let len = pages(mapping.end - start);
            if mapping.grows_down {
                usage.stack += len;
            } else if mapping.prot.contains(Prot::EXEC) && mapping.cache.is_some() {
                usage.text += len;
            }
        }
        // One last-level table for each 2 MiB in use, roughly: the upper levels hardly count.
        usage.page_tables = (usage.rss_anon + usage.rss_file + usage.rss_shmem).div_ceil(512);
        usage
    }
}
