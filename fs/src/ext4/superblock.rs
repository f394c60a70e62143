//! The superblock: sizes, features, and what is checked before a file system is trusted.

use alloc::vec::Vec;

use base::{Errno, Result};

use crate::block::BlockIo;
use crate::bytes::{le16, le32, put_le32};
use crate::crc32c::crc32c;

/// Where it is on the disk, and its size, in bytes.
pub(super) const OFFSET: u64 = 1024;
pub(super) const SIZE: usize = 1024;
const MAGIC: u16 = 0xef53;

/// Offsets of fields that are changed or read by others.
pub(super) mod field {
    pub(in crate::ext4) const FREE_BLOCKS_LOW: usize = 12;
    pub(in crate::ext4) const FREE_INODES: usize = 16;
    pub(in crate::ext4) const MOUNT_TIME: usize = 44;
    pub(in crate::ext4) const WRITE_TIME: usize = 48;
    pub(in crate::ext4) const MOUNT_COUNT: usize = 52;
    pub(in crate::ext4) const STATE: usize = 58;
    pub(in crate::ext4) const ERRORS: usize = 60;
    pub(in crate::ext4) const COMPAT: usize = 92;
    pub(in crate::ext4) const INCOMPAT: usize = 96;
    pub(in crate::ext4) const RO_COMPAT: usize = 100;
    pub(in crate::ext4) const LAST_ORPHAN: usize = 232;
    pub(in crate::ext4) const FREE_BLOCKS_HIGH: usize = 344;
    pub(in crate::ext4) const ERROR_COUNT: usize = 404;
    pub(in crate::ext4) const FIRST_ERROR_TIME: usize = 408;
    pub(in crate::ext4) const LAST_ERROR_TIME: usize = 460;
    pub(in crate::ext4) const CHECKSUM: usize = 1020;
}

/// Bits of the state.
pub(super) mod state {
    pub(in crate::ext4) const CLEAN: u16 = 1;
    pub(in crate::ext4) const ERRORS: u16 = 2;
}

/// Features that others can ignore.
pub(super) mod compat {
    pub(in crate::ext4) const HAS_JOURNAL: u32 = 0x4;
    pub(in crate::ext4) const DIR_INDEX: u32 = 0x20;
    pub(in crate::ext4) const SPARSE_SUPER2: u32 = 0x200;
}

/// Features without which it can't be read.
pub(super) mod incompat {
    pub(in crate::ext4) const FILETYPE: u32 = 0x2;
    pub(in crate::ext4) const RECOVER: u32 = 0x4;
    pub(in crate::ext4) const META_BG: u32 = 0x10;
    pub(in crate::ext4) const EXTENTS: u32 = 0x40;
    pub(in crate::ext4) const WIDE: u32 = 0x80;
    pub(in crate::ext4) const FLEX_BG: u32 = 0x200;
    pub(in crate::ext4) const CHECKSUM_SEED: u32 = 0x2000;
    pub(in crate::ext4) const LARGE_DIR: u32 = 0x4000;
    pub(in crate::ext4) const KNOWN: u32 =
        FILETYPE | RECOVER | META_BG | EXTENTS | WIDE | FLEX_BG | CHECKSUM_SEED | LARGE_DIR;
}

/// Features without which it can't be written.
pub(super) mod ro_compat {
    pub(in crate::ext4) const SPARSE_SUPER: u32 = 0x1;
    pub(in crate::ext4) const LARGE_FILE: u32 = 0x2;
    pub(in crate::ext4) const HUGE_FILE: u32 = 0x8;
    pub(in crate::ext4) const GROUP_CHECKSUM: u32 = 0x10;
    pub(in crate::ext4) const DIR_NLINK: u32 = 0x20;
    pub(in crate::ext4) const EXTRA_ISIZE: u32 = 0x40;
    pub(in crate::ext4) const METADATA_CHECKSUM: u32 = 0x400;
    pub(in crate::ext4) const KNOWN: u32 =
        SPARSE_SUPER | LARGE_FILE | HUGE_FILE | GROUP_CHECKSUM | DIR_NLINK | EXTRA_ISIZE | METADATA_CHECKSUM;
}

/// What the superblock says that does not change while the file system is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Superblock {
    pub(crate) block_size: usize,
    pub(crate) blocks: u64,
    pub(crate) reserved_blocks: u64,
    /// Who may use them besides root.
    pub(super) reserved_for: (u32, u32),
    pub(crate) inodes: u32,
    pub(super) first_data_block: u64,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) groups: u32,
    pub(super) inode_size: usize,
    pub(super) extra_isize: u16,
    pub(super) first_inode: u32,
    pub(super) descriptor_size: usize,
    pub(super) reserved_gdt_blocks: u16,
    pub(super) first_meta_group: u32,
    pub(super) backup_groups: [u32; 2],
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(crate) uuid: [u8; 16],
    pub(super) checksum_seed: u32,
    pub(super) hash_seed: [u32; 4],
    pub(super) hash_version: u8,
    pub(super) hash_unsigned: bool,
    pub(super) journal_inode: u32,
    pub(super) journal_device: u32,
    pub(super) state: u16,
    pub(super) errors: u16,
}

fn wide(low: u32, high: u32, is_wide: bool) -> u64 {
    u64::from(low) | if is_wide { u64::from(high) << 32 } else { 0 }
}

/// The bytes of a disk's superblock. `EIO`; `EINVAL` where the disk is too small to have one.
pub(super) fn load(io: &dyn BlockIo) -> Result<Vec<u8>> {
    // In whole blocks of the disk.
    let mut bytes = alloc::vec![0; 4096.max(io.logical_block() as usize)];
    let len = bytes.len().min(usize::try_from(io.size()).unwrap_or(usize::MAX) / 512 * 512);
    bytes.truncate(len);
    if bytes.len() < OFFSET as usize + SIZE {
        return Err(Errno::EINVAL);
    }
    io.read(0, &mut bytes)?;
    Ok(bytes[OFFSET as usize..OFFSET as usize + SIZE].to_vec())
}

/// Is this the superblock of an ext2, ext3 or ext4 file system?
pub(super) fn is_one(bytes: &[u8]) -> bool {
    le16(bytes, 56) == MAGIC
}

/// Puts the checksum in, where there is one.
pub(super) fn seal(bytes: &mut [u8]) {
    if le32(bytes, field::RO_COMPAT) & ro_compat::METADATA_CHECKSUM != 0 {
        let sum = crc32c(!0, &bytes[..field::CHECKSUM]);
        put_le32(bytes, field::CHECKSUM, sum);
    }
}

impl Superblock {
    /// Checks it and takes out what is needed. `EINVAL` where it is none, makes no sense, or has features that are not known;
    /// `EBADMSG` where its checksum is wrong; `size`: bytes of the disk.
    pub(super) fn parse(bytes: &[u8], size: u64) -> Result<Superblock> {
        if !is_one(bytes) {
            return Err(Errno::EINVAL);
        }
        // Revision 0 has none of the fields for features.
        let dynamic = le32(bytes, 76) > 0;
        let since = |value: u32, otherwise: u32| if dynamic { value } else { otherwise };
        let incompat = since(le32(bytes, field::INCOMPAT), 0);
        let ro_compat = since(le32(bytes, field::RO_COMPAT), 0);
        if incompat & !incompat::KNOWN != 0 {
            log::error!("ext4: features that are not known: {:#x}", incompat & !incompat::KNOWN);
            return Err(Errno::EINVAL);
        }
        let checksums = ro_compat & ro_compat::METADATA_CHECKSUM != 0;
        if checksums && crc32c(!0, &bytes[..field::CHECKSUM]) != le32(bytes, field::CHECKSUM) {
            return Err(Errno::EBADMSG);
        }
        let is_wide = incompat & incompat::WIDE != 0;
        let log_block_size = le32(bytes, 24);
        if log_block_size > 2 {
            return Err(Errno::EINVAL);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[104..120]);
        let seeded = incompat & incompat::CHECKSUM_SEED != 0;
        let found = Superblock {
            block_size: 1024 << log_block_size,
            blocks: wide(le32(bytes, 4), le32(bytes, 336), is_wide),
            reserved_for: (le16(bytes, 80).into(), le16(bytes, 82).into()),
            reserved_blocks: wide(le32(bytes, 8), le32(bytes, 340), is_wide),
            inodes: le32(bytes, 0),
            first_data_block: u64::from(le32(bytes, 20)),
            blocks_per_group: le32(bytes, 32),
            inodes_per_group: le32(bytes, 40),
            groups: 0,
            inode_size: since(u32::from(le16(bytes, 88)), 128) as usize,
            extra_isize: le16(bytes, 350),
            first_inode: since(le32(bytes, 84), 11),
            descriptor_size: if is_wide { usize::from(le16(bytes, 254)) } else { 32 },
            reserved_gdt_blocks: le16(bytes, 206),
            first_meta_group: le32(bytes, 260),
            backup_groups: [le32(bytes, 588), le32(bytes, 592)],
            compat: since(le32(bytes, field::COMPAT), 0),
            incompat,
            ro_compat,
            uuid,
            checksum_seed: if seeded { le32(bytes, 624) } else { crc32c(!0, &uuid) },
            hash_seed: [236, 240, 244, 248].map(|at| le32(bytes, at)),
            hash_version: bytes[252],
            hash_unsigned: le32(bytes, 352) & 2 != 0,
            journal_inode: le32(bytes, 224),
            journal_device: le32(bytes, 228),
            state: le16(bytes, field::STATE),
            errors: le16(bytes, field::ERRORS),
        };
        found.check(le32(bytes, 28), log_block_size, size)
    }

    /// Checks that the sizes fit each other and the disk. `EINVAL`.
    fn check(mut self, log_cluster: u32, log_block_size: u32, size: u64) -> Result<Superblock> {
        let bits = 8 * self.block_size as u32;
        let first = if self.block_size == 1024 { 1 } else { 0 };
        let sane = log_cluster == log_block_size
            && self.first_data_block == first
            && self.blocks > first
            && self.blocks.checked_mul(self.block_size as u64).is_some_and(|bytes| bytes <= size)
            && (8..=bits).contains(&self.blocks_per_group)
            && self.blocks_per_group.is_multiple_of(8)
            && (1..=bits).contains(&self.inodes_per_group)
            && self.inode_size.is_power_of_two()
            && (128..=self.block_size).contains(&self.inode_size)
            && self.descriptor_size.is_power_of_two()
            && (32..=self.block_size).contains(&self.descriptor_size)
            && self.first_inode >= 11
            && self.inodes >= self.first_inode;
        if !sane {
            return Err(Errno::EINVAL);
        }
        let groups = (self.blocks - first).div_ceil(u64::from(self.blocks_per_group));
        self.groups = u32::try_from(groups).map_err(|_| Errno::EINVAL)?;
        if u64::from(self.groups) * u64::from(self.inodes_per_group) != u64::from(self.inodes) {
            return Err(Errno::EINVAL);
        }
        if !(32..=self.inode_size.saturating_sub(128)).contains(&usize::from(self.extra_isize)) {
            self.extra_isize = if self.inode_size > 128 { 32 } else { 0 };
        }
        Ok(self)
    }

    pub(super) fn has_checksums(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CHECKSUM != 0
    }

    pub(super) fn has(&self, incompat: u32) -> bool {
        self.incompat & incompat != 0
    }

    /// The features without which it can be read but not written.
    pub(super) fn unknown_ro_compat(&self) -> u32 {
        self.ro_compat & !ro_compat::KNOWN
    }

    /// The block that has the superblock, and where in it.
    pub(super) fn place(&self) -> (u64, usize) {
        let size = self.block_size as u64;
        (OFFSET / size, (OFFSET % size) as usize)
    }

    /// The first block of a group.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        self.first_data_block + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// The blocks of a group; the last may have fewer.
    pub(super) fn group_len(&self, group: u32) -> u32 {
        let left = self.blocks.saturating_sub(self.group_start(group));
        left.min(u64::from(self.blocks_per_group)) as u32
    }

    /// Are these blocks of the file system, behind the superblock?
    pub(super) fn contains(&self, first: u64, count: u64) -> bool {
        first > self.first_data_block && first.checked_add(count).is_some_and(|end| end <= self.blocks)
    }

    /// Has the group a copy of the superblock?
    pub(super) fn has_copy(&self, group: u32) -> bool {
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return group == 0 || self.backup_groups.contains(&group);
        }
        if group <= 1 || self.ro_compat & ro_compat::SPARSE_SUPER == 0 {
            return true;
        }
        let power_of = |base: u32| {
            let mut n = base;
            while n < group {
                match n.checked_mul(base) {
                    Some(next) => n = next,
                    None => return false,
                }
            }
            n == group
        };
        group % 2 == 1 && [3, 5, 7].into_iter().any(power_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_in_few_groups() {
        let mut bytes = alloc::vec![0; SIZE];
        for (at, value) in [(0, 1000), (4, 8000), (24, 2), (28, 2), (32, 8), (40, 1), (76, 1), (84, 11), (100, 1)] {
            put_le32(&mut bytes, at, value);
        }
        bytes[56] = 0x53;
        bytes[57] = 0xef;
        bytes[88] = 128;
        let sb = Superblock::parse(&bytes, 8000 * 4096).expect("it is sane");
        let with: Vec<u32> = (0..130).filter(|g| sb.has_copy(*g)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        assert_eq!(Superblock::parse(&bytes, 7999 * 4096).err(), Some(Errno::EINVAL));
    }
}
