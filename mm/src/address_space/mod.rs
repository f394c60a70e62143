//! Address spaces: the mappings of a process, and what its page table shows of them.
//!
//! | file | what |
//! |---|---|
//! | `layout.rs` | the set of mappings: finding room, splitting, merging |
//! | `map.rs` | mmap, munmap, brk |
//! | `fault.rs` | page faults: demand zero, file pages, copy on write, stack growth |
//! | `protect.rs` | mprotect, msync, mincore |
//! | `advice.rs` | madvise |
//! | `lock.rs` | mlock, mlockall |
//! | `remap.rs` | mremap |
//! | `fork.rs` | copies for fork |
//! | `access.rs` | reading and writing another process's memory, futex keys |
//! | `userfault.rs` | faults that a program resolves (userfaultfd) |
//! | `report.rs` | what procfs shows |
//!
//! The mappings are under a sleeping readers-writer lock: faults and queries read, what changes mappings writes. The page table has a
//! spin lock of its own below it.

mod access;
mod advice;
mod fault;
mod fork;
mod layout;
mod lock;
mod map;
mod protect;
mod remap;
mod report;
mod userfault;

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};

use base::{Errno, Result};
use hal::paging::{Batch, OutOfFrames, PageTable};
use sched::RwLock;

use crate::{Backing, Lock, MappingName, Prot};
use layout::{Layout, Mapping};

pub use fault::FaultError;
pub(crate) use layout::LOWEST;
pub use remap::Range;
pub use report::{CleanDirty, PageState, Pages, Residency};
pub use userfault::Fill;

/// Anonymous pages mapped, over all address spaces.
static ANONYMOUS: AtomicIsize = AtomicIsize::new(0);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Anonymous pages that are mapped somewhere.
pub(crate) fn anonymous_pages() -> usize {
    usize::try_from(ANONYMOUS.load(Ordering::Relaxed)).unwrap_or(0)
}

fn no_memory(_: OutOfFrames) -> Errno {
    Errno::ENOMEM
}

/// The memory of a process: its mappings and the page table that shows what has been touched of them.
pub struct AddressSpace {
    page_table: Arc<PageTable>,
    layout: RwLock<Layout>,
    /// Never used again, so that it names this address space in futex keys.
    id: u64,
    rss_anon: AtomicIsize,
    rss_file: AtomicIsize,
    rss_shmem: AtomicIsize,
    peak_rss: AtomicUsize,
    this: Weak<AddressSpace>,
}

impl AddressSpace {
    /// An empty address space. `ENOMEM`.
    pub fn new() -> Result<Arc<AddressSpace>> {
        AddressSpace::with(Layout::new())
    }

    fn with(layout: Layout) -> Result<Arc<AddressSpace>> {
        let page_table = PageTable::new().ok_or(Errno::ENOMEM)?;
        Ok(Arc::new_cyclic(|this| AddressSpace {
            page_table,
            layout: RwLock::new(layout),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            rss_anon: AtomicIsize::new(0),
            rss_file: AtomicIsize::new(0),
            rss_shmem: AtomicIsize::new(0),
            peak_rss: AtomicUsize::new(0),
            this: this.clone(),
        }))
    }

    /// What a thread that lives in it loads.
    pub fn page_table(&self) -> &Arc<PageTable> {
        &self.page_table
    }

    /// Sets the limits; kept up to date by setrlimit(2).
    pub fn set_limits(&self, limits: Limits) {
        self.layout.write().limits = limits;
    }

    /// Sets where mappings without an address go: below `base`, downwards. exec randomises it.
    pub fn set_map_base(&self, base: usize) {
        let mut layout = self.layout.write();
        layout.map_base = base;
        layout.hint = base;
    }

    fn count_anonymous(&self, pages: isize) {
        self.rss_anon.fetch_add(pages, Ordering::Relaxed);
        ANONYMOUS.fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts pages of a mapping's cache that were mapped.
    fn count_file(&self, mapping: &Mapping, pages: isize) {
        let sum = if mapping.is_shmem() { &self.rss_shmem } else { &self.rss_file };
        sum.fetch_add(pages, Ordering::Relaxed);
    }

    /// Flushes and frees what a batch took out, and counts it.
    fn finish(&self, batch: &mut Batch) {
        self.count_anonymous(-(batch.anonymous as isize));
        self.rss_file.fetch_sub(batch.file as isize, Ordering::Relaxed);
        self.rss_shmem.fetch_sub(batch.shmem as isize, Ordering::Relaxed);
        (batch.anonymous, batch.file, batch.shmem) = (0, 0, 0);
        self.page_table.flush(batch);
    }

    fn note_peak(&self) {
        let now: isize =
            [&self.rss_anon, &self.rss_file, &self.rss_shmem].map(|sum| sum.load(Ordering::Relaxed)).iter().sum();
        self.peak_rss.fetch_max(usize::try_from(now).unwrap_or(0), Ordering::Relaxed);
    }

    /// Takes everything out of the page table in `start..end`.
    fn zap(&self, start: usize, end: usize) -> Result<()> {
        self.note_peak();
        let mut batch = Batch::new();
        let mut at = start;
        while at < end {
            at = self.page_table.lock().unmap(at, end, &mut batch).map_err(no_memory)?;
            self.finish(&mut batch);
        }
        Ok(())
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // What is still mapped goes with the page table, which nobody has loaded any more.
        ANONYMOUS.fetch_sub(self.rss_anon.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What mmap(2) is asked for, validated and page-aligned by the caller.
pub struct MapRequest {
    /// Where (a hint unless `fixed`), 0 for anywhere.
    pub addr: usize,
    /// Bytes, a multiple of the page size, not 0.
    pub len: usize,
    /// Protection.
    pub prot: Prot,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_FIXED: exactly there, replacing what is mapped.
    pub fixed: bool,
    /// MAP_FIXED_NOREPLACE: exactly there, `EEXIST` if something is mapped.
    pub no_replace: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_LOCKED; what mlockall(MCL_FUTURE) asks for comes on top.
    pub lock: Lock,
    /// CAP_IPC_LOCK: RLIMIT_MEMLOCK does not count.
    pub may_lock: bool,
    /// MAP_POPULATE.
    pub populate: bool,
    /// MAP_NORESERVE.
    pub no_reserve: bool,
    /// MAP_32BIT.
    pub low: bool,
    /// What backs it.
    pub backing: Backing,
    /// Its name.
    pub name: MappingName,
}

impl MapRequest {
    /// A private anonymous mapping of `len` bytes anywhere.
    pub fn anonymous(len: usize, prot: Prot) -> MapRequest {
        MapRequest {
            addr: 0,
            len,
            prot,
            shared: false,
            fixed: false,
            no_replace: false,
            grows_down: false,
            lock: Lock::No,
            may_lock: false,
            populate: false,
            no_reserve: false,
            low: false,
            backing: Backing::Anonymous,
            name: MappingName::None,
        }
    }
}

/// How much memory an address space uses, in pages.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// All mappings.
    pub total: usize,
    /// The most `total` ever was.
    pub peak_total: usize,
    /// Resident anonymous pages.
    pub rss_anon: usize,
    /// Resident file pages.
    pub rss_file: usize,
    /// Resident shared-memory pages.
    pub rss_shmem: usize,
    /// The most the resident pages ever were.
    pub peak_rss: usize,
    /// Private writable mappings, stack excluded.
    pub data: usize,
    /// The stack.
    pub stack: usize,
    /// Executable mappings.
    pub text: usize,
    /// Locked mappings.
    pub locked: usize,
    /// Page tables.
    pub page_tables: usize,
}

/// The limits that map, brk and stack growth respect, in bytes (`u64::MAX`: none): the caller passes the process's rlimits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK.
    pub locked: u64,
}
