//! Address spaces.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Result;
use hal::paging::PageTable;
use hal::regs::PageFault;

use crate::{Backing, MappingInfo, MappingName, Prot};

/// The memory of a process: its mappings and the page table that shows what has been touched of them.
pub struct AddressSpace {
    page_table: Arc<PageTable>,
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
    /// MAP_LOCKED or mlockall(MCL_FUTURE).
    pub locked: bool,
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
            locked: false,
            populate: false,
            no_reserve: false,
            low: false,
            backing: Backing::Anonymous,
            name: MappingName::None,
        }
    }
}

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

impl AddressSpace {
    /// An empty address space. `ENOMEM`.
    pub fn new() -> Result<Arc<AddressSpace>> {
        todo!()
    }

    /// A copy for fork: private pages shared copy-on-write, MADV_DONTFORK left out, MADV_WIPEONFORK empty. `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<AddressSpace>> {
        todo!()
    }

    /// What a thread that lives in it loads.
    pub fn page_table(&self) -> &Arc<PageTable> {
        &self.page_table
    }

    /// Sets the limits; kept up to date by setrlimit(2).
    pub fn set_limits(&self, limits: Limits) {
        let _ = limits;
        todo!()
    }

    /// mmap(2): the address. `ENOMEM`, `EEXIST`, `EINVAL`, `EPERM` (below mmap_min_addr), `EAGAIN` (locked), `EACCES`.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        let _ = request;
        todo!()
    }

    /// munmap(2), of a page-aligned range. `EINVAL`, `ENOMEM`.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<()> {
        let _ = (addr, len);
        todo!()
    }

    /// mprotect(2), of a page-aligned range. `ENOMEM` (something in it is not mapped), `EACCES`.
    pub fn protect(&self, addr: usize, len: usize, prot: Prot) -> Result<()> {
        let _ = (addr, len, prot);
        todo!()
    }

    /// mremap(2) with its flags. `EINVAL`, `EFAULT`, `ENOMEM`, `EAGAIN`.
    pub fn remap(&self, old: usize, old_len: usize, new_len: usize, flags: u32, new: usize) -> Result<usize> {
        let _ = (old, old_len, new_len, flags, new);
        todo!()
    }

    /// madvise(2). `EINVAL`, `ENOMEM`, `EIO`.
    pub fn advise(&self, addr: usize, len: usize, advice: u32) -> Result<()> {
        let _ = (addr, len, advice);
        todo!()
    }

    /// brk(2): the break after the call.
    pub fn brk(&self, addr: usize) -> usize {
        let _ = addr;
        todo!()
    }

    /// Where the heap starts, set by exec.
    pub fn set_brk_start(&self, addr: usize) {
        let _ = addr;
        todo!()
    }

    /// mlock(2) and munlock(2). `ENOMEM`, `EAGAIN`.
    pub fn lock(&self, addr: usize, len: usize, lock: bool) -> Result<()> {
        let _ = (addr, len, lock);
        todo!()
    }

    /// msync(2). `ENOMEM` (something in it is not mapped), `EBUSY`.
    pub fn sync(&self, addr: usize, len: usize, flags: u32) -> Result<()> {
        let _ = (addr, len, flags);
        todo!()
    }

    /// mincore(2): one byte a page. `ENOMEM`.
    pub fn resident(&self, addr: usize, len: usize) -> Result<Vec<u8>> {
        let _ = (addr, len);
        todo!()
    }

    /// Resolves a page fault of a thread that lives here.
    pub fn handle_fault(&self, fault: &PageFault) -> Result<(), FaultError> {
        let _ = fault;
        todo!()
    }

    /// Calls `f` on each mapping from `addr` up until it gives false.
    pub fn for_each_mapping(&self, addr: usize, f: impl FnMut(&MappingInfo) -> bool) {
        let _ = (addr, f);
        todo!()
    }

    /// The mapping that holds `addr`.
    pub fn mapping_at(&self, addr: usize) -> Option<MappingInfo> {
        let _ = addr;
        todo!()
    }

    /// Resident, proportional (x 4096) and dirty pages of a range, for smaps: (resident, pss in 1/4096 pages, private, swapped).
    pub fn residency(&self, start: usize, end: usize) -> (usize, usize, usize, usize) {
        let _ = (start, end);
        todo!()
    }

    /// Sums, for statm and status.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Reads memory of this address space from a thread that lives elsewhere: how many bytes before the first that can't be read.
    pub fn read_remote(&self, addr: usize, dst: &mut [u8]) -> usize {
        let _ = (addr, dst);
        todo!()
    }

    /// Writes memory of this address space from a thread that lives elsewhere. `force` breaks copy-on-write in read-only private mappings (ptrace).
    pub fn write_remote(&self, addr: usize, src: &[u8], force: bool) -> usize {
        let _ = (addr, src, force);
        todo!()
    }

    /// What identifies the word at `addr` for shared futexes: for a page of a file or shared memory (the cache's identity, page index,
    /// offset in page), for private memory (this address space's identity, page number, offset). `EFAULT`.
    pub fn futex_key(&self, addr: usize, private: bool) -> Result<(usize, u64, u32)> {
        let _ = (addr, private);
        todo!()
    }
}
