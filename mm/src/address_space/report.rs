//! What procfs shows of an address space.

use core::sync::atomic::Ordering;

use abi::PAGE_SIZE;
use hal::paging::MapFlags;

use super::{AddressSpace, Usage};
use crate::{MappingInfo, Prot};

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

    /// Of the pages of a range: resident, proportional share (in 1/4096 pages), private, anonymous.
    pub fn residency(&self, start: usize, end: usize) -> (usize, usize, usize, usize) {
        let (mut resident, mut share, mut private, mut anonymous) = (0, 0, 0, 0);
        self.page_table.lock().for_each(start, end, |_, frame, flags| {
            let frame = frame();
            // Our own handle counts, and the cache's for a file page.
            let file = flags.has(MapFlags::FILE);
            let users = (frame.refs() as usize).saturating_sub(if file { 2 } else { 1 }).max(1);
            resident += 1;
            share += 4096 / users;
            private += usize::from(users == 1);
            anonymous += usize::from(!file);
        });
        (resident, share, private, anonymous)
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
            rss_shmem: 0,
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
        usage.page_tables = (usage.rss_anon + usage.rss_file).div_ceil(512);
        usage
    }
}
