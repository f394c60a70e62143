//! Making, removing and moving names. The directories are locked by the caller.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::node::{Parts, Place};
use super::{Node, Overlay, Upper, real};
use crate::{Dentry, DeviceNumber, FileKind, Inode, NewInode};

/// Whiteouts that a directory is cleared of at a time.
const BATCH: usize = 256;

impl Overlay {
    fn changeable(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Errno::EROFS)
    }

    /// Makes a whiteout in the work directory: its name there.
    fn make_whiteout(&self, upper: &Upper) -> Result<Vec<u8>> {
        let name = self.temporary_name();
        let new = NewInode {
            kind: FileKind::CharDevice,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: DeviceNumber::default(),
            target: b"",
        };
        real::create(&upper.work, &name, &new)?;
        Ok(name)
    }

    /// Takes a directory of the upper layer that shows nothing, and so holds whiteouts at most, out of it.
    fn discard_dir(&self, upper: &Upper, dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
        let aside = self.temporary_name();
        real::rename((dir, name), (&upper.work, &aside), false)?;
        self.remove_aside(upper, &aside)
    }

    /// Removes what was put aside in the work directory.
    fn remove_aside(&self, upper: &Upper, name: &[u8]) -> Result<()> {
        if let Some(entry) = real::lookup(&upper.work, name)?
            && real::inode(&entry)?.is_dir()
        {
            clear_whiteouts(&entry)?;
        }
        real::remove(&upper.work, name)
    }

    /// Puts what is called `temporary` in the work directory in the place of whatever the upper layer has under `name`.
    fn put(&self, upper: &Upper, temporary: &[u8], dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
        let there = real::lookup(dir, name)?;
        let is_dir = |entry: &Arc<Dentry>| entry.inode().is_some_and(|inode| inode.is_dir());
        let new = real::lookup(&upper.work, temporary)?.ok_or(Errno::EIO)?;
        match there {
            Some(old) if is_dir(&old) || is_dir(&new) => {
                real::rename((&upper.work, temporary), (dir, name), true)?;
                self.remove_aside(upper, temporary)
            }
            _ => real::rename((&upper.work, temporary), (dir, name), false),
        }
    }
}

/// Removes the whiteouts in a directory of the upper layer. `ENOTEMPTY` where there is something else.
fn clear_whiteouts(dir: &Arc<Dentry>) -> Result<()> {
    loop {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let inode = real::inode(dir)?;
        {
            let _held = inode.content.lock();
            inode.ops().list(inode, 2, &mut |entry| {
                names.push(entry.name.to_vec());
                names.len() < BATCH
            })?;
        }
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            let entry = real::lookup(dir, &name)?.ok_or(Errno::EIO)?;
            if !real::is_whiteout(real::inode(&entry)?) {
                return Err(Errno::ENOTEMPTY);
            }
            real::remove(dir, &name)?;
        }
    }
}

impl Node {
    /// The directory in the upper layer, copied there if need be.
    fn upper_dir(&self) -> Result<&Arc<Dentry>> {
        self.fs.changeable()?;
        self.copy_up(None)?;
        self.upper.get().ok_or(Errno::EIO)
    }

    /// Is a whiteout in the upper layer under `name`?
    fn has_whiteout(dir: &Arc<Dentry>, name: &[u8]) -> Result<bool> {
        let found = real::lookup(dir, name)?;
        Ok(found.is_some_and(|entry| entry.inode().is_some_and(|inode| real::is_whiteout(inode))))
    }

    /// The directory's names have changed.
    fn relist(&self) {
        self.listing.lock().stale = true;
    }

    pub(super) fn create_entry(&self, dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        let is_device = matches!(new.kind, FileKind::CharDevice);
        if is_device && new.rdev == DeviceNumber::default() {
            // It would be a whiteout.
            return Err(Errno::EPERM);
        }
        let upper_dir = self.upper_dir()?;
        let upper = self.fs.changeable()?;
        let _changes = self.fs.changes.lock();
        let is_dir = new.kind == FileKind::Directory;
        if Node::has_whiteout(upper_dir, name)? || is_dir && self.is_merged_or_lower() {
            let temporary = self.fs.temporary_name();
            let made = real::create(&upper.work, &temporary, new)?;
            let placed = if is_dir { self.fs.make_opaque(real::inode(&made)?) } else { Ok(()) }
                .and_then(|()| self.fs.put(upper, &temporary, upper_dir, name));
            if let Err(error) = placed {
                let _ = real::remove(&upper.work, &temporary);
                return Err(error);
            }
        } else {
            real::create(upper_dir, name, new)?;
        }
        self.relist();
        let made = real::lookup(upper_dir, name)?.ok_or(Errno::EIO)?;
        let parts = Parts { upper: Some(made), lowers: Vec::new(), copied: false };
        Node::get(&self.fs, parts, Some(Place { parent: dir.clone(), name: name.into() }))
    }

    pub(super) fn link_entry(&self, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let file = Node::of(inode)?.copy_up(None)?;
        let upper_dir = self.upper_dir()?;
        let upper = self.fs.changeable()?;
        let _changes = self.fs.changes.lock();
        if Node::has_whiteout(upper_dir, name)? {
            let temporary = self.fs.temporary_name();
            real::link(&upper.work, &temporary, file)?;
            self.fs.put(upper, &temporary, upper_dir, name)?;
        } else {
            real::link(upper_dir, name, file)?;
        }
        self.relist();
        Ok(())
    }

    /// Is nothing to be seen in the directory? `ENOTEMPTY`.
    fn must_be_empty(&self) -> Result<()> {
        let mut empty = true;
        self.list_merged(2, &mut |_| {
            empty = false;
            false
        })?;
        if empty { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }

    pub(super) fn remove_entry(&self, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let node = Node::of(victim)?;
        if victim.is_dir() {
            node.must_be_empty()?;
        }
        let upper_dir = self.upper_dir()?;
        let upper = self.fs.changeable()?;
        let _changes = self.fs.changes.lock();
        if self.lower_file(name)?.is_some() {
            let whiteout = self.fs.make_whiteout(upper)?;
            self.fs.put(upper, &whiteout, upper_dir, name)?;
        } else if victim.is_dir() {
            self.fs.discard_dir(upper, upper_dir, name)?;
        } else {
            real::remove(upper_dir, name)?;
        }
        if victim.is_dir() || node.real().nlink() == 0 || node.upper.get().is_none() {
            node.gone.store(true, Ordering::Release);
        }
        self.relist();
        Ok(())
    }

    /// May the directory or file be moved? What lower layers have of a directory stays where it is: `EXDEV`, unless it can be redirected.
    fn may_move(&self, inode: &Inode) -> Result<()> {
        let stays = inode.is_dir() && self.is_merged_or_lower();
        if stays && !self.fs.options.redirects() { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// Prepares a directory for a new place, where `merges` says whether directories below are merged with what has its name.
    fn prepare_dir(&self, inode: &Arc<Inode>, same_dir: bool, merges: bool) -> Result<()> {
        if !inode.is_dir() {
            return Ok(());
        }
        let upper = self.copy_up(None)?;
        if self.is_merged_or_lower() {
            return self.redirect(upper, same_dir);
        }
        if merges && !self.fs.is_opaque(upper) { self.fs.make_opaque(upper).map_err(|_| Errno::EXDEV) } else { Ok(()) }
    }

    /// Notes where the lower layers' part of the directory is: by its name alone if it stays in its parent.
    fn redirect(&self, upper: &Arc<Inode>, same_dir: bool) -> Result<()> {
        let old = self.fs.own(upper, b"redirect");
        if old.as_ref().is_some_and(|old| same_dir || old.first() == Some(&b'/')) {
            return Ok(());
        }
        let lower = self.lowers.first().ok_or(Errno::EIO)?;
        let value = if same_dir { lower.name() } else { self.path_in_layer(lower) };
        self.fs.set_own(upper, b"redirect", &value).map_err(|_| Errno::EXDEV)
    }

    fn path_in_layer(&self, lower: &Arc<Dentry>) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = lower.clone();
        while !self.fs.lowers.iter().any(|layer| Arc::ptr_eq(&layer.root, &at)) {
            let Some((parent, name)) = at.place() else { break };
            names.push(name);
            at = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    pub(super) fn rename_entry(
        &self,
        (from_dir, from_name, moved): (&Arc<Inode>, &[u8], &Arc<Inode>),
        (to_dir, to_name, target): (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        let (to, node) = (Node::of(to_dir)?, Node::of(moved)?);
        let other = target.map(|target| Node::of(target)).transpose()?;
        node.may_move(moved)?;
        if let (Some(other), Some(target)) = (other, target) {
            if exchange {
                other.may_move(target)?;
                other.copy_up(None)?;
            } else if target.is_dir() {
                other.must_be_empty()?;
            }
        }
        node.copy_up(None)?;
        let (from_upper, to_upper) = (self.upper_dir()?, to.upper_dir()?);
        let upper = self.fs.changeable()?;
        let _changes = self.fs.changes.lock();
        let same_dir = Arc::ptr_eq(from_dir, to_dir);
        node.prepare_dir(moved, same_dir, to.lower_file(to_name)?.is_some() || to.is_merged_or_lower())?;
        let at = |parent: &Arc<Inode>, name: &[u8]| Some(Place { parent: parent.clone(), name: name.into() });
        if let (true, Some(other), Some(target)) = (exchange, other, target) {
            other.prepare_dir(target, same_dir, self.lower_file(from_name)?.is_some() || self.is_merged_or_lower())?;
            real::rename((from_upper, from_name), (to_upper, to_name), true)?;
            *other.place.lock() = at(from_dir, from_name);
        } else {
            self.move_over((from_upper, from_name, moved), (to_upper, to_name), upper)?;
            if let (Some(other), Some(target)) = (other, target)
                && (target.is_dir() || other.upper.get().is_none() || other.real().nlink() == 0)
            {
                other.gone.store(true, Ordering::Release);
            }
        }
        *node.place.lock() = at(to_dir, to_name);
        self.relist();
        if !same_dir {
            to.relist();
        }
        Ok(())
    }

    /// Moves an entry of the upper layer over what that has at its new place, and covers the old one if need be.
    fn move_over(
        &self,
        (from, from_name, moved): (&Arc<Dentry>, &[u8], &Arc<Inode>),
        (to, to_name): real::End,
        upper: &Upper,
    ) -> Result<()> {
        let cover = self.lower_file(from_name)?.is_some();
        let there = real::lookup(to, to_name)?;
        let there_is_dir = there.as_ref().is_some_and(|entry| entry.inode().is_some_and(|inode| inode.is_dir()));
        if there.is_some() && (moved.is_dir() || there_is_dir) {
            // The old place gets what was there: a whiteout, which may stay, or a directory without visible entries.
            real::rename((from, from_name), (to, to_name), true)?;
            if cover && !there_is_dir {
                return Ok(());
            }
            self.fs.discard_any(upper, from, from_name)?;
        } else {
            real::rename((from, from_name), (to, to_name), false)?;
        }
        if cover {
            let whiteout = self.fs.make_whiteout(upper)?;
            self.fs.put(upper, &whiteout, from, from_name)?;
        }
        Ok(())
    }
}

impl Overlay {
    fn discard_any(&self, upper: &Upper, dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
        let entry = real::lookup(dir, name)?.ok_or(Errno::EIO)?;
        if real::inode(&entry)?.is_dir() { self.discard_dir(upper, dir, name) } else { real::remove(dir, name) }
    }
}
