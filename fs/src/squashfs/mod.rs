//! squashfs 4.0, read-only compressed images (the kernel's squashfs document).
//!
//! From the disk up: [`compression`] of blocks; [`metadata`], a stream of compressed blocks of 8 KiB with everything but the files'
//! content; [`inode`] and [`directory`] read what is in that stream; [`data`] reads content, whose ends share fragments.

mod compression;
mod data;
mod directory;
mod inode;
mod metadata;
#[cfg(test)]
mod tests;
mod xattr;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::block::{BlockDev, BlockIo};
use crate::image::{Cache, Image, Stat, Storage};
use crate::{DirEntry, FileSystem, FsStats, Inode};
use compression::Compression;
use inode::File;
use metadata::{Block, Position};

/// `s_magic`, and `f_type` of statfs(2).
const MAGIC: u32 = 0x7371_7368;
/// Bytes of the superblock.
const SUPERBLOCK: usize = 96;
/// A table that is not there.
const NONE: u64 = u64::MAX;
/// Decompressed blocks that are kept: of metadata, and of content.
const METADATA_KEPT: usize = 64;
const DATA_KEPT: usize = 8;

/// Where things are in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    inodes: u32,
    block_size: u32,
    fragments: u32,
    compression: Compression,
    ids: u16,
    root: u64,
    bytes: u64,
    id_table: u64,
    xattr_table: u64,
    inode_table: u64,
    directory_table: u64,
    fragment_table: u64,
}

/// Little-endian fields of `bytes`. `EIO` where they end early.
fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

impl Layout {
    /// Reads the superblock. `EINVAL` where there is none, or one that we can't read.
    fn read(bytes: &[u8]) -> Result<Layout> {
        let field = |at| u32_at(bytes, at);
        if field(0)? != MAGIC || (u16_at(bytes, 28)?, u16_at(bytes, 30)?) != (4, 0) {
            return Err(Errno::EINVAL);
        }
        let block_size = field(12)?;
        let sane = block_size.is_power_of_two() && (4096..=1 << 20).contains(&block_size);
        if !sane || 1u32.checked_shl(u16_at(bytes, 22)?.into()) != Some(block_size) {
            return Err(Errno::EINVAL);
        }
        Ok(Layout {
            inodes: field(4)?,
            block_size,
            fragments: field(16)?,
            compression: Compression::from_id(u16_at(bytes, 20)?).ok_or(Errno::EINVAL)?,
            ids: u16_at(bytes, 26)?,
            root: u64_at(bytes, 32)?,
            bytes: u64_at(bytes, 40)?,
            id_table: u64_at(bytes, 48)?,
            xattr_table: u64_at(bytes, 56)?,
            inode_table: u64_at(bytes, 64)?,
            directory_table: u64_at(bytes, 72)?,
            fragment_table: u64_at(bytes, 80)?,
        })
    }
}

/// An image.
pub(crate) struct Squashfs {
    storage: Storage,
    layout: Layout,
    /// Decompressed blocks of metadata.
    metadata: Cache<u64, Block>,
    /// Decompressed blocks of content.
    blocks: Cache<u64, Vec<u8>>,
}

impl Squashfs {
    /// Opens an image. `EINVAL`, `EIO`, `ENOMEM`.
    pub(crate) fn open(disk: Arc<dyn BlockIo>) -> Result<Squashfs> {
        let storage = Storage::new(disk);
        let layout = Layout::read(&storage.read(0, SUPERBLOCK).map_err(|_| Errno::EINVAL)?)?;
        let metadata = Cache::new(METADATA_KEPT, METADATA_KEPT * metadata::BLOCK);
        let blocks = Cache::new(DATA_KEPT, DATA_KEPT * layout.block_size as usize);
        Ok(Squashfs { storage, layout, metadata, blocks })
    }

    /// Entry `index` of a table of `size` bytes each, which is in metadata blocks that a list at `table` leads to. `EIO`.
    fn table_entry(&self, table: u64, index: u32, size: usize) -> Result<Vec<u8>> {
        let at = u64::from(index) * size as u64;
        let (block, offset) = (at / metadata::BLOCK as u64, (at % metadata::BLOCK as u64) as usize);
        let pointer = table.checked_add(block * 8).ok_or(Errno::EIO)?;
        let start = u64_at(&self.storage.read(pointer, 8)?, 0)?;
        self.read_metadata(&mut Position { block: start, offset }, size)
    }

    /// The owner or group that a file names by its place in the table of ids. `EIO`.
    fn id(&self, index: u16) -> Result<u32> {
        if index >= self.layout.ids {
            return Err(Errno::EIO);
        }
        u32_at(&self.table_entry(self.layout.id_table, index.into(), 4)?, 0)
    }
}

impl Image for Squashfs {
    type File = File;

    fn root(&self) -> u64 {
        self.layout.root
    }

    fn file(&self, id: u64) -> Result<File> {
        self.read_inode(id)
    }

    fn stat(&self, file: &File) -> Stat {
        file.stat
    }

    fn lookup(&self, dir: &File, name: &[u8]) -> Result<Option<u64>> {
        self.find_entry(dir, name)
    }

    fn list(&self, dir: &File, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        self.list_entries(dir, position, emit)
    }

    fn read(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_content(file, offset, buffer)
    }

    fn link(&self, file: &File) -> Result<Vec<u8>> {
        self.read_target(file)
    }

    fn xattrs(&self, file: &File) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.read_xattrs(file)
    }

    fn stats(&self) -> FsStats {
        let blocks = self.layout.bytes.div_ceil(u64::from(self.layout.block_size));
        FsStats { blocks, files: self.layout.inodes.into(), ..FsStats::default() }
    }

    fn block_size(&self) -> u32 {
        self.layout.block_size
    }
}

/// The kind "squashfs" for mount(2).
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "squashfs"
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn mount_device(&self, device: &Arc<BlockDev>, _read_only: bool, options: &[u8]) -> Result<Arc<Inode>> {
        for option in options.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            if !matches!(option, b"errors=continue" | b"errors=panic") && !option.starts_with(b"threads=") {
                return Err(Errno::EINVAL);
            }
        }
        crate::image::mount(device, "squashfs", MAGIC, Squashfs::open)
    }
}
