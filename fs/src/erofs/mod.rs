//! EROFS, read-only images whose files can be read where they lie (the kernel's erofs document, on-disk format of erofs_fs.h), as far as
//! Linux 6.1 has it, on one device.
//!
//! Inodes are slots of 32 bytes in the metadata area; a file's content is blocks in a row, the end of which may follow the inode, or
//! chunks that a list behind the inode names. Directories are files made of blocks of entries, sorted by name.
//!
//! Compressed files: [`index`] finds what of a file is where, [`compression`] decompresses it, [`content`] puts both together.

mod compression;
mod content;
mod index;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::block::{BlockDev, BlockIo};
use crate::image::{Cache, Image, Stat, Storage, buffer};
use crate::{Attributes, DeviceNumber, DirEntry, FileKind, FileSystem, FsStats, Inode};
use compression::Compression;

/// `f_type` of statfs(2), and the superblock's magic number.
const MAGIC: u32 = 0xe0f5_e1e2;
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK: usize = 128;
/// Features that change how images are read (EROFS_FEATURE_INCOMPAT_*); the last three are two features each, of which one does not matter
/// to who reads: devices are counted elsewhere, and so is the second algorithm by the files that have it.
const ZERO_PADDED: u32 = 1;
const COMPRESSION_CONFIGURED: u32 = 2;
const BIG_CLUSTERS: u32 = 2;
const CHUNKED: u32 = 4;
const SECOND_ALGORITHM: u32 = 8;
const INLINE_TAILS: u32 = 0x10;
const FRAGMENTS: u32 = 0x20;
const KNOWN: u32 = ZERO_PADDED | COMPRESSION_CONFIGURED | CHUNKED | SECOND_ALGORITHM | INLINE_TAILS | FRAGMENTS;
/// Bytes of an inode's slot, and of an entry of a directory.
const SLOT: u64 = 32;
const DIRENT: usize = 12;
/// The position of the first entry: a block's number and an entry's in it, this much further.
const FIRST: u64 = 2;
/// The longest target of a symbolic link.
const TARGET_MAX: u64 = 4096;
/// A chunk that is a hole.
const HOLE: u32 = u32::MAX;
/// Blocks of metadata that are kept, and decompressed extents, of which one can have megabytes.
const METADATA_KEPT: usize = 64;
const EXTENTS_KEPT: usize = 32;
const EXTENT_BYTES_KEPT: usize = 4 << 20;

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Errno::EIO)?))
}

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In blocks in a row.
    Blocks { first: u32 },
    /// In blocks in a row, but for the end, which is here.
    Inline { first: u32, tail: u64 },
    /// In chunks of so many bits of size, which a list names in entries of so many bytes.
    Chunks { bits: u32, list: u64, entry: u64 },
    /// Compressed, as the index there says.
    Compressed { index: u64, compact: bool },
}

/// A file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    stat: Stat,
    place: Place,
}

/// An image.
pub(crate) struct Erofs {
    storage: Storage,
    block_bits: u32,
    root: u64,
    inodes: u64,
    blocks: u32,
    meta: u32,
    built: i64,
    features: u32,
    compression: Compression,
    /// The file that has the ends of others.
    packed: Option<u64>,
    metadata: Cache<u64, Vec<u8>>,
    /// By where their clusters are, and by how much of those they are.
    extents: Cache<(u64, u64), Vec<u8>>,
}

impl Erofs {
    /// Opens an image. `EINVAL` where there is none, or one that we can't read; `EIO`, `ENOMEM`.
    pub(crate) fn open(disk: Arc<dyn BlockIo>) -> Result<Erofs> {
        let storage = Storage::new(disk);
        let bytes = storage.read(SUPERBLOCK_AT, SUPERBLOCK).map_err(|_| Errno::EINVAL)?;
        let block_bits = u32::from(bytes[12]);
        let features = u32_at(&bytes, 80)?;
        let other_devices = features & SECOND_ALGORITHM != 0 && u16_at(&bytes, 86)? != 0;
        if u32_at(&bytes, 0)? != MAGIC || !(9..=16).contains(&block_bits) || features & !KNOWN != 0 || other_devices {
            return Err(Errno::EINVAL);
        }
        let packed = u64_at(&bytes, 96)?;
        Ok(Erofs {
            compression: Compression::read(&storage, &bytes, features).map_err(|_| Errno::EINVAL)?,
            features,
            packed: (features & FRAGMENTS != 0 && packed != 0).then_some(packed),
            metadata: Cache::new(METADATA_KEPT, METADATA_KEPT << block_bits),
            extents: Cache::new(EXTENTS_KEPT, EXTENT_BYTES_KEPT),
            block_bits,
            root: u16_at(&bytes, 14)?.into(),
            inodes: u64_at(&bytes, 16)?,
            built: (u64_at(&bytes, 24)? as i64).saturating_mul(1_000_000_000),
            blocks: u32_at(&bytes, 36)?,
            meta: u32_at(&bytes, 40)?,
            storage,
        })
    }

    fn block(&self) -> u64 {
        1 << self.block_bits
    }

    fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    /// Fills the buffer with metadata from `at` on, whose blocks are kept. `EIO`, `ENOMEM`.
    fn fetch_into(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let from = at.checked_add(done as u64).ok_or(Errno::EIO)?;
            let start = from & !(self.block() - 1);
            let block = self.metadata.get(start, || {
                self.storage.read(start, self.storage.size().saturating_sub(start).min(self.block()) as usize)
            })?;
            let there = block.get((from - start) as usize..).filter(|there| !there.is_empty()).ok_or(Errno::EIO)?;
            let n = there.len().min(buffer.len() - done);
            buffer[done..done + n].copy_from_slice(&there[..n]);
            done += n;
        }
        Ok(())
    }

    fn fetch<const LEN: usize>(&self, at: u64) -> Result<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.fetch_into(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Where an inode is. `EIO`.
    fn slot(&self, id: u64) -> Result<u64> {
        let offset = id.checked_mul(SLOT).ok_or(Errno::EIO)?;
        (u64::from(self.meta) << self.block_bits).checked_add(offset).ok_or(Errno::EIO)
    }

    fn read_inode(&self, id: u64) -> Result<File> {
        let at = self.slot(id)?;
        let mut bytes = [0; 64];
        let format = u16_at(&self.fetch::<2>(at)?, 0)?;
        let long = format & 1 != 0;
        self.fetch_into(at, &mut bytes[..if long { 64 } else { 32 }])?;
        let mode = u32::from(u16_at(&bytes, 4)?);
        let (size, uid, gid, nlink, time) = if long {
            let time =
                (u64_at(&bytes, 32)? as i64).saturating_mul(1_000_000_000).saturating_add(u32_at(&bytes, 40)?.into());
            (u64_at(&bytes, 8)?, u32_at(&bytes, 24)?, u32_at(&bytes, 28)?, u32_at(&bytes, 44)?, time)
        } else {
            let (uid, gid) = (u16_at(&bytes, 24)?.into(), u16_at(&bytes, 26)?.into());
            (u32_at(&bytes, 8)?.into(), uid, gid, u16_at(&bytes, 6)?.into(), self.built)
        };
        let kind = FileKind::from_mode(mode).ok_or(Errno::EIO)?;
        let xattrs = match u16_at(&bytes, 2)? {
            0 => 0,
            count => 12 + (u64::from(count) - 1) * 4,
        };
        let behind = at + if long { 64 } else { 32 } + xattrs;
        let union = u32_at(&bytes, 16)?;
        let place = match format >> 1 & 7 {
            0 => Place::Blocks { first: union },
            2 => Place::Inline { first: union, tail: behind },
            4 => {
                let indexed = union & 0x20 != 0;
                let entry = if indexed { 8 } else { 4 };
                let list = if indexed { behind.next_multiple_of(8) } else { behind };
                Place::Chunks { bits: self.block_bits + (union & 0x1f), list, entry }
            }
            layout @ (1 | 3) => Place::Compressed { index: behind.next_multiple_of(8), compact: layout == 3 },
            _ => return Err(Errno::EOPNOTSUPP),
        };
        if matches!(place, Place::Chunks { bits, .. } if bits > 40) {
            return Err(Errno::EIO);
        }
        let attributes =
            Attributes { mode: mode & 0o7777, uid, gid, nlink, atime: time, mtime: time, ctime: time, btime: time };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let rdev = if is_device { DeviceNumber::decode(union) } else { DeviceNumber::default() };
        let number = u64::from(u32_at(&bytes, 20)?);
        let size = size.min(i64::MAX as u64);
        let number = if number == 0 { id } else { number };
        let blocks = if matches!(place, Place::Compressed { .. }) { union.into() } else { size.div_ceil(self.block()) };
        let sectors = blocks << (self.block_bits - 9);
        Ok(File { stat: Stat { number, kind, rdev, attributes, size, sectors }, place })
    }

    /// Where byte `offset` of a file is on the storage, and how many follow it there; `None` for a hole. `EIO`.
    fn locate(&self, file: &File, offset: u64) -> Result<(Option<u64>, u64)> {
        let left = file.stat.size - offset;
        let in_blocks = |first: u32| (u64::from(first) << self.block_bits).checked_add(offset).ok_or(Errno::EIO);
        match file.place {
            Place::Blocks { first } => Ok((Some(in_blocks(first)?), left)),
            Place::Inline { first, tail } => {
                let start = file.stat.size / self.block() * self.block();
                if offset >= start {
                    Ok((Some(tail + (offset - start)), left))
                } else {
                    Ok((Some(in_blocks(first)?), start - offset))
                }
            }
            Place::Chunks { bits, list, entry } => {
                let (index, within) = (offset >> bits, offset & ((1 << bits) - 1));
                let at = index.checked_mul(entry).and_then(|at| list.checked_add(at)).ok_or(Errno::EIO)?;
                let block = u32_at(&self.fetch::<4>(if entry == 8 { at + 4 } else { at })?, 0)?;
                let len = left.min((1 << bits) - within);
                Ok((if block == HOLE { None } else { Some((u64::from(block) << self.block_bits) + within) }, len))
            }
            Place::Compressed { .. } => Err(Errno::EIO),
        }
    }

    /// Fills the buffer with what a file that is not compressed has from `offset` on, none of which is behind its end. `EIO`, `ENOMEM`.
    fn read_plain(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let (place, len) = self.locate(file, at)?;
            let (part, behind) = rest.split_at_mut(len.min(rest.len() as u64).min(1 << 20) as usize);
            match place {
                _ if part.is_empty() => return Err(Errno::EIO),
                Some(place) if file.stat.kind == FileKind::Directory => self.fetch_into(place, part)?,
                Some(place) => part.copy_from_slice(&self.storage.read(place, part.len())?),
                None => part.fill(0),
            }
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Block `index` of a directory. `EIO`.
    fn directory_block(&self, dir: &File, index: u64) -> Result<Vec<u8>> {
        let start = index << self.block_bits;
        let len = dir.stat.size.saturating_sub(start).min(self.block()) as usize;
        let mut bytes = buffer(len)?;
        self.read(dir, start, &mut bytes)?;
        Ok(bytes)
    }
}

/// An entry of a directory's block: its inode, its type as the format numbers it, its name. `None` behind the last.
fn entry(block: &[u8], index: usize) -> Result<Option<(u64, u8, &[u8])>> {
    let names = usize::from(u16_at(block, 8)?);
    let count = names / DIRENT;
    if names == 0 || names % DIRENT != 0 || names > block.len() {
        return Err(Errno::EIO);
    }
    if index >= count {
        return Ok(None);
    }
    let at = index * DIRENT;
    let start = usize::from(u16_at(block, at + 8)?);
    let end = if index + 1 < count { u16_at(block, at + DIRENT + 8)?.into() } else { block.len() };
    let mut name = block.get(start..end).ok_or(Errno::EIO)?;
    if let Some(nul) = name.iter().position(|&b| b == 0) {
        name = &name[..nul];
    }
    let kind = *block.get(at + 10).ok_or(Errno::EIO)?;
    if name.is_empty() || name.len() > 255 || name.contains(&b'/') {
        Err(Errno::EIO)
    } else {
        Ok(Some((u64_at(block, at)?, kind, name)))
    }
}

impl Image for Erofs {
    type File = File;

    fn root(&self) -> u64 {
        self.root
    }

    fn file(&self, id: u64) -> Result<File> {
        self.read_inode(id)
    }

    fn stat(&self, file: &File) -> Stat {
        file.stat
    }

    fn lookup(&self, dir: &File, name: &[u8]) -> Result<Option<u64>> {
        // Blocks are sorted by their first names: the last that does not begin behind the name has it, if any.
        let (mut low, mut high) = (0, dir.stat.size.div_ceil(self.block()));
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            let block = self.directory_block(dir, middle)?;
            let first = entry(&block, 0)?.ok_or(Errno::EIO)?;
            if first.2 <= name { low = middle } else { high = middle }
        }
        if low >= high {
            return Ok(None);
        }
        let block = self.directory_block(dir, low)?;
        let mut index = 0;
        while let Some((id, _, its_name)) = entry(&block, index)? {
            if its_name == name {
                return Ok(Some(id));
            }
            index += 1;
        }
        Ok(None)
    }

    fn list(&self, dir: &File, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let mut at = position.max(FIRST);
        let blocks = dir.stat.size.div_ceil(self.block());
        // A block has fewer entries than bytes.
        while (at - FIRST) >> self.block_bits < blocks {
            let (number, index) = ((at - FIRST) >> self.block_bits, (at - FIRST) & (self.block() - 1));
            let block = self.directory_block(dir, number)?;
            let mut index = index as usize;
            while let Some((id, kind, name)) = entry(&block, index)? {
                let next = at + 1;
                let kind = match kind {
                    1 => FileKind::Regular,
                    2 => FileKind::Directory,
                    3 => FileKind::CharDevice,
                    4 => FileKind::BlockDevice,
                    5 => FileKind::Fifo,
                    6 => FileKind::Socket,
                    7 => FileKind::Symlink,
                    _ => FileKind::None,
                };
                if name != b"." && name != b".." && !emit(&DirEntry { name, inode: id, kind, next }) {
                    return Ok(at);
                }
                at = next;
                index += 1;
            }
            at = FIRST + ((number + 1) << self.block_bits);
            sched::preempt_point();
        }
        Ok(at)
    }

    fn read(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let there = file.stat.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (content, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        if content.is_empty() {
            return Ok(());
        }
        match file.place {
            Place::Compressed { index, compact } => {
                self.read_compressed(&self.index(index, compact, file.stat.size)?, offset, content)
            }
            _ => self.read_plain(file, offset, content),
        }
    }

    fn link(&self, file: &File) -> Result<Vec<u8>> {
        if file.stat.size == 0 || file.stat.size > TARGET_MAX {
            return Err(Errno::EIO);
        }
        let mut target = buffer(file.stat.size as usize)?;
        self.read(file, 0, &mut target)?;
        Ok(target)
    }

    fn xattrs(&self, _file: &File) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }

    fn stats(&self) -> FsStats {
        FsStats { blocks: self.blocks.into(), files: self.inodes, ..FsStats::default() }
    }

    fn block_size(&self) -> u32 {
        1 << self.block_bits
    }
}

/// The kind "erofs" for mount(2).
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "erofs"
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn mount_device(&self, device: &Arc<BlockDev>, _read_only: bool, options: &[u8]) -> Result<Arc<Inode>> {
        let known: [&[u8]; 5] = [b"user_xattr", b"nouser_xattr", b"acl", b"noacl", b"cache_strategy=disabled"];
        if options.split(|&b| b == b',').any(|option| !option.is_empty() && !known.contains(&option)) {
            return Err(Errno::EINVAL);
        }
        crate::image::mount(device, "erofs", MAGIC, Erofs::open)
    }
}
