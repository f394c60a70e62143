//! Inodes of an overlay: the layers' files that each stands for.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Result};
use hal::sync::{Once, SpinLock};
use mm::PageCache;

use super::listing::Listing;
use super::{Overlay, file};
use crate::vfs::regular;
use crate::xattr::XattrStore;
use crate::{
    Access, Dentry, DirEntry, File, FileKind, Found, FsContext, Inode, InodeOps, IoctlContext, LinkTarget, Metadata,
    NewInode, OpenFlags, SetAttributes,
};

/// Where a file is in the overlay: its directory and its name there.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) parent: Arc<Inode>,
    pub(super) name: Box<[u8]>,
}

/// overlayfs's part of an inode.
pub(super) struct Node {
    pub(super) fs: Arc<Overlay>,
    /// The file in the upper layer, once there is one.
    pub(super) upper: Once<Arc<Dentry>>,
    /// The files in lower layers: of a directory all that it merges, the upper ones first; of another file the one that it shows.
    pub(super) lowers: Vec<Arc<Dentry>>,
    /// Of a file in the upper layer: it is known to be a copy of the lower one.
    copied: AtomicBool,
    /// Where it is, for the copy; `None` for the root.
    pub(super) place: SpinLock<Option<Place>>,
    /// It has no name any more.
    pub(super) gone: AtomicBool,
    /// Held while it is copied up.
    pub(super) copying: sched::Mutex<()>,
    /// A directory's names, once they were listed.
    pub(super) listing: sched::Mutex<Listing>,
    /// The inode itself.
    this: Once<Weak<Inode>>,
    /// For the table of known inodes.
    keys: SpinLock<Vec<usize>>,
}

/// The files that an inode is to stand for.
pub(super) struct Parts {
    pub(super) upper: Option<Arc<Dentry>>,
    pub(super) lowers: Vec<Arc<Dentry>>,
    /// The upper one is a copy of the lower one.
    pub(super) copied: bool,
}

fn key(inode: &Arc<Inode>) -> usize {
    Arc::as_ptr(inode).addr()
}

impl Node {
    /// Our part of an inode of ours. `EXDEV` for others.
    pub(super) fn of(inode: &Inode) -> Result<&Node> {
        inode.ops_as::<Node>().ok_or(Errno::EXDEV)
    }

    /// The inode that stands for `parts`, found or made. `ENOENT` where there are none.
    pub(super) fn get(fs: &Arc<Overlay>, parts: Parts, place: Option<Place>) -> Result<Arc<Inode>> {
        let first = parts.upper.as_ref().or(parts.lowers.first()).ok_or(Errno::ENOENT)?;
        let real = super::real::inode(first)?.clone();
        // A copy of a file with several names is that of one name only.
        let shared = parts.upper.is_some() || real.is_dir() || real.nlink() == 1;
        if shared && let Some(known) = fs.known.get(key(&real)) {
            return Ok(known);
        }
        let superblock = fs.superblock.get().and_then(Weak::upgrade).ok_or(Errno::EIO)?;
        let numbered = match parts.lowers.first() {
            Some(lower) if parts.copied => super::real::inode(lower)?.clone(),
            _ => real.clone(),
        };
        let number = if real.is_dir() && !fs.numbers_dirs() {
            superblock.new_inode_number()
        } else {
            fs.shown_number(numbered.number(), fs.fs_of(&numbered), real.is_dir()).0
        };
        let node = Node {
            fs: fs.clone(),
            upper: parts.upper.map_or_else(Once::new, |upper| {
                let cell = Once::new();
                let _ = cell.set(upper);
                cell
            }),
            lowers: parts.lowers,
            copied: AtomicBool::new(parts.copied),
            place: SpinLock::new(place),
            gone: AtomicBool::new(false),
            copying: sched::Mutex::ranked(fs.rank, ()),
            listing: sched::Mutex::ranked(fs.rank, Listing::default()),
            this: Once::new(),
            keys: SpinLock::new(Vec::new()),
        };
        real.ops().refresh(&real);
        let identity = (real.kind(), real.rdev());
        let inode = Inode::stored(&superblock, number, identity, &real.attributes(), Box::new(node));
        let node = Node::of(&inode)?;
        let _ = node.this.set(Arc::downgrade(&inode));
        if shared { node.remember(inode.clone(), &real) } else { Ok(inode) }
    }

    /// Makes it known as the one that stands for `real`, unless there is one.
    fn remember(&self, inode: Arc<Inode>, real: &Arc<Inode>) -> Result<Arc<Inode>> {
        self.keys.lock().push(key(real));
        self.fs.known.add(key(real), inode, |_| true)
    }

    /// The layer's file that has its content and attributes now.
    pub(super) fn real(&self) -> &Arc<Inode> {
        let dentry = self.upper.get().or(self.lowers.first());
        // One of them is there and has an inode: `get` made sure.
        dentry.and_then(|dentry| dentry.inode()).unwrap_or_else(|| unreachable!("an overlay inode stands for a file"))
    }

    /// The file in the upper layer.
    pub(super) fn upper_inode(&self) -> Option<&Arc<Inode>> {
        self.upper.get().and_then(|dentry| dentry.inode())
    }

    /// Does it merge several directories, or show one of a lower layer?
    pub(super) fn is_merged_or_lower(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// It was copied up to `upper`.
    pub(super) fn set_upper(&self, upper: Arc<Dentry>) {
        self.copied.store(true, Ordering::Release);
        if let (Some(this), Some(real)) = (self.this.get().and_then(Weak::upgrade), upper.inode()) {
            // Unknown at worst: then another name of it gets an inode of its own.
            let _ = self.remember(this, real);
        }
        let _ = self.upper.set(upper);
    }

    /// Brings the attributes that `inode` keeps up to the layer's.
    pub(super) fn bring_up(&self, inode: &Inode) {
        let real = self.real();
        real.ops().refresh(real);
        inode.mirror(&real.attributes());
    }

    /// The file whose number it shows: what it was copied from, if its number is that file's alone.
    fn numbered(&self) -> &Arc<Inode> {
        let lower = self.lowers.first().and_then(|dentry| dentry.inode());
        match lower {
            Some(lower) if self.copied.load(Ordering::Acquire) && (lower.is_dir() || lower.nlink() == 1) => lower,
            _ => self.real(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for key in self.keys.get_mut().drain(..) {
            self.fs.known.remove(key);
        }
        // The chain of parents may be longer than a kernel stack is deep.
        let mut place = self.place.get_mut().take();
        while let Some(inode) = place.and_then(|place| Arc::into_inner(place.parent)) {
            place = inode.ops_as::<Node>().and_then(|node| node.place.lock().take());
        }
    }
}

impl InodeOps for Node {
    fn lookup(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let inode = self.find(dir, name)?;
        Ok(Found { inode, cacheable: true })
    }

    fn create(&self, dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        self.create_entry(dir, name, new)
    }

    fn create_unnamed(&self, _dir: &Arc<Inode>, new: &NewInode) -> Result<Arc<Inode>> {
        let upper = self.copy_up(None)?;
        let made = upper.ops().create_unnamed(upper, new)?;
        made.set_nlink(0);
        made.set_unnamed(true);
        let parts = Parts { upper: Some(Dentry::root(made, b"")), lowers: Vec::new(), copied: false };
        Node::get(&self.fs, parts, None)
    }

    fn link(&self, _dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        self.link_entry(name, inode)
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        self.remove_entry(name, victim)
    }

    fn rename(
        &self,
        from: (&Arc<Inode>, &[u8], &Arc<Inode>),
        to: (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        self.rename_entry(from, to, exchange)
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        self.list_merged(position, emit)
    }

    fn read_link(&self, cx: &FsContext) -> Result<LinkTarget> {
        self.real().ops().read_link(cx)
    }

    fn open(&self, inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        if inode.kind() != FileKind::Regular {
            return Ok(None);
        }
        file::open(self, inode, flags, cx).map(Some)
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.real().ops().page_cache()
    }

    fn may_resize(&self, _inode: &Inode, size: u64) -> Result<()> {
        let upper = self.copy_up(Some(size))?;
        upper.ops().may_resize(upper, size)
    }

    fn set_size(&self, inode: &Inode, size: u64) -> Result<()> {
        regular::resize(self.copy_up(Some(size))?, size)?;
        self.bring_up(inode);
        Ok(())
    }

    fn allocate(&self, _inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        let upper = self.copy_up(None)?;
        let _held = upper.content.lock();
        upper.ops().allocate(upper, mode, offset, len)?;
        upper.modified();
        Ok(())
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        self.real().ops().seek(offset, data)
    }

    fn sync(&self, _inode: &Inode, data_only: bool) -> Result<()> {
        match self.upper_inode() {
            Some(upper) if !self.fs.options.volatile => upper.ops().sync(upper, data_only),
            _ => Ok(()),
        }
    }

    fn ioctl(&self, _inode: &Inode, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        let real = self.real();
        real.ops().ioctl(real, cx, request, arg)
    }

    fn size(&self) -> u64 {
        self.real().ops().size()
    }

    fn blocks(&self) -> u64 {
        self.real().ops().blocks()
    }

    fn set_attributes(&self, _inode: &Inode, change: &SetAttributes) -> Result<()> {
        self.copy_up(None)?.set_attributes(change)
    }

    fn refresh(&self, inode: &Inode) {
        self.bring_up(inode);
        // The links of a merged directory are not worth counting: as on Linux, it has one.
        if inode.is_dir() && !self.lowers.is_empty() && inode.nlink() != 0 {
            let merged = self.upper.get().is_some() || self.lowers.len() > 1;
            if merged {
                inode.set_nlink(1);
            }
        }
    }

    fn stat(&self, inode: &Inode, metadata: &mut Metadata) {
        let real = self.real().metadata();
        metadata.attributes.btime = real.attributes.btime;
        metadata.block_size = real.block_size;
        if inode.is_dir() {
            return;
        }
        let numbered = self.numbered();
        let (number, device) = self.fs.shown_number(numbered.number(), self.fs.fs_of(numbered), false);
        metadata.inode = number;
        metadata.device = device.unwrap_or(metadata.device);
    }

    fn permission(&self, _inode: &Inode, access: Access) -> Result<()> {
        let real = self.real();
        real.ops().permission(real, access)
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        self.real().ops().xattrs()?;
        Some(self)
    }
}
