//! Inodes as the VFS sees them: what is asked of files, directories and links.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use base::{Errno, Result};
use hal::sync::Once;
use mm::PageCache;
use sched::Mutex;

use super::acl;
use super::create::New;
use super::data::FilePager;
use super::inode::{RawInode, flag};
use super::mount::Ext4;
use super::trim::Range;
use super::volume::Volume;
use crate::inode::realtime;
use crate::xattr::{SetMode, XattrStore};
use crate::{
    Access, Attributes, DirEntry, FileKind, Found, FsContext, Inode, InodeOps, IoctlContext, LinkTarget, NewInode,
};

/// Positions below this in a listing are `.` and `..`; a byte of the directory is this much further.
const FIRST: u64 = 2;

/// ext4's part of an inode.
pub(super) struct Node {
    pub(super) fs: Arc<Ext4>,
    pub(super) number: u32,
    /// The inode itself, once it is made.
    pub(super) this: Once<Weak<Inode>>,
    /// The pages of a regular file.
    pub(super) cache: Option<Arc<PageCache>>,
    /// Held while the file's blocks change: by write-back and by truncation.
    pub(super) mapping: Mutex<()>,
    /// It has no name: with its last user it goes.
    unlinked: AtomicBool,
    /// The transaction that changed its size or blocks last.
    pub(super) changed_in: AtomicU32,
    /// Flags of the inode that are asked for on each use.
    flags: AtomicU32,
    /// What the inode has stored as its size and its use of space, in bytes and units of 512 bytes, for stat(2).
    stored_size: AtomicU64,
    stored_blocks: AtomicU64,
    /// Its blocks are in an extent tree.
    pub(super) has_extents: bool,
}

impl Node {
    /// The inode of that number. `ESTALE` where it is free, `EUCLEAN`, `EBADMSG`, `EIO`.
    pub(super) fn get(fs: &Arc<Ext4>, number: u32) -> Result<Arc<Inode>> {
        if let Some(known) = fs.known(number) {
            return Ok(known);
        }
        let mut volume = fs.volume();
        if let Some(known) = fs.known(number) {
            drop(volume);
            return Ok(known);
        }
        let raw = volume.query(|volume| volume.checked_inode(number))?;
        let made = Node::make(fs, &raw);
        drop(volume);
        made
    }

    /// Tells it from earlier files of the same number.
    pub(super) fn generation(&self) -> u32 {
        self.raw().map_or(0, |raw| raw.generation())
    }

    /// Makes the inode in memory; the volume is locked, or the inode not known to anybody else.
    fn make(fs: &Arc<Ext4>, raw: &RawInode) -> Result<Arc<Inode>> {
        let superblock = fs.superblock()?;
        let kind = raw.kind()?;
        let pager = FilePager::new(fs);
        let cache = (kind == FileKind::Regular).then(|| PageCache::with_pager(pager.clone(), raw.size()));
        let node = Node {
            fs: fs.clone(),
            number: raw.number,
            this: Once::new(),
            cache,
            mapping: Mutex::new(()),
            unlinked: AtomicBool::new(raw.links() == 0),
            changed_in: AtomicU32::new(0),
            flags: AtomicU32::new(raw.flags()),
            stored_size: AtomicU64::new(raw.size()),
            stored_blocks: AtomicU64::new(raw.blocks(fs.block_size)),
            has_extents: raw.has(flag::EXTENTS),
        };
        let [atime, mtime, ctime] = raw.times();
        let attributes = Attributes {
            mode: raw.mode() & 0o7777,
            uid: raw.uid(),
            gid: raw.gid(),
            nlink: raw.links(),
            atime,
            mtime,
            ctime,
            btime: raw.birth(),
        };
        let rdev = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => Volume::device(raw),
            _ => crate::DeviceNumber::default(),
        };
        let number = u64::from(raw.number);
        let inode = Inode::stored(&superblock, number, (kind, rdev), &attributes, Box::new(node));
        let this = Arc::downgrade(&inode);
        if let Some(node) = inode.ops_as::<Node>() {
            let _ = node.this.set(this.clone());
        }
        pager.connect(this);
        fs.remember(raw.number, inode)
    }

    /// Has it no name any more?
    pub(super) fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }

    pub(super) fn inode(&self) -> Option<Arc<Inode>> {
        self.this.get().and_then(Weak::upgrade)
    }

    /// The file's size and blocks have changed in the running transaction.
    pub(super) fn note_changed(&self) {
        self.changed_in.store(self.fs.sequence(), Ordering::Relaxed);
        if let Ok(raw) = self.raw() {
            self.stored_size.store(raw.size(), Ordering::Relaxed);
            self.stored_blocks.store(raw.blocks(self.fs.block_size), Ordering::Relaxed);
        }
    }

    fn number_of(inode: &Inode) -> Result<u32> {
        inode.ops_as::<Node>().map(|node| node.number).ok_or(Errno::EXDEV)
    }

    /// After a name of `inode` went: if it was the last, the inode goes with its last user.
    fn check_links(&self, inode: &Inode) -> Result<()> {
        let Some(node) = inode.ops_as::<Node>() else { return Ok(()) };
        let links = self.fs.query(|volume| Ok(volume.inode(node.number)?.links()))?;
        node.unlinked.store(links == 0, Ordering::Release);
        if links == 0 {
            // Nobody will look for what is not stored yet.
            self.fs.let_go(node.number);
        }
        Ok(())
    }

    fn raw(&self) -> Result<RawInode> {
        self.fs.query(|volume| volume.inode(self.number))
    }

    fn make_new(&self, new: &NewInode, op: impl Fn(&mut Volume, &New) -> Result<RawInode>) -> Result<Arc<Inode>> {
        let new = New { inode: *new, now: realtime(), xattrs: Vec::new() };
        let made = self.fs.operation(|volume| op(volume, &new)).inspect_err(|_| self.fs.check_failure())?;
        self.note_changed();
        Node::make(&self.fs, &made)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fs.forget(self.number);
        if self.unlinked.load(Ordering::Acquire) {
            self.fs.doom(self.number);
        }
    }
}

impl InodeOps for Node {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let found = self.fs.query(|volume| {
            let dir = volume.inode(self.number)?;
            volume.find_entry(&dir, name)
        })?;
        let inode = match found {
            // A name that leads to what is free or none of ours says that the directory is damaged.
            Some(found) => Some(Node::get(&self.fs, found.inode).map_err(|error| match error {
                Errno::ESTALE => Errno::EUCLEAN,
                error => error,
            })?),
            None => None,
        };
        Ok(Found { inode, cacheable: true })
    }

    fn create(&self, _dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        self.make_new(new, |volume, new| volume.create(self.number, name, new))
    }

    fn create_unnamed(&self, _dir: &Arc<Inode>, new: &NewInode) -> Result<Arc<Inode>> {
        self.make_new(new, |volume, new| volume.create_unnamed(self.number, new))
    }

    fn link(&self, _dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let number = Node::number_of(inode)?;
        self.fs.operation(|volume| volume.link(self.number, name, number, realtime()))?;
        self.note_changed();
        self.check_links(inode)
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        self.fs.operation(|volume| volume.unlink(self.number, name, realtime()))?;
        self.check_links(victim)
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
        let (source, target) = ((self.number, from.1), (Node::number_of(to.0)?, to.1));
        let now = realtime();
        self.fs.operation(|volume| match exchange {
            true => volume.exchange(source, target, now),
            false => volume.rename(source, target, now),
        })?;
        if let Some(other) = to.0.ops_as::<Node>() {
            other.note_changed();
        }
        match to.2 {
            Some(replaced) if !exchange => self.check_links(replaced),
            _ => Ok(()),
        }
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let mut at = position.saturating_sub(FIRST);
        let size = self.fs.block_size as u64;
        // What is emitted goes to user memory: not under the volume's lock.
        while let Some(listed) = self.fs.query(|volume| volume.list_block(self.number, at))? {
            let next_block = (at / size + 1).saturating_mul(size);
            for entry in listed {
                let next = entry.next + FIRST;
                let shown = DirEntry { name: &entry.name, inode: u64::from(entry.inode), kind: entry.kind, next };
                if !emit(&shown) {
                    return Ok(at + FIRST);
                }
                at = entry.next;
            }
            at = next_block;
            sched::preempt_point();
        }
        Ok(at + FIRST)
    }

    fn read_link(&self, _cx: &FsContext) -> Result<LinkTarget> {
        if self.raw()?.kind()? != FileKind::Symlink {
            return Err(Errno::EINVAL);
        }
        self.fs.query(|volume| volume.link_target(self.number)).map(LinkTarget::Path)
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn reserve(&self, _inode: &Inode, offset: u64, end: u64) -> Result<u64> {
        let max = self.max_size();
        if offset >= max { Err(Errno::EFBIG) } else { Ok(end.min(max)) }
    }

    fn may_resize(&self, _inode: &Inode, size: u64) -> Result<()> {
        if self.cache.is_none() {
            Err(Errno::EINVAL)
        } else if size > self.max_size() {
            Err(Errno::EFBIG)
        } else {
            Ok(())
        }
    }

    fn set_size(&self, _inode: &Inode, size: u64) -> Result<()> {
        self.resize(size)
    }

    fn allocate(&self, inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.fallocate(inode, mode, offset, len)
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        self.seek_data(offset, data)
    }

    fn sync(&self, inode: &Inode, data_only: bool) -> Result<()> {
        self.sync_file(inode, data_only)
    }

    fn touched(&self, _inode: &Inode) {
        if !self.is_unlinked()
            && let Some(inode) = self.inode()
        {
            self.fs.note_touched(self.number, inode);
        }
    }

    fn ioctl(&self, inode: &Inode, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        self.control(inode, cx, request, arg)
    }

    fn size(&self) -> u64 {
        match &self.cache {
            Some(cache) => cache.size(),
            None => self.stored_size.load(Ordering::Relaxed),
        }
    }

    fn blocks(&self) -> u64 {
        let stored = self.stored_blocks.load(Ordering::Relaxed);
        // What waits for its blocks counts as if it had them.
        let delayed = self.cache.as_ref().map_or(0, |cache| if cache.is_dirty() && stored == 0 { 8 } else { 0 });
        stored + delayed
    }

    fn set_attributes(&self, _inode: &Inode, _change: &crate::SetAttributes) -> Result<()> {
        if self.fs.is_read_only() {
            return Err(Errno::EROFS);
        }
        if self.flags.load(Ordering::Relaxed) & (flag::IMMUTABLE | flag::APPEND) != 0 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn permission(&self, _inode: &Inode, access: Access) -> Result<()> {
        let immutable = self.flags.load(Ordering::Relaxed) & flag::IMMUTABLE != 0;
        if access.contains(Access::WRITE) && immutable { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(self)
    }
}

impl XattrStore for Node {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let value = self.fs.query(|volume| volume.xattr(self.number, name))?;
        if acl::is_list(name) { acl::from_disk(&value) } else { Ok(value) }
    }

    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        let stored = if acl::is_list(name) { Some(acl::to_disk(value)?) } else { None };
        let value = stored.as_deref().unwrap_or(value);
        self.fs.operation(|volume| volume.set_xattr(self.number, name, Some(value), mode, realtime()))?;
        self.note_changed();
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        self.fs.operation(|volume| volume.set_xattr(self.number, name, None, SetMode::Replace, realtime()))?;
        self.note_changed();
        Ok(())
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for name in self.fs.query(|volume| volume.xattr_names(self.number))?.iter().filter(|name| keep(name)) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }
}

/// ioctl requests of ext4 files (linux/fs.h, linux/fiemap.h).
mod request {
    pub(super) const GET_FLAGS: u32 = 0x8008_6601;
    pub(super) const SET_FLAGS: u32 = 0x4008_6602;
    pub(super) const GET_VERSION: u32 = 0x8008_7601;
    pub(super) const FIEMAP: u32 = 0xc020_660b;
    pub(super) const TRIM: u32 = 0xc018_5879;
}

impl Node {
    fn control(&self, inode: &Inode, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        use hal::user::UserPtr;
        match request {
            request::GET_FLAGS => UserPtr::<u32>::new(arg).write(&self.raw()?.flags()).map(|()| 0),
            request::GET_VERSION => UserPtr::<u32>::new(arg).write(&self.raw()?.generation()).map(|()| 0),
            request::SET_FLAGS => {
                let wanted = UserPtr::<u32>::new(arg).read()?;
                if !crate::vfs::permission::is_owner(cx.cred, inode) {
                    return Err(Errno::EACCES);
                }
                let old = self.raw()?.flags();
                let protects = flag::IMMUTABLE | flag::APPEND;
                if (old ^ wanted) & protects != 0 && !cx.cred.capable(base::Capability::LinuxImmutable) {
                    return Err(Errno::EPERM);
                }
                if (old ^ wanted) & !flag::CHANGEABLE != 0 {
                    return Err(Errno::EOPNOTSUPP);
                }
                self.fs.operation(|volume| volume.change_inode(self.number, |raw| raw.set_flags(wanted)))?;
                self.flags.store(wanted, Ordering::Relaxed);
                inode.changed();
                Ok(0)
            }
            request::FIEMAP => self.fiemap(arg),
            request::TRIM => {
                if !cx.cred.capable(base::Capability::SysAdmin) {
                    return Err(Errno::EPERM);
                }
                let [start, len, least] = UserPtr::<[u64; 3]>::new(arg).read()?;
                let done = self.fs.trim(Range { start, len, least })?;
                UserPtr::<[u64; 3]>::new(arg).write(&[start, done, least]).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
