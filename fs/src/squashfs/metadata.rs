//! The stream of metadata: compressed blocks, each with its length in front, and reading across them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::{Squashfs, u16_at};

/// Bytes of a block when it is decompressed.
pub(super) const BLOCK: usize = 8192;
/// The length's bit that says that a block is not compressed.
const PLAIN: u16 = 1 << 15;

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the block begins on the storage.
    pub(super) block: u64,
    /// The byte in it.
    pub(super) offset: usize,
}

/// A block when it is decompressed.
pub(super) struct Block {
    content: Vec<u8>,
    /// Where the next is on the storage.
    next: u64,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Squashfs {
    /// A block of the stream. `EIO`, `ENOMEM`.
    fn metadata_block(&self, at: u64) -> Result<Arc<Block>> {
        self.metadata.get(at, || {
            let header = u16_at(&self.storage.read(at, 2)?, 0)?;
            let len = usize::from(header & !PLAIN);
            if len == 0 || len > BLOCK {
                return Err(Errno::EIO);
            }
            let bytes = self.storage.read(at + 2, len)?;
            let plain = header & PLAIN != 0;
            let content = if plain { bytes } else { self.layout.compression.decompress(&bytes, BLOCK)? };
            Ok(Block { content, next: at + 2 + len as u64 })
        })
    }

    /// `len` bytes of the stream from `position` on, which it advances. `EIO`, `ENOMEM`.
    pub(super) fn read_metadata(&self, position: &mut Position, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        while bytes.len() < len {
            let block = self.metadata_block(position.block)?;
            let Block { content, next } = &*block;
            let rest = content.get(position.offset..).ok_or(Errno::EIO)?;
            if rest.is_empty() && content.len() < BLOCK {
                return Err(Errno::EIO);
            }
            let n = rest.len().min(len - bytes.len());
            bytes.extend_from_slice(&rest[..n]);
            position.offset += n;
            if position.offset >= BLOCK {
                *position = Position { block: *next, offset: 0 };
            }
        }
        Ok(bytes)
    }
}
