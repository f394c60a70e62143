//! Direct I/O (O_DIRECT): transfers between user memory and the storage that leave nothing in the page cache.
//!
//! The bytes go through frames of the kernel's, so user buffers need no alignment in memory; offset and length need that of the
//! storage's logical block, as on Linux.

use abi::PAGE_SIZE;
use alloc::vec::Vec;
use base::{Errno, Result};
use hal::frame::Frame;
use mm::{PageCache, Sink, Source};

use crate::block::{BlockIo, Direction, Piece};

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes that are under way at a time.
const CHUNK: usize = 1 << 20;

/// `EINVAL` where a transfer is not made of whole blocks.
pub(crate) fn check_alignment(block: u32, offset: u64, len: usize) -> Result<()> {
    let block = u64::from(block);
    if offset.is_multiple_of(block) && (len as u64).is_multiple_of(block) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Frames for `len` bytes from `offset` on. `ENOMEM`.
fn pieces(offset: u64, len: usize) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let n = (len - at).min(PAGE_SIZE);
        let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
        pieces.push(Piece { offset: offset + at as u64, frame, within: 0, len: n });
        at += n;
    }
    Ok(pieces)
}

/// Reads from a device. `EINVAL`, `EIO`, `EFAULT`.
pub(crate) fn read(disk: &dyn BlockIo, cache: &PageCache, sink: &mut Sink, offset: u64) -> Result<usize> {
    check_alignment(disk.logical_block(), offset, sink.remaining())?;
    let left = disk.size().saturating_sub(offset);
    sink.limit(usize::try_from(left).unwrap_or(usize::MAX));
    if sink.remaining() == 0 {
        return Ok(0);
    }
    cache.sync_range(offset / PAGE, (offset + sink.remaining() as u64 - 1) / PAGE)?;
    let mut done = 0;
    while sink.remaining() > 0 {
        let batch = pieces(offset + done as u64, sink.remaining().min(CHUNK))?;
        disk.transfer(Direction::Read, &batch)?;
        for piece in &batch {
            let n = sink.put_frame(&piece.frame, 0, piece.len)?;
            done += n;
            if n < piece.len {
                return Ok(done);
            }
        }
    }
    Ok(done)
}

/// Writes to a device. `EINVAL`, `EIO`, `EFAULT`.
pub(crate) fn write(disk: &dyn BlockIo, cache: &PageCache, source: &mut Source, offset: u64) -> Result<usize> {
    check_alignment(disk.logical_block(), offset, source.remaining())?;
    let (first, last) = (offset / PAGE, (offset + source.remaining() as u64).saturating_sub(1) / PAGE);
    cache.sync_range(first, last)?;
    let mut done = 0;
    while source.remaining() > 0 {
        let mut batch = pieces(offset + done as u64, source.remaining().min(CHUNK))?;
        let mut filled = 0;
        for piece in &batch {
            let n = source.take_frame(&piece.frame, 0, piece.len)?;
            filled += n;
            if n < piece.len {
                break;
            }
        }
        // Memory that could not be read ends the transfer at the last whole page before it.
        let short = filled < batch.iter().map(|piece| piece.len).sum();
        if short {
            batch.truncate(filled / PAGE_SIZE);
            filled = batch.len() * PAGE_SIZE;
        }
        disk.transfer(Direction::Write, &batch)?;
        done += filled;
        if short {
            break;
        }
    }
    cache.drop_clean(first, last);
    if done == 0 { Err(Errno::EFAULT) } else { Ok(done) }
}
