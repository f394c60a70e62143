//! The cache of names: which inode a name in a directory leads to, or that there is none.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;
use hashbrown::HashMap;

use crate::Inode;

/// The longest name (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Negative entries that one directory may keep before those not in use are dropped: lookups of random names must not eat memory.
const NEGATIVE_MAX: usize = 512;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
}

#[derive(Default)]
struct Children {
    by_name: HashMap<Box<[u8]>, Arc<Dentry>>,
    negative: usize,
}

/// A name in a directory. Which inode it leads to never changes: where a name comes to lead elsewhere, it gets a new dentry. Its
/// place changes by renaming only.
pub struct Dentry {
    inode: Option<Arc<Inode>>,
    place: SpinLock<Place>,
    children: SpinLock<Children>,
    /// How many mounts sit on it.
    mounts: AtomicU32,
    /// The name was removed.
    gone: AtomicBool,
    /// It is out of the tree: its entries are no longer kept, for they and it would hold each other with nobody to let go.
    cut_off: AtomicBool,
    /// The name may come to lead elsewhere without our doing: the file system is asked on each use.
    volatile: bool,
}

impl Dentry {
    fn with(inode: Option<Arc<Inode>>, parent: Option<Arc<Dentry>>, name: Box<[u8]>) -> Arc<Dentry> {
        let dir = parent.as_ref().and_then(|parent| parent.inode());
        let volatile = dir.is_some_and(|dir| dir.superblock().ops.revalidates());
        Arc::new(Dentry {
            inode,
            place: SpinLock::new(Place { parent, name }),
            children: SpinLock::new(Children::default()),
            mounts: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            volatile,
        })
    }

    /// The root of a file system, or (with a name) a file that was never in a directory, such as `pipe:[7]`.
    pub fn root(inode: Arc<Inode>, name: &[u8]) -> Arc<Dentry> {
        Dentry::with(Some(inode), None, name.into())
    }

    /// A file that has no name yet, as if its name in `parent` had been removed (O_TMPFILE).
    pub(crate) fn unnamed(parent: &Arc<Dentry>, inode: Arc<Inode>, name: &[u8]) -> Arc<Dentry> {
        let dentry = Dentry::with(Some(inode), Some(parent.clone()), name.into());
        dentry.gone.store(true, Ordering::Release);
        dentry
    }

    /// The inode, unless the entry is negative.
    #[inline]
    pub fn inode(&self) -> Option<&Arc<Inode>> {
        self.inode.as_ref()
    }

    /// The parent directory and the name in it; `None` for roots.
    pub fn place(&self) -> Option<(Arc<Dentry>, Vec<u8>)> {
        let place = self.place.lock();
        let parent = place.parent.clone()?;
        Some((parent, place.name.to_vec()))
    }

    /// The parent directory; `None` for roots.
    #[inline]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// The last component of its name (for roots mostly empty).
    pub fn name(&self) -> Vec<u8> {
        self.place.lock().name.to_vec()
    }

    /// Was the name removed?
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Is something mounted on it, in whatever mount?
    #[inline]
    pub fn is_mount_point(&self) -> bool {
        self.mounts.load(Ordering::Acquire) != 0
    }

    pub(crate) fn count_mount(&self, up: bool) {
        if up {
            self.mounts.fetch_add(1, Ordering::AcqRel);
        } else {
            self.mounts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// What the cache knows of `name` here.
    #[inline]
    pub fn cached(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        self.children.lock().by_name.get(name).cloned()
    }

    /// As [`Dentry::cached`], of what still holds.
    #[inline]
    pub(crate) fn valid(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let known = self.cached(name)?;
        if !known.volatile || self.still_holds(name, &known) { Some(known) } else { None }
    }

    /// Asks the file system whether `name` still leads to where `known` says, and forgets that if not. What has a mount on it stays.
    fn still_holds(&self, name: &[u8], known: &Arc<Dentry>) -> bool {
        let Some(dir) = &self.inode else { return true };
        if known.is_mount_point() || dir.ops().still_leads(dir, name, known.inode()) {
            return true;
        }
        if self.cached(name).is_some_and(|now| Arc::ptr_eq(&now, known)) {
            self.forget(name);
        }
        false
    }

    /// The names that the cache knows here and that lead to something.
    pub(crate) fn children(&self) -> Vec<Arc<Dentry>> {
        self.children.lock().by_name.values().filter(|child| child.inode.is_some()).cloned().collect()
    }

    /// What is under `name`: from the cache, or from the file system. Negative entries are dentries too. `ENAMETOOLONG`, `EIO`.
    #[inline]
    pub fn lookup(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        match self.valid(name) {
            Some(known) => Ok(known),
            None => self.lookup_slow(name),
        }
    }

    fn lookup_slow(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        let dir = self.inode.as_ref().ok_or(Errno::ENOENT)?;
        let _held = dir.content.lock();
        self.lookup_locked(name)
    }

    /// As [`Dentry::lookup`], the directory being locked by the caller.
    pub(crate) fn lookup_locked(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(known) = self.valid(name) {
            return Ok(known);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dir = self.inode.as_ref().ok_or(Errno::ENOENT)?;
        let found = dir.ops().lookup(dir, name)?;
        let dentry = Dentry::with(found.inode, Some(self.clone()), name.into());
        if found.cacheable {
            self.adopt(dentry.clone());
            crate::writeback::relieve();
        }
        Ok(dentry)
    }

    /// Puts a new entry in the place of `name`'s, after the file system made the inode. The directory is locked by the caller.
    pub(crate) fn instantiate(self: &Arc<Dentry>, name: &[u8], inode: Arc<Inode>) -> Arc<Dentry> {
        let dentry = Dentry::with(Some(inode), Some(self.clone()), name.into());
        self.adopt(dentry.clone());
        dentry
    }

    fn adopt(&self, dentry: Arc<Dentry>) {
        let name = dentry.place.lock().name.clone();
        let negative = dentry.inode.is_none();
        let mut dropped = Vec::new();
        let mut children = self.children.lock();
        if self.cut_off.load(Ordering::Acquire) {
            return;
        }
        if negative && children.negative >= NEGATIVE_MAX {
            dropped.extend(children.by_name.extract_if(|_, d| d.inode.is_none() && Arc::strong_count(d) == 1));
            children.negative = children.by_name.values().filter(|d| d.inode.is_none()).count();
        }
        let old = children.by_name.insert(name, dentry);
        if old.as_ref().is_some_and(|o| o.inode.is_none()) {
            children.negative = children.negative.saturating_sub(1);
        }
        children.negative += usize::from(negative);
        drop(children);
        drop(old);
    }

    fn disown(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let mut children = self.children.lock();
        let old = children.by_name.remove(name);
        if old.as_ref().is_some_and(|o| o.inode.is_none()) {
            children.negative = children.negative.saturating_sub(1);
        }
        old
    }

    /// The name was removed from the directory. The directory is locked by the caller.
    pub(crate) fn remove_child(&self, child: &Arc<Dentry>) {
        child.gone.store(true, Ordering::Release);
        let name = child.name();
        drop(self.disown(&name));
        child.cut_off();
    }

    /// It has left the tree for good, and what is cached below goes.
    fn cut_off(&self) {
        if self.inode.as_ref().is_some_and(|inode| inode.is_dir()) {
            // Before the entries are taken, so that none comes later.
            self.cut_off.store(true, Ordering::Release);
            self.shrink();
        }
    }

    /// Moves `child` from this directory to `name` in `to`, whatever was there being gone. Both are locked by the caller.
    pub(crate) fn move_child(&self, child: &Arc<Dentry>, to: &Arc<Dentry>, name: &[u8]) {
        let old_name = child.name();
        drop(self.disown(&old_name));
        if let Some(replaced) = to.cached(name) {
            replaced.gone.store(true, Ordering::Release);
            replaced.cut_off();
        }
        let mut place = child.place.lock();
        place.name = name.into();
        let old_parent = place.parent.replace(to.clone());
        drop(place);
        to.adopt(child.clone());
        drop(old_parent);
    }

    /// Exchanges the places of two entries. Their directories are locked by the caller.
    pub(crate) fn exchange(one: &Arc<Dentry>, two: &Arc<Dentry>) {
        let (Some((one_dir, one_name)), Some((two_dir, two_name))) = (one.place(), two.place()) else { return };
        drop(one_dir.disown(&one_name));
        drop(two_dir.disown(&two_name));
        *one.place.lock() = Place { parent: Some(two_dir.clone()), name: two_name.into() };
        *two.place.lock() = Place { parent: Some(one_dir.clone()), name: one_name.into() };
        two_dir.adopt(one.clone());
        one_dir.adopt(two.clone());
    }

    /// Forgets the cached answer for `name`: the file system changed by itself.
    pub fn forget(&self, name: &[u8]) {
        if let Some(old) = self.disown(name) {
            old.cut_off();
        }
    }

    /// Forgets the names below that nobody uses, with the inodes that nobody else keeps. The file system must be able to find them again. How many.
    pub(crate) fn prune(self: &Arc<Dentry>) -> usize {
        let mut dirs = alloc::vec![self.clone()];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).cloned() {
            next += 1;
            let below = |child: &&Arc<Dentry>| !child.children.lock().by_name.is_empty();
            dirs.extend(dir.children.lock().by_name.values().filter(below).cloned());
        }
        let mut done = 0;
        // The deepest first: what has lost all names below can go itself.
        while let Some(dir) = dirs.pop() {
            let is_unused = |child: &Arc<Dentry>| {
                Arc::strong_count(child) == 1 && !child.is_mount_point() && child.children.lock().by_name.is_empty()
            };
            let mut children = dir.children.lock();
            let unused = children.by_name.extract_if(|_, child| is_unused(child));
            let gone: Vec<Arc<Dentry>> = unused.map(|(_, child)| child).collect();
            children.negative = children.negative.saturating_sub(gone.iter().filter(|d| d.inode.is_none()).count());
            children.by_name.shrink_to_fit();
            drop(children);
            done += gone.len();
            drop(gone);
            sched::preempt_point();
        }
        done
    }

    /// Drops all cached entries below: parents and children hold each other.
    pub(crate) fn shrink(&self) {
        let mut stack: Vec<Arc<Dentry>> = Vec::new();
        let take = |dentry: &Dentry| core::mem::take(&mut *dentry.children.lock()).by_name;
        stack.extend(take(self).into_values());
        while let Some(dentry) = stack.pop() {
            stack.extend(take(&dentry).into_values());
        }
    }

    /// Is `self` in the directory `ancestor`, or below, or the directory itself?
    pub fn is_below(self: &Arc<Dentry>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }
}

impl Drop for Dentry {
    /// The chain of parents may be longer than a kernel stack is deep: those that only this entry kept go here, one by one.
    fn drop(&mut self) {
        let mut parent = self.place.get_mut().parent.take();
        while let Some(mut last) = parent.and_then(Arc::into_inner) {
            parent = last.place.get_mut().parent.take();
        }
    }
}
