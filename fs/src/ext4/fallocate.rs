//! fallocate(2), SEEK_DATA and SEEK_HOLE, and the map of extents (FIEMAP).

use base::{Errno, Result};
use hal::user::{UserPtr, copy_out};

use super::data::PAGE;
use super::inode::flag;
use super::node::Node;
use crate::Inode;

/// Modes of fallocate(2).
mod mode {
    pub(super) const KEEP_SIZE: u32 = 1;
    pub(super) const PUNCH_HOLE: u32 = 2;
    pub(super) const COLLAPSE_RANGE: u32 = 8;
    pub(super) const ZERO_RANGE: u32 = 16;
    pub(super) const INSERT_RANGE: u32 = 32;
}

/// Blocks that one operation allocates.
const STEP: u32 = 8192;

impl Node {
    /// fallocate(2). The inode's content is locked.
    pub(super) fn fallocate(&self, inode: &Inode, how: u32, offset: u64, len: u64) -> Result<()> {
        use mode::*;
        let end = offset + len;
        if !self.has_extents {
            return Err(Errno::EOPNOTSUPP);
        }
        if end > self.max_size() {
            return Err(Errno::EFBIG);
        }
        match how {
            0 | KEEP_SIZE => self.preallocate(offset, end, how & KEEP_SIZE != 0),
            m if m == PUNCH_HOLE | KEEP_SIZE => self.punch(offset, end),
            m if m & !KEEP_SIZE == ZERO_RANGE => {
                self.punch(offset, end)?;
                self.preallocate(offset, end, how & KEEP_SIZE != 0)
            }
            COLLAPSE_RANGE | INSERT_RANGE => self.shift(inode, how == COLLAPSE_RANGE, offset, len),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Gives the holes of a range blocks that read as zeros.
    fn preallocate(&self, offset: u64, end: u64, keep_size: bool) -> Result<()> {
        let size = self.fs.block_size as u64;
        let cache = self.cache()?;
        // What waits for its blocks gets them first, so that it does not get them here.
        cache.sync_range(offset / PAGE, (end - 1) / PAGE)?;
        let _held = self.mapping.lock();
        let last = u32::try_from(end.div_ceil(size)).map_err(|_| Errno::EFBIG)?;
        let mut at = u32::try_from(offset / size).map_err(|_| Errno::EFBIG)?;
        while at < last {
            at = self.fs.operation(|volume| {
                let mut raw = volume.inode(self.number)?;
                let found = volume.map(&raw, at, last - at)?;
                if found.block.is_some() {
                    return Ok(at + found.len);
                }
                let most = u32::try_from(self.fs.left(volume)).unwrap_or(STEP).min(STEP);
                if most == 0 {
                    return Err(Errno::ENOSPC);
                }
                let goal = volume.goal(&raw, at);
                let (block, len) = volume.allocate_blocks(goal, found.len.min(most))?;
                volume.insert(&mut raw, at, block, len, true)?;
                volume.put_inode(raw)?;
                Ok(at + len)
            })?;
            sched::preempt_point();
        }
        if !keep_size && end > cache.size() {
            cache.resize(end)?;
            self.fs.operation(|volume| volume.change_inode(self.number, |raw| raw.set_size(raw.size().max(end))))?;
        }
        self.note_changed();
        Ok(())
    }

    /// Makes a range read as zeros and frees the whole blocks in it.
    fn punch(&self, offset: u64, end: u64) -> Result<()> {
        let cache = self.cache()?;
        let end = end.min(cache.size().next_multiple_of(self.fs.block_size as u64));
        if offset >= end {
            return Ok(());
        }
        // The edges are zeroed in memory and written; whole pages go.
        cache.punch_hole(offset, end.min(cache.size().max(offset)))?;
        cache.sync_range(offset / PAGE, (end - 1) / PAGE)?;
        cache.drop_clean(offset / PAGE, (end - 1) / PAGE);
        self.remove_blocks(offset, end)
    }

    fn remove_blocks(&self, offset: u64, end: u64) -> Result<()> {
        let size = self.fs.block_size as u64;
        let _held = self.mapping.lock();
        let (first, past) = (offset.div_ceil(size), end / size);
        let (Ok(first), Ok(past)) = (u32::try_from(first), u32::try_from(past)) else { return Err(Errno::EFBIG) };
        let mut done = first >= past;
        while !done {
            done = self.fs.operation(|volume| {
                let mut raw = volume.inode(self.number)?;
                let done = volume.remove(&mut raw, first, past - 1)?;
                volume.put_inode(raw)?;
                Ok(done)
            })?;
            sched::preempt_point();
        }
        self.note_changed();
        Ok(())
    }

    /// FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE: takes a range out of the file, or puts a hole in. `EINVAL` where it is not
    /// made of blocks, or reaches the end.
    fn shift(&self, _inode: &Inode, collapse: bool, offset: u64, len: u64) -> Result<()> {
        let size = self.fs.block_size as u64;
        let cache = self.cache()?;
        let old = cache.size();
        let inside = if collapse { offset + len < old } else { offset < old };
        if !offset.is_multiple_of(size) || !len.is_multiple_of(size) || !inside {
            return Err(Errno::EINVAL);
        }
        let new = if collapse { old - len } else { old.checked_add(len).ok_or(Errno::EFBIG)? };
        if new > self.max_size() {
            return Err(Errno::EFBIG);
        }
        cache.sync_range(0, u64::MAX)?;
        if collapse {
            self.remove_blocks(offset, offset + len)?;
        }
        let blocks = |bytes: u64| u32::try_from(bytes / size).map_err(|_| Errno::EFBIG);
        let (from, by) = (blocks(if collapse { offset + len } else { offset })?, blocks(len)?);
        {
            let _held = self.mapping.lock();
            self.fs.operation(|volume| {
                let mut raw = volume.inode(self.number)?;
                volume.shift_extents(&mut raw, from, by, collapse)?;
                raw.set_size(new);
                volume.put_inode(raw)
            })?;
        }
        // All pages behind are somewhere else now.
        cache.forget(offset / PAGE, u64::MAX);
        cache.set_size(new);
        self.note_changed();
        Ok(())
    }

    /// The next offset with data, or in a hole.
    pub(super) fn seek_data(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let cache = self.cache()?;
        let size = cache.size();
        let block_size = self.fs.block_size as u64;
        let mut at = offset;
        while at < size {
            let block = u32::try_from(at / block_size).map_err(|_| Errno::EFBIG)?;
            let left = u32::try_from((size - at).div_ceil(block_size)).unwrap_or(u32::MAX);
            let found = self.fs.query(|volume| {
                let raw = volume.inode(self.number)?;
                volume.map(&raw, block, left)
            })?;
            let end = ((u64::from(block) + u64::from(found.len)) * block_size).min(size);
            if found.readable().is_some() {
                if data {
                    return Ok(Some(at));
                }
                at = end;
                continue;
            }
            // What has no blocks yet may have pages that wait for them.
            let dirty = cache.next_dirty(at / PAGE).map(|index| index * PAGE).filter(|&start| start < end);
            match dirty {
                Some(start) if start <= at && data => return Ok(Some(at)),
                Some(start) if start <= at => at = (start + PAGE).min(end),
                Some(start) if data => return Ok(Some(start)),
                None if data => at = end,
                _ => return Ok(Some(at)),
            }
        }
        Ok(if data { None } else { Some(size) })
    }

    /// FS_IOC_FIEMAP: `struct fiemap`, followed by room for extents.
    pub(super) fn fiemap(&self, arg: usize) -> Result<usize> {
        const HEADER: usize = 32;
        const EXTENT: usize = 56;
        const SYNC: u32 = 1;
        const LAST: u32 = 1;
        const UNWRITTEN: u32 = 0x800;
        let [start, len] = UserPtr::<[u64; 2]>::new(arg).read()?;
        let [flags, _, room, _] = UserPtr::<[u32; 4]>::new(arg.wrapping_add(16)).read()?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if flags & !SYNC != 0 {
            UserPtr::<u32>::new(arg.wrapping_add(16)).write(&(flags & !SYNC))?;
            return Err(Errno::EBADMSG);
        }
        if let Some(cache) = &self.cache {
            cache.sync_range(0, u64::MAX)?;
        }
        let size = self.fs.block_size as u64;
        let raw = self.fs.query(|volume| volume.inode(self.number))?;
        if !raw.has(flag::EXTENTS) && self.cache.is_none() {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = raw.size().min(start.saturating_add(len)).div_ceil(size);
        let (mut at, mut count) = (start / size, 0u32);
        while at < end {
            let (Ok(block), left) = (u32::try_from(at), (end - at).min(u64::from(u32::MAX)) as u32) else { break };
            let found = self.fs.query(|volume| volume.map(&raw, block, left))?;
            let next = at + u64::from(found.len);
            if let Some(place) = found.block {
                if room > 0 && count == room {
                    break;
                }
                if room > 0 {
                    let is_last = next >= raw.size().div_ceil(size);
                    let flags = if found.unwritten { UNWRITTEN } else { 0 } | if is_last { LAST } else { 0 };
                    let mut entry = [0u8; EXTENT];
                    entry[..8].copy_from_slice(&(at * size).to_le_bytes());
                    entry[8..16].copy_from_slice(&(place * size).to_le_bytes());
                    entry[16..24].copy_from_slice(&(u64::from(found.len) * size).to_le_bytes());
                    entry[40..44].copy_from_slice(&flags.to_le_bytes());
                    copy_out(arg.wrapping_add(HEADER + count as usize * EXTENT), &entry)?;
                }
                count += 1;
            }
            at = next;
        }
        UserPtr::<u32>::new(arg.wrapping_add(20)).write(&count)?;
        Ok(0)
    }
}
