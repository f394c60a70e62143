//! Taking names away, and with the last one the file; cutting files.

use base::{Errno, Result};

use super::inode::RawInode;
use super::volume::Volume;
use crate::bytes::le32;
use crate::{DeviceNumber, FileKind};

impl Volume {
    /// Takes a name away. A file that loses its last becomes an orphan, to be removed with [`Volume::delete`] when nobody has it open.
    /// `ENOENT`, `ENOTEMPTY`, `EIO`.
    pub(crate) fn unlink(&mut self, parent: u32, name: &[u8], now: i64) -> Result<()> {
        let mut dir = self.inode(parent)?;
        let found = self.find_entry(&dir, name)?.ok_or(Errno::ENOENT)?;
        let inode = self.inode(found.inode)?;
        if inode.is_dir() {
            if !self.is_empty(&inode)? {
                return Err(Errno::ENOTEMPTY);
            }
            dir.drop_link();
        }
        self.remove_entry(&dir, &found)?;
        dir.set_modified(now);
        self.put_inode(dir)?;
        self.lose_name(inode, now)
    }

    /// The inode has one name less.
    pub(super) fn lose_name(&mut self, mut inode: RawInode, now: i64) -> Result<()> {
        if inode.is_dir() {
            inode.set_links(0);
        } else {
            inode.drop_link();
        }
        inode.set_changed(now);
        if inode.links() == 0 {
            self.add_orphan(&mut inode)?;
        }
        self.put_inode(inode)
    }

    /// Removes an orphan and all that it has, in as many transactions as it takes. `EIO`.
    pub(crate) fn delete(&mut self, number: u32, now: i64) -> Result<()> {
        loop {
            if self.is_full() {
                self.commit(now)?;
            }
            if self.operation(|volume| volume.delete_step(number, now))? {
                return Ok(());
            }
        }
    }

    /// A step of removing an orphan that fits a transaction: true when it is gone.
    pub(crate) fn delete_step(&mut self, number: u32, now: i64) -> Result<bool> {
        let mut inode = self.inode(number)?;
        if !self.orphans.contains(&number) || inode.links() != 0 {
            return Err(Errno::EUCLEAN);
        }
        if self.has_blocks(&inode) && !self.remove(&mut inode, 0, u32::MAX)? {
            self.put_inode(inode)?;
            return Ok(false);
        }
        self.drop_attribute_block(&mut inode)?;
        self.remove_orphan(&mut inode)?;
        let is_dir = inode.is_dir();
        inode.set_size(0);
        inode.set_dtime((now / 1_000_000_000) as u32);
        self.put_inode(inode)?;
        self.free_inode(number, is_dir)?;
        Ok(true)
    }

    /// Are its blocks found through the inode? (Not of devices, FIFOs, sockets and short links.)
    fn has_blocks(&self, inode: &RawInode) -> bool {
        match inode.kind() {
            Ok(FileKind::Regular | FileKind::Directory) => true,
            Ok(FileKind::Symlink) => {
                let sectors = if inode.xattr_block() == 0 { 0 } else { self.sb.block_size as u64 / 512 };
                inode.has(super::inode::flag::EXTENTS) || inode.blocks(self.sb.block_size) > sectors
            }
            _ => false,
        }
    }

    /// Sets the size of a file and frees what is past it, in as many transactions as it takes. `EIO`.
    pub(crate) fn truncate(&mut self, number: u32, size: u64, now: i64) -> Result<()> {
        self.operation(|volume| volume.begin_truncate(number, size, now))?;
        loop {
            if self.is_full() {
                self.commit(now)?;
            }
            if self.operation(|volume| volume.truncate_step(number))? {
                return Ok(());
            }
        }
    }

    /// The first step of setting a size: the file is an orphan until [`Volume::truncate_step`] has removed all that is past it.
    pub(crate) fn begin_truncate(&mut self, number: u32, size: u64, now: i64) -> Result<()> {
        let mut inode = self.inode(number)?;
        let shrinks = size <= inode.size();
        inode.set_size(size);
        inode.set_modified(now);
        if shrinks {
            self.add_orphan(&mut inode)?;
        }
        self.put_inode(inode)
    }

    /// A step of removing what is past the end: true when all is gone.
    pub(crate) fn truncate_step(&mut self, number: u32) -> Result<bool> {
        let mut inode = self.inode(number)?;
        let first = inode.size().div_ceil(self.sb.block_size as u64);
        let done = match u32::try_from(first) {
            Ok(first) => self.remove(&mut inode, first, u32::MAX)?,
            Err(_) => true,
        };
        if done && inode.links() > 0 {
            self.remove_orphan(&mut inode)?;
        }
        self.put_inode(inode)?;
        Ok(done)
    }

    /// The device that an inode stands for.
    pub(crate) fn device(inode: &RawInode) -> DeviceNumber {
        let (old, new) = (le32(inode.block_area(), 0), le32(inode.block_area(), 4));
        if old != 0 { DeviceNumber::new(old >> 8 & 0xff, old & 0xff) } else { DeviceNumber::decode(new) }
    }
}
