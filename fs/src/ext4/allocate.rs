//! Choosing blocks and inodes.
//!
//! Blocks are chosen by what the allocator keeps in memory: for each group, a bitmap of what can't be had. That is what is in use on the
//! disk, what is freed by a transaction that is not committed yet (after a crash its old owner would have it back), and what write-back
//! has chosen for data that it is still writing ([`Volume::choose_blocks`]) and will take when it is written ([`Volume::take_blocks`]).

use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::volume::Volume;

/// What can't be had of a group.
pub(super) struct Space {
    words: Vec<u64>,
    len: u32,
    /// No free run is longer than this.
    longest: u32,
}

impl Space {
    fn new(bitmap: &[u8], len: u32) -> Space {
        let mut words = vec![!0u64; (len as usize).div_ceil(64)];
        for (word, bytes) in words.iter_mut().zip(bitmap.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or([0xff; 8]));
        }
        if !len.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last |= !0 << (len % 64);
        }
        Space { words, len, longest: len }
    }

    fn is_free(&self, bit: u32) -> bool {
        self.words.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 0)
    }

    fn set(&mut self, first: u32, count: u32, taken: bool) {
        for bit in first..first + count {
            let Some(word) = self.words.get_mut(bit as usize / 64) else { return };
            if taken {
                *word |= 1 << (bit % 64);
            } else {
                *word &= !(1 << (bit % 64));
            }
        }
        if !taken {
            self.longest = self.len;
        }
    }

    /// The first free bit from `from` on.
    fn next_free(&self, from: u32) -> Option<u32> {
        let mut at = from;
        while at < self.len {
            let word = !self.words.get(at as usize / 64)? >> (at % 64);
            if word != 0 {
                return Some(at + word.trailing_zeros()).filter(|&bit| bit < self.len);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The length of the free run at `from`, up to `max`.
    fn run(&self, from: u32, max: u32) -> u32 {
        (0..max).take_while(|i| from.checked_add(*i).is_some_and(|bit| bit < self.len && self.is_free(bit))).count()
            as u32
    }

    /// A free run of `want` from `from` on (and around), or the longest there is.
    fn find(&mut self, from: u32, want: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        for (start, end) in [(from, self.len), (0, from)] {
            let mut at = start;
            while let Some(bit) = self.next_free(at).filter(|&bit| bit < end) {
                let len = self.run(bit, want);
                if best.is_none_or(|(_, longest)| len > longest) {
                    best = Some((bit, len));
                    if len >= want {
                        return best;
                    }
                }
                at = bit + len;
            }
        }
        self.longest = best.map_or(0, |(_, len)| len);
        best
    }
}

impl Volume {
    /// What the allocator knows of a group.
    fn space(&mut self, number: u32) -> Result<&mut Space> {
        let index = number as usize;
        if self.space.get(index).is_none_or(Option::is_none) {
            let group = self.group(number)?;
            let bitmap = self.block_bitmap(number, &group)?;
            let space = Space::new(&bitmap, self.sb.group_len(number));
            *self.space.get_mut(index).ok_or(Errno::EUCLEAN)? = Some(space);
        }
        self.space.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EUCLEAN)
    }

    fn group_of(&self, block: u64) -> (u32, u32) {
        let relative = block.saturating_sub(self.sb.first_data_block);
        let per_group = u64::from(self.sb.blocks_per_group);
        ((relative / per_group) as u32, (relative % per_group) as u32)
    }

    /// Chooses up to `want` free blocks in one run, near `goal`: they are nobody else's until [`Volume::take_blocks`] makes them
    /// somebody's, or [`Volume::give_back`]. `ENOSPC`, `EIO`.
    pub(super) fn choose_blocks(&mut self, goal: u64, want: u32) -> Result<(u64, u32)> {
        let (goal_group, goal_bit) = self.group_of(goal.clamp(self.sb.first_data_block, self.sb.blocks - 1));
        let want = want.clamp(1, self.sb.blocks_per_group);
        let space = self.space(goal_group)?;
        let run = space.run(goal_bit, want);
        if run >= want.min(16) {
            return self.chosen(goal_group, goal_bit, run);
        }
        let mut best: Option<(u32, u32, u32)> = None;
        for i in 0..self.sb.groups {
            let number = (goal_group + i) % self.sb.groups;
            if self.group(number)?.free_blocks() == 0 {
                continue;
            }
            let from = if i == 0 { goal_bit } else { 0 };
            let space = self.space(number)?;
            if best.is_some_and(|(_, _, len)| space.longest <= len) {
                continue;
            }
            if let Some((bit, len)) = space.find(from, want)
                && best.is_none_or(|(_, _, longest)| len > longest)
            {
                best = Some((number, bit, len));
                if len >= want {
                    break;
                }
            }
        }
        let (number, bit, len) = best.filter(|(_, _, len)| *len > 0).ok_or(Errno::ENOSPC)?;
        self.chosen(number, bit, len)
    }

    /// Chooses the first run of at least `least` free blocks in `from..end`, all of it in one group. `EIO`.
    pub(super) fn choose_free(&mut self, from: u64, end: u64, least: u32) -> Result<Option<(u64, u32)>> {
        let mut at = from.max(self.sb.first_data_block);
        while at < end {
            let (number, bit) = self.group_of(at);
            let left = u32::try_from(end - at).unwrap_or(u32::MAX);
            let space = self.space(number)?;
            let Some(free) = space.next_free(bit).filter(|free| free - bit < left) else {
                at = self.sb.group_start(number + 1);
                continue;
            };
            let len = space.run(free, left - (free - bit));
            if len >= least.max(1) {
                return self.chosen(number, free, len).map(Some);
            }
            at = self.sb.group_start(number) + u64::from(free + len);
        }
        Ok(None)
    }

    fn chosen(&mut self, number: u32, bit: u32, len: u32) -> Result<(u64, u32)> {
        self.space(number)?.set(bit, len, true);
        Ok((self.sb.group_start(number) + u64::from(bit), len))
    }

    /// Gives chosen blocks back, or freed ones after their transaction is committed.
    pub(super) fn give_back(&mut self, first: u64, count: u64) {
        let mut at = first;
        while at < first + count {
            let (number, bit) = self.group_of(at);
            let n = (first + count - at).min(u64::from(self.sb.blocks_per_group - bit)) as u32;
            // What could not be loaded knows nothing that would have to be undone.
            if let Some(Some(space)) = self.space.get_mut(number as usize) {
                space.set(bit, n, false);
            }
            at += u64::from(n);
        }
    }

    /// Chosen blocks become used on the disk.
    pub(super) fn take_blocks(&mut self, first: u64, count: u32) -> Result<()> {
        let (number, bit) = self.group_of(first);
        let mut group = self.group(number)?;
        self.mark_blocks(number, &mut group, (bit, count), true)?;
        group.set_free_blocks(group.free_blocks().checked_sub(count).ok_or(Errno::EUCLEAN)?);
        self.put_group(number, group)?;
        self.free_blocks = self.free_blocks.saturating_sub(u64::from(count));
        Ok(())
    }

    /// Allocates up to `want` blocks in one run near `goal`. `ENOSPC`, `EIO`.
    pub(super) fn allocate_blocks(&mut self, goal: u64, want: u32) -> Result<(u64, u32)> {
        let (first, count) = self.choose_blocks(goal, want)?;
        self.allocated.push((first, u64::from(count)));
        self.take_blocks(first, count)?;
        Ok((first, count))
    }

    /// Allocates one block of zeros for metadata.
    pub(super) fn allocate_metadata(&mut self, goal: u64) -> Result<u64> {
        let (block, _) = self.allocate_blocks(goal, 1)?;
        self.store.put(block, vec![0; self.sb.block_size]);
        Ok(block)
    }

    /// Frees blocks. They are used again when the running transaction is committed. `EUCLEAN` where they are not in use.
    pub(super) fn free_blocks(&mut self, first: u64, count: u64, metadata: bool) -> Result<()> {
        if !self.sb.contains(first, count) {
            return Err(Errno::EUCLEAN);
        }
        let mut at = first;
        while at < first + count {
            let (number, bit) = self.group_of(at);
            let n = (first + count - at).min(u64::from(self.sb.blocks_per_group - bit)) as u32;
            // Known before it changes, so that it stays taken until the commit.
            self.space(number)?;
            let mut group = self.group(number)?;
            self.mark_blocks(number, &mut group, (bit, n), false)?;
            let free = group.free_blocks() + n;
            group.set_free_blocks(free.min(self.sb.group_len(number)));
            self.put_group(number, group)?;
            at += u64::from(n);
        }
        self.free_blocks += count;
        self.pending += count;
        self.store.free(first, count, metadata);
        Ok(())
    }

    /// Allocates an inode: in the parent's group or near it; directories of the root are spread. `ENOSPC`, `EIO`.
    pub(super) fn allocate_inode(&mut self, parent: u32, is_dir: bool) -> Result<u32> {
        let parent_group = (parent - 1) / self.sb.inodes_per_group;
        let start = if is_dir { self.group_for_directory(parent, parent_group)? } else { parent_group };
        for i in 0..self.sb.groups {
            let number = (start + i) % self.sb.groups;
            let mut group = self.group(number)?;
            if group.free_inodes() == 0 {
                continue;
            }
            let bitmap = self.inode_bitmap(&group)?;
            let first = if number == 0 { self.sb.first_inode - 1 } else { 0 };
            let free = |bit: &u32| bitmap[*bit as usize / 8] >> (bit % 8) & 1 == 0;
            let Some(bit) = (first..self.sb.inodes_per_group).find(free) else { continue };
            self.mark_inode(number, &mut group, bit, true)?;
            group.set_free_inodes(group.free_inodes() - 1);
            let never_used = self.sb.inodes_per_group - group.unused_inodes();
            if bit >= never_used {
                group.set_unused_inodes(self.sb.inodes_per_group - bit - 1);
            }
            if is_dir {
                group.set_directories(group.directories() + 1);
            }
            self.put_group(number, group)?;
            self.free_inodes = self.free_inodes.saturating_sub(1);
            return Ok(number * self.sb.inodes_per_group + bit + 1);
        }
        Err(Errno::ENOSPC)
    }

    /// Directories of the root go where there is most room, others to their parents while there is some.
    fn group_for_directory(&mut self, parent: u32, parent_group: u32) -> Result<u32> {
        if parent != super::inode::ROOT {
            return Ok(parent_group);
        }
        let mut best = (parent_group, 0);
        for number in 0..self.sb.groups {
            let group = self.group(number)?;
            let room = u64::from(group.free_inodes()) * u64::from(group.free_blocks());
            if room > best.1 {
                best = (number, room);
            }
        }
        Ok(best.0)
    }

    /// Frees an inode. `EUCLEAN` where it is not in use.
    pub(super) fn free_inode(&mut self, number: u32, is_dir: bool) -> Result<()> {
        let (at, bit) = ((number - 1) / self.sb.inodes_per_group, (number - 1) % self.sb.inodes_per_group);
        let mut group = self.group(at)?;
        self.mark_inode(at, &mut group, bit, false)?;
        group.set_free_inodes((group.free_inodes() + 1).min(self.sb.inodes_per_group));
        if is_dir {
            group.set_directories(group.directories().saturating_sub(1));
        }
        self.put_group(at, group)?;
        self.free_inodes += 1;
        Ok(())
    }

    /// Where the blocks of an inode are best looked for: its group.
    pub(super) fn goal_for(&self, inode: u32) -> u64 {
        self.sb.group_start((inode - 1) / self.sb.inodes_per_group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_around_the_goal_and_the_longest_otherwise() {
        let mut space = Space::new(&[0; 16], 100);
        space.set(0, 10, true);
        space.set(20, 70, true);
        assert_eq!(space.next_free(0), Some(10));
        assert_eq!(space.find(0, 5), Some((10, 5)));
        assert_eq!(space.find(50, 10), Some((90, 10)));
        assert_eq!(space.find(95, 10), Some((10, 10)));
        assert_eq!(space.find(0, 50), Some((10, 10)));
        assert_eq!(space.longest, 10);
        space.set(90, 10, true);
        space.set(10, 10, true);
        assert_eq!(space.find(0, 1), None);
        space.set(99, 1, false);
        assert_eq!((space.find(7, 3), space.is_free(100)), (Some((99, 1)), false));
    }
}
