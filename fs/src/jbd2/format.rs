//! What is on the disk: all numbers are big-endian.

use alloc::vec::Vec;

use crate::bytes::{be32, be64, put_be32, put_be64};
use crate::crc32c::crc32c;

const MAGIC: u32 = 0xc03b_3998;
pub(super) const HEADER: usize = 12;

/// Block types of the header.
pub(super) mod kind {
    pub(in crate::jbd2) const DESCRIPTOR: u32 = 1;
    pub(in crate::jbd2) const COMMIT: u32 = 2;
    pub(in crate::jbd2) const SUPERBLOCK_V1: u32 = 3;
    pub(in crate::jbd2) const SUPERBLOCK_V2: u32 = 4;
    pub(in crate::jbd2) const REVOKE: u32 = 5;
}

/// Incompatible features.
pub(super) mod feature {
    pub(in crate::jbd2) const REVOKE: u32 = 1;
    pub(in crate::jbd2) const WIDE: u32 = 2;
    pub(in crate::jbd2) const ASYNC_COMMIT: u32 = 4;
    pub(in crate::jbd2) const CHECKSUM_V2: u32 = 8;
    pub(in crate::jbd2) const CHECKSUM_V3: u32 = 16;
    pub(in crate::jbd2) const KNOWN: u32 = REVOKE | WIDE | ASYNC_COMMIT | CHECKSUM_V2 | CHECKSUM_V3;
}

/// Flags of a tag.
mod flag {
    pub(super) const ESCAPED: u32 = 1;
    pub(super) const SAME_UUID: u32 = 2;
    pub(super) const LAST: u32 = 8;
}

/// Fields of the superblock.
pub(super) mod field {
    pub(in crate::jbd2) const BLOCK_SIZE: usize = 12;
    pub(in crate::jbd2) const MAX_LEN: usize = 16;
    pub(in crate::jbd2) const FIRST: usize = 20;
    pub(in crate::jbd2) const SEQUENCE: usize = 24;
    pub(in crate::jbd2) const START: usize = 28;
    pub(in crate::jbd2) const ERRNO: usize = 32;
    pub(in crate::jbd2) const INCOMPAT: usize = 40;
    pub(in crate::jbd2) const UUID: usize = 48;
    pub(in crate::jbd2) const CHECKSUM_TYPE: usize = 80;
    pub(in crate::jbd2) const CHECKSUM: usize = 0xfc;
}

/// CRC-32C, as the checksum type of the superblock.
pub(super) const CRC32C: u8 = 4;
const COMMIT_CHECKSUM: usize = 16;
const COMMIT_SECONDS: usize = 48;
const COMMIT_NANOS: usize = 56;

/// How this journal writes its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) block_size: usize,
    pub(super) features: u32,
    pub(super) seed: u32,
    pub(super) uuid: [u8; 16],
}

/// A block's type and transaction, if it is of a journal.
pub(super) fn header(block: &[u8]) -> Option<(u32, u32)> {
    (be32(block, 0) == MAGIC).then(|| (be32(block, 4), be32(block, 8)))
}

fn put_header(block: &mut [u8], kind: u32, sequence: u32) {
    put_be32(block, 0, MAGIC);
    put_be32(block, 4, kind);
    put_be32(block, 8, sequence);
}

/// A block that a descriptor announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) block: u64,
    /// Its first four bytes were those of a journal's block, and are zeros in the log.
    pub(super) escaped: bool,
    pub(super) checksum: u32,
}

impl Format {
    fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    pub(super) fn has_checksums(&self) -> bool {
        self.has(feature::CHECKSUM_V2 | feature::CHECKSUM_V3)
    }

    fn tag_len(&self) -> usize {
        if self.has(feature::CHECKSUM_V3) {
            return 16;
        }
        8 + if self.has(feature::CHECKSUM_V2) { 2 } else { 0 } + if self.has(feature::WIDE) { 4 } else { 0 }
    }

    fn tail_len(&self) -> usize {
        if self.has_checksums() { 4 } else { 0 }
    }

    /// How many tags a descriptor has room for, the first being followed by the UUID.
    pub(super) fn tags_per_descriptor(&self) -> usize {
        (self.block_size - HEADER - 16 - self.tail_len()) / self.tag_len()
    }

    fn revoke_len(&self) -> usize {
        if self.has(feature::WIDE) { 8 } else { 4 }
    }

    /// How many blocks a revoke block has room for.
    pub(super) fn revokes_per_block(&self) -> usize {
        (self.block_size - HEADER - 4 - self.tail_len()) / self.revoke_len()
    }

    /// The checksum of a data block in transaction `sequence`.
    pub(super) fn data_checksum(&self, sequence: u32, data: &[u8]) -> u32 {
        let full = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), data);
        if self.has(feature::CHECKSUM_V3) { full } else { full & 0xffff }
    }

    /// What goes to the log for a block, and whether it had to be escaped.
    pub(super) fn escape(data: &[u8]) -> Option<Vec<u8>> {
        (be32(data, 0) == MAGIC).then(|| {
            let mut copy = data.to_vec();
            copy[..4].fill(0);
            copy
        })
    }

    /// Undoes [`Format::escape`].
    pub(super) fn unescape(data: &mut [u8]) {
        put_be32(data, 0, MAGIC);
    }

    pub(super) fn descriptor(&self, sequence: u32, tags: &[Tag]) -> Vec<u8> {
        let mut block = alloc::vec![0; self.block_size];
        put_header(&mut block, kind::DESCRIPTOR, sequence);
        let mut at = HEADER;
        for (i, tag) in tags.iter().enumerate() {
            let mut flags = if tag.escaped { flag::ESCAPED } else { 0 };
            flags |= if i > 0 { flag::SAME_UUID } else { 0 };
            flags |= if i + 1 == tags.len() { flag::LAST } else { 0 };
            put_be32(&mut block, at, tag.block as u32);
            let high = (tag.block >> 32) as u32;
            if self.has(feature::CHECKSUM_V3) {
                put_be32(&mut block, at + 4, flags);
                put_be32(&mut block, at + 8, high);
                put_be32(&mut block, at + 12, tag.checksum);
            } else {
                put_be32(&mut block, at + 4, (tag.checksum & 0xffff) << 16 | flags);
                if self.has(feature::WIDE) {
                    put_be32(&mut block, at + 8, high);
                }
            }
            at += self.tag_len();
            if i == 0 {
                block[at..at + 16].copy_from_slice(&self.uuid);
                at += 16;
            }
        }
        self.seal_tail(&mut block);
        block
    }

    /// The tags of a descriptor. `None` where its checksum is wrong.
    pub(super) fn tags(&self, block: &[u8]) -> Option<Vec<Tag>> {
        if !self.tail_is_right(block) {
            return None;
        }
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at + self.tag_len() <= self.block_size - self.tail_len() {
            let (flags, high, checksum) = if self.has(feature::CHECKSUM_V3) {
                (be32(block, at + 4), be32(block, at + 8), be32(block, at + 12))
            } else {
                let word = be32(block, at + 4);
                (word & 0xffff, if self.has(feature::WIDE) { be32(block, at + 8) } else { 0 }, word >> 16)
            };
            let high = if self.has(feature::WIDE) { u64::from(high) } else { 0 };
            let escaped = flags & flag::ESCAPED != 0;
            tags.push(Tag { block: high << 32 | u64::from(be32(block, at)), escaped, checksum });
            at += self.tag_len() + if flags & flag::SAME_UUID == 0 { 16 } else { 0 };
            if flags & flag::LAST != 0 {
                break;
            }
        }
        Some(tags)
    }

    pub(super) fn revoke(&self, sequence: u32, blocks: &[u64]) -> Vec<u8> {
        let mut out = alloc::vec![0; self.block_size];
        put_header(&mut out, kind::REVOKE, sequence);
        let len = self.revoke_len();
        put_be32(&mut out, HEADER, (HEADER + 4 + blocks.len() * len) as u32);
        for (i, block) in blocks.iter().enumerate() {
            let at = HEADER + 4 + i * len;
            if len == 8 {
                put_be64(&mut out, at, *block);
            } else {
                put_be32(&mut out, at, *block as u32);
            }
        }
        self.seal_tail(&mut out);
        out
    }

    /// The blocks that a revoke block names. `None` where it is damaged.
    pub(super) fn revoked(&self, block: &[u8]) -> Option<Vec<u64>> {
        let end = be32(block, HEADER) as usize;
        if !self.tail_is_right(block) || end > self.block_size || end < HEADER + 4 {
            return None;
        }
        let len = self.revoke_len();
        let entries = block[HEADER + 4..end].chunks_exact(len);
        Some(entries.map(|e| if len == 8 { be64(e, 0) } else { u64::from(be32(e, 0)) }).collect())
    }

    pub(super) fn commit(&self, sequence: u32, now: i64) -> Vec<u8> {
        let mut block = alloc::vec![0; self.block_size];
        put_header(&mut block, kind::COMMIT, sequence);
        put_be64(&mut block, COMMIT_SECONDS, now.div_euclid(1_000_000_000) as u64);
        put_be32(&mut block, COMMIT_NANOS, now.rem_euclid(1_000_000_000) as u32);
        if self.has_checksums() {
            let sum = crc32c(self.seed, &block);
            put_be32(&mut block, COMMIT_CHECKSUM, sum);
        }
        block
    }

    pub(super) fn commit_is_right(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let sum = be32(block, COMMIT_CHECKSUM);
        let mut copy = block.to_vec();
        put_be32(&mut copy, COMMIT_CHECKSUM, 0);
        crc32c(self.seed, &copy) == sum
    }

    fn seal_tail(&self, block: &mut [u8]) {
        if self.has_checksums() {
            let sum = crc32c(self.seed, block);
            put_be32(block, self.block_size - 4, sum);
        }
    }

    fn tail_is_right(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let at = self.block_size - 4;
        crc32c(crc32c(self.seed, &block[..at]), &[0; 4]) == be32(block, at)
    }
}

/// The checksum of a journal's superblock.
pub(super) fn superblock_checksum(block: &[u8]) -> u32 {
    let mut copy = block[..1024].to_vec();
    put_be32(&mut copy, field::CHECKSUM, 0);
    crc32c(!0, &copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_every_format() {
        for features in [
            0,
            feature::REVOKE,
            feature::WIDE,
            feature::CHECKSUM_V2,
            feature::CHECKSUM_V2 | feature::WIDE,
            feature::CHECKSUM_V3,
            feature::CHECKSUM_V3 | feature::WIDE,
        ] {
            let format = Format { block_size: 1024, features, seed: 7, uuid: [9; 16] };
            let wide = if features & feature::WIDE != 0 { 1 << 32 } else { 0 };
            let mask = if features & feature::CHECKSUM_V3 != 0 { !0 } else { 0xffff };
            let tags: Vec<Tag> = (0..format.tags_per_descriptor() as u64)
                .map(|i| Tag { block: i + wide, escaped: i % 3 == 0, checksum: (i as u32 * 99) & mask })
                .collect();
            let mut block = format.descriptor(5, &tags);
            assert_eq!(header(&block), Some((kind::DESCRIPTOR, 5)));
            assert_eq!(format.tags(&block), Some(tags));
            let blocks: Vec<u64> = (0..format.revokes_per_block() as u64).map(|i| i * 3 + wide).collect();
            assert_eq!(format.revoked(&format.revoke(6, &blocks)), Some(blocks));
            assert!(format.commit_is_right(&format.commit(6, -5)));
            block[40] ^= 1;
            assert_eq!(format.tags(&block).is_none(), format.has_checksums());
        }
    }
}
