//! Damaged images: errors and read-only file systems are fine; panics, endless loops and memory without bound are not.
//!
//! A survey finds every structure of an image; in each round some get wrong fields, and their checksums are mended, so that it is the reader
//! behind the checksum who has to see what is wrong.

use super::*;
use crate::bytes::{be32, le16, le32, put_be32, put_le16, put_le32};
use crate::crc32c::crc32c;
use crate::damage;
use crate::ext4::inode::{RawInode, flag};
use crate::ext4::superblock::{OFFSET, SIZE};
use crate::ext4::{directory, extent, superblock};

/// Rounds of an image, unless the environment says how many.
const ROUNDS: usize = 60;
const JOURNAL_MAGIC: u32 = 0xc03b_3998;

/// What the bytes are, and how their checksum is mended.
#[derive(Clone, Copy, Debug)]
enum Seal {
    Superblock,
    Group(u32),
    /// A bitmap: its group, where that keeps the checksum, and its bits.
    Bitmap(u32, usize, u32),
    Inode(u32),
    Directory(u32),
    Extents(u32),
    Attributes(u64),
    /// A block of block numbers has no checksum.
    Indirect,
    JournalSuperblock,
    Journal,
}

/// A structure of an image.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: usize,
    len: usize,
    seal: Seal,
}

/// What has to be known to mend checksums.
struct Layout {
    parts: Vec<Part>,
    groups: usize,
    group_len: usize,
    has_checksums: bool,
    seed: u32,
    journal_seed: u32,
    inodes: u32,
    blocks: u32,
    block_size: usize,
}

fn survey(image: &[u8]) -> Layout {
    let disk = Arc::new(MemoryDisk::new(image.to_vec()));
    let read_only = OpenOptions { read_only: true, no_load: true, on_error: None };
    let mut volume = Volume::open(disk, read_only, NOW).expect("it opens");
    let sb = volume.sb.clone();
    let size = sb.block_size;
    let mut layout = Layout {
        parts: vec![Part { at: OFFSET as usize, len: SIZE, seal: Seal::Superblock }],
        groups: (sb.first_data_block as usize + 1) * size,
        group_len: sb.descriptor_size,
        has_checksums: sb.has_checksums(),
        seed: sb.checksum_seed,
        journal_seed: 0,
        inodes: sb.inodes,
        blocks: sb.blocks as u32,
        block_size: size,
    };
    for number in 0..sb.groups {
        let group = volume.group(number).expect("sane");
        layout.add(layout.groups + number as usize * layout.group_len, layout.group_len, Seal::Group(number));
        layout.add_block(group.block_bitmap(), Seal::Bitmap(number, 24, sb.blocks_per_group));
        layout.add_block(group.inode_bitmap(), Seal::Bitmap(number, 26, sb.inodes_per_group));
        for index in 0..sb.inodes_per_group {
            let number = number * sb.inodes_per_group + index + 1;
            let Ok(inode) = volume.inode(number) else { continue };
            if inode.mode() != 0 {
                let at = group.inode_table() as usize * size + index as usize * sb.inode_size;
                layout.add(at, sb.inode_size, Seal::Inode(number));
                layout.survey_inode(&mut volume, &inode, image);
            }
        }
    }
    layout
}

impl Layout {
    fn add(&mut self, at: usize, len: usize, seal: Seal) {
        self.parts.push(Part { at, len, seal });
    }

    fn add_block(&mut self, block: u64, seal: Seal) {
        self.add(block as usize * self.block_size, self.block_size, seal);
    }

    fn survey_inode(&mut self, volume: &mut Volume, inode: &RawInode, image: &[u8]) {
        let seed = volume.inode_seed(inode.number, inode.generation());
        let area = inode.block_area().to_vec();
        if inode.xattr_block() != 0 {
            self.add_block(inode.xattr_block(), Seal::Attributes(inode.xattr_block()));
        }
        if inode.has(flag::EXTENTS) {
            self.survey_extents(&area, seed, image);
        } else if matches!(inode.kind(), Ok(FileKind::Regular | FileKind::Directory)) {
            let numbers = area[48..].chunks_exact(4).map(|at| u64::from(le32(at, 0))).filter(|block| *block != 0);
            numbers.for_each(|block| self.add_block(block, Seal::Indirect));
        }
        if inode.number == volume.sb.journal_inode {
            self.survey_journal(volume, inode, image);
        } else if inode.is_dir() {
            for at in 0..volume.directory_blocks(inode) {
                let block = volume.must_map(inode, at).expect("sane");
                self.add_block(block, Seal::Directory(seed));
            }
        }
    }

    fn survey_extents(&mut self, node: &[u8], seed: u32, image: &[u8]) {
        if le16(node, 6) == 0 {
            return;
        }
        for entry in node[12..].chunks_exact(12).take(usize::from(le16(node, 2))) {
            let block = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
            self.add_block(block, Seal::Extents(seed));
            self.survey_extents(&image[block as usize * self.block_size..][..self.block_size], seed, image);
        }
    }

    fn survey_journal(&mut self, volume: &mut Volume, inode: &RawInode, image: &[u8]) {
        for at in 0..(inode.size() / self.block_size as u64) as u32 {
            let block = volume.must_map(inode, at).expect("sane");
            let start = block as usize * self.block_size;
            if at == 0 {
                self.add(start, 1024, Seal::JournalSuperblock);
                self.journal_seed = crc32c(!0, &image[start + 48..start + 64]);
            } else if be32(&image[start..], 0) == JOURNAL_MAGIC {
                self.add_block(block, Seal::Journal);
            }
        }
    }

    /// Mends the checksum of a part, wherever that is kept.
    fn mend(&self, image: &mut [u8], part: &Part) {
        if !self.has_checksums {
            return;
        }
        let bytes = &mut image[part.at..part.at + part.len];
        match part.seal {
            Seal::Superblock => superblock::seal(bytes),
            Seal::Group(number) => {
                put_le16(bytes, 30, 0);
                let sum = crc32c(crc32c(self.seed, &number.to_le_bytes()), bytes) as u16;
                put_le16(bytes, 30, sum);
            }
            Seal::Bitmap(number, field, bits) => {
                let sum = crc32c(self.seed, &bytes[..bits as usize / 8]);
                let at = self.groups + number as usize * self.group_len;
                put_le16(image, at + field, sum as u16);
                if self.group_len >= 64 {
                    put_le16(image, at + field + 32, (sum >> 16) as u16);
                }
                self.mend(image, &Part { at, len: self.group_len, seal: Seal::Group(number) });
            }
            Seal::Inode(number) => {
                let wide = part.len > 128 && le16(bytes, 128) >= 4;
                let places = if wide { &[124, 130][..] } else { &[124] };
                places.iter().for_each(|at| put_le16(bytes, *at, 0));
                let seed = crc32c(crc32c(self.seed, &number.to_le_bytes()), &le32(bytes, 100).to_le_bytes());
                let sum = crc32c(seed, bytes);
                places.iter().zip([sum as u16, (sum >> 16) as u16]).for_each(|(at, half)| put_le16(bytes, *at, half));
            }
            Seal::Directory(seed) => directory::seal(bytes, seed),
            Seal::Extents(seed) => extent::seal(bytes, seed),
            Seal::Attributes(block) => {
                put_le32(bytes, 16, 0);
                let sum = crc32c(crc32c(self.seed, &block.to_le_bytes()), bytes);
                put_le32(bytes, 16, sum);
            }
            Seal::Indirect => {}
            Seal::JournalSuperblock => {
                put_be32(bytes, 0xfc, 0);
                let sum = crc32c(!0, bytes);
                put_be32(bytes, 0xfc, sum);
            }
            Seal::Journal => {
                // Commit blocks have theirs in the header, others at the end.
                let at = if be32(bytes, 4) == 2 { 16 } else { bytes.len() - 4 };
                put_be32(bytes, at, 0);
                let sum = crc32c(self.journal_seed, bytes);
                put_be32(bytes, at, sum);
            }
        }
    }

    /// Gives a part a wrong field, and mends its checksum.
    fn damage(&self, image: &mut [u8], part: &Part, random: &mut Random) {
        let swapped = matches!(part.seal, Seal::JournalSuperblock | Seal::Journal);
        let likely = [self.inodes as usize + 1, self.blocks as usize];
        damage::spoil(&mut image[part.at..part.at + part.len], &likely, swapped, random);
        self.mend(image, part);
    }
}

/// A file system with something of everything.
fn populated(kind: &[&str]) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::new(make(8, kind)));
    let mut volume = open(&disk);
    play(&mut volume, &mut Random(9), 400);
    let dir = volume.operation(|v| v.create(ROOT, b"many", &new(FileKind::Directory, b""))).expect("room").number;
    for i in 0..100 {
        let name = format!("{i}-{}", "n".repeat(60));
        let file =
            volume.operation(|v| v.create(dir, name.as_bytes(), &new(FileKind::Fifo, b""))).expect("room").number;
        let value = vec![i; 150];
        volume.operation(|v| v.set_xattr(file, b"user.a", Some(&value), SetMode::Any, NOW)).expect("room");
    }
    // Blocks that don't join make a tree of extents, or indirect blocks.
    let file = volume.operation(|v| v.create(ROOT, b"scattered", &new(FileKind::Regular, b""))).expect("room").number;
    (0..120).for_each(|at| write(&mut volume, file, at * 3, &[7]).expect("room"));
    volume.commit(NOW).expect("commits");
    drop(volume);
    disk
}

/// Walks and changes whatever can be reached, as far as errors allow.
fn exercise(volume: &mut Volume) {
    let mut seen = vec![ROOT];
    let mut next = 0;
    while let Some(&dir) = seen.get(next) {
        next += 1;
        let mut at = 0;
        let mut blocks = 0;
        while let Ok(Some(listed)) = volume.list_block(dir, at) {
            for entry in listed {
                if seen.len() > 400 {
                    break;
                }
                let Ok(inode) = volume.query(|v| v.checked_inode(entry.inode)) else { continue };
                if inode.kind() == Ok(FileKind::Directory) && !seen.contains(&entry.inode) {
                    seen.push(entry.inode);
                }
                change(volume, dir, &entry.name, &inode);
            }
            // A directory may say that it is as large as it likes: who lists it goes on as long as he wants.
            blocks += 1;
            if blocks > 300 {
                break;
            }
            at = (at / volume.sb.block_size as u64 + 1) * volume.sb.block_size as u64;
        }
        let _ = volume.operation(|v| v.create(dir, b"new", &new(FileKind::Directory, b"")));
        if volume.is_full() && volume.commit(NOW).is_err() {
            break;
        }
    }
    let _ = volume.close(NOW);
}

/// Reads and changes one file.
fn change(volume: &mut Volume, dir: u32, name: &[u8], inode: &RawInode) {
    let number = inode.number;
    let _ = volume.query(|v| v.xattr(number, b"user.a"));
    let _ = volume.operation(|v| v.set_xattr(number, b"user.b", Some(&[1; 100]), SetMode::Any, NOW));
    match inode.kind() {
        Ok(FileKind::Symlink) => drop(volume.query(|v| v.link_target(number))),
        Ok(FileKind::Regular) => {
            let mut block = 0u32;
            while let Ok(found) = volume.query(|v| v.map(inode, block, 100)) {
                block = block.saturating_add(found.len);
                if block > 400 {
                    break;
                }
            }
            let _ = write(volume, number, 5, &[3; 9000]);
            let _ = volume.truncate(number, 1000, NOW);
        }
        _ => {}
    }
    let _ = volume.operation(|v| v.link(dir, b"linked", number, NOW));
    let _ = volume.operation(|v| v.rename((dir, name), (ROOT, b"moved"), NOW));
    let _ = volume.operation(|v| v.unlink(dir, name, NOW));
    let _ = volume.delete(number, NOW);
    if volume.is_full() {
        let _ = volume.commit(NOW);
    }
}

/// Opens a damaged image, as it is and once more as the first time left it.
fn open_twice(image: Vec<u8>) {
    let disk = Arc::new(MemoryDisk::new(image));
    for _ in 0..2 {
        if let Ok(mut volume) = Volume::open(disk.clone(), WRITE, NOW) {
            exercise(&mut volume);
        }
    }
}

/// Damages every kind of structure in turn, in images that were left clean or by a crash.
fn fuzz(kind: &[&str], crashed: bool) {
    let disk = populated(kind);
    if !crashed {
        open(&disk).close(NOW).expect("it closes");
    }
    let image = disk.image();
    let layout = survey(&image);
    let kinds = |part: &Part| std::mem::discriminant(&part.seal);
    let mut choices: Vec<Vec<Part>> = Vec::new();
    for part in &layout.parts {
        match choices.iter_mut().find(|parts| kinds(&parts[0]) == kinds(part)) {
            Some(parts) => parts.push(*part),
            None => choices.push(vec![*part]),
        }
    }
    let spoil = |image: &mut Vec<u8>, round: usize, random: &mut Random| {
        for n in 0..1 + random.below(4) {
            let parts = &choices[if n == 0 { round % choices.len() } else { random.below(choices.len()) }];
            layout.damage(image, &parts[random.below(parts.len())], random);
        }
    };
    damage::fuzz(&format!("{kind:?} crashed {crashed}"), ROUNDS, &image, spoil, open_twice);
}

#[test]
fn damaged_structures_give_errors_and_nothing_worse() {
    for kind in [KINDS[1], KINDS[2], KINDS[4], KINDS[5], KINDS[6]] {
        fuzz(kind, false);
    }
}

#[test]
fn damaged_journals_give_errors_and_nothing_worse() {
    for kind in [KINDS[0], KINDS[1], KINDS[5]] {
        fuzz(kind, true);
    }
}
