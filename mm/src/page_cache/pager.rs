//! What a page cache asks of the storage behind it.

use base::Result;
use hal::frame::Frame;

/// The storage of a file or disk. Its methods may sleep. They are called without a lock of the cache, but page faults call them with
/// the faulting address space's mappings locked for reading: they must not touch user memory, and must not wait for anybody who does.
pub trait Pager: Send + Sync {
    /// Fills `frames` with the pages from index `first` on; what has no data is to be zeros. `EIO`.
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()>;

    /// Does reading wait for a disk at most, and not for a program or another machine?
    fn is_prompt(&self) -> bool {
        false
    }

    /// Writes pages (index and frame, by ascending index). Those wholly past the end of the file need not be written. `EIO`, `ENOSPC`.
    fn write(&self, pages: &[(u64, Frame)]) -> Result<()>;

    /// Page `index` is about to become dirty: makes sure that it can be written later. `ENOSPC`, `EDQUOT`.
    fn reserve(&self, index: u64) -> Result<()> {
        let _ = index;
        Ok(())
    }

    /// Takes back what [`Pager::reserve`] reserved for `count` pages: they were written, or are gone.
    fn release(&self, count: usize) {
        let _ = count;
    }

    /// The first page has become dirty: the cache has to be written back some time.
    fn dirtied(&self) {}
}
