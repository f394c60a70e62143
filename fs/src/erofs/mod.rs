//! EROFS, read-only images whose files can be read where they lie (the kernel's erofs document, on-disk format of erofs_fs.h). Images
//! with compressed files are refused.
//!
//! Inodes are slots of 32 bytes in the metadata area; a file's content is blocks in a row, the end of which may follow the inode, or
//! chunks that a list behind the inode names. Directories are files made of blocks of entries, sorted by name.

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::block::{BlockDev, BlockIo};
use crate::image::{Image, Stat, Storage, buffer};
use crate::{Attributes, DeviceNumber, DirEntry, FileKind, FileSystem, FsStats, Inode};

/// `f_type` of statfs(2), and the superblock's magic number.
const MAGIC: u32 = 0xe0f5_e1e2;
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK: usize = 128;
/// Features that change how images are read: of those, chunks alone are known (EROFS_FEATURE_INCOMPAT_CHUNKED_FILE).
const CHUNKED: u32 = 4;
/// Bytes of an inode's slot, and of an entry of a directory.
const SLOT: u64 = 32;
const DIRENT: usize = 12;
/// The position of the first entry: a block's number and an entry's in it, this much further.
const FIRST: u64 = 2;
/// The longest target of a symbolic link.
const TARGET_MAX: u64 = 4096;
/// A chunk that is a hole.
const HOLE: u32 = u32::MAX;

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
}

impl Erofs {
    /// Opens an image. `EINVAL` where there is none, or one that we can't read; `EIO`, `ENOMEM`.
    pub(crate) fn open(disk: Arc<dyn BlockIo>) -> Result<Erofs> {
        let storage = Storage::new(disk);
        let bytes = storage.read(SUPERBLOCK_AT, SUPERBLOCK).map_err(|_| Errno::EINVAL)?;
        let block_bits = u32::from(bytes[12]);
        let incompatible = u32_at(&bytes, 80)?;
        if u32_at(&bytes, 0)? != MAGIC || !(9..=16).contains(&block_bits) || incompatible & !CHUNKED != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Erofs {
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

    /// Where an inode is. `EIO`.
    fn slot(&self, id: u64) -> Result<u64> {
        let offset = id.checked_mul(SLOT).ok_or(Errno::EIO)?;
        (u64::from(self.meta) << self.block_bits).checked_add(offset).ok_or(Errno::EIO)
    }

    fn read_inode(&self, id: u64) -> Result<File> {
        let at = self.slot(id)?;
        let short = self.storage.read(at, 32)?;
        let format = u16_at(&short, 0)?;
        let long = format & 1 != 0;
        let bytes = if long { self.storage.read(at, 64)? } else { short };
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
            // Compressed.
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
        Ok(File { stat: Stat { number: if number == 0 { id } else { number }, kind, rdev, attributes, size }, place })
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
                let bytes = self.storage.read(at, entry as usize)?;
                let block = u32_at(&bytes, if entry == 8 { 4 } else { 0 })?;
                let len = left.min((1 << bits) - within);
                Ok((if block == HOLE { None } else { Some((u64::from(block) << self.block_bits) + within) }, len))
            }
        }
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
        buffer.fill(0);
        let end = (offset + buffer.len() as u64).min(file.stat.size);
        let mut at = offset;
        while at < end {
            let (place, len) = self.locate(file, at)?;
            let len = len.min(end - at).min(1 << 20) as usize;
            if len == 0 {
                return Err(Errno::EIO);
            }
            if let Some(place) = place {
                let bytes = self.storage.read(place, len)?;
                buffer[(at - offset) as usize..][..len].copy_from_slice(&bytes);
            }
            at += len as u64;
        }
        Ok(())
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
