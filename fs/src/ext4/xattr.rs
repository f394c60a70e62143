//! Extended attributes: behind the fields of the inode as far as there is room, the others in a block of their own.
//!
//! Both areas have entries growing from the front and values from the back. They are read as a list and written as a whole.

use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{OLD_SIZE, RawInode};
use super::volume::Volume;
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::crc32c::crc32c;
use crate::xattr::SetMode;

const MAGIC: u32 = 0xea02_0000;
const HEADER: usize = 32;
const ENTRY: usize = 16;

/// Fields of the block's header.
mod field {
    pub(super) const REFERENCES: usize = 4;
    pub(super) const BLOCKS: usize = 8;
    pub(super) const HASH: usize = 12;
    pub(super) const CHECKSUM: usize = 16;
}

/// The beginnings of names, which are kept as a number.
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

/// An attribute. The ACLs have an empty name behind their prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn entry_len(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4)
    }

    fn value_len(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value_len()
    }

    /// The hash of name and value that the entry has.
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0u32, |hash, &b| hash.rotate_left(5) ^ u32::from(b));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }

    fn full_name(&self) -> Option<Vec<u8>> {
        let (_, prefix) = PREFIXES.iter().find(|(index, _)| *index == self.index)?;
        Some([prefix, &self.name[..]].concat())
    }
}

/// The number and rest of a name. `EOPNOTSUPP`.
fn split_name(name: &[u8]) -> Result<(u8, &[u8])> {
    let found = PREFIXES.iter().find(|(_, prefix)| match prefix.last() {
        Some(b'.') => name.starts_with(prefix),
        _ => name == *prefix,
    });
    found.map(|(index, prefix)| (*index, &name[prefix.len()..])).ok_or(Errno::EOPNOTSUPP)
}

/// The attributes in `area`, whose entries begin at `start` and whose values are at offsets from `base`. `EUCLEAN`.
fn parse(area: &[u8], start: usize, base: usize) -> Result<Vec<Attribute>> {
    let mut found = Vec::new();
    let mut at = start;
    while le32(area, at) != 0 {
        let (name_len, index) = (usize::from(area[at]), area[at + 1]);
        let (offset, inode, size) = (usize::from(le16(area, at + 2)), le32(area, at + 4), le32(area, at + 8) as usize);
        let name = area.get(at + ENTRY..at + ENTRY + name_len).ok_or(Errno::EUCLEAN)?.to_vec();
        let from = base + offset;
        let end = from.checked_add(size).ok_or(Errno::EUCLEAN)?;
        let value = area.get(from..end).filter(|_| inode == 0).ok_or(Errno::EUCLEAN)?.to_vec();
        found.push(Attribute { index, name, value });
        at += (ENTRY + name_len).next_multiple_of(4);
        if at + 4 > area.len() {
            return Err(Errno::EUCLEAN);
        }
    }
    Ok(found)
}

/// Writes attributes into `area`, which has room for them.
fn write(area: &mut [u8], start: usize, base: usize, list: &[Attribute]) {
    area[start..].fill(0);
    let (mut at, mut end) = (start, area.len());
    for attribute in list {
        end -= attribute.value_len();
        area[at] = attribute.name.len() as u8;
        area[at + 1] = attribute.index;
        put_le16(area, at + 2, if attribute.value.is_empty() { 0 } else { (end - base) as u16 });
        put_le32(area, at + 8, attribute.value.len() as u32);
        put_le32(area, at + 12, attribute.hash());
        area[at + ENTRY..at + ENTRY + attribute.name.len()].copy_from_slice(&attribute.name);
        area[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        at += attribute.entry_len();
    }
}

/// As many of `list` as fit into `room` bytes, with the four zero bytes that end the entries; and the others.
fn divide(list: Vec<Attribute>, room: usize) -> (Vec<Attribute>, Vec<Attribute>) {
    let mut left = room.saturating_sub(4);
    list.into_iter().partition(|attribute| {
        let fits = attribute.len() <= left;
        left -= if fits { attribute.len() } else { 0 };
        fits
    })
}

impl Volume {
    /// Where in an inode attributes may be: from the magic number on.
    fn inline_start(inode: &RawInode) -> Option<usize> {
        let start = OLD_SIZE + inode.extra_isize();
        (inode.extra_isize() > 0 && start + 8 <= inode.bytes.len()).then_some(start)
    }

    fn inline_attributes(inode: &RawInode) -> Result<Vec<Attribute>> {
        match Volume::inline_start(inode) {
            Some(start) if le32(&inode.bytes, start) == MAGIC => {
                let area = &inode.bytes[start + 4..];
                parse(area, 0, 0)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn block_checksum(&self, block: u64, data: &[u8]) -> u32 {
        let mut copy = data.to_vec();
        put_le32(&mut copy, field::CHECKSUM, 0);
        crc32c(crc32c(self.sb.checksum_seed, &block.to_le_bytes()), &copy)
    }

    /// The block of attributes, checked: how many inodes share it, and what is in it.
    fn attribute_block(&mut self, block: u64) -> Result<(u32, Vec<Attribute>)> {
        if !self.sb.contains(block, 1) {
            return Err(Errno::EUCLEAN);
        }
        let (data, fresh) = self.store.read(block)?;
        if le32(&data, 0) != MAGIC || le32(&data, field::BLOCKS) != 1 {
            return Err(Errno::EUCLEAN);
        }
        if fresh && self.sb.has_checksums() && self.block_checksum(block, &data) != le32(&data, field::CHECKSUM) {
            self.store.forget(block);
            return Err(Errno::EBADMSG);
        }
        Ok((le32(&data, field::REFERENCES), parse(&data, HEADER, 0)?))
    }

    fn attributes(&mut self, inode: &RawInode) -> Result<Vec<Attribute>> {
        let mut all = Volume::inline_attributes(inode)?;
        if inode.xattr_block() != 0 {
            all.extend(self.attribute_block(inode.xattr_block())?.1);
        }
        Ok(all)
    }

    /// The value of an attribute. `ENODATA`, `EOPNOTSUPP`, `EUCLEAN`, `EBADMSG`, `EIO`.
    pub(crate) fn xattr(&mut self, inode: u32, name: &[u8]) -> Result<Vec<u8>> {
        let (index, rest) = split_name(name)?;
        let inode = self.inode(inode)?;
        let found = self.attributes(&inode)?.into_iter().find(|a| a.index == index && a.name == rest);
        found.map(|attribute| attribute.value).ok_or(Errno::ENODATA)
    }

    /// The names of all attributes.
    pub(crate) fn xattr_names(&mut self, inode: u32) -> Result<Vec<Vec<u8>>> {
        let inode = self.inode(inode)?;
        Ok(self.attributes(&inode)?.iter().filter_map(Attribute::full_name).collect())
    }

    /// Sets an attribute, or removes it if `value` is `None`. `EEXIST`, `ENODATA`, `ENOSPC`, `ERANGE`, `EOPNOTSUPP`, `EIO`.
    pub(crate) fn set_xattr(
        &mut self,
        number: u32,
        name: &[u8],
        value: Option<&[u8]>,
        mode: SetMode,
        now: i64,
    ) -> Result<()> {
        let mut inode = self.inode(number)?;
        self.set_attribute(&mut inode, name, value, mode)?;
        inode.set_changed(now);
        self.put_inode(inode)
    }

    /// As [`Volume::set_xattr`], of an inode that the caller puts back.
    pub(super) fn set_attribute(
        &mut self,
        inode: &mut RawInode,
        name: &[u8],
        value: Option<&[u8]>,
        mode: SetMode,
    ) -> Result<()> {
        let (index, rest) = split_name(name)?;
        if rest.len() > 255 {
            return Err(Errno::ERANGE);
        }
        let mut all = self.attributes(inode)?;
        let at = all.iter().position(|a| a.index == index && a.name == rest);
        match (at, mode) {
            (Some(_), SetMode::Create) => return Err(Errno::EEXIST),
            (None, SetMode::Replace) => return Err(Errno::ENODATA),
            _ => {}
        }
        match (at, value) {
            (Some(at), Some(value)) => all[at].value = value.to_vec(),
            (Some(at), None) => drop(all.remove(at)),
            (None, Some(value)) => all.push(Attribute { index, name: rest.to_vec(), value: value.to_vec() }),
            (None, None) => return Err(Errno::ENODATA),
        }
        self.write_attributes(inode, all)
    }

    fn write_attributes(&mut self, inode: &mut RawInode, all: Vec<Attribute>) -> Result<()> {
        let room = Volume::inline_start(inode).map_or(0, |start| inode.bytes.len() - start - 4);
        let (inline, mut outside) = divide(all, room);
        if outside.iter().map(Attribute::len).sum::<usize>() + HEADER + 4 > self.sb.block_size {
            return Err(Errno::ENOSPC);
        }
        if let Some(start) = Volume::inline_start(inode) {
            inode.bytes[start..].fill(0);
            if !inline.is_empty() {
                put_le32(&mut inode.bytes, start, MAGIC);
                write(&mut inode.bytes[start + 4..], 0, 0, &inline);
            }
        }
        let old = inode.xattr_block();
        if outside.is_empty() {
            return self.drop_attribute_block(inode);
        }
        let shared = old != 0 && self.attribute_block(old)?.0 > 1;
        if shared {
            self.drop_attribute_block(inode)?;
        }
        if inode.xattr_block() == 0 {
            let block = self.allocate_metadata(self.goal_for(inode.number))?;
            inode.set_xattr_block(block);
            inode.count_blocks(1, self.sb.block_size);
        }
        // In a block they are sorted.
        outside.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
        let block = inode.xattr_block();
        let mut data = vec![0; self.sb.block_size];
        write(&mut data, HEADER, 0, &outside);
        put_le32(&mut data, 0, MAGIC);
        put_le32(&mut data, field::REFERENCES, 1);
        put_le32(&mut data, field::BLOCKS, 1);
        let hash = outside.iter().fold(0u32, |hash, a| hash.rotate_left(16) ^ a.hash());
        put_le32(&mut data, field::HASH, hash);
        if self.sb.has_checksums() {
            let sum = self.block_checksum(block, &data);
            put_le32(&mut data, field::CHECKSUM, sum);
        }
        self.store.put(block, data);
        Ok(())
    }

    /// Lets go of the block of attributes, which is freed unless other inodes share it. The caller puts the inode back.
    pub(super) fn drop_attribute_block(&mut self, inode: &mut RawInode) -> Result<()> {
        let block = inode.xattr_block();
        if block == 0 {
            return Ok(());
        }
        let (references, _) = self.attribute_block(block)?;
        inode.set_xattr_block(0);
        inode.count_blocks(-1, self.sb.block_size);
        if references <= 1 {
            return self.free_blocks(block, 1, true);
        }
        let (data, _) = self.store.read(block)?;
        let mut data = data.to_vec();
        put_le32(&mut data, field::REFERENCES, references - 1);
        if self.sb.has_checksums() {
            let sum = self.block_checksum(block, &data);
            put_le32(&mut data, field::CHECKSUM, sum);
        }
        self.store.put(block, data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_being_written_and_read() {
        let attribute = |index, name: &[u8], len: usize| Attribute { index, name: name.to_vec(), value: vec![7; len] };
        let list = vec![attribute(1, b"a", 5), attribute(6, b"capability", 20), attribute(2, b"", 0)];
        let mut area = vec![0xff; 256];
        write(&mut area, HEADER, 0, &list);
        assert_eq!(parse(&area, HEADER, 0), Ok(list.clone()));
        let (inline, outside) = divide(list, 24 + 4);
        assert_eq!((inline.len(), outside.len()), (1, 2));
    }

    #[test]
    fn names_have_numbers() {
        assert_eq!(split_name(b"user.x"), Ok((1, &b"x"[..])));
        assert_eq!(split_name(b"system.posix_acl_default"), Ok((3, &b""[..])));
        assert_eq!(split_name(b"system.data"), Ok((7, &b"data"[..])));
        assert_eq!(split_name(b"other.x"), Err(Errno::EOPNOTSUPP));
    }
}
