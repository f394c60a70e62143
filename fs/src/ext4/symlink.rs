//! Symbolic links: a short target is in the inode itself, a longer one in a block.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{BLOCK_BYTES, RawInode, flag};
use super::volume::Volume;

impl Volume {
    /// Where the link leads. `EUCLEAN`, `EIO`.
    pub(crate) fn link_target(&mut self, number: u32) -> Result<Vec<u8>> {
        let inode = self.inode(number)?;
        let len = usize::try_from(inode.size()).map_err(|_| Errno::EUCLEAN)?;
        let sectors = if inode.xattr_block() == 0 { 0 } else { self.sb.block_size as u64 / 512 };
        let is_short = !inode.has(flag::EXTENTS) && inode.blocks(self.sb.block_size) == sectors;
        if is_short || len < BLOCK_BYTES && !inode.has(flag::EXTENTS) {
            return inode.block_area().get(..len).map(<[u8]>::to_vec).ok_or(Errno::EUCLEAN);
        }
        let block = self.must_map(&inode, 0)?;
        let (data, _) = self.store.read(block)?;
        data.get(..len).map(<[u8]>::to_vec).ok_or(Errno::EUCLEAN)
    }

    /// Writes the target of a new link. The caller puts the inode back. `ENAMETOOLONG`, `ENOSPC`.
    pub(super) fn set_link_target(&mut self, inode: &mut RawInode, target: &[u8]) -> Result<()> {
        inode.set_size(target.len() as u64);
        if target.len() < BLOCK_BYTES {
            inode.set_flags(inode.flags() & !flag::EXTENTS);
            let area = inode.block_area_mut();
            area.fill(0);
            area[..target.len()].copy_from_slice(target);
            return Ok(());
        }
        if target.len() >= self.sb.block_size {
            return Err(Errno::ENAMETOOLONG);
        }
        let goal = self.goal_for(inode.number);
        let block = self.allocate_metadata(goal)?;
        self.insert(inode, 0, block, 1, false)?;
        self.store.change(block, |data| data[..target.len()].copy_from_slice(target))
    }
}
