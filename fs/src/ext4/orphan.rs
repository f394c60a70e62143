//! Orphans: inodes that have lost their last name but are still open, and files that are being cut. They are in a list on the disk, from
//! the superblock through the inodes' deletion times, so that after a crash somebody finishes the work.

use base::{Errno, Result};

use super::inode::RawInode;
use super::superblock::field;
use super::volume::Volume;
use crate::bytes::put_le32;

impl Volume {
    /// Reads the list that begins with inode `first`. One that makes no sense ends where it stops to.
    pub(super) fn load_orphans(&mut self, first: u32) {
        let mut next = first;
        while next != 0 && !self.orphans.contains(&next) {
            let known = next >= self.sb.first_inode && next <= self.sb.inodes;
            let Some(inode) = known.then(|| self.inode(next).ok()).flatten() else {
                log::error!("ext4: the list of orphans leads to {next}");
                return;
            };
            self.orphans.push(next);
            next = inode.dtime();
        }
    }

    /// Finishes what a crash interrupted: inodes without a name go, others lose what is past their end.
    pub(super) fn clean_orphans(&mut self, now: i64) -> Result<()> {
        while let Some(&number) = self.orphans.first() {
            let cleaned = self.clean_orphan(number, now);
            if let Err(error) = cleaned {
                log::error!("ext4: orphan {number} can't be removed: {error}");
                self.operation(|volume| {
                    let mut inode = volume.inode(number)?;
                    volume.remove_orphan(&mut inode)?;
                    inode.set_dtime(0);
                    volume.put_inode(inode)
                })?;
            }
        }
        self.commit(now)
    }

    fn clean_orphan(&mut self, number: u32, now: i64) -> Result<()> {
        let inode = self.inode(number)?;
        if inode.links() == 0 {
            return self.delete(number, now);
        }
        let size = inode.size();
        self.truncate(number, size, now)
    }

    /// Puts an inode at the head of the list, if it is not in it. The caller puts the inode back.
    pub(super) fn add_orphan(&mut self, inode: &mut RawInode) -> Result<()> {
        if self.orphans.contains(&inode.number) {
            return Ok(());
        }
        inode.set_dtime(self.orphans.first().copied().unwrap_or(0));
        self.orphans.insert(0, inode.number);
        let number = inode.number;
        self.change_superblock(|bytes| put_le32(bytes, field::LAST_ORPHAN, number))
    }

    /// Takes an inode out of the list. The caller puts the inode back.
    pub(super) fn remove_orphan(&mut self, inode: &mut RawInode) -> Result<()> {
        let Some(at) = self.orphans.iter().position(|&number| number == inode.number) else { return Ok(()) };
        let next = self.orphans.get(at + 1).copied().unwrap_or(0);
        match at.checked_sub(1).map(|before| self.orphans[before]) {
            Some(before) => {
                if before == inode.number {
                    return Err(Errno::EUCLEAN);
                }
                self.change_inode(before, |inode| inode.set_dtime(next))?;
            }
            None => self.change_superblock(|bytes| put_le32(bytes, field::LAST_ORPHAN, next))?,
        }
        self.orphans.remove(at);
        inode.set_dtime(0);
        Ok(())
    }
}
