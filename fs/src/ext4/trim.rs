//! FITRIM: tells the disk which blocks nobody uses.

use base::{Errno, Result};

use super::mount::Ext4;
use super::volume::Volume;

/// `struct fstrim_range` (linux/fs.h), in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
    /// Shorter runs of free blocks are left alone.
    pub(super) least: u64,
}

impl Ext4 {
    /// Discards the free blocks in a range; how many bytes. `EINVAL` where it has none, `EOPNOTSUPP` where the disk can't, `EROFS`, `EIO`.
    pub(super) fn trim(&self, range: Range) -> Result<u64> {
        let size = self.block_size as u64;
        let (blocks, per_group) = self.query(|volume| Ok((volume.sb.blocks, volume.sb.blocks_per_group)))?;
        let (mut at, least) = (range.start / size, range.least / size);
        if least > u64::from(per_group) || at >= blocks || range.len < size {
            return Err(Errno::EINVAL);
        }
        if self.is_read_only() {
            return Err(Errno::EROFS);
        }
        let end = at.saturating_add(range.len / size).min(blocks);
        let mut done = 0;
        // While they are discarded they are chosen: nobody else gets them.
        while let Some((first, count)) = self.query(|volume: &mut Volume| volume.choose_free(at, end, least as u32))? {
            let discarded = self.io.discard(first * size, u64::from(count) * size);
            self.volume().give_back(first, u64::from(count));
            discarded?;
            done += u64::from(count) * size;
            at = first + u64::from(count);
            sched::preempt_point();
        }
        Ok(done)
    }
}
