//! Directories of tmpfs.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;
use hashbrown::HashMap;

use crate::tmpfs::{InodeSlot, make};
use crate::xattr::{XattrStore, Xattrs};
use crate::{DirEntry, Found, Inode, InodeOps, NewInode};

#[derive(Default)]
struct Entries {
    by_name: HashMap<Arc<[u8]>, u64>,
    /// In the order of making; the key is the position in a listing.
    in_order: BTreeMap<u64, (Arc<[u8]>, Arc<Inode>)>,
    next: u64,
}

impl Entries {
    fn insert(&mut self, name: &[u8], inode: Arc<Inode>) -> Result<()> {
        self.by_name.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let name: Arc<[u8]> = name.into();
        // Positions 0 and 1 are `.` and `..`.
        let position = self.next.max(2);
        self.next = position + 1;
        self.by_name.insert(name.clone(), position);
        self.in_order.insert(position, (name, inode));
        Ok(())
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Inode>> {
        let position = self.by_name.remove(name)?;
        self.in_order.remove(&position).map(|(_, inode)| inode)
    }

    fn get(&self, name: &[u8]) -> Option<&Arc<Inode>> {
        self.in_order.get(self.by_name.get(name)?).map(|(_, inode)| inode)
    }

    /// Puts another inode under a name that is there.
    fn replace(&mut self, name: &[u8], inode: Arc<Inode>) -> Option<Arc<Inode>> {
        let position = self.by_name.get(name)?;
        let entry = self.in_order.get_mut(position)?;
        Some(core::mem::replace(&mut entry.1, inode))
    }
}

/// A directory.
pub struct Directory {
    entries: SpinLock<Entries>,
    xattrs: Xattrs,
    slot: InodeSlot,
}

impl Directory {
    pub(super) fn new(slot: InodeSlot) -> Directory {
        Directory { entries: SpinLock::new(Entries::default()), xattrs: Xattrs::default(), slot }
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.entries.lock().by_name.is_empty()
    }

    /// Puts an inode under a name, for the kernel's own unpacking. `EEXIST`, `ENOMEM`.
    pub fn insert(&self, name: &[u8], inode: Arc<Inode>) -> Result<()> {
        super::refuse_when_low()?;
        let mut entries = self.entries.lock();
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        entries.insert(name, inode)
    }

    /// What is under a name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.entries.lock().get(name).cloned()
    }

    /// Takes a name away.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.entries.lock().remove(name)
    }
}

impl Drop for Directory {
    /// A tree may be deeper than a kernel stack: what only this directory holds is taken apart here, not by recursion.
    fn drop(&mut self) {
        let mut doomed = core::mem::take(&mut self.entries.get_mut().in_order);
        let mut stack: Vec<Arc<Inode>> = Vec::new();
        loop {
            stack.extend(core::mem::take(&mut doomed).into_values().map(|(_, inode)| inode));
            let Some(inode) = stack.pop() else { return };
            if Arc::strong_count(&inode) == 1
                && let Some(directory) = inode.ops_as::<Directory>()
            {
                doomed = core::mem::take(&mut directory.entries.lock().in_order);
            }
        }
    }
}

fn must_be_empty(inode: &Inode) -> Result<()> {
    match inode.ops_as::<Directory>() {
        Some(directory) if !directory.is_empty() => Err(Errno::ENOTEMPTY),
        _ => Ok(()),
    }
}

impl InodeOps for Directory {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        Ok(Found { inode: self.get(name), cacheable: true })
    }

    fn create(&self, dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        let made = make(dir.superblock(), &self.slot.0, new)?;
        self.insert(name, made.clone())?;
        Ok(made)
    }

    fn create_unnamed(&self, dir: &Arc<Inode>, new: &NewInode) -> Result<Arc<Inode>> {
        make(dir.superblock(), &self.slot.0, new)
    }

    fn link(&self, _dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        self.insert(name, inode.clone())
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        must_be_empty(victim)?;
        drop(self.remove(name));
        Ok(())
    }

    fn keeps_whiteouts(&self) -> bool {
        true
    }

    fn rename(
        &self,
        from: (&Arc<Inode>, &[u8], &Arc<Inode>),
        to: (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        let (_, old_name, moved) = from;
        let (new_dir, new_name, target) = to;
        let other = new_dir.ops_as::<Directory>().ok_or(Errno::EXDEV)?;
        let Some(target) = target else {
            other.insert(new_name, moved.clone())?;
            drop(self.remove(old_name));
            return Ok(());
        };
        if exchange {
            drop(self.entries.lock().replace(old_name, target.clone()));
            drop(other.entries.lock().replace(new_name, moved.clone()));
            return Ok(());
        }
        must_be_empty(target)?;
        let replaced = other.entries.lock().replace(new_name, moved.clone());
        let removed = self.remove(old_name);
        drop((replaced, removed));
        Ok(())
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let entries = self.entries.lock();
        let mut next = position;
        for (at, (name, inode)) in entries.in_order.range(position..) {
            if !emit(&DirEntry { name, inode: inode.number(), kind: inode.kind(), next: at + 1 }) {
                return Ok(next);
            }
            next = at + 1;
        }
        Ok(next)
    }

    fn size(&self) -> u64 {
        // As Linux's tmpfs: 20 bytes an entry, `.` and `..` included.
        20 * (self.entries.lock().by_name.len() as u64 + 2)
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(&self.xattrs)
    }
}
