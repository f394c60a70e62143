//! Inodes: what is asked of the server about a file, and what is kept of it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::{Once, SpinLock};
use mm::{PageCache, Pager};

use super::handle::Handle;
use super::session::{Fid, Span};
use super::wire::Stat;
use crate::inode_table::InodeTable;
use crate::remote::{RemoteFile, filter_names};
use crate::writeback::{self, DirtyStore};
use crate::xattr::{SetMode, XattrStore};
use crate::{
    Access, Attributes, DeviceNumber, DirEntry, File, FileKind, Found, FsContext, Inode, InodeOps, LinkTarget,
    NewInode, OpenFlags, SetAttributes, SetTime, SuperBlock,
};

const PAGE: u64 = PAGE_SIZE as u64;

/// Bits of Tsetattr.
mod valid {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 2;
    pub(super) const GID: u32 = 4;
    pub(super) const SIZE: u32 = 8;
    pub(super) const ATIME: u32 = 0x10;
    pub(super) const MTIME: u32 = 0x20;
    pub(super) const ATIME_SET: u32 = 0x80;
    pub(super) const MTIME_SET: u32 = 0x100;
}

/// What the inodes of a mount share.
pub(super) struct Tree {
    /// Names, attributes and pages are kept as if nobody else changed the files.
    pub(super) cached: bool,
    pub(super) superblock: Once<Weak<SuperBlock>>,
    pub(super) known: InodeTable<u64>,
}

/// Handles that are open for reading, and for both.
#[derive(Default)]
struct Open {
    read: Weak<Fid>,
    both: Weak<Fid>,
    /// Kept open, because pages may have to be written later.
    kept: Option<Arc<Fid>>,
}

/// 9P's part of an inode.
pub(super) struct Node {
    pub(super) tree: Arc<Tree>,
    /// The server's number.
    path: u64,
    /// A handle that leads to it.
    fid: SpinLock<Arc<Fid>>,
    /// The pages of a regular file.
    cache: Option<Arc<PageCache>>,
    open: sched::Mutex<Open>,
    blocks: AtomicU64,
    /// The size of what has no pages.
    size: AtomicU64,
    /// The time of the last change that the pages are of.
    seen: AtomicI64,
    /// The handle that lists a directory.
    pub(super) listing: sched::Mutex<Option<Arc<Fid>>>,
}

/// Reads and writes a file's pages.
struct FilePager(Once<Weak<Inode>>);

impl Node {
    /// Our part of an inode of ours. `EXDEV` for others.
    pub(super) fn of(inode: &Inode) -> Result<&Node> {
        inode.ops_as::<Node>().ok_or(Errno::EXDEV)
    }

    /// The inode of the file that `fid` leads to, and `stat` tells of.
    pub(super) fn get(tree: &Arc<Tree>, fid: Arc<Fid>, stat: &Stat) -> Result<Arc<Inode>> {
        let kind = FileKind::from_mode(stat.mode).ok_or(Errno::EIO)?;
        // The server gives the number of a file that is gone to a new one.
        let is_same = |inode: &Inode| inode.kind() == kind && inode.nlink() > 0;
        if let Some(inode) = tree.known.get(stat.path).filter(|inode| is_same(inode)) {
            if let Ok(node) = Node::of(&inode) {
                // The name that led here is newer than those that we know it by.
                let old = core::mem::replace(&mut *node.fid.lock(), fid);
                drop(old);
                node.update(&inode, stat);
            }
            return Ok(inode);
        }
        let superblock = tree.superblock.get().and_then(Weak::upgrade).ok_or(Errno::EIO)?;
        let pager = Arc::new(FilePager(Once::new()));
        let cache = (kind == FileKind::Regular).then(|| PageCache::with_pager(pager.clone(), stat.size));
        let node = Node {
            tree: tree.clone(),
            path: stat.path,
            fid: SpinLock::new(fid),
            cache,
            open: sched::Mutex::new(Open::default()),
            blocks: AtomicU64::new(stat.blocks),
            size: AtomicU64::new(stat.size),
            seen: AtomicI64::new(stat.mtime),
            listing: sched::Mutex::new(None),
        };
        let (major, minor) = split_device(stat.rdev);
        let identity = (kind, DeviceNumber::new(major, minor));
        let inode = Inode::stored(&superblock, stat.path, identity, &attributes(stat), Box::new(node));
        let _ = pager.0.set(Arc::downgrade(&inode));
        let counts = tree.known.add(stat.path, inode.clone(), is_same)?;
        if tree.cached && kind == FileKind::Regular && Arc::ptr_eq(&counts, &inode) {
            writeback::register(Arc::downgrade(&inode) as Weak<dyn DirtyStore>);
        }
        Ok(counts)
    }

    pub(super) fn fid(&self) -> Arc<Fid> {
        self.fid.lock().clone()
    }

    /// Takes over what the server says about the file now.
    fn update(&self, inode: &Inode, stat: &Stat) {
        let dirty = self.cache.as_ref().is_some_and(|cache| cache.is_dirty());
        if self.tree.cached && (dirty || inode.writers() > 0) {
            return;
        }
        inode.mirror(&attributes(stat));
        self.blocks.store(stat.blocks, Ordering::Relaxed);
        self.size.store(stat.size, Ordering::Relaxed);
        let Some(cache) = self.cache.as_ref().filter(|_| !dirty) else { return };
        let changed = self.seen.swap(stat.mtime, Ordering::AcqRel) != stat.mtime;
        if cache.size() != stat.size {
            cache.set_size(stat.size);
            cache.forget(0, u64::MAX);
        } else if changed {
            cache.forget(0, u64::MAX);
        }
    }

    /// Asks the server about the file. What is open but has no name any more keeps what was known.
    pub(super) fn ask(&self, inode: &Inode) -> Result<()> {
        let stat = self.fid().stat()?;
        if stat.path == self.path {
            self.update(inode, &stat);
        }
        Ok(())
    }

    /// A handle that is open for reading, or for both. `EACCES`, `EPERM`, ...
    pub(super) fn opened(&self, write: bool) -> Result<Arc<Fid>> {
        let mut open = self.open.lock();
        let known = open.both.upgrade().or_else(|| if write { None } else { open.read.upgrade() });
        if let Some(fid) = known {
            return Ok(fid);
        }
        let fid = self.fid().walk(None)?;
        fid.open(if write { abi::general::O_RDWR } else { abi::general::O_RDONLY } | abi::general::O_LARGEFILE)?;
        if write {
            open.both = Arc::downgrade(&fid);
        } else {
            open.read = Arc::downgrade(&fid);
        }
        if self.tree.cached {
            open.kept = Some(fid.clone());
        }
        Ok(fid)
    }

    fn created(&self, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        let dir = self.fid();
        let mode = new.mode & 0o7777;
        match new.kind {
            FileKind::Directory => dir.mkdir(name, mode, new.gid)?,
            FileKind::Symlink => dir.symlink(name, new.target, new.gid)?,
            FileKind::Regular => {
                let flags = abi::general::O_CREAT | abi::general::O_EXCL | abi::general::O_LARGEFILE;
                dir.walk(None)?.create(name, flags, mode, new.gid)?;
            }
            kind => dir.mknod(name, kind.mode_bits() | mode, (new.rdev.major, new.rdev.minor), new.gid)?,
        }
        let fid = dir.walk(Some(name))?;
        let mut stat = fid.stat()?;
        // The server makes files for whom we attached as.
        if (stat.uid, stat.gid) != (new.uid, new.gid) {
            let who = (0, new.uid, new.gid);
            match fid.set_attributes(valid::UID | valid::GID, who, 0, [0; 2]) {
                // It may have no right to give files away; then they are its own.
                Err(Errno::EPERM) | Ok(()) => stat = fid.stat()?,
                Err(error) => return Err(error),
            }
        }
        let wanted_mode = new.kind != FileKind::Symlink && stat.mode & 0o7777 != mode;
        if wanted_mode && fid.set_attributes(valid::MODE, (mode, 0, 0), 0, [0; 2]).is_ok() {
            stat.mode = stat.mode & !0o7777 | mode;
        }
        Node::get(&self.tree, fid, &stat)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tree.known.remove(self.path);
    }
}

/// The halves of a device number as stat(2) has it.
fn split_device(rdev: u64) -> (u32, u32) {
    let major = (rdev >> 8) & 0xfff | (rdev >> 32) & 0xffff_f000;
    let minor = rdev & 0xff | (rdev >> 12) & 0xffff_ff00;
    (major as u32, minor as u32)
}

fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: 0,
    }
}

impl InodeOps for Node {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let fid = match self.fid().walk(Some(name)) {
            Ok(fid) => fid,
            Err(Errno::ENOENT) => return Ok(Found { inode: None, cacheable: true }),
            Err(error) => return Err(error),
        };
        let stat = fid.stat()?;
        Ok(Found { inode: Some(Node::get(&self.tree, fid, &stat)?), cacheable: true })
    }

    fn still_leads(&self, dir: &Arc<Inode>, name: &[u8], known: Option<&Arc<Inode>>) -> bool {
        match (self.lookup(dir, name), known) {
            (Ok(Found { inode: Some(now), .. }), Some(known)) => Arc::ptr_eq(&now, known),
            (Ok(found), None) => found.inode.is_none(),
            // An error is for the lookup that follows.
            _ => false,
        }
    }

    fn create(&self, _dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        self.created(name, new)
    }

    fn link(&self, _dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        self.fid().link(name, &Node::of(inode)?.fid())
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let node = Node::of(victim)?;
        if victim.kind() == FileKind::Regular && victim.nlink() <= 1 {
            // What somebody may still use is reached by an open handle only from then on.
            let mut open = node.open.lock();
            open.kept = open.both.upgrade().or_else(|| open.read.upgrade());
        }
        self.fid().unlink(name, victim.is_dir())
    }

    fn rename(
        &self,
        (_, old_name, _): (&Arc<Inode>, &[u8], &Arc<Inode>),
        (to, new_name, _): (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        if exchange {
            return Err(Errno::EINVAL);
        }
        self.fid().rename(old_name, &Node::of(to)?.fid(), new_name)
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        self.list_entries(position, emit)
    }

    fn read_link(&self, _cx: &FsContext) -> Result<LinkTarget> {
        Ok(LinkTarget::Path(self.fid().read_link()?))
    }

    fn open(&self, inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        if inode.kind() != FileKind::Regular {
            return Ok(None);
        }
        let write = flags.access().contains(Access::WRITE) || flags.contains(OpenFlags::TRUNC);
        let fid = self.opened(write)?;
        if self.tree.cached {
            return Ok(None);
        }
        // Without a name any more, it has the size that is known.
        let _ = self.ask(inode);
        Ok(Some(Arc::new(RemoteFile::new(inode, Handle(fid), flags, &cx.cred))))
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn set_size(&self, inode: &Inode, size: u64) -> Result<()> {
        let cache = self.cache.as_ref().ok_or(Errno::EINVAL)?;
        if self.tree.cached {
            cache.resize(size)?;
        } else {
            cache.sync_range(0, u64::MAX)?;
        }
        let result = self.fid().set_attributes(valid::SIZE, (0, 0, 0), size, [0; 2]);
        if !self.tree.cached {
            cache.set_size(if result.is_ok() { size } else { cache.size() });
            cache.forget(0, u64::MAX);
        }
        let _ = inode;
        result
    }

    fn allocate(&self, _inode: &Inode, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let size = self.size();
        Ok(if offset >= size { None } else { Some(if data { offset } else { size }) })
    }

    fn sync(&self, _inode: &Inode, data_only: bool) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        cache.sync_range(0, u64::MAX)?;
        match self.open.lock().both.upgrade() {
            Some(fid) => fid.sync(data_only),
            None => Ok(()),
        }
    }

    fn size(&self) -> u64 {
        self.cache.as_ref().map_or(self.size.load(Ordering::Relaxed), |cache| cache.size())
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    fn set_attributes(&self, _inode: &Inode, change: &SetAttributes) -> Result<()> {
        let mut bits = 0;
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        bits |= bit(change.mode.is_some(), valid::MODE);
        bits |= bit(change.uid.is_some(), valid::UID) | bit(change.gid.is_some(), valid::GID);
        let mut times = [0; 2];
        let which = [(change.atime, valid::ATIME, valid::ATIME_SET), (change.mtime, valid::MTIME, valid::MTIME_SET)];
        for (slot, (time, now, at)) in times.iter_mut().zip(which) {
            match time {
                Some(SetTime::Now) => bits |= now,
                Some(SetTime::At(nanos)) => {
                    bits |= now | at;
                    *slot = nanos;
                }
                None => {}
            }
        }
        let who = (change.mode.unwrap_or(0), change.uid.unwrap_or(0), change.gid.unwrap_or(0));
        self.fid().set_attributes(bits, who, 0, times)
    }

    fn refresh(&self, inode: &Inode) {
        if !self.tree.cached {
            // What has no name any more, and what a lost server knew, stays as it was known.
            let _ = self.ask(inode);
        }
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(self)
    }
}

impl XattrStore for Node {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.fid().xattr(name)
    }

    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        self.fid().set_xattr(name, value, mode.flags())
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        self.fid().set_xattr(name, b"", SetMode::Replace.flags())
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let all = self.fid().xattr(b"")?;
        Ok(filter_names(&all, keep))
    }
}

impl DirtyStore for Inode {
    fn write_back(&self, _older_than: Option<base::Nanos>) -> Result<()> {
        let Some(cache) = self.ops().page_cache() else { return Ok(()) };
        cache.sync_range(0, u64::MAX)
    }

    fn sync(&self) -> Result<()> {
        self.ops().sync(self, false)
    }
}

impl FilePager {
    fn inode(&self) -> Result<Arc<Inode>> {
        self.0.get().and_then(Weak::upgrade).ok_or(Errno::EIO)
    }
}

impl Pager for FilePager {
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let inode = self.inode()?;
        let node = Node::of(&inode)?;
        let fid = node.opened(false)?;
        let most = fid.session().data_max() / PAGE_SIZE;
        for (i, chunk) in frames.chunks(most.max(1)).enumerate() {
            let spans: Vec<Span> = chunk.iter().map(|frame| Span { frame: frame.clone(), len: PAGE_SIZE }).collect();
            let offset = (first + (i * most.max(1)) as u64) * PAGE;
            let wanted = chunk.len() * PAGE_SIZE;
            let mut done = 0;
            // A server may give less than there is: whole pages first, so that the next can go on.
            while done < wanted {
                let n = fid.read(offset + done as u64, &spans[done / PAGE_SIZE..])?;
                let whole = n / PAGE_SIZE * PAGE_SIZE;
                if n < wanted - done && whole == 0 || n == 0 {
                    done += n;
                    break;
                }
                done += if n == wanted - done { n } else { whole };
            }
            for (j, frame) in chunk.iter().enumerate() {
                let valid = done.saturating_sub(j * PAGE_SIZE).min(PAGE_SIZE);
                frame.zero_range(valid, PAGE_SIZE - valid);
            }
        }
        Ok(())
    }

    fn write(&self, pages: &[(u64, Frame)]) -> Result<()> {
        let inode = self.inode()?;
        let node = Node::of(&inode)?;
        let fid = node.opened(true)?;
        let size = node.size();
        let most = (fid.session().data_max() / PAGE_SIZE).max(1);
        let mut rest = pages;
        while let Some((first, _)) = rest.first() {
            let run =
                rest.iter().enumerate().take(most).take_while(|(i, (index, _))| *index == first + *i as u64).count();
            let (now, later) = rest.split_at(run);
            rest = later;
            let start = first * PAGE;
            let end = (start + (run * PAGE_SIZE) as u64).min(size);
            let mut at = start;
            while at < end {
                let skip = ((at - start) / PAGE) as usize;
                let mut spans = Vec::new();
                for (i, (_, frame)) in now.iter().enumerate().skip(skip) {
                    let len = end.saturating_sub(start + (i * PAGE_SIZE) as u64).min(PAGE) as usize;
                    if len > 0 {
                        spans.push(Span { frame: frame.clone(), len });
                    }
                }
                let n = fid.write(start + (skip * PAGE_SIZE) as u64, &spans)? as u64;
                let reached = start + skip as u64 * PAGE + n;
                if reached <= at {
                    return Err(Errno::EIO);
                }
                at = reached;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_split_as_the_c_library_joins_them() {
        assert_eq!(split_device(0x0103), (1, 3));
        assert_eq!(split_device(0x0000_1000_0010_0a07), (0x100a, 0x107));
    }
}
