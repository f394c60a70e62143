//! Block maps of ext2 and ext3: twelve direct blocks, then blocks of block numbers, one, two and three levels deep.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::RawInode;
use super::map::Mapped;
use super::volume::Volume;
use crate::bytes::{le32, put_le32};

const DIRECT: u64 = 12;
/// Blocks that one step of removing takes.
const STEP: usize = 2048;

/// The way to a block: which pointer in the inode, then which in each block of pointers.
fn path(at: u32, per_block: u64) -> Result<Vec<usize>> {
    let mut at = u64::from(at);
    if at < DIRECT {
        return Ok(alloc::vec![at as usize]);
    }
    at -= DIRECT;
    let mut span = 1;
    for level in 1..=3 {
        span *= per_block;
        if at < span {
            let mut path = alloc::vec![(DIRECT + level - 1) as usize];
            let mut below = span;
            for _ in 0..level {
                below /= per_block;
                path.push((at / below % per_block) as usize);
            }
            return Ok(path);
        }
        at -= span;
    }
    Err(Errno::EFBIG)
}

/// A subtree that is being removed from.
struct Subtree {
    /// Levels of pointers below its root.
    level: u32,
    /// The first block of the file below it.
    start: u64,
}

impl Volume {
    fn per_block(&self) -> u64 {
        self.sb.block_size as u64 / 4
    }

    fn pointer_block(&mut self, block: u32) -> Result<alloc::sync::Arc<[u8]>> {
        if !self.sb.contains(u64::from(block), 1) {
            return Err(Errno::EUCLEAN);
        }
        Ok(self.store.read(u64::from(block))?.0)
    }

    pub(super) fn find_indirect(&mut self, inode: &RawInode, at: u32, max: u32) -> Result<Mapped> {
        let way = match path(at, self.per_block()) {
            Ok(way) => way,
            Err(_) => return Ok(Mapped::hole(max)),
        };
        let mut bytes: alloc::sync::Arc<[u8]> = inode.block_area().into();
        for (depth, index) in way.iter().enumerate() {
            let pointer = le32(&bytes, index * 4);
            if depth + 1 < way.len() {
                if pointer == 0 {
                    // Nothing below: the hole reaches at least to the end of this pointer block's part.
                    let below = way.len() - depth - 1;
                    let span = self.per_block().pow(below as u32);
                    let within = way[depth + 1..].iter().fold(0, |n, i| n * self.per_block() + *i as u64);
                    return Ok(Mapped::hole(u32::try_from(span - within).unwrap_or(u32::MAX).clamp(1, max)));
                }
                bytes = self.pointer_block(pointer)?;
                continue;
            }
            let last = if way.len() == 1 { DIRECT as usize } else { self.per_block() as usize };
            let follows = |i: usize| {
                let next = le32(&bytes, (index + i) * 4);
                if pointer == 0 { next == 0 } else { u64::from(next) == u64::from(pointer) + i as u64 }
            };
            let len = (1..(last - index).min(max as usize)).take_while(|&i| follows(i)).count() as u32 + 1;
            return Ok(Mapped { block: (pointer != 0).then_some(u64::from(pointer)), len, unwritten: false });
        }
        Err(Errno::EUCLEAN)
    }

    pub(super) fn insert_indirect(&mut self, inode: &mut RawInode, at: u32, block: u64) -> Result<()> {
        let pointer = u32::try_from(block).map_err(|_| Errno::EFBIG)?;
        let way = path(at, self.per_block())?;
        let (last, above) = way.split_last().ok_or(Errno::EUCLEAN)?;
        // The block of pointers that has the pointer; `None` for the inode.
        let mut holder: Option<u32> = None;
        for index in above {
            let found = match holder {
                None => le32(inode.block_area(), index * 4),
                Some(holder) => le32(&self.pointer_block(holder)?, index * 4),
            };
            let next = if found != 0 {
                found
            } else {
                let new = u32::try_from(self.allocate_metadata(block)?).map_err(|_| Errno::ENOSPC)?;
                inode.count_blocks(1, self.sb.block_size);
                self.set_pointer(inode, holder, *index, new)?;
                new
            };
            holder = Some(next);
        }
        self.set_pointer(inode, holder, *last, pointer)
    }

    fn set_pointer(&mut self, inode: &mut RawInode, holder: Option<u32>, index: usize, value: u32) -> Result<()> {
        match holder {
            None => put_le32(inode.block_area_mut(), index * 4, value),
            Some(holder) => {
                self.pointer_block(holder)?;
                self.store.change(u64::from(holder), |data| put_le32(data, index * 4, value))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_indirect(&mut self, inode: &mut RawInode, first: u32, last: u32) -> Result<bool> {
        let mut left = STEP;
        let range = (u64::from(first), u64::from(last));
        let per_block = self.per_block();
        let mut starts = alloc::vec![DIRECT];
        for level in 1..3u32 {
            starts.push(starts[level as usize - 1] + per_block.pow(level));
        }
        for index in (0..15usize).rev() {
            let (level, start) = match index {
                0..12 => (0, index as u64),
                _ => (index as u32 - 11, starts[index - 12]),
            };
            let pointer = le32(inode.block_area(), index * 4);
            if pointer == 0 {
                continue;
            }
            let subtree = Subtree { level, start };
            let (gone, done) = self.remove_subtree(inode, pointer, &subtree, range, &mut left)?;
            if gone {
                put_le32(inode.block_area_mut(), index * 4, 0);
            }
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what of `range` is below `pointer`, the last first: whether the pointer's block itself is gone, and whether all is done.
    fn remove_subtree(
        &mut self,
        inode: &mut RawInode,
        pointer: u32,
        subtree: &Subtree,
        range: (u64, u64),
        left: &mut usize,
    ) -> Result<(bool, bool)> {
        let span = self.per_block().pow(subtree.level);
        let end = subtree.start + span;
        if end <= range.0 || subtree.start > range.1 {
            return Ok((false, true));
        }
        if *left == 0 {
            return Ok((false, false));
        }
        if subtree.level == 0 {
            *left -= 1;
            let metadata = inode.is_dir() || self.journals_data;
            self.free_blocks(u64::from(pointer), 1, metadata)?;
            inode.count_blocks(-1, self.sb.block_size);
            return Ok((true, true));
        }
        let bytes = self.pointer_block(pointer)?;
        let mut gone = Vec::new();
        let mut done = true;
        let below = span / self.per_block();
        for index in (0..self.per_block() as usize).rev() {
            let child = le32(&bytes, index * 4);
            if child == 0 {
                continue;
            }
            let part = Subtree { level: subtree.level - 1, start: subtree.start + index as u64 * below };
            let (child_gone, child_done) = self.remove_subtree(inode, child, &part, range, left)?;
            if child_gone {
                gone.push(index);
            }
            if !child_done {
                done = false;
                break;
            }
        }
        let kept = (0..self.per_block() as usize).any(|i| le32(&bytes, i * 4) != 0 && !gone.contains(&i));
        drop(bytes);
        if !kept {
            self.free_blocks(u64::from(pointer), 1, true)?;
            inode.count_blocks(-1, self.sb.block_size);
            return Ok((true, done));
        }
        if !gone.is_empty() {
            self.store.change(u64::from(pointer), |data| {
                for index in &gone {
                    put_le32(data, index * 4, 0);
                }
            })?;
        }
        Ok((false, done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_goes_one_level_deeper_where_the_one_before_ends() {
        let n = 256;
        assert_eq!(path(11, n), Ok(alloc::vec![11]));
        assert_eq!(path(12, n), Ok(alloc::vec![12, 0]));
        assert_eq!(path(12 + 255, n), Ok(alloc::vec![12, 255]));
        assert_eq!(path(12 + 256, n), Ok(alloc::vec![13, 0, 0]));
        assert_eq!(path(12 + 256 + 65536, n), Ok(alloc::vec![14, 0, 0, 0]));
        assert_eq!(path(12 + 256 + 65536 + 256 * 65536, n), Err(Errno::EFBIG));
    }
}
