//! Direct I/O (O_DIRECT): transfers between memory and the pager that leave nothing in the cache.
//!
//! The bytes go through frames of the kernel's, so memory need not be aligned. What is dirty in the cache is written first, and what a write has
//! made stale leaves it, so that who reads with the cache sees the same. Who changes a page through a mapping meanwhile may lose the change.

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;

use super::{PAGE, PageCache, reclaim};
use crate::{Sink, Source};

/// Pages that are under way at a time.
const BATCH: usize = 256;

fn frames(count: usize) -> Result<Vec<Frame>> {
    (0..count).map(|_| reclaim::alloc_frame().ok_or(Errno::ENOMEM)).collect()
}

impl PageCache {
    /// Reads from `offset` until the sink is full or the file ends, past the cache; the number of bytes. The file has a pager. `EFAULT`, `EIO`,
    /// `ENOSPC` (of what had to be written first), `ENOMEM`.
    pub fn read_direct(&self, offset: u64, sink: &mut Sink) -> Result<usize> {
        sink.limit(usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX));
        let Some(pager) = self.pager.as_ref().filter(|_| sink.remaining() > 0) else { return Ok(0) };
        self.sync_range(offset / PAGE, (offset + sink.remaining() as u64 - 1) / PAGE)?;
        let mut done = 0;
        while sink.remaining() > 0 {
            let at = offset + done as u64;
            let mut within = (at % PAGE) as usize;
            let batch = frames((within + sink.remaining()).div_ceil(PAGE_SIZE).min(BATCH))?;
            let read = pager.read(at / PAGE, &batch);
            for frame in &batch {
                let len = (PAGE_SIZE - within).min(sink.remaining());
                let moved = match read.and_then(|()| sink.put_frame(frame, within, len)) {
                    Err(error) if done == 0 => return Err(error),
                    moved => moved.unwrap_or(0),
                };
                done += moved;
                if moved < len {
                    return Ok(done);
                }
                within = 0;
            }
        }
        Ok(done)
    }

    /// Writes whole pages within the file at `offset`, past the cache; the number of bytes. `None` where it is not whole pages of a file with a
    /// pager, or the file would grow: that is for [`PageCache::write`]. The caller keeps other writers out. `EFAULT`, `EIO`, `ENOSPC`, `ENOMEM`.
    pub fn write_direct(&self, offset: u64, source: &mut Source) -> Result<Option<usize>> {
        let end = offset.checked_add(source.remaining() as u64).filter(|end| *end <= self.size());
        let (Some(pager), Some(end)) = (&self.pager, end) else { return Ok(None) };
        if !offset.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) || offset == end {
            return Ok(None);
        }
        self.sync_range(offset / PAGE, end / PAGE - 1)?;
        let mut done = 0;
        while source.remaining() > 0 {
            let first = offset / PAGE + (done / PAGE_SIZE) as u64;
            let mut pages = Vec::new();
            for (frame, index) in frames((source.remaining() / PAGE_SIZE).min(BATCH))?.into_iter().zip(first..) {
                // Memory that can't be read ends the transfer at the last whole page before it.
                if !matches!(source.take_frame(&frame, 0, PAGE_SIZE), Ok(PAGE_SIZE)) {
                    source.limit(0);
                    break;
                }
                pages.push((index, frame));
            }
            match self.write_past(&**pager, &pages) {
                Ok(()) => done += pages.len() * PAGE_SIZE,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Some(done))
    }

    /// Has the pager write pages that are not the cache's. `EFAULT` where there are none.
    fn write_past(&self, pager: &dyn super::Pager, pages: &[(u64, Frame)]) -> Result<()> {
        let (Some((first, _)), Some((last, _))) = (pages.first(), pages.last()) else { return Err(Errno::EFAULT) };
        let reserved = pages.iter().take_while(|(index, _)| pager.reserve(*index).is_ok()).count();
        let result = if reserved == pages.len() { pager.write(pages) } else { Err(Errno::ENOSPC) };
        pager.release(reserved);
        self.drop_pages(*first, *last);
        result
    }
}
