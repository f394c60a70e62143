//! Making files, and giving them names.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::extent;
use super::inode::{RawInode, flag};
use super::superblock::incompat;
use super::volume::Volume;
use crate::bytes::put_le32;
use crate::xattr::SetMode;
use crate::{FileKind, NewInode};

/// A file to be made: what it is, when, and the attributes that it has from the start (inherited ACLs).
pub(crate) struct New<'a> {
    pub(crate) inode: NewInode<'a>,
    pub(crate) now: i64,
    pub(crate) xattrs: Vec<(&'static [u8], Vec<u8>)>,
}

impl Volume {
    /// Makes a file in directory `parent` under a name that is free. `ENOSPC`, `EMLINK`, `ENAMETOOLONG`, `EIO`.
    pub(crate) fn create(&mut self, parent: u32, name: &[u8], new: &New) -> Result<RawInode> {
        let mut dir = self.inode(parent)?;
        let is_dir = new.inode.kind == FileKind::Directory;
        if is_dir {
            dir.add_link(self.links_overflow())?;
        }
        let inode = self.make(&dir, new, if is_dir { 2 } else { 1 })?;
        self.add_entry(&mut dir, name, inode.number, new.inode.kind)?;
        dir.set_modified(new.now);
        self.put_inode(dir)?;
        Ok(inode)
    }

    /// Makes a file without a name, near directory `parent`: an orphan until it gets one. `ENOSPC`, `EIO`.
    pub(crate) fn create_unnamed(&mut self, parent: u32, new: &New) -> Result<RawInode> {
        let dir = self.inode(parent)?;
        let mut inode = self.make(&dir, new, 0)?;
        self.add_orphan(&mut inode)?;
        self.put_inode(inode.clone())?;
        Ok(inode)
    }

    fn make(&mut self, dir: &RawInode, new: &New, links: u32) -> Result<RawInode> {
        let NewInode { kind, mode, uid, gid, rdev, target } = new.inode;
        let number = self.allocate_inode(dir.number, kind == FileKind::Directory)?;
        self.next_generation = self.next_generation.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (size, extra) = (self.sb.inode_size, self.sb.extra_isize);
        let mut inode = RawInode::fresh(number, size, extra, self.next_generation, new.now);
        inode.set_mode(kind.mode_bits() | mode & 0o7777);
        inode.set_owner(uid, gid);
        inode.set_links(links);
        let mut flags = dir.flags() & flag::INHERITED;
        let has_blocks = matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
        if has_blocks && self.sb.has(incompat::EXTENTS) {
            flags |= flag::EXTENTS;
            extent::init(&mut inode);
        }
        inode.set_flags(flags);
        match kind {
            FileKind::Directory => self.init_directory(&mut inode, dir.number)?,
            FileKind::Symlink => self.set_link_target(&mut inode, target)?,
            FileKind::CharDevice | FileKind::BlockDevice => set_device(&mut inode, rdev.major, rdev.minor),
            _ => {}
        }
        for (name, value) in &new.xattrs {
            self.set_attribute(&mut inode, name, Some(value), SetMode::Any)?;
        }
        self.put_inode(inode.clone())?;
        Ok(inode)
    }

    /// Gives a file another name. `EMLINK`, `ENOSPC`, `EIO`.
    pub(crate) fn link(&mut self, parent: u32, name: &[u8], number: u32, now: i64) -> Result<()> {
        let mut inode = self.inode(number)?;
        inode.add_link(false)?;
        inode.set_changed(now);
        self.remove_orphan(&mut inode)?;
        let mut dir = self.inode(parent)?;
        self.add_entry(&mut dir, name, number, inode.kind()?)?;
        dir.set_modified(now);
        self.put_inode(dir)?;
        self.put_inode(inode)
    }

    /// Moves `from.1` of directory `from.0` to `to.1` of `to.0`, in place of what is there. `ENOTEMPTY`, `EMLINK`, `ENOSPC`, `EIO`.
    pub(crate) fn rename(&mut self, from: (u32, &[u8]), to: (u32, &[u8]), now: i64) -> Result<()> {
        let mut source = self.inode(from.0)?;
        let old = self.find_entry(&source, from.1)?.ok_or(Errno::ENOENT)?;
        let mut moved = self.inode(old.inode)?;
        let kind = moved.kind()?;
        let is_dir = kind == FileKind::Directory;
        let mut target = self.inode(to.0)?;
        match self.find_entry(&target, to.1)? {
            Some(there) => {
                let replaced = self.inode(there.inode)?;
                if replaced.is_dir() && !self.is_empty(&replaced)? {
                    return Err(Errno::ENOTEMPTY);
                }
                self.set_entry(&target, &there, moved.number, kind)?;
                if is_dir {
                    target.drop_link();
                }
                self.lose_name(replaced, now)?;
            }
            None => {
                self.add_entry(&mut target, to.1, moved.number, kind)?;
                if from.0 == to.0 {
                    source = target.clone();
                }
            }
        }
        // Adding a name may have moved the old one to another block.
        let old = self.find_entry(&source, from.1)?.ok_or(Errno::EUCLEAN)?;
        self.remove_entry(&source, &old)?;
        if is_dir && from.0 != to.0 {
            target.add_link(self.links_overflow())?;
            source.drop_link();
            self.set_parent(&moved, to.0)?;
        }
        if from.0 != to.0 {
            source.set_modified(now);
            self.put_inode(source)?;
        }
        target.set_modified(now);
        self.put_inode(target)?;
        moved.set_changed(now);
        self.put_inode(moved)
    }

    /// Exchanges two names. `EMLINK`, `EIO`.
    pub(crate) fn exchange(&mut self, one: (u32, &[u8]), two: (u32, &[u8]), now: i64) -> Result<()> {
        let (mut dir_one, mut dir_two) = (self.inode(one.0)?, self.inode(two.0)?);
        let entry_one = self.find_entry(&dir_one, one.1)?.ok_or(Errno::ENOENT)?;
        let entry_two = self.find_entry(&dir_two, two.1)?.ok_or(Errno::ENOENT)?;
        let (mut inode_one, mut inode_two) = (self.inode(entry_one.inode)?, self.inode(entry_two.inode)?);
        self.set_entry(&dir_one, &entry_one, inode_two.number, inode_two.kind()?)?;
        self.set_entry(&dir_two, &entry_two, inode_one.number, inode_one.kind()?)?;
        if one.0 != two.0 {
            let overflow = self.links_overflow();
            if inode_one.is_dir() {
                self.set_parent(&inode_one, two.0)?;
                dir_one.drop_link();
                dir_two.add_link(overflow)?;
            }
            if inode_two.is_dir() {
                self.set_parent(&inode_two, one.0)?;
                dir_two.drop_link();
                dir_one.add_link(overflow)?;
            }
            dir_two.set_modified(now);
            self.put_inode(dir_two)?;
        }
        dir_one.set_modified(now);
        self.put_inode(dir_one)?;
        inode_one.set_changed(now);
        inode_two.set_changed(now);
        self.put_inode(inode_one)?;
        self.put_inode(inode_two)
    }

    fn set_parent(&mut self, dir: &RawInode, parent: u32) -> Result<()> {
        let entry = self.parent_entry(dir)?;
        self.set_entry(dir, &entry, parent, FileKind::Directory)
    }
}

/// The number of a device file: in the old form if it fits, else in the new.
fn set_device(inode: &mut RawInode, major: u32, minor: u32) {
    let area = inode.block_area_mut();
    if major < 256 && minor < 256 {
        put_le32(area, 0, major << 8 | minor);
    } else {
        put_le32(area, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
    }
}
