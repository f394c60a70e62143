//! Inodes as they are on the disk.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::superblock::ro_compat;
use super::volume::Volume;
use crate::FileKind;
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::crc32c::crc32c;

/// The root directory.
pub(crate) const ROOT: u32 = 2;

/// Inode flags.
pub(crate) mod flag {
    pub(crate) const SYNC: u32 = 0x8;
    pub(crate) const IMMUTABLE: u32 = 0x10;
    pub(crate) const APPEND: u32 = 0x20;
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const HUGE_FILE: u32 = 0x4_0000;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    pub(crate) const EA_INODE: u32 = 0x20_0000;
    pub(crate) const INLINE_DATA: u32 = 0x1000_0000;
    /// What chattr(1) may change, of those that mean something here.
    pub(crate) const CHANGEABLE: u32 = SYNC | IMMUTABLE | APPEND | 0x40 | 0x80;
    /// What a new file has of its directory.
    pub(crate) const INHERITED: u32 = SYNC | 0x40 | 0x80;
}

/// Offsets of fields.
mod field {
    pub(super) const MODE: usize = 0;
    pub(super) const UID: usize = 2;
    pub(super) const SIZE: usize = 4;
    pub(super) const ATIME: usize = 8;
    pub(super) const CTIME: usize = 12;
    pub(super) const MTIME: usize = 16;
    pub(super) const DTIME: usize = 20;
    pub(super) const GID: usize = 24;
    pub(super) const LINKS: usize = 26;
    pub(super) const BLOCKS: usize = 28;
    pub(super) const FLAGS: usize = 32;
    pub(super) const BLOCK: usize = 40;
    pub(super) const GENERATION: usize = 100;
    pub(super) const ACL: usize = 104;
    pub(super) const SIZE_HIGH: usize = 108;
    pub(super) const BLOCKS_HIGH: usize = 116;
    pub(super) const ACL_HIGH: usize = 118;
    pub(super) const UID_HIGH: usize = 120;
    pub(super) const GID_HIGH: usize = 122;
    pub(super) const CHECKSUM: usize = 124;
    pub(super) const EXTRA_ISIZE: usize = 128;
    pub(super) const CHECKSUM_HIGH: usize = 130;
    pub(super) const CTIME_EXTRA: usize = 132;
    pub(super) const MTIME_EXTRA: usize = 136;
    pub(super) const ATIME_EXTRA: usize = 140;
    pub(super) const CRTIME: usize = 144;
    pub(super) const CRTIME_EXTRA: usize = 148;
}

/// Bytes of an inode before what revisions added.
pub(super) const OLD_SIZE: usize = 128;
/// Bytes of `i_block`: an extent tree's root, fifteen block numbers, or a short symbolic link.
pub(super) const BLOCK_BYTES: usize = 60;
/// Blocks of the table that are read at a time.
const READ_AHEAD: u64 = 16;
/// A directory with more subdirectories says 1 (feature dir_nlink).
const MAX_LINKS: u32 = 65_000;

/// An inode's bytes, taken out of the table. Put back with [`Volume::put_inode`].
#[derive(Clone, Debug)]
pub(crate) struct RawInode {
    pub(crate) number: u32,
    pub(super) bytes: Vec<u8>,
}

impl RawInode {
    /// The type bits and permissions.
    pub(crate) fn mode(&self) -> u32 {
        u32::from(le16(&self.bytes, field::MODE))
    }

    pub(crate) fn set_mode(&mut self, mode: u32) {
        put_le16(&mut self.bytes, field::MODE, mode as u16);
    }

    /// The type. `EUCLEAN` where the bits name none.
    pub(crate) fn kind(&self) -> Result<FileKind> {
        FileKind::from_mode(self.mode()).ok_or(Errno::EUCLEAN)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == Ok(FileKind::Directory)
    }

    fn split(&self, low: usize, high: usize) -> u32 {
        u32::from(le16(&self.bytes, low)) | u32::from(le16(&self.bytes, high)) << 16
    }

    fn put_split(&mut self, low: usize, high: usize, value: u32) {
        put_le16(&mut self.bytes, low, value as u16);
        put_le16(&mut self.bytes, high, (value >> 16) as u16);
    }

    pub(crate) fn uid(&self) -> u32 {
        self.split(field::UID, field::UID_HIGH)
    }

    pub(crate) fn gid(&self) -> u32 {
        self.split(field::GID, field::GID_HIGH)
    }

    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        self.put_split(field::UID, field::UID_HIGH, uid);
        self.put_split(field::GID, field::GID_HIGH, gid);
    }

    pub(crate) fn size(&self) -> u64 {
        u64::from(le32(&self.bytes, field::SIZE)) | u64::from(le32(&self.bytes, field::SIZE_HIGH)) << 32
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        put_le32(&mut self.bytes, field::SIZE, size as u32);
        put_le32(&mut self.bytes, field::SIZE_HIGH, (size >> 32) as u32);
    }

    pub(crate) fn links(&self) -> u32 {
        u32::from(le16(&self.bytes, field::LINKS))
    }

    pub(super) fn set_links(&mut self, links: u32) {
        put_le16(&mut self.bytes, field::LINKS, links.min(MAX_LINKS) as u16);
    }

    /// One name, or subdirectory, more. `EMLINK`.
    pub(super) fn add_link(&mut self, can_overflow: bool) -> Result<()> {
        let links = self.links();
        if self.is_dir() && can_overflow {
            // 1 says: too many to be counted.
            if links != 1 {
                let next = if links + 1 >= MAX_LINKS { 1 } else { links + 1 };
                self.set_links(next);
            }
            return Ok(());
        }
        if links >= MAX_LINKS {
            return Err(Errno::EMLINK);
        }
        self.set_links(links + 1);
        Ok(())
    }

    /// One name, or subdirectory, less.
    pub(super) fn drop_link(&mut self) {
        let links = self.links();
        if !self.is_dir() || links > 2 {
            self.set_links(links.saturating_sub(1));
        }
    }

    pub(crate) fn flags(&self) -> u32 {
        le32(&self.bytes, field::FLAGS)
    }

    pub(crate) fn set_flags(&mut self, flags: u32) {
        put_le32(&mut self.bytes, field::FLAGS, flags);
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(crate) fn generation(&self) -> u32 {
        le32(&self.bytes, field::GENERATION)
    }

    pub(super) fn dtime(&self) -> u32 {
        le32(&self.bytes, field::DTIME)
    }

    pub(super) fn set_dtime(&mut self, value: u32) {
        put_le32(&mut self.bytes, field::DTIME, value);
    }

    /// The block of extended attributes; 0 for none.
    pub(super) fn xattr_block(&self) -> u64 {
        u64::from(le32(&self.bytes, field::ACL)) | u64::from(le16(&self.bytes, field::ACL_HIGH)) << 32
    }

    pub(super) fn set_xattr_block(&mut self, block: u64) {
        put_le32(&mut self.bytes, field::ACL, block as u32);
        put_le16(&mut self.bytes, field::ACL_HIGH, (block >> 32) as u16);
    }

    /// What `i_block` holds.
    pub(super) fn block_area(&self) -> &[u8] {
        &self.bytes[field::BLOCK..field::BLOCK + BLOCK_BYTES]
    }

    pub(super) fn block_area_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[field::BLOCK..field::BLOCK + BLOCK_BYTES]
    }

    /// The space used, in units of 512 bytes.
    pub(crate) fn blocks(&self, block_size: usize) -> u64 {
        let n = u64::from(le32(&self.bytes, field::BLOCKS)) | u64::from(le16(&self.bytes, field::BLOCKS_HIGH)) << 32;
        if self.has(flag::HUGE_FILE) { n.saturating_mul(block_size as u64 / 512) } else { n }
    }

    /// Counts blocks in or out.
    pub(super) fn count_blocks(&mut self, change: i64, block_size: usize) {
        let sectors = self.blocks(block_size).saturating_add_signed(change * (block_size as i64 / 512));
        let huge = sectors >> 48 != 0;
        let n = if huge { sectors / (block_size as u64 / 512) } else { sectors };
        let flags = if huge { self.flags() | flag::HUGE_FILE } else { self.flags() & !flag::HUGE_FILE };
        self.set_flags(flags);
        put_le32(&mut self.bytes, field::BLOCKS, n as u32);
        put_le16(&mut self.bytes, field::BLOCKS_HIGH, (n >> 32) as u16);
    }

    /// Bytes behind the old part that are fields; what follows is for extended attributes.
    pub(super) fn extra_isize(&self) -> usize {
        if self.bytes.len() > OLD_SIZE { usize::from(le16(&self.bytes, field::EXTRA_ISIZE)) } else { 0 }
    }

    fn has_field(&self, at: usize) -> bool {
        at + 4 <= OLD_SIZE + self.extra_isize() && at + 4 <= self.bytes.len()
    }

    fn time(&self, at: usize, extra: usize) -> i64 {
        let seconds = i64::from(le32(&self.bytes, at) as i32);
        if !self.has_field(extra) {
            return seconds.saturating_mul(1_000_000_000);
        }
        let extra = le32(&self.bytes, extra);
        let seconds = seconds + (i64::from(extra & 3) << 32);
        // What the disk can say reaches further than 64 bits of nanoseconds do (2262).
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(extra >> 2).min(999_999_999))
    }

    fn set_time(&mut self, at: usize, extra: usize, nanos: i64) {
        let (low, high) = (i64::from(i32::MIN), 0x3_7fff_ffff);
        let has_extra = self.has_field(extra);
        let high = if has_extra { high } else { i64::from(i32::MAX) };
        let seconds = nanos.div_euclid(1_000_000_000).clamp(low, high);
        put_le32(&mut self.bytes, at, seconds as u32);
        if has_extra {
            let epoch = ((seconds - i64::from(seconds as i32)) >> 32) as u32 & 3;
            put_le32(&mut self.bytes, extra, epoch | (nanos.rem_euclid(1_000_000_000) as u32) << 2);
        }
    }

    /// Access, modification and change times in nanoseconds since 1970.
    pub(crate) fn times(&self) -> [i64; 3] {
        [
            self.time(field::ATIME, field::ATIME_EXTRA),
            self.time(field::MTIME, field::MTIME_EXTRA),
            self.time(field::CTIME, field::CTIME_EXTRA),
        ]
    }

    pub(crate) fn set_times(&mut self, [atime, mtime, ctime]: [i64; 3]) {
        self.set_time(field::ATIME, field::ATIME_EXTRA, atime);
        self.set_time(field::MTIME, field::MTIME_EXTRA, mtime);
        self.set_time(field::CTIME, field::CTIME_EXTRA, ctime);
    }

    pub(super) fn set_changed(&mut self, now: i64) {
        self.set_time(field::CTIME, field::CTIME_EXTRA, now);
    }

    pub(super) fn set_modified(&mut self, now: i64) {
        self.set_time(field::MTIME, field::MTIME_EXTRA, now);
        self.set_changed(now);
    }

    /// When it was made; 0 where that is not kept.
    pub(crate) fn birth(&self) -> i64 {
        if self.has_field(field::CRTIME) { self.time(field::CRTIME, field::CRTIME_EXTRA) } else { 0 }
    }

    /// What a fresh inode says.
    pub(super) fn fresh(number: u32, size: usize, extra_isize: u16, generation: u32, now: i64) -> RawInode {
        let mut inode = RawInode { number, bytes: alloc::vec![0; size] };
        if size > OLD_SIZE {
            put_le16(&mut inode.bytes, field::EXTRA_ISIZE, extra_isize);
        }
        put_le32(&mut inode.bytes, field::GENERATION, generation);
        inode.set_times([now; 3]);
        if inode.has_field(field::CRTIME) {
            inode.set_time(field::CRTIME, field::CRTIME_EXTRA, now);
        }
        inode
    }

    fn has_checksum_high(&self) -> bool {
        self.bytes.len() > OLD_SIZE && self.extra_isize() >= 4
    }

    /// The checksum over the inode, its own fields taken as zeros.
    fn checksum(&self, seed: u32) -> u32 {
        let mut bytes = self.bytes.clone();
        put_le16(&mut bytes, field::CHECKSUM, 0);
        if self.has_checksum_high() {
            put_le16(&mut bytes, field::CHECKSUM_HIGH, 0);
        }
        let sum = crc32c(seed, &bytes);
        if self.has_checksum_high() { sum } else { sum & 0xffff }
    }

    fn stored_checksum(&self) -> u32 {
        let high = if self.has_checksum_high() { u32::from(le16(&self.bytes, field::CHECKSUM_HIGH)) << 16 } else { 0 };
        u32::from(le16(&self.bytes, field::CHECKSUM)) | high
    }
}

impl Volume {
    /// What the checksums of an inode and of its blocks begin with.
    pub(super) fn inode_seed(&self, number: u32, generation: u32) -> u32 {
        crc32c(crc32c(self.sb.checksum_seed, &number.to_le_bytes()), &generation.to_le_bytes())
    }

    fn inode_place(&mut self, number: u32) -> Result<(u64, usize)> {
        if number == 0 || number > self.sb.inodes {
            return Err(Errno::EUCLEAN);
        }
        let (group, index) = ((number - 1) / self.sb.inodes_per_group, (number - 1) % self.sb.inodes_per_group);
        let at = index as usize * self.sb.inode_size;
        let table = self.group(group)?.inode_table();
        let block = table.checked_add((at / self.sb.block_size) as u64).ok_or(Errno::EUCLEAN)?;
        Ok((block, at % self.sb.block_size))
    }

    /// Reads the part of the table around a block that has an inode: who asks for one will ask for its neighbours.
    fn read_table_ahead(&mut self, number: u32, block: u64) -> Result<()> {
        let table = self.group((number - 1) / self.sb.inodes_per_group)?.inode_table();
        let bytes = u64::from(self.sb.inodes_per_group) * self.sb.inode_size as u64;
        let (index, len) = (block - table, bytes.div_ceil(self.sb.block_size as u64));
        let within = index % READ_AHEAD;
        self.store.read_ahead(block, block - within, READ_AHEAD.min(len + within - index));
        Ok(())
    }

    /// An inode of the table, as it is. `EIO`, `EUCLEAN`.
    pub(crate) fn inode(&mut self, number: u32) -> Result<RawInode> {
        let (block, offset) = self.inode_place(number)?;
        self.read_table_ahead(number, block)?;
        let (data, _) = self.store.read(block)?;
        let bytes = data.get(offset..offset + self.sb.inode_size).ok_or(Errno::EUCLEAN)?.to_vec();
        let inode = RawInode { number, bytes };
        if OLD_SIZE + inode.extra_isize() > self.sb.inode_size || !inode.extra_isize().is_multiple_of(4) {
            return Err(Errno::EUCLEAN);
        }
        Ok(inode)
    }

    /// An inode that is in use and makes sense, its checksum verified. `EBADMSG`, `EUCLEAN`, `ESTALE` where it is free.
    pub(crate) fn checked_inode(&mut self, number: u32) -> Result<RawInode> {
        if number != ROOT && number < self.sb.first_inode {
            return Err(Errno::EUCLEAN);
        }
        let inode = self.inode(number)?;
        let seed = self.inode_seed(number, inode.generation());
        if self.sb.has_checksums() && inode.checksum(seed) != inode.stored_checksum() {
            log::error!("ext4: inode {number} is damaged");
            return Err(Errno::EBADMSG);
        }
        if inode.links() == 0 && (inode.mode() == 0 || !self.orphans.contains(&number)) {
            return Err(Errno::ESTALE);
        }
        inode.kind()?;
        if inode.has(flag::INLINE_DATA | flag::EA_INODE) || inode.size() > i64::MAX as u64 {
            return Err(Errno::EUCLEAN);
        }
        let block = inode.xattr_block();
        if block != 0 && !self.sb.contains(block, 1) {
            return Err(Errno::EUCLEAN);
        }
        Ok(inode)
    }

    /// Puts an inode back into the table.
    pub(crate) fn put_inode(&mut self, mut inode: RawInode) -> Result<()> {
        if self.sb.has_checksums() {
            let seed = self.inode_seed(inode.number, inode.generation());
            let sum = inode.checksum(seed);
            put_le16(&mut inode.bytes, field::CHECKSUM, sum as u16);
            if inode.has_checksum_high() {
                put_le16(&mut inode.bytes, field::CHECKSUM_HIGH, (sum >> 16) as u16);
            }
        }
        let (block, offset) = self.inode_place(inode.number)?;
        self.store.change(block, |data| {
            if let Some(to) = data.get_mut(offset..offset + inode.bytes.len()) {
                to.copy_from_slice(&inode.bytes);
            }
        })
    }

    /// Reads an inode, changes it, and puts it back.
    pub(crate) fn change_inode<R>(&mut self, number: u32, f: impl FnOnce(&mut RawInode) -> R) -> Result<R> {
        let mut inode = self.inode(number)?;
        let result = f(&mut inode);
        self.put_inode(inode)?;
        Ok(result)
    }

    /// May directories have more subdirectories than can be counted?
    pub(super) fn links_overflow(&self) -> bool {
        self.sb.ro_compat & ro_compat::DIR_NLINK != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2262() {
        let mut inode = RawInode::fresh(11, 256, 32, 0, 0);
        for seconds in [i64::from(i32::MIN), -1, 0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x2_0000_0000] {
            let nanos = seconds * 1_000_000_000 + 123;
            inode.set_times([nanos, nanos + 1, nanos + 2]);
            assert_eq!(inode.times(), [nanos, nanos + 1, nanos + 2], "{seconds}");
        }
        let mut old = RawInode::fresh(11, 128, 0, 0, 0);
        old.set_times([5_000_000_123, i64::MAX, -1]);
        assert_eq!(old.times(), [5_000_000_000, i64::from(i32::MAX) * 1_000_000_000, -1_000_000_000]);
    }

    #[test]
    fn a_directory_with_too_many_subdirectories_says_1() {
        let mut inode = RawInode::fresh(11, 256, 32, 0, 0);
        inode.set_mode(0o40755);
        inode.set_links(64_999);
        assert_eq!(inode.clone().add_link(false), Ok(()));
        assert_eq!((inode.add_link(true), inode.links()), (Ok(()), 1));
        inode.drop_link();
        assert_eq!((inode.add_link(true), inode.links()), (Ok(()), 1));
    }
}
