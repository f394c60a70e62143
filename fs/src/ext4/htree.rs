//! The index over a large directory: a tree of hashes, in blocks that look like empty leaves to who does not know them.
//!
//! The root is the directory's first block, behind `.` and `..`; below it are up to two levels of nodes; their entries, sorted, say from
//! which hash on names are in which block. Where names with equal hashes are spread over two leaves, the second's hash is odd.

use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::directory::{entries, needed, pack, write_entry, write_tail};
use super::hash::NameHash;
use super::inode::{RawInode, flag};
use super::superblock::incompat;
use super::volume::Volume;
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::crc32c::crc32c;

/// Where the entries begin in the root and in other nodes. The first one's hash is where the counts are.
const ROOT_ENTRIES: usize = 32;
const NODE_ENTRIES: usize = 8;
const ENTRY: usize = 8;
const INFO: usize = 24;

/// Where the entries of an index block begin; `None` for a leaf.
fn entries_at(data: &[u8]) -> Option<usize> {
    let size = data.len();
    if le32(data, 0) == 0 && usize::from(le16(data, 4)) == size && data[6] == 0 {
        return Some(NODE_ENTRIES);
    }
    let is_root = usize::from(le16(data, 4)) == 12
        && usize::from(le16(data, 16)) == size - 12
        && le32(data, INFO) == 0
        && data[INFO + 5] == 8;
    is_root.then_some(ROOT_ENTRIES)
}

/// Is it a block of an index?
pub(super) fn is_index(data: &[u8]) -> bool {
    entries_at(data).is_some()
}

/// Puts the checksum into a block of an index.
pub(super) fn seal(data: &mut [u8], seed: u32) {
    let Some(at) = entries_at(data) else { return };
    let (limit, count) = (usize::from(le16(data, at)), usize::from(le16(data, at + 2)));
    let (end, tail) = (at + count * ENTRY, at + limit * ENTRY);
    if let (Some(body), Some(reserved)) = (data.get(..end), data.get(tail..tail + 4)) {
        let sum = crc32c(crc32c(crc32c(seed, body), reserved), &[0; 4]);
        put_le32(data, tail + 4, sum);
    }
}

/// An index block on the way to a leaf.
struct Level {
    /// Which block of the directory, and where that is on the disk.
    at: u32,
    block: u64,
    limit: usize,
    /// From which hash on, and which block of the directory; the first hash is 0.
    entries: Vec<(u32, u32)>,
    /// The one that was taken.
    taken: usize,
}

impl Level {
    fn parse(at: u32, block: u64, data: &[u8]) -> Result<Level> {
        let start = entries_at(data).ok_or(Errno::EUCLEAN)?;
        let (limit, count) = (usize::from(le16(data, start)), usize::from(le16(data, start + 2)));
        if count == 0 || count > limit || start + limit * ENTRY > data.len() {
            return Err(Errno::EUCLEAN);
        }
        let entry = |i: usize| {
            let hash = if i == 0 { 0 } else { le32(data, start + i * ENTRY) };
            (hash, le32(data, start + i * ENTRY + 4) & 0x0fff_ffff)
        };
        Ok(Level { at, block, limit, entries: (0..count).map(entry).collect(), taken: 0 })
    }

    fn write(&self, data: &mut [u8]) {
        let Some(start) = entries_at(data) else { return };
        for (i, (hash, block)) in self.entries.iter().enumerate() {
            if i > 0 {
                put_le32(data, start + i * ENTRY, *hash);
            }
            put_le32(data, start + i * ENTRY + 4, *block);
        }
        put_le16(data, start, self.limit as u16);
        put_le16(data, start + 2, self.entries.len() as u16);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    fn take(&mut self, hash: u32) {
        self.taken = self.entries.partition_point(|(from, _)| *from <= hash).saturating_sub(1);
    }

    fn target(&self) -> u32 {
        self.entries[self.taken].1
    }
}

impl Volume {
    fn name_hash(&mut self, dir: &RawInode) -> Result<NameHash> {
        let (_, data) = self.directory_block(dir, 0)?;
        NameHash::new(data[INFO + 4], self.sb.hash_unsigned, self.sb.hash_seed)
    }

    /// The way from the root to the leaf for a hash. `EUCLEAN`, `EIO`.
    fn probe(&mut self, dir: &RawInode, hash: u32) -> Result<Vec<Level>> {
        let (block, data) = self.directory_block(dir, 0)?;
        let levels = usize::from(data[INFO + 6]);
        if entries_at(&data) != Some(ROOT_ENTRIES) || levels > self.max_levels() {
            return Err(Errno::EUCLEAN);
        }
        let mut way = vec![Level::parse(0, block, &data)?];
        for depth in 0..=levels {
            way[depth].take(hash);
            if depth < levels {
                let at = way[depth].target();
                let (block, data) = self.directory_block(dir, at)?;
                if entries_at(&data) != Some(NODE_ENTRIES) {
                    return Err(Errno::EUCLEAN);
                }
                way.push(Level::parse(at, block, &data)?);
            }
        }
        Ok(way)
    }

    fn max_levels(&self) -> usize {
        if self.sb.has(incompat::LARGE_DIR) { 2 } else { 1 }
    }

    /// The leaves in which a name can be.
    pub(super) fn htree_leaves(&mut self, dir: &RawInode, name: &[u8]) -> Result<Vec<u32>> {
        let hash = self.name_hash(dir)?.of(name);
        let mut way = self.probe(dir, hash)?;
        let mut leaves = Vec::new();
        loop {
            leaves.push(way.last().ok_or(Errno::EUCLEAN)?.target());
            // On to the next leaf, if it goes on with this hash.
            let Some(depth) = way.iter().rposition(|level| level.taken + 1 < level.entries.len()) else { break };
            way[depth].taken += 1;
            if way[depth].entries[way[depth].taken].0 != hash | 1 {
                break;
            }
            way.truncate(depth + 1);
            let levels = { usize::from(self.directory_block(dir, 0)?.1[INFO + 6]) };
            while way.len() <= levels {
                let at = way.last().ok_or(Errno::EUCLEAN)?.target();
                let (block, data) = self.directory_block(dir, at)?;
                way.push(Level::parse(at, block, &data)?);
            }
            if leaves.len() > self.directory_blocks(dir) as usize {
                return Err(Errno::EUCLEAN);
            }
        }
        Ok(leaves)
    }

    /// Adds a name to a directory with an index. `ENOSPC` also where the index can't grow.
    pub(super) fn add_indexed(&mut self, dir: &mut RawInode, name: &[u8], inode: u32, kind: u8) -> Result<()> {
        let name_hash = self.name_hash(dir)?;
        let hash = name_hash.of(name);
        // Each turn makes room at one level: a leaf is split after the nodes above it have room.
        for _ in 0..8 {
            let way = self.probe(dir, hash)?;
            let leaf = way.last().ok_or(Errno::EUCLEAN)?.target();
            let (block, _) = self.directory_block(dir, leaf)?;
            if self.insert_in_leaf(dir, block, name, inode, kind)? {
                return Ok(());
            }
            if way.last().is_some_and(Level::is_full) {
                self.split_index(dir, way)?;
            } else {
                self.split_leaf(dir, way, block, &name_hash)?;
            }
        }
        Err(Errno::EUCLEAN)
    }

    fn write_level(&mut self, dir: &RawInode, level: &Level) -> Result<()> {
        self.change_directory(dir, level.block, |data| level.write(data))
    }

    /// Moves the upper half of a leaf to a new block.
    fn split_leaf(&mut self, dir: &mut RawInode, mut way: Vec<Level>, block: u64, name_hash: &NameHash) -> Result<()> {
        let size = self.leaf_size();
        let (data, _) = self.store.read(block)?;
        let mut list: Vec<(u32, (u32, u8, Vec<u8>))> = entries(&data, size)?
            .into_iter()
            .filter(|e| e.inode != 0)
            .map(|e| (name_hash.of(e.name), (e.inode, e.kind, e.name.to_vec())))
            .collect();
        drop(data);
        list.sort_by_key(|(hash, _)| *hash);
        if list.len() < 2 {
            return Err(Errno::EUCLEAN);
        }
        let total: usize = list.iter().map(|(_, e)| needed(e.2.len())).sum();
        let mut sum = 0;
        let mut fits = |(_, e): &(u32, (u32, u8, Vec<u8>))| {
            sum += needed(e.2.len());
            sum <= total / 2
        };
        let middle = list.iter().take_while(|entry| fits(entry)).count().clamp(1, list.len() - 1);
        let continued = list[middle - 1].0 == list[middle].0;
        let hash = list[middle].0 | u32::from(continued);
        let upper: Vec<_> = list.split_off(middle).into_iter().map(|(_, e)| e).collect();
        let lower: Vec<_> = list.into_iter().map(|(_, e)| e).collect();
        let (new_at, new_block) = self.append_block(dir)?;
        self.change_directory(dir, block, |data| pack(data, size, &lower))?;
        self.change_directory(dir, new_block, |data| pack(data, size, &upper))?;
        let level = way.last_mut().ok_or(Errno::EUCLEAN)?;
        level.entries.insert(level.taken + 1, (hash, new_at));
        let level = way.pop().ok_or(Errno::EUCLEAN)?;
        self.write_level(dir, &level)
    }

    /// Makes room in the index for one more leaf: splits the lowest node, or those above it first, or adds a level below the root.
    fn split_index(&mut self, dir: &mut RawInode, mut way: Vec<Level>) -> Result<()> {
        let full = way.iter().rev().take_while(|level| level.is_full()).count();
        let limit = self.node_limit();
        if full == way.len() {
            if way.len() > self.max_levels() {
                return Err(Errno::ENOSPC);
            }
            // All that the root has moves to a node below it.
            let (at, block) = self.new_index_node(dir)?;
            let mut root = way.swap_remove(0);
            let node = Level { at, block, limit, entries: core::mem::take(&mut root.entries), taken: 0 };
            root.entries.push((0, at));
            self.write_level(dir, &node)?;
            self.change_directory(dir, root.block, |data| {
                root.write(data);
                data[INFO + 6] += 1;
            })?;
            return Ok(());
        }
        let depth = way.len() - full;
        let (at, block) = self.new_index_node(dir)?;
        let node = &mut way[depth];
        let upper = node.entries.split_off(node.entries.len() / 2);
        let hash = upper.first().ok_or(Errno::EUCLEAN)?.0;
        let new = Level { at, block, limit, entries: upper, taken: 0 };
        self.write_level(dir, &way[depth])?;
        self.write_level(dir, &new)?;
        let above = &mut way[depth - 1];
        above.entries.insert(above.taken + 1, (hash, new.at));
        self.write_level(dir, &way[depth - 1])
    }

    fn tail_entries(&self) -> usize {
        usize::from(self.sb.has_checksums())
    }

    fn node_limit(&self) -> usize {
        (self.sb.block_size - NODE_ENTRIES) / ENTRY - self.tail_entries()
    }

    fn new_index_node(&mut self, dir: &mut RawInode) -> Result<(u32, u64)> {
        let (at, block) = self.append_block(dir)?;
        let size = self.sb.block_size;
        self.change_directory(dir, block, |data| {
            data.fill(0);
            write_entry(data, 0, size, 0, 0, b"");
        })?;
        Ok((at, block))
    }

    /// Gives a directory of one full block an index: its names move to a leaf, its block becomes the root.
    pub(super) fn make_index(&mut self, dir: &mut RawInode) -> Result<()> {
        let size = self.leaf_size();
        let (root, data) = self.directory_block(dir, 0)?;
        let list = entries(&data, size)?;
        let [own, parent, rest @ ..] = &list[..] else { return Err(Errno::EUCLEAN) };
        if own.name != b"." || parent.name != b".." {
            return Err(Errno::EUCLEAN);
        }
        let (parent_inode, parent_kind) = (parent.inode, parent.kind);
        let names: Vec<(u32, u8, Vec<u8>)> =
            rest.iter().filter(|e| e.inode != 0).map(|e| (e.inode, e.kind, e.name.to_vec())).collect();
        drop(data);
        let (leaf_at, leaf) = self.append_block(dir)?;
        let has_tail = self.sb.has_checksums();
        self.change_directory(dir, leaf, |data| {
            pack(data, size, &names);
            if has_tail {
                write_tail(data);
            }
        })?;
        let (whole, version) = (self.sb.block_size, self.sb.hash_version);
        let limit = (whole - ROOT_ENTRIES) / ENTRY - self.tail_entries();
        self.change_directory(dir, root, |data| {
            data[24..].fill(0);
            write_entry(data, 12, whole - 12, parent_inode, parent_kind, b"..");
            data[INFO + 4] = version % 3;
            data[INFO + 5] = 8;
            Level { at: 0, block: root, limit, entries: vec![(0, leaf_at)], taken: 0 }.write(data);
        })?;
        dir.set_flags(dir.flags() | flag::INDEX);
        Ok(())
    }
}
