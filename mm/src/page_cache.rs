//! The page cache: the pages of one file, or of one shared-memory object.

use alloc::sync::Arc;

use base::Result;
use hal::frame::Frame;

use crate::{Sink, Source};

/// What fills and cleans the pages of a file on a device. tmpfs has none: its cache is its storage.
pub trait Pager: Send + Sync {
    /// Reads the pages from `first` on into `frames` (all of them; zeros past the file's end). `EIO`.
    fn read_pages(&self, first: u64, frames: &[Frame]) -> Result<()>;
    /// Writes `frames`, pages from `first` on. `EIO`, `ENOSPC`.
    fn write_pages(&self, first: u64, frames: &[Frame]) -> Result<()>;
}

/// The pages of one file. Reads and writes from any number of threads at once; each page's bytes may tear, as POSIX allows.
pub struct PageCache {
    _todo: (),
}

impl PageCache {
    /// An empty cache that is its own storage: a page that was never written reads as zeros.
    pub fn new() -> Arc<PageCache> {
        todo!()
    }

    /// A cache of `size` bytes over a pager.
    pub fn with_pager(pager: Arc<dyn Pager>, size: u64) -> Arc<PageCache> {
        let _ = (pager, size);
        todo!()
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Sets the size. Shrinking drops the pages behind it, zeroes the rest of the last and takes them out of all mappings (whose
    /// accesses then get SIGBUS).
    pub fn resize(&self, size: u64) -> Result<()> {
        let _ = size;
        todo!()
    }

    /// Reads from `offset` until the sink is full or the file ends; the number of bytes. `EFAULT`, `EIO`, `ENOMEM`.
    pub fn read(&self, offset: u64, sink: &mut Sink) -> Result<usize> {
        let _ = (offset, sink);
        todo!()
    }

    /// Writes at `offset`, growing the file; the number of bytes. `EFAULT`, `EIO`, `ENOMEM`, `ENOSPC`.
    pub fn write(&self, offset: u64, source: &mut Source) -> Result<usize> {
        let _ = (offset, source);
        todo!()
    }

    /// The page at `index`, brought in if need be. With `write`, a hole gets a page of its own; without, a hole is `None`.
    pub fn page(&self, index: u64, write: bool) -> Result<Option<Frame>> {
        let _ = (index, write);
        todo!()
    }

    /// Puts a frame in as the page at `index` (initramfs without copying).
    pub fn insert(&self, index: u64, frame: Frame) {
        let _ = (index, frame);
        todo!()
    }

    /// Zeroes `start..end` and frees whole pages in it (FALLOC_FL_PUNCH_HOLE).
    pub fn punch_hole(&self, start: u64, end: u64) -> Result<()> {
        let _ = (start, end);
        todo!()
    }

    /// The number of pages held.
    pub fn pages(&self) -> usize {
        todo!()
    }

    /// The next offset from `offset` that has data (`data`) or is in a hole (`!data`), page by page; `None` past the end.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let _ = (offset, data);
        todo!()
    }
}
