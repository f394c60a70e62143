//! The content of regular files: blocks one behind the other, and the end, where it is short, in a fragment shared with others.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{Body, File, NO_INDEX};
use super::{Squashfs, u32_at, u64_at};

/// The bit of a block's size that says that it is not compressed.
const PLAIN: u32 = 1 << 24;
/// Bytes of an entry in the table of fragments.
const FRAGMENT: usize = 16;

impl Squashfs {
    /// A block's content. `EIO`, `ENOMEM`.
    fn block(&self, at: u64, size: u32) -> Result<Arc<Vec<u8>>> {
        let len = size & !PLAIN;
        if len == 0 || len > self.layout.block_size {
            return Err(Errno::EIO);
        }
        self.blocks.get(at, || {
            let bytes = self.storage.read(at, len as usize)?;
            if size & PLAIN != 0 {
                return Ok(bytes);
            }
            self.layout.compression.decompress(&bytes, self.layout.block_size as usize)
        })
    }

    fn fragment(&self, index: u32) -> Result<Arc<Vec<u8>>> {
        if index >= self.layout.fragments || !super::inode::is_there(self.layout.fragment_table) {
            return Err(Errno::EIO);
        }
        let entry = self.table_entry(self.layout.fragment_table, index, FRAGMENT)?;
        self.block(u64_at(&entry, 0)?, u32_at(&entry, 8)?)
    }

    /// Fills the buffer from `offset` on; with zeros behind the end. `EIO`, `ENOMEM`.
    pub(super) fn read_content(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Body::Regular { start, mut sizes, blocks, fragment, fragment_offset } = file.body else {
            return Err(Errno::EISDIR);
        };
        let block_size = u64::from(self.layout.block_size);
        buffer.fill(0);
        let end = (offset + buffer.len() as u64).min(file.stat.size);
        let mut place = start;
        // Where a block begins is known by the sizes of those before it.
        let last = end.div_ceil(block_size).min(blocks);
        let list = self.read_metadata(&mut sizes, last as usize * 4)?;
        for index in 0..last {
            let size = u32_at(&list, index as usize * 4)?;
            let first = index * block_size;
            if first + block_size > offset && size != 0 {
                let content = self.block(place, size)?;
                copy(&content, first, offset, end, buffer);
            }
            place = place.checked_add(u64::from(size & !PLAIN)).ok_or(Errno::EIO)?;
        }
        let tail = blocks * block_size;
        if fragment != NO_INDEX && end > tail {
            let content = self.fragment(fragment)?;
            let from = content.get(fragment_offset as usize..).ok_or(Errno::EIO)?;
            let len = ((file.stat.size - tail) as usize).min(from.len());
            copy(&from[..len], tail, offset, end, buffer);
        }
        Ok(())
    }
}

/// Copies what `content`, which begins at byte `first` of the file, has of `offset..end` into the buffer that begins at `offset`.
fn copy(content: &[u8], first: u64, offset: u64, end: u64, buffer: &mut [u8]) {
    let from = first.max(offset);
    let to = (first + content.len() as u64).min(end);
    if from < to {
        let len = (to - from) as usize;
        let source = &content[(from - first) as usize..][..len];
        buffer[(from - offset) as usize..][..len].copy_from_slice(source);
    }
}
