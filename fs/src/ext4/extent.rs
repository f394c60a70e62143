//! Extent trees: runs of blocks, found by binary search in nodes of a tree whose root is in the inode.
//!
//! A node has a header, and entries sorted by the file's block: in leaves extents, above them indices, each with the first block below
//! it. A node is taken apart to a list, changed, and put together again: with a few hundred entries that costs less than it reads.

use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::RawInode;
use super::map::Mapped;
use super::volume::{Seal, Volume};
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::crc32c::crc32c;

const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
/// The longest extent; longer lengths say that it is unwritten.
const MAX_WRITTEN: u32 = 32_768;
const MAX_UNWRITTEN: u32 = 32_767;
/// Linux's trees are never deeper.
const MAX_DEPTH: u16 = 5;
/// Extents that one step of removing takes.
const STEP: usize = 64;

/// A run of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    at: u32,
    block: u64,
    len: u32,
    unwritten: bool,
}

impl Extent {
    /// One past its last block of the file.
    fn end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.len)
    }

    /// Can `next` become part of it?
    fn joins(&self, next: &Extent) -> bool {
        let max = if self.unwritten { MAX_UNWRITTEN } else { MAX_WRITTEN };
        self.unwritten == next.unwritten
            && self.end() == u64::from(next.at)
            && self.block + u64::from(self.len) == next.block
            && self.len + next.len <= max
    }

    /// The part in `first..=last`.
    fn part(&self, first: u32, last: u32) -> Option<Extent> {
        let from = self.at.max(first);
        let to = (self.end() - 1).min(u64::from(last));
        let len = (to + 1).checked_sub(u64::from(from)).filter(|&len| len > 0)? as u32;
        Some(Extent { at: from, block: self.block + u64::from(from - self.at), len, ..*self })
    }
}

/// A node, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    depth: u16,
    capacity: usize,
    /// Of leaves.
    extents: Vec<Extent>,
    /// Of others: the first block of the file below, and the block of the node there.
    indices: Vec<(u32, u64)>,
}

impl Node {
    fn parse(bytes: &[u8], depth: Option<u16>) -> Result<Node> {
        let (entries, found) = (usize::from(le16(bytes, 2)), le16(bytes, 6));
        let capacity = (bytes.len() - ENTRY) / ENTRY;
        let sane = le16(bytes, 0) == MAGIC
            && entries <= usize::from(le16(bytes, 4))
            && usize::from(le16(bytes, 4)) <= capacity
            && found <= MAX_DEPTH
            && depth.is_none_or(|depth| depth == found);
        if !sane {
            return Err(Errno::EUCLEAN);
        }
        let mut node = Node { depth: found, capacity: usize::from(le16(bytes, 4)), extents: vec![], indices: vec![] };
        let mut next = 0;
        for entry in bytes[ENTRY..].chunks_exact(ENTRY).take(entries) {
            let at = le32(entry, 0);
            if u64::from(at) < next {
                return Err(Errno::EUCLEAN);
            }
            if found > 0 {
                node.indices.push((at, u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32));
                next = u64::from(at) + 1;
                continue;
            }
            let (len, high) = (u32::from(le16(entry, 4)), u64::from(le16(entry, 6)));
            let unwritten = len > MAX_WRITTEN;
            let len = if unwritten { len - MAX_WRITTEN } else { len };
            let extent = Extent { at, block: high << 32 | u64::from(le32(entry, 8)), len, unwritten };
            next = extent.end();
            if len == 0 || next > 1 << 32 {
                return Err(Errno::EUCLEAN);
            }
            node.extents.push(extent);
        }
        Ok(node)
    }

    fn write(&self, bytes: &mut [u8]) {
        let entries = self.extents.len() + self.indices.len();
        for (at, value) in [(0, MAGIC), (2, entries as u16), (4, self.capacity as u16), (6, self.depth)] {
            put_le16(bytes, at, value);
        }
        let mut at = ENTRY;
        for extent in &self.extents {
            put_le32(bytes, at, extent.at);
            let len = if extent.unwritten { extent.len + MAX_WRITTEN } else { extent.len };
            put_le16(bytes, at + 4, len as u16);
            put_le16(bytes, at + 6, (extent.block >> 32) as u16);
            put_le32(bytes, at + 8, extent.block as u32);
            at += ENTRY;
        }
        for (first, block) in &self.indices {
            put_le32(bytes, at, *first);
            put_le32(bytes, at + 4, *block as u32);
            put_le16(bytes, at + 8, (block >> 32) as u16);
            put_le16(bytes, at + 10, 0);
            at += ENTRY;
        }
    }

    fn len(&self) -> usize {
        self.extents.len() + self.indices.len()
    }

    fn first(&self) -> Option<u32> {
        self.extents.first().map(|e| e.at).or_else(|| self.indices.first().map(|i| i.0))
    }

    /// Which child has `at`: the last that begins at or before it, or the first.
    fn child(&self, at: u32) -> usize {
        self.indices.partition_point(|(first, _)| *first <= at).saturating_sub(1)
    }

    /// Puts an extent in, joined with its neighbours where they fit. `EUCLEAN` where there is one already.
    fn add(&mut self, new: Extent) -> Result<()> {
        let at = self.extents.partition_point(|e| e.at < new.at);
        let before = at.checked_sub(1).and_then(|i| self.extents.get(i));
        let overlaps = before.is_some_and(|e| e.end() > u64::from(new.at))
            || self.extents.get(at).is_some_and(|e| new.end() > u64::from(e.at));
        if overlaps {
            return Err(Errno::EUCLEAN);
        }
        self.extents.insert(at, new);
        for i in [at, at.wrapping_sub(1)] {
            if let (Some(left), Some(right)) = (self.extents.get(i), self.extents.get(i.wrapping_add(1)))
                && left.joins(right)
            {
                let len = right.len;
                self.extents[i].len += len;
                self.extents.remove(i + 1);
            }
        }
        Ok(())
    }

    /// Cuts the last part off, for a new node. What is added at the end of a file leaves full nodes behind.
    fn split(&mut self, appended: bool) -> Node {
        let at = if appended { self.len() - 1 } else { self.len() / 2 };
        let (extents, indices) = match self.depth {
            0 => (self.extents.split_off(at), Vec::new()),
            _ => (Vec::new(), self.indices.split_off(at)),
        };
        Node { depth: self.depth, capacity: self.capacity, extents, indices }
    }
}

/// Puts the checksum into a block of an extent tree.
pub(super) fn seal(data: &mut [u8], seed: u32) {
    let tail = ENTRY + usize::from(le16(data, 4)) * ENTRY;
    if let Some(bytes) = data.get(..tail) {
        let sum = crc32c(seed, bytes);
        put_le32(data, tail, sum);
    }
}

/// The root of an empty tree.
pub(super) fn init(inode: &mut RawInode) {
    let area = inode.block_area_mut();
    area.fill(0);
    Node { depth: 0, capacity: 4, extents: vec![], indices: vec![] }.write(area);
}

impl Volume {
    fn root_node(&self, inode: &RawInode) -> Result<Node> {
        Node::parse(inode.block_area(), None)
    }

    fn node(&mut self, inode: &RawInode, block: u64, depth: u16) -> Result<Node> {
        if !self.sb.contains(block, 1) {
            return Err(Errno::EUCLEAN);
        }
        let (data, fresh) = self.store.read(block)?;
        if fresh && self.sb.has_checksums() {
            let mut copy = data.to_vec();
            seal(&mut copy, self.inode_seed(inode.number, inode.generation()));
            if copy[..] != data[..] {
                log::error!("ext4: block {block} of the extents of inode {} is damaged", inode.number);
                self.store.forget(block);
                return Err(Errno::EBADMSG);
            }
        }
        Node::parse(&data, Some(depth))
    }

    fn put_node(&mut self, inode: &RawInode, block: u64, node: &Node) -> Result<()> {
        self.store.change(block, |data| node.write(data))?;
        let seed = self.inode_seed(inode.number, inode.generation());
        self.unsealed.insert(block, Seal::Extents(seed));
        Ok(())
    }

    pub(super) fn find_extent(&mut self, inode: &RawInode, at: u32, max: u32) -> Result<Mapped> {
        let mut node = self.root_node(inode)?;
        // Where the next subtree begins: a hole reaches at most there.
        let mut limit = 1u64 << 32;
        while node.depth > 0 {
            let child = node.child(at);
            let Some(&(_, block)) = node.indices.get(child) else { break };
            if let Some((next, _)) = node.indices.get(child + 1) {
                limit = u64::from(*next);
            }
            node = self.node(inode, block, node.depth - 1)?;
        }
        let after = node.extents.partition_point(|e| e.at <= at);
        if let Some(found) = after.checked_sub(1).and_then(|i| node.extents.get(i))
            && found.end() > u64::from(at)
        {
            let within = at - found.at;
            let len = (found.len - within).min(max);
            return Ok(Mapped { block: Some(found.block + u64::from(within)), len, unwritten: found.unwritten });
        }
        let end = node.extents.get(after).map_or(limit, |e| u64::from(e.at));
        Ok(Mapped::hole(u32::try_from(end - u64::from(at)).unwrap_or(u32::MAX).clamp(1, max)))
    }

    pub(super) fn insert_extent(
        &mut self,
        inode: &mut RawInode,
        at: u32,
        block: u64,
        len: u32,
        unwritten: bool,
    ) -> Result<()> {
        let max = if unwritten { MAX_UNWRITTEN } else { MAX_WRITTEN };
        let mut done = 0;
        while done < len {
            let n = (len - done).min(max);
            self.insert_one(inode, Extent { at: at + done, block: block + u64::from(done), len: n, unwritten })?;
            done += n;
        }
        Ok(())
    }

    fn insert_one(&mut self, inode: &mut RawInode, new: Extent) -> Result<()> {
        let mut root = self.root_node(inode)?;
        let split = self.insert_below(inode, &mut root, &new)?;
        if let Some(right) = split {
            // The root overflows: what it had moves one level down.
            if root.depth >= MAX_DEPTH {
                return Err(Errno::EFBIG);
            }
            let capacity = self.node_capacity();
            let mut indices = Vec::new();
            for mut half in [root.clone(), right] {
                half.capacity = capacity;
                indices.push((half.first().ok_or(Errno::EUCLEAN)?, self.new_node(inode, &half, new.block)?));
            }
            root = Node { depth: root.depth + 1, capacity: 4, extents: vec![], indices };
        }
        root.write(inode.block_area_mut());
        Ok(())
    }

    fn node_capacity(&self) -> usize {
        (self.sb.block_size - ENTRY - 4) / ENTRY
    }

    /// A new node on the disk: its block.
    fn new_node(&mut self, inode: &mut RawInode, node: &Node, goal: u64) -> Result<u64> {
        let block = self.allocate_metadata(goal)?;
        inode.count_blocks(1, self.sb.block_size);
        self.put_node(inode, block, node)?;
        Ok(block)
    }

    /// Puts an extent in below a node, which the caller writes. What it gives is the node's second half, where it had to be split.
    fn insert_below(&mut self, inode: &mut RawInode, node: &mut Node, new: &Extent) -> Result<Option<Node>> {
        if node.depth == 0 {
            node.add(*new)?;
            let appended = node.extents.last().is_some_and(|last| last.at == new.at);
            return Ok((node.len() > node.capacity).then(|| node.split(appended)));
        }
        let child = node.child(new.at);
        let (_, block) = *node.indices.get(child).ok_or(Errno::EUCLEAN)?;
        let mut below = self.node(inode, block, node.depth - 1)?;
        let right = self.insert_below(inode, &mut below, new)?;
        self.put_node(inode, block, &below)?;
        node.indices[child].0 = below.first().ok_or(Errno::EUCLEAN)?;
        let Some(right) = right else { return Ok(None) };
        let first = right.first().ok_or(Errno::EUCLEAN)?;
        let right_block = self.new_node(inode, &right, block)?;
        node.indices.insert(child + 1, (first, right_block));
        let appended = child + 2 == node.indices.len();
        Ok((node.len() > node.capacity).then(|| node.split(appended)))
    }

    pub(super) fn remove_extents(&mut self, inode: &mut RawInode, first: u32, last: u32) -> Result<bool> {
        let mut root = self.root_node(inode)?;
        let mut left = STEP;
        let mut rest = Vec::new();
        let done = self.remove_below(inode, &mut root, (first, last), &mut left, &mut rest)?;
        if root.len() == 0 {
            root = Node { depth: 0, capacity: 4, extents: vec![], indices: vec![] };
        }
        root.write(inode.block_area_mut());
        // What is left behind a hole cut into the middle of an extent.
        for extent in rest {
            self.insert_one(inode, extent)?;
        }
        Ok(done)
    }

    /// Removes blocks below a node, the last first, which the caller writes; at most `left` extents. True when all are gone.
    fn remove_below(
        &mut self,
        inode: &mut RawInode,
        node: &mut Node,
        range: (u32, u32),
        left: &mut usize,
        rest: &mut Vec<Extent>,
    ) -> Result<bool> {
        if node.depth == 0 {
            return self.remove_from_leaf(inode, node, range, left, rest);
        }
        let (first, last) = range;
        let mut child = node.child(last);
        loop {
            let Some(&(_, block)) = node.indices.get(child) else { return Ok(true) };
            let mut below = self.node(inode, block, node.depth - 1)?;
            let done = self.remove_below(inode, &mut below, range, left, rest)?;
            match below.first() {
                Some(first) => {
                    node.indices[child].0 = first;
                    self.put_node(inode, block, &below)?;
                }
                None => {
                    node.indices.remove(child);
                    inode.count_blocks(-1, self.sb.block_size);
                    self.free_blocks(block, 1, true)?;
                }
            }
            let reached = node.indices.get(child).is_some_and(|(at, _)| *at <= first);
            if !done || reached || child == 0 {
                return Ok(done);
            }
            child -= 1;
        }
    }

    fn remove_from_leaf(
        &mut self,
        inode: &mut RawInode,
        node: &mut Node,
        (first, last): (u32, u32),
        left: &mut usize,
        rest: &mut Vec<Extent>,
    ) -> Result<bool> {
        let mut i = node.extents.partition_point(|e| e.at <= last);
        while i > 0 {
            i -= 1;
            let extent = node.extents[i];
            let Some(gone) = extent.part(first, last) else { break };
            if *left == 0 {
                return Ok(false);
            }
            *left -= 1;
            let is_dir = inode.is_dir();
            self.free_blocks(gone.block, u64::from(gone.len), is_dir || self.journals_data)?;
            inode.count_blocks(-i64::from(gone.len), self.sb.block_size);
            let before = gone.at.checked_sub(1).and_then(|to| extent.part(0, to));
            let after = last.checked_add(1).and_then(|from| extent.part(from, u32::MAX));
            match (before, after) {
                (None, None) => drop(node.extents.remove(i)),
                (Some(kept), None) | (None, Some(kept)) => node.extents[i] = kept,
                (Some(before), Some(after)) => {
                    node.extents[i] = before;
                    rest.push(after);
                }
            }
        }
        Ok(true)
    }

    /// Says that `len` unwritten blocks from `at` on are written now. `ENOSPC`, `EIO`.
    pub(crate) fn mark_written(&mut self, inode: &mut RawInode, at: u32, len: u32) -> Result<()> {
        let mut next = at;
        while next < at + len {
            let found = self.find_extent(inode, next, at + len - next)?;
            if let (Some(block), true) = (found.block, found.unwritten) {
                // Taken out of the tree without being freed, and put in again as written.
                let mut root = self.root_node(inode)?;
                let mut rest = Vec::new();
                self.cut(inode, &mut root, (next, next + found.len - 1), &mut rest)?;
                if root.len() == 0 {
                    root = Node { depth: 0, capacity: 4, extents: vec![], indices: vec![] };
                }
                root.write(inode.block_area_mut());
                rest.push(Extent { at: next, block, len: found.len, unwritten: false });
                for extent in rest {
                    self.insert_one(inode, extent)?;
                }
            }
            next += found.len;
        }
        Ok(())
    }

    /// Moves all extents from block `from` on by so many blocks, towards the beginning if `back`.
    pub(crate) fn shift_extents(&mut self, inode: &mut RawInode, from: u32, by: u32, back: bool) -> Result<()> {
        let mut moved = Vec::new();
        let mut at = from;
        loop {
            let found = self.find_extent(inode, at, u32::MAX - at)?;
            if let Some(block) = found.block {
                moved.push(Extent { at, block, len: found.len, unwritten: found.unwritten });
            }
            match at.checked_add(found.len).filter(|&next| next < u32::MAX) {
                Some(next) => at = next,
                None => break,
            }
        }
        for extent in &moved {
            let mut root = self.root_node(inode)?;
            let mut rest = Vec::new();
            self.cut(inode, &mut root, (extent.at, extent.at + (extent.len - 1)), &mut rest)?;
            if root.len() == 0 {
                root = Node { depth: 0, capacity: 4, extents: vec![], indices: vec![] };
            }
            root.write(inode.block_area_mut());
            for part in rest {
                self.insert_one(inode, part)?;
            }
        }
        for extent in moved {
            let at = if back { extent.at.checked_sub(by) } else { extent.at.checked_add(by) };
            self.insert_one(inode, Extent { at: at.ok_or(Errno::EFBIG)?, ..extent })?;
        }
        Ok(())
    }

    /// Takes a range that lies in one extent out of the tree; the blocks stay taken.
    fn cut(
        &mut self,
        inode: &mut RawInode,
        node: &mut Node,
        (first, last): (u32, u32),
        rest: &mut Vec<Extent>,
    ) -> Result<()> {
        if node.depth == 0 {
            let i = node.extents.partition_point(|e| e.at <= first).checked_sub(1).ok_or(Errno::EUCLEAN)?;
            let extent = node.extents.remove(i);
            rest.extend(first.checked_sub(1).and_then(|to| extent.part(0, to)));
            rest.extend(last.checked_add(1).and_then(|from| extent.part(from, u32::MAX)));
            return Ok(());
        }
        let child = node.child(first);
        let (_, block) = *node.indices.get(child).ok_or(Errno::EUCLEAN)?;
        let mut below = self.node(inode, block, node.depth - 1)?;
        self.cut(inode, &mut below, (first, last), rest)?;
        match below.first() {
            Some(first) => {
                node.indices[child].0 = first;
                self.put_node(inode, block, &below)
            }
            None => {
                node.indices.remove(child);
                inode.count_blocks(-1, self.sb.block_size);
                self.free_blocks(block, 1, true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(at: u32, block: u64, len: u32) -> Extent {
        Extent { at, block, len, unwritten: false }
    }

    #[test]
    fn neighbours_are_joined() {
        let mut node = Node { depth: 0, capacity: 4, extents: vec![], indices: vec![] };
        for new in [extent(0, 100, 5), extent(10, 110, 5), extent(5, 105, 5), extent(20, 200, 1)] {
            node.add(new).expect("no overlap");
        }
        assert_eq!(node.extents, [extent(0, 100, 15), extent(20, 200, 1)]);
        assert_eq!(node.add(extent(14, 0, 1)), Err(Errno::EUCLEAN));
        assert_eq!(node.add(extent(19, 0, 2)), Err(Errno::EUCLEAN));
    }

    #[test]
    fn a_node_survives_being_written_and_read() {
        let unwritten = Extent { at: 9, block: 5 << 32 | 7, len: MAX_UNWRITTEN, unwritten: true };
        let node = Node { depth: 0, capacity: 4, extents: vec![extent(0, 1 << 40, MAX_WRITTEN)], indices: vec![] };
        let mut bytes = vec![0; 60];
        node.write(&mut bytes);
        assert_eq!(Node::parse(&bytes, None), Ok(node));
        let node = Node { depth: 0, capacity: 4, extents: vec![extent(0, 3, 9), unwritten], indices: vec![] };
        node.write(&mut bytes);
        assert_eq!(Node::parse(&bytes, Some(0)), Ok(node));
        assert_eq!(Node::parse(&bytes, Some(1)), Err(Errno::EUCLEAN));
    }

    #[test]
    fn parts_of_an_extent() {
        let e = extent(10, 100, 10);
        assert_eq!(e.part(0, 9), None);
        assert_eq!(e.part(0, 12), Some(extent(10, 100, 3)));
        assert_eq!(e.part(15, u32::MAX), Some(extent(15, 105, 5)));
        assert_eq!(e.part(20, 30), None);
        let last = extent(u32::MAX, 7, 1);
        assert_eq!(last.part(u32::MAX, u32::MAX), Some(last));
    }
}
