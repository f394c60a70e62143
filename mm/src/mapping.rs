//! Mappings: the pieces of an address space.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use base::Result;
use bitflags::bitflags;

use crate::PageCache;

bitflags! {
    /// What a mapping allows.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Prot: u8 {
        /// PROT_READ.
        const READ = 1;
        /// PROT_WRITE.
        const WRITE = 2;
        /// PROT_EXEC.
        const EXEC = 4;
    }
}

/// What a file mapping keeps of its file (an open file of `fs` implements it).
pub trait Mappable: Any + Send + Sync {
    /// The pages to map; none where the mapping has fresh zeros, as a private one of `/dev/zero` has.
    fn page_cache(&self) -> Option<Arc<PageCache>>;
    /// What `/proc/PID/maps` shows: device (major, minor), inode number, and path as seen from the root of the file system
    /// (with ` (deleted)` where it is).
    fn describe(&self) -> (u32, u32, u64, Vec<u8>);
    /// May a shared mapping of it be writable, now or by mprotect later? (The descriptor was opened for writing.)
    fn may_write(&self) -> bool;
    /// Makes bytes `from..to` of it last (msync(2)). `EIO`.
    fn sync(&self, from: u64, to: u64) -> Result<()> {
        let _ = (from, to);
        Ok(())
    }
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
}

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub enum Backing {
    /// Zeros.
    Anonymous,
    /// A file, from a page-aligned offset in bytes.
    File {
        /// The file.
        file: Arc<dyn Mappable>,
        /// Where in it the mapping starts.
        offset: u64,
    },
}

/// What `/proc/PID/maps` calls an anonymous mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingName {
    /// Nothing.
    None,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
    /// `[vdso]`.
    Vdso,
    /// `[vvar]`.
    Vvar,
}

/// Is a mapping kept in memory (mlock(2))?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lock {
    /// No.
    #[default]
    No,
    /// All of it, from the call on.
    Now,
    /// Each page from its first access on, MLOCK_ONFAULT.
    OnFault,
}

impl Lock {
    /// In either way?
    pub fn is_locked(self) -> bool {
        self != Lock::No
    }
}

/// In which order a program means to access a mapping (madvise(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessOrder {
    /// Nothing is known.
    #[default]
    Normal,
    /// MADV_SEQUENTIAL.
    Sequential,
    /// MADV_RANDOM.
    Random,
}

/// A mapping as `/proc/PID/maps` and `smaps` show it. Sizes in bytes.
#[derive(Clone)]
pub struct MappingInfo {
    /// First address.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Protection.
    pub prot: Prot,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// mlock'ed.
    pub lock: Lock,
    /// MADV_DONTFORK.
    pub not_inherited: bool,
    /// MADV_WIPEONFORK.
    pub wiped_on_fork: bool,
    /// MADV_DONTDUMP.
    pub not_dumped: bool,
    /// MADV_SEQUENTIAL, MADV_RANDOM.
    pub order: AccessOrder,
    /// MAP_NORESERVE.
    pub no_reserve: bool,
    /// All its pages count as changed ([`crate::AddressSpace::watch_changes`]).
    pub changed: bool,
    /// What backs it.
    pub backing: Backing,
    /// Its name where it has no file.
    pub name: MappingName,
}
