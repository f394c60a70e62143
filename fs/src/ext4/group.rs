//! Block groups: their descriptors and bitmaps.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::superblock::{Superblock, incompat, ro_compat};
use super::volume::{Seal, Volume};
use crate::bytes::{le16, le32, put_le16};
use crate::crc32c::crc32c;

/// Offsets in a descriptor; the higher halves of those that have one are 32 bytes further, in descriptors of 64 bytes.
mod field {
    pub(super) const BLOCK_BITMAP: usize = 0;
    pub(super) const INODE_BITMAP: usize = 4;
    pub(super) const INODE_TABLE: usize = 8;
    pub(super) const FREE_BLOCKS: usize = 12;
    pub(super) const FREE_INODES: usize = 14;
    pub(super) const DIRECTORIES: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const BLOCK_BITMAP_CHECKSUM: usize = 24;
    pub(super) const INODE_BITMAP_CHECKSUM: usize = 26;
    pub(super) const UNUSED_INODES: usize = 28;
    pub(super) const CHECKSUM: usize = 30;
    pub(super) const HIGH: usize = 32;
    /// The higher half of `UNUSED_INODES` is not where the others' rule would have it.
    pub(super) const UNUSED_INODES_HIGH: usize = 50;
    pub(super) const BITMAP_CHECKSUMS_HIGH: usize = 56;
}

/// The inode bitmap is not written yet: all its inodes are free.
pub(super) const INODES_UNINITIALIZED: u16 = 1;
/// The block bitmap is not written yet: only the group's own metadata is in use.
pub(super) const BLOCKS_UNINITIALIZED: u16 = 2;

/// A descriptor.
#[derive(Clone, Debug)]
pub(super) struct Group {
    bytes: Vec<u8>,
    wide: bool,
}

impl Group {
    fn pair(&self, at: usize) -> u32 {
        u32::from(le16(&self.bytes, at))
            | if self.wide { u32::from(le16(&self.bytes, at + field::HIGH)) << 16 } else { 0 }
    }

    fn put_pair(&mut self, at: usize, high: usize, value: u32) {
        put_le16(&mut self.bytes, at, value as u16);
        if self.wide {
            put_le16(&mut self.bytes, high, (value >> 16) as u16);
        }
    }

    fn block(&self, at: usize) -> u64 {
        let high = if self.wide { u64::from(le32(&self.bytes, at + field::HIGH)) << 32 } else { 0 };
        u64::from(le32(&self.bytes, at)) | high
    }

    pub(super) fn block_bitmap(&self) -> u64 {
        self.block(field::BLOCK_BITMAP)
    }

    pub(super) fn inode_bitmap(&self) -> u64 {
        self.block(field::INODE_BITMAP)
    }

    pub(super) fn inode_table(&self) -> u64 {
        self.block(field::INODE_TABLE)
    }

    pub(super) fn free_blocks(&self) -> u32 {
        self.pair(field::FREE_BLOCKS)
    }

    pub(super) fn set_free_blocks(&mut self, n: u32) {
        self.put_pair(field::FREE_BLOCKS, field::FREE_BLOCKS + field::HIGH, n);
    }

    pub(super) fn free_inodes(&self) -> u32 {
        self.pair(field::FREE_INODES)
    }

    pub(super) fn set_free_inodes(&mut self, n: u32) {
        self.put_pair(field::FREE_INODES, field::FREE_INODES + field::HIGH, n);
    }

    pub(super) fn directories(&self) -> u32 {
        self.pair(field::DIRECTORIES)
    }

    pub(super) fn set_directories(&mut self, n: u32) {
        self.put_pair(field::DIRECTORIES, field::DIRECTORIES + field::HIGH, n);
    }

    /// Inodes at the end of the table that were never used.
    pub(super) fn unused_inodes(&self) -> u32 {
        let high = if self.wide { u32::from(le16(&self.bytes, field::UNUSED_INODES_HIGH)) << 16 } else { 0 };
        u32::from(le16(&self.bytes, field::UNUSED_INODES)) | high
    }

    pub(super) fn set_unused_inodes(&mut self, n: u32) {
        self.put_pair(field::UNUSED_INODES, field::UNUSED_INODES_HIGH, n);
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        le16(&self.bytes, field::FLAGS) & flag != 0
    }

    pub(super) fn clear(&mut self, flag: u16) {
        let flags = le16(&self.bytes, field::FLAGS) & !flag;
        put_le16(&mut self.bytes, field::FLAGS, flags);
    }

    fn bitmap_checksum(&self, low: usize) -> u32 {
        let high = field::BITMAP_CHECKSUMS_HIGH + low - field::BLOCK_BITMAP_CHECKSUM;
        u32::from(le16(&self.bytes, low)) | if self.wide { u32::from(le16(&self.bytes, high)) << 16 } else { 0 }
    }

    fn set_bitmap_checksum(&mut self, low: usize, sum: u32) {
        let high = field::BITMAP_CHECKSUMS_HIGH + low - field::BLOCK_BITMAP_CHECKSUM;
        self.put_pair(low, high, sum);
    }

    /// The checksum of the descriptor of group `number`; `None` where the file system has none.
    fn checksum(&self, sb: &Superblock, number: u32) -> Option<u16> {
        if sb.has_checksums() {
            let mut bytes = self.bytes.clone();
            put_le16(&mut bytes, field::CHECKSUM, 0);
            return Some(crc32c(crc32c(sb.checksum_seed, &number.to_le_bytes()), &bytes) as u16);
        }
        (sb.ro_compat & ro_compat::GROUP_CHECKSUM != 0).then(|| {
            let crc = crc16(crc16(!0, &sb.uuid), &number.to_le_bytes());
            crc16(crc16(crc, &self.bytes[..field::CHECKSUM]), &self.bytes[field::CHECKSUM + 2..])
        })
    }
}

/// CRC-16 (polynomial 0x8005, reflected).
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

impl Volume {
    /// Where the descriptor of a group is: block, and offset in it.
    fn descriptor_place(&self, group: u32) -> (u64, usize) {
        let sb = &self.sb;
        let per_block = (sb.block_size / sb.descriptor_size) as u32;
        let offset = (group % per_block) as usize * sb.descriptor_size;
        let table = group / per_block;
        if !sb.has(incompat::META_BG) || table < sb.first_meta_group {
            return (sb.first_data_block + 1 + u64::from(table), offset);
        }
        let first = table * per_block;
        (sb.group_start(first) + u64::from(sb.has_copy(first)), offset)
    }

    /// The descriptor of a group. `EUCLEAN` where it makes no sense, `EBADMSG` where its checksum is wrong, `EIO`.
    pub(super) fn group(&mut self, number: u32) -> Result<Group> {
        if number >= self.sb.groups {
            return Err(Errno::EUCLEAN);
        }
        let (block, offset) = self.descriptor_place(number);
        let (data, _) = self.store.read(block)?;
        let size = self.sb.descriptor_size;
        let bytes = data.get(offset..offset + size).ok_or(Errno::EUCLEAN)?.to_vec();
        Ok(Group { bytes, wide: size >= 64 })
    }

    /// Checks all descriptors, when the file system is mounted.
    pub(super) fn check_groups(&mut self) -> Result<()> {
        for number in 0..self.sb.groups {
            let group = self.group(number)?;
            if group.checksum(&self.sb, number).is_some_and(|sum| sum != le16(&group.bytes, field::CHECKSUM)) {
                log::error!("ext4: the descriptor of group {number} is damaged");
                return Err(Errno::EBADMSG);
            }
            let table = u64::from(self.sb.inodes_per_group) * self.sb.inode_size as u64;
            let sane = self.sb.contains(group.block_bitmap(), 1)
                && self.sb.contains(group.inode_bitmap(), 1)
                && self.sb.contains(group.inode_table(), table.div_ceil(self.sb.block_size as u64))
                && group.free_blocks() <= self.sb.group_len(number)
                && group.free_inodes() <= self.sb.inodes_per_group
                && group.unused_inodes() <= self.sb.inodes_per_group;
            if !sane {
                log::error!("ext4: the descriptor of group {number} makes no sense");
                return Err(Errno::EUCLEAN);
            }
        }
        Ok(())
    }

    /// Changes the descriptor of a group.
    pub(super) fn put_group(&mut self, number: u32, mut group: Group) -> Result<()> {
        if let Some(sum) = group.checksum(&self.sb, number) {
            put_le16(&mut group.bytes, field::CHECKSUM, sum);
        }
        let (block, offset) = self.descriptor_place(number);
        self.store.change(block, |data| {
            if let Some(to) = data.get_mut(offset..offset + group.bytes.len()) {
                to.copy_from_slice(&group.bytes);
            }
        })
    }

    /// The block bitmap of a group, as it is or would be on the disk. `EBADMSG`, `EIO`.
    pub(super) fn block_bitmap(&mut self, number: u32, group: &Group) -> Result<Arc<[u8]>> {
        let uninitialized = group.has(BLOCKS_UNINITIALIZED) && self.has_group_flags();
        if uninitialized && !self.store.is_dirty(group.block_bitmap()) {
            return Ok(self.fresh_block_bitmap(number, group).into());
        }
        let (data, fresh) = self.store.read(group.block_bitmap())?;
        if fresh && self.sb.has_checksums() {
            let sum = self.bitmap_sum(&data, self.sb.blocks_per_group);
            self.check_bitmap(group, sum, field::BLOCK_BITMAP_CHECKSUM, group.block_bitmap())?;
        }
        Ok(data)
    }

    /// The inode bitmap of a group, as it is or would be on the disk. `EBADMSG`, `EIO`.
    pub(super) fn inode_bitmap(&mut self, group: &Group) -> Result<Arc<[u8]>> {
        if group.has(INODES_UNINITIALIZED) && self.has_group_flags() {
            let mut bitmap = vec![0xff; self.sb.block_size];
            clear_bits(&mut bitmap, self.sb.inodes_per_group);
            return Ok(bitmap.into());
        }
        let (data, fresh) = self.store.read(group.inode_bitmap())?;
        if fresh && self.sb.has_checksums() {
            let sum = self.bitmap_sum(&data, self.sb.inodes_per_group);
            self.check_bitmap(group, sum, field::INODE_BITMAP_CHECKSUM, group.inode_bitmap())?;
        }
        Ok(data)
    }

    fn has_group_flags(&self) -> bool {
        self.sb.has_checksums() || self.sb.ro_compat & ro_compat::GROUP_CHECKSUM != 0
    }

    fn bitmap_sum(&self, data: &[u8], bits: u32) -> u32 {
        crc32c(self.sb.checksum_seed, &data[..bits as usize / 8])
    }

    fn check_bitmap(&mut self, group: &Group, sum: u32, at: usize, block: u64) -> Result<()> {
        let sum = if group.wide { sum } else { sum & 0xffff };
        if sum == group.bitmap_checksum(at) {
            return Ok(());
        }
        log::error!("ext4: the bitmap in block {block} is damaged");
        self.store.forget(block);
        Err(Errno::EBADMSG)
    }

    /// The bitmap of a group that nobody has allocated in: only its own metadata is in use.
    fn fresh_block_bitmap(&self, number: u32, group: &Group) -> Vec<u8> {
        let sb = &self.sb;
        let mut bitmap = vec![0xff; sb.block_size];
        clear_bits(&mut bitmap, sb.group_len(number));
        let start = sb.group_start(number);
        let mut used = |first: u64, count: u64| {
            for block in first..first.saturating_add(count) {
                if let Some(bit) = block.checked_sub(start).filter(|&bit| bit < u64::from(sb.blocks_per_group)) {
                    bitmap[bit as usize / 8] |= 1 << (bit % 8);
                }
            }
        };
        used(start, self.copies_len(number));
        used(group.block_bitmap(), 1);
        used(group.inode_bitmap(), 1);
        let table = u64::from(sb.inodes_per_group) * sb.inode_size as u64;
        used(group.inode_table(), table.div_ceil(sb.block_size as u64));
        bitmap
    }

    /// Blocks at the start of a group that copies of the superblock and the descriptors take.
    pub(super) fn copies_len(&self, number: u32) -> u64 {
        let sb = &self.sb;
        let copy = u64::from(sb.has_copy(number));
        let per_block = (sb.block_size / sb.descriptor_size) as u32;
        let table = number / per_block;
        if !sb.has(incompat::META_BG) || table < sb.first_meta_group {
            if copy == 0 {
                return 0;
            }
            let tables = match sb.has(incompat::META_BG) {
                true => u64::from(sb.first_meta_group),
                false => u64::from(sb.groups.div_ceil(per_block)),
            };
            return 1 + tables + u64::from(sb.reserved_gdt_blocks);
        }
        let in_meta_group = number % per_block;
        copy + u64::from(in_meta_group <= 1 || in_meta_group == per_block - 1)
    }

    /// Sets or clears bits of a group's block bitmap on the disk.
    pub(super) fn mark_blocks(&mut self, number: u32, group: &mut Group, bits: (u32, u32), used: bool) -> Result<()> {
        let bitmap = self.block_bitmap(number, group)?;
        let block = group.block_bitmap();
        if group.has(BLOCKS_UNINITIALIZED) && self.has_group_flags() {
            self.store.put(block, bitmap.to_vec());
            group.clear(BLOCKS_UNINITIALIZED);
        }
        drop(bitmap);
        let (first, count) = bits;
        let right = self.store.change(block, |data| {
            (first..first + count).all(|bit| {
                let (at, mask) = (bit as usize / 8, 1 << (bit % 8));
                let was = data[at] & mask != 0;
                if used {
                    data[at] |= mask;
                } else {
                    data[at] &= !mask;
                }
                was != used
            })
        })?;
        self.unsealed.insert(block, Seal::BlockBitmap(number));
        // Used twice or freed twice: the bitmap lies.
        if right { Ok(()) } else { Err(Errno::EUCLEAN) }
    }

    /// Sets or clears the bit of an inode in its group's bitmap on the disk.
    pub(super) fn mark_inode(&mut self, number: u32, group: &mut Group, bit: u32, used: bool) -> Result<()> {
        let bitmap = self.inode_bitmap(group)?;
        let block = group.inode_bitmap();
        if group.has(INODES_UNINITIALIZED) && self.has_group_flags() {
            self.store.put(block, bitmap.to_vec());
            group.clear(INODES_UNINITIALIZED);
        }
        drop(bitmap);
        let right = self.store.change(block, |data| {
            let (at, mask) = (bit as usize / 8, 1 << (bit % 8));
            let was = data[at] & mask != 0;
            if used {
                data[at] |= mask;
            } else {
                data[at] &= !mask;
            }
            was != used
        })?;
        self.unsealed.insert(block, Seal::InodeBitmap(number));
        if right { Ok(()) } else { Err(Errno::EUCLEAN) }
    }

    /// Puts the checksum of a group's bitmap into its descriptor.
    pub(super) fn seal_bitmap(&mut self, number: u32, inodes: bool) -> Result<()> {
        let mut group = self.group(number)?;
        let (block, bits, at) = match inodes {
            true => (group.inode_bitmap(), self.sb.inodes_per_group, field::INODE_BITMAP_CHECKSUM),
            false => (group.block_bitmap(), self.sb.blocks_per_group, field::BLOCK_BITMAP_CHECKSUM),
        };
        let (data, _) = self.store.read(block)?;
        let sum = self.bitmap_sum(&data, bits);
        group.set_bitmap_checksum(at, sum);
        self.put_group(number, group)
    }
}

/// Clears the first `count` bits.
fn clear_bits(bitmap: &mut [u8], count: u32) {
    let whole = count as usize / 8;
    bitmap[..whole].fill(0);
    if !count.is_multiple_of(8) {
        bitmap[whole] &= !0 << (count % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_has_its_known_value() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }

    #[test]
    fn bits_are_cleared_up_to_the_last() {
        let mut bitmap = [0xff; 4];
        clear_bits(&mut bitmap, 13);
        assert_eq!(bitmap, [0, 0xe0, 0xff, 0xff]);
    }
}
