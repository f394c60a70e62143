//! Directory blocks: entries behind each other that fill the block, an entry's length reaching to where the next begins.
//!
//! With checksums, the last twelve bytes look like an empty entry to who does not know them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{RawInode, flag};
use super::superblock::{compat, incompat};
use super::volume::{Seal, Volume};
use super::{htree, inode};
use crate::FileKind;
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::crc32c::crc32c;

const HEADER: usize = 8;
pub(super) const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
const NAME_MAX: usize = 255;

/// An entry in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) inode: u32,
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
}

impl Entry<'_> {
    /// The bytes that it needs.
    pub(super) fn needs(&self) -> usize {
        if self.inode == 0 { 0 } else { needed(self.name.len()) }
    }
}

/// The bytes that an entry with such a name needs.
pub(super) fn needed(name_len: usize) -> usize {
    (HEADER + name_len).next_multiple_of(4)
}

/// An entry that was found: which block, where in it, and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// The block on the disk.
    block: u64,
    offset: usize,
    /// The inode.
    pub(crate) inode: u32,
}

/// An entry as it is listed.
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u32,
    pub(crate) kind: FileKind,
    /// The byte of the directory after it.
    pub(crate) next: u64,
}

/// The number that entries have for a type.
fn code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
        FileKind::None => 0,
    }
}

fn kind_of(code: u8) -> FileKind {
    let kinds = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::CharDevice,
        FileKind::BlockDevice,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::Symlink,
    ];
    usize::from(code).checked_sub(1).and_then(|i| kinds.get(i)).copied().unwrap_or(FileKind::None)
}

/// The entries of a block, `size` bytes of which are for them. `EUCLEAN` where they don't fill it.
pub(super) fn entries(data: &[u8], size: usize) -> Result<Vec<Entry<'_>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let (len, name_len) = (usize::from(le16(data, at + 4)), usize::from(*data.get(at + 6).unwrap_or(&0)));
        let sane = len >= HEADER + 4 && len.is_multiple_of(4) && at + len <= size && needed(name_len) <= len;
        let name = data.get(at + HEADER..at + HEADER + name_len).filter(|_| sane).ok_or(Errno::EUCLEAN)?;
        found.push(Entry { offset: at, len, inode: le32(data, at), kind: data[at + 7], name });
        at += len;
    }
    Ok(found)
}

pub(super) fn write_entry(data: &mut [u8], at: usize, len: usize, inode: u32, kind: u8, name: &[u8]) {
    put_le32(data, at, inode);
    put_le16(data, at + 4, len as u16);
    if let Some(rest) = data.get_mut(at + 6..at + HEADER + name.len()) {
        rest[0] = name.len() as u8;
        rest[1] = kind;
        rest[2..].copy_from_slice(name);
    }
}

/// Writes entries behind each other, the last filling what is left of `size` bytes.
pub(super) fn pack(data: &mut [u8], size: usize, list: &[(u32, u8, Vec<u8>)]) {
    data[..size].fill(0);
    let mut at = 0;
    for (i, (inode, kind, name)) in list.iter().enumerate() {
        let len = if i + 1 == list.len() { size - at } else { needed(name.len()) };
        write_entry(data, at, len, *inode, *kind, name);
        at += len;
    }
    if list.is_empty() {
        write_entry(data, 0, size, 0, 0, b"");
    }
}

/// Puts an entry into a block where there is room for it; false where there is none.
fn insert(data: &mut [u8], size: usize, inode: u32, kind: u8, name: &[u8]) -> Result<bool> {
    let need = needed(name.len());
    let slot =
        entries(data, size)?.into_iter().find(|e| e.len - e.needs() >= need).map(|e| (e.offset, e.len, e.needs()));
    let Some((offset, len, used)) = slot else { return Ok(false) };
    if used > 0 {
        put_le16(data, offset + 4, used as u16);
    }
    write_entry(data, offset + used, len - used, inode, kind, name);
    Ok(true)
}

/// Takes the entry at `offset` out: the one before it grows over it.
fn take_out(data: &mut [u8], size: usize, offset: usize) -> Result<()> {
    let list = entries(data, size)?;
    let i = list.iter().position(|e| e.offset == offset).ok_or(Errno::EUCLEAN)?;
    let before = i.checked_sub(1).map(|i| (list[i].offset, list[i].len + list[i + 1].len));
    match before {
        Some((at, len)) => put_le16(data, at + 4, len as u16),
        None => put_le32(data, offset, 0),
    }
    Ok(())
}

/// The entry that holds the checksum of a leaf.
pub(super) fn write_tail(data: &mut [u8]) {
    let at = data.len() - TAIL;
    data[at..].fill(0);
    put_le16(data, at + 4, TAIL as u16);
    data[at + 7] = TAIL_TYPE;
}

fn has_tail(data: &[u8]) -> bool {
    let at = data.len() - TAIL;
    le32(data, at) == 0 && le16(data, at + 4) == TAIL as u16 && data[at + 6] == 0 && data[at + 7] == TAIL_TYPE
}

/// Puts the checksum into a block of a directory.
pub(super) fn seal(data: &mut [u8], seed: u32) {
    if has_tail(data) {
        let at = data.len() - TAIL;
        let sum = crc32c(seed, &data[..at]);
        put_le32(data, at + 8, sum);
    } else {
        htree::seal(data, seed);
    }
}

impl Volume {
    /// Bytes of a leaf block that are for entries.
    pub(super) fn leaf_size(&self) -> usize {
        self.sb.block_size - if self.sb.has_checksums() { TAIL } else { 0 }
    }

    pub(super) fn directory_blocks(&self, dir: &RawInode) -> u32 {
        u32::try_from(dir.size() / self.sb.block_size as u64).unwrap_or(u32::MAX)
    }

    /// A block of a directory, and where it is. `EUCLEAN`, `EBADMSG`, `EIO`.
    pub(super) fn directory_block(&mut self, dir: &RawInode, at: u32) -> Result<(u64, Arc<[u8]>)> {
        if at >= self.directory_blocks(dir) {
            return Err(Errno::EUCLEAN);
        }
        let block = self.must_map(dir, at)?;
        let (data, fresh) = self.store.read(block)?;
        if fresh && self.sb.has_checksums() {
            let mut copy = data.to_vec();
            seal(&mut copy, self.inode_seed(dir.number, dir.generation()));
            let is_known = has_tail(&data) || htree::is_index(&data);
            if !is_known || copy[..] != data[..] {
                log::error!("ext4: block {block} of directory {} is damaged", dir.number);
                self.store.forget(block);
                return Err(Errno::EBADMSG);
            }
        }
        Ok((block, data))
    }

    /// Changes a block of a directory.
    pub(super) fn change_directory<R>(
        &mut self,
        dir: &RawInode,
        block: u64,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R> {
        let result = self.store.change(block, f)?;
        let seed = self.inode_seed(dir.number, dir.generation());
        self.unsealed.insert(block, Seal::Directory(seed));
        Ok(result)
    }

    /// Is block `at` one of the index? (Those look like empty leaves.)
    fn is_index_block(&self, dir: &RawInode, data: &[u8]) -> bool {
        dir.has(flag::INDEX) && self.sb.compat & compat::DIR_INDEX != 0 && htree::is_index(data)
    }

    fn in_block(&self, data: &[u8], block: u64, name: &[u8]) -> Result<Option<Found>> {
        let list = entries(data, if has_tail(data) { data.len() - TAIL } else { data.len() })?;
        let found = list.into_iter().find(|e| e.inode != 0 && e.name == name);
        Ok(found.map(|e| Found { block, offset: e.offset, inode: e.inode }))
    }

    /// The entry of a name. `ENAMETOOLONG`, `EUCLEAN`, `EIO`.
    pub(crate) fn find_entry(&mut self, dir: &RawInode, name: &[u8]) -> Result<Option<Found>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let found = if dir.has(flag::INDEX) && self.sb.compat & compat::DIR_INDEX != 0 && name != b".." && name != b"."
        {
            let mut found = None;
            for at in self.htree_leaves(dir, name)? {
                let (block, data) = self.directory_block(dir, at)?;
                found = self.in_block(&data, block, name)?;
                if found.is_some() {
                    break;
                }
            }
            found
        } else {
            let mut found = None;
            for at in 0..self.directory_blocks(dir) {
                let (block, data) = self.directory_block(dir, at)?;
                found = self.in_block(&data, block, name)?;
                if found.is_some() {
                    break;
                }
            }
            found
        };
        match found {
            Some(entry) if entry.inode > self.sb.inodes => Err(Errno::EUCLEAN),
            found => Ok(found),
        }
    }

    /// Adds a name, which is not there yet. The caller puts the directory's inode back. `ENOSPC`, `EIO`.
    pub(super) fn add_entry(&mut self, dir: &mut RawInode, name: &[u8], inode: u32, kind: FileKind) -> Result<()> {
        let kind = if self.sb.has(incompat::FILETYPE) { code(kind) } else { 0 };
        if dir.has(flag::INDEX) && self.sb.compat & compat::DIR_INDEX != 0 {
            return self.add_indexed(dir, name, inode, kind);
        }
        let blocks = self.directory_blocks(dir);
        for at in 0..blocks {
            let (block, _) = self.directory_block(dir, at)?;
            if self.insert_in_leaf(dir, block, name, inode, kind)? {
                return Ok(());
            }
        }
        if blocks == 1 && self.sb.compat & compat::DIR_INDEX != 0 {
            self.make_index(dir)?;
            return self.add_indexed(dir, name, inode, kind);
        }
        let (_, block) = self.append_block(dir)?;
        if self.insert_in_leaf(dir, block, name, inode, kind)? { Ok(()) } else { Err(Errno::EUCLEAN) }
    }

    pub(super) fn insert_in_leaf(
        &mut self,
        dir: &RawInode,
        block: u64,
        name: &[u8],
        inode: u32,
        kind: u8,
    ) -> Result<bool> {
        let size = self.leaf_size();
        // Looked at first, so that a full block does not become part of the transaction.
        let (data, _) = self.store.read(block)?;
        let need = needed(name.len());
        if !entries(&data, size)?.iter().any(|e| e.len - e.needs() >= need) {
            return Ok(false);
        }
        drop(data);
        self.change_directory(dir, block, |data| insert(data, size, inode, kind, name))?
    }

    /// A new, empty leaf at the end of a directory: its number in the directory, and its block.
    pub(super) fn append_block(&mut self, dir: &mut RawInode) -> Result<(u32, u64)> {
        let at = self.directory_blocks(dir);
        let goal = self.goal(dir, at);
        let block = self.allocate_metadata(goal)?;
        self.insert(dir, at, block, 1, false)?;
        dir.set_size(u64::from(at + 1) * self.sb.block_size as u64);
        let (size, tail) = (self.leaf_size(), self.sb.has_checksums());
        self.change_directory(dir, block, |data| {
            pack(data, size, &[]);
            if tail {
                write_tail(data);
            }
        })?;
        Ok((at, block))
    }

    /// Takes a name out.
    pub(super) fn remove_entry(&mut self, dir: &RawInode, found: &Found) -> Result<()> {
        let tail = self.sb.block_size - self.leaf_size();
        self.change_directory(dir, found.block, |data| {
            let size = if has_tail(data) { data.len() - tail.max(TAIL) } else { data.len() };
            take_out(data, size, found.offset)
        })?
    }

    /// Lets a name lead to another inode.
    pub(super) fn set_entry(&mut self, dir: &RawInode, found: &Found, inode: u32, kind: FileKind) -> Result<()> {
        let kind = if self.sb.has(incompat::FILETYPE) { code(kind) } else { 0 };
        self.change_directory(dir, found.block, |data| {
            put_le32(data, found.offset, inode);
            if let Some(to) = data.get_mut(found.offset + 7) {
                *to = kind;
            }
        })
    }

    /// The first block of a new directory: `.` and `..`.
    pub(super) fn init_directory(&mut self, dir: &mut RawInode, parent: u32) -> Result<()> {
        let (_, block) = self.append_block(dir)?;
        let kind = if self.sb.has(incompat::FILETYPE) { code(FileKind::Directory) } else { 0 };
        let (size, number) = (self.leaf_size(), dir.number);
        self.change_directory(dir, block, |data| {
            write_entry(data, 0, 12, number, kind, b".");
            write_entry(data, 12, size - 12, parent, kind, b"..");
        })
    }

    /// Has it nothing but `.` and `..`? `EIO`, `EUCLEAN`.
    pub(super) fn is_empty(&mut self, dir: &RawInode) -> Result<bool> {
        for at in 0..self.directory_blocks(dir) {
            let (_, data) = self.directory_block(dir, at)?;
            if self.is_index_block(dir, &data) {
                continue;
            }
            let size = if has_tail(&data) { data.len() - TAIL } else { data.len() };
            if entries(&data, size)?.iter().any(|e| e.inode != 0 && e.name != b"." && e.name != b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entries of one block of a directory from byte `position` on, without `.` and `..`; `None` behind the last block.
    pub(crate) fn list_block(&mut self, number: u32, position: u64) -> Result<Option<Vec<Listed>>> {
        let dir = self.inode(number)?;
        let size = self.sb.block_size as u64;
        let Ok(at) = u32::try_from(position / size) else { return Ok(None) };
        if at >= self.directory_blocks(&dir) {
            return Ok(None);
        }
        let (_, data) = self.directory_block(&dir, at)?;
        if self.is_index_block(&dir, &data) && at > 0 {
            return Ok(Some(Vec::new()));
        }
        let end = if has_tail(&data) { data.len() - TAIL } else { data.len() };
        let mut listed = Vec::new();
        for entry in entries(&data, end)? {
            let offset = u64::from(at) * size + entry.offset as u64;
            let hidden = entry.inode == 0 || entry.name == b"." || entry.name == b".." || offset < position;
            if hidden || entry.name.contains(&b'/') || entry.name.contains(&0) || entry.inode > self.sb.inodes {
                continue;
            }
            let kind = kind_of(entry.kind);
            listed.push(Listed {
                name: entry.name.to_vec(),
                inode: entry.inode,
                kind,
                next: offset + entry.len as u64,
            });
        }
        Ok(Some(listed))
    }

    /// The parent that a directory names. `EUCLEAN`.
    pub(super) fn parent_entry(&mut self, dir: &RawInode) -> Result<Found> {
        let (block, data) = self.directory_block(dir, 0)?;
        self.in_block(&data, block, b"..")?.filter(|found| found.inode >= inode::ROOT).ok_or(Errno::EUCLEAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn entries_come_and_go_and_always_fill_the_block() {
        let mut data = vec![0; 1024];
        pack(&mut data, 1024, &[]);
        let mut model: Vec<(Vec<u8>, u32)> = Vec::new();
        let mut seed = 5u64;
        for n in 1..3000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 63 == 0 && !model.is_empty() {
                let (name, _) = model.swap_remove((seed >> 40) as usize % model.len());
                let offset = entries(&data, 1024)
                    .expect("sane")
                    .iter()
                    .find(|e| e.inode != 0 && e.name == name)
                    .map(|e| e.offset);
                take_out(&mut data, 1024, offset.expect("it is there")).expect("sane");
            } else {
                let name = vec![b'a' + (n % 26) as u8; 1 + (seed >> 50) as usize % 60];
                if !model.iter().any(|(known, _)| *known == name) && insert(&mut data, 1024, n, 1, &name).expect("sane")
                {
                    model.push((name, n));
                }
            }
            let mut now: Vec<(Vec<u8>, u32)> = entries(&data, 1024)
                .expect("sane")
                .iter()
                .filter(|e| e.inode != 0)
                .map(|e| (e.name.to_vec(), e.inode))
                .collect();
            now.sort();
            model.sort();
            assert_eq!(now, model);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (len, name_len) in [(0u16, 1u8), (6, 1), (10, 1), (12, 5), (1028, 1), (1000, 1)] {
            let mut data = vec![0; 1024];
            put_le32(&mut data, 0, 11);
            put_le16(&mut data, 4, len);
            data[6] = name_len;
            assert!(entries(&data, 1024).is_err(), "{len} {name_len}");
        }
    }
}
