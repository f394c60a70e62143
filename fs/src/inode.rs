//! Inodes: files as file systems know them, apart from their names.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use base::{Errno, Result};
use hal::sync::{Once, SpinLock};
use mm::PageCache;

use crate::attributes::{
    Attributes, DeviceNumber, DirEntry, FileKind, Found, LinkTarget, Metadata, NewInode, SetAttributes, SetTime,
};
use crate::lease::Leases;
use crate::lock::FileLocks;
use crate::notify::{Watched, Watches};
use crate::vfs::acl::Cached;
use crate::{Access, File, FsContext, OpenFlags, SuperBlock};

/// What a file system does for an inode. The defaults are Linux's errors for inodes that can't. Directory methods are called with the
/// directory locked against changes.
pub trait InodeOps: Any + Send + Sync {
    /// Looks a name up in the directory. `ENOTDIR`, `EIO`, `ENAMETOOLONG`.
    fn lookup(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let _ = (dir, name);
        Err(Errno::ENOTDIR)
    }

    /// Does `name` still lead to `known` (`None`: to nothing)? Asked of file systems that [`crate::SuperOps::revalidates`] is true of, with
    /// the directory locked or not.
    fn still_leads(&self, dir: &Arc<Inode>, name: &[u8], known: Option<&Arc<Inode>>) -> bool {
        let _ = (dir, name, known);
        true
    }

    /// Makes a file under a name that is free. `EPERM`, `ENOSPC`, `ENOMEM`, `EROFS`.
    fn create(&self, dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        let _ = (dir, name, new);
        Err(Errno::EPERM)
    }

    /// Makes a file without a name (O_TMPFILE), with no links. `EOPNOTSUPP`.
    fn create_unnamed(&self, dir: &Arc<Inode>, new: &NewInode) -> Result<Arc<Inode>> {
        let _ = (dir, new);
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives a file another name. `EPERM`, `ENOSPC`.
    fn link(&self, dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let _ = (dir, name, inode);
        Err(Errno::EPERM)
    }

    /// Takes a name away; of a directory too, if it is empty (`ENOTEMPTY`). `EPERM`.
    fn unlink(&self, dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let _ = (dir, name, victim);
        Err(Errno::EPERM)
    }

    /// Moves `inode` to another name, in place of `replaced` (an empty directory if a directory: `ENOTEMPTY`), or exchanges the two.
    fn rename(
        &self,
        from: (&Arc<Inode>, &[u8], &Arc<Inode>),
        to: (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        let _ = (from, to, exchange);
        Err(Errno::EPERM)
    }

    /// Can a rename leave a mark of something deleted here (RENAME_WHITEOUT)?
    fn keeps_whiteouts(&self) -> bool {
        false
    }

    /// Lists the directory without `.` and `..`, from `position` (2 at first) on; the position after the last entry taken.
    fn list(&self, dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let _ = (dir, position, emit);
        Err(Errno::ENOTDIR)
    }

    /// Where the link leads. `EINVAL`; `ENOENT`, `EACCES` for links of `/proc`.
    fn read_link(&self, cx: &FsContext) -> Result<LinkTarget> {
        let _ = cx;
        Err(Errno::EINVAL)
    }

    /// What readlink(2) shows, where the link does not lead to a path.
    fn link_text(&self, cx: &FsContext) -> Result<Vec<u8>> {
        match self.read_link(cx)? {
            LinkTarget::Path(path) => Ok(path),
            LinkTarget::File(path) => Ok(path.name_for_display(&cx.root)),
        }
    }

    /// Opens it in a way of its own; `None` for the way that goes by its type.
    fn open(&self, inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        let _ = (inode, flags, cx);
        Ok(None)
    }

    /// The pages of a regular file.
    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        None
    }

    /// About to write from `offset` up to byte `end`: how far it may. `ENOSPC` (no byte), `EPERM` (sealed).
    fn reserve(&self, inode: &Inode, offset: u64, end: u64) -> Result<u64> {
        let _ = (inode, offset);
        Ok(end)
    }

    /// May the size become `size`? `EPERM` (sealed), `EINVAL` for what has no size.
    fn may_resize(&self, inode: &Inode, size: u64) -> Result<()> {
        let _ = (inode, size);
        if self.page_cache().is_some() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Sets the size, which [`InodeOps::may_resize`] allowed. The inode's content is locked. `ENOSPC`, `EIO`, `EFBIG`.
    fn set_size(&self, inode: &Inode, size: u64) -> Result<()> {
        let _ = inode;
        self.page_cache().ok_or(Errno::EINVAL)?.resize(size)
    }

    /// fallocate(2) of a range that is not empty and whose end an offset can have. The inode's content is locked. `EOPNOTSUPP`, `ENOSPC`,
    /// `EFBIG`, `EPERM`, `EIO`.
    fn allocate(&self, inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        let _ = (inode, mode, offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// The next offset from `offset` that has data (`data`) or is in a hole (`!data`); `None` past the end. `EIO`.
    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        Ok(self.page_cache().and_then(|cache| cache.seek(offset, data)))
    }

    /// Makes content and attributes last; with `data_only`, of the attributes only what is needed to read the content. `EIO`, `ENOSPC`.
    fn sync(&self, inode: &Inode, data_only: bool) -> Result<()> {
        let _ = (inode, data_only);
        Ok(())
    }

    /// Attributes have changed for the first time since [`Inode::take_touched`]: they have to be stored some time.
    fn touched(&self, inode: &Inode) {
        let _ = inode;
    }

    /// ioctl(2) of a file or directory. `ENOTTY`.
    fn ioctl(&self, inode: &Inode, cx: &crate::IoctlContext, request: u32, arg: usize) -> Result<usize> {
        let _ = (inode, cx, request, arg);
        Err(Errno::ENOTTY)
    }

    /// The size in bytes.
    fn size(&self) -> u64 {
        self.page_cache().map_or(0, |cache| cache.size())
    }

    /// The space used, in units of 512 bytes.
    fn blocks(&self) -> u64 {
        self.page_cache().map_or(0, |cache| cache.pages() as u64 * 8)
    }

    /// Attributes are about to change: stores the change, or refuses it. `EPERM`, `EROFS`.
    fn set_attributes(&self, inode: &Inode, change: &SetAttributes) -> Result<()> {
        let _ = (inode, change);
        Ok(())
    }

    /// Brings attributes that change by themselves up to date (`/proc/PID`'s owner).
    fn refresh(&self, inode: &Inode) {
        let _ = inode;
    }

    /// Corrects what stat(2) is to tell, where that is not all the inode's own (overlayfs).
    fn stat(&self, inode: &Inode, metadata: &mut Metadata) {
        let _ = (inode, metadata);
    }

    /// A check beside the mode bits (for `/proc`). `EACCES`, `EPERM`.
    fn permission(&self, inode: &Inode, access: Access) -> Result<()> {
        let _ = (inode, access);
        Ok(())
    }

    /// The extended attributes, if the file system has them.
    fn xattrs(&self) -> Option<&dyn crate::xattr::XattrStore> {
        None
    }
}

/// A file: what all its names and open files have in common.
pub struct Inode {
    number: u64,
    kind: FileKind,
    rdev: DeviceNumber,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    nlink: AtomicU32,
    atime: AtomicI64,
    mtime: AtomicI64,
    ctime: AtomicI64,
    btime: i64,
    ops: Box<dyn InodeOps>,
    /// Held while a directory's entries change and while a file's size does.
    pub(crate) content: sched::Mutex<()>,
    /// How many have it open for writing; negative: how many run it (no writing then).
    writers: AtomicI32,
    readers: AtomicI32,
    leases: Once<Box<Leases>>,
    /// Shared mappings that may be written.
    pub(crate) writable_mappings: AtomicU64,
    locks: Once<Arc<FileLocks>>,
    watches: Once<Box<Watches>>,
    /// It was made with O_TMPFILE, so that having no name does not mean that it was removed.
    unnamed: AtomicBool,
    /// Its access control lists, once they were read.
    pub(crate) acls: Cached,
    /// What a layer above keeps with a FIFO (its pipe) or a socket (its endpoint).
    attachment: SpinLock<Option<Arc<dyn Any + Send + Sync>>>,
    /// Attributes have changed since its file system has stored them.
    touched: AtomicBool,
    /// The last, so that it goes after the file system's own part.
    superblock: Arc<SuperBlock>,
}

impl Watched for Inode {
    fn watches(&self) -> &Once<Box<Watches>> {
        &self.watches
    }
}

impl Inode {
    /// An inode with one link (a directory: two), all its times now.
    pub fn new(superblock: &Arc<SuperBlock>, number: u64, new: &NewInode, ops: Box<dyn InodeOps>) -> Arc<Inode> {
        let now = realtime();
        let attributes = Attributes {
            mode: new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            nlink: if new.kind == FileKind::Directory { 2 } else { 1 },
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        Inode::stored(superblock, number, (new.kind, new.rdev), &attributes, ops)
    }

    /// An inode that its file system had stored, with the attributes that it has there.
    pub fn stored(
        superblock: &Arc<SuperBlock>,
        number: u64,
        (kind, rdev): (FileKind, DeviceNumber),
        attributes: &Attributes,
        ops: Box<dyn InodeOps>,
    ) -> Arc<Inode> {
        Arc::new(Inode {
            superblock: superblock.clone(),
            number,
            kind,
            rdev,
            mode: AtomicU32::new(attributes.mode),
            uid: AtomicU32::new(attributes.uid),
            gid: AtomicU32::new(attributes.gid),
            nlink: AtomicU32::new(attributes.nlink),
            atime: AtomicI64::new(attributes.atime),
            mtime: AtomicI64::new(attributes.mtime),
            ctime: AtomicI64::new(attributes.ctime),
            btime: attributes.btime,
            touched: AtomicBool::new(false),
            ops,
            // Parents before children; renaming says which of strangers.
            content: sched::Mutex::ranked(superblock.rank(), ()),
            writers: AtomicI32::new(0),
            readers: AtomicI32::new(0),
            leases: Once::new(),
            writable_mappings: AtomicU64::new(0),
            locks: Once::new(),
            watches: Once::new(),
            unnamed: AtomicBool::new(false),
            acls: Cached::default(),
            attachment: SpinLock::new(None),
        })
    }

    /// The file system it belongs to.
    pub fn superblock(&self) -> &Arc<SuperBlock> {
        &self.superblock
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its type.
    #[inline]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Is it a directory?
    #[inline]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// The device that it stands for.
    pub fn rdev(&self) -> DeviceNumber {
        self.rdev
    }

    /// What its file system does for it.
    #[inline]
    pub fn ops(&self) -> &dyn InodeOps {
        &*self.ops
    }

    /// The file system's own part, if it is a `T`.
    pub fn ops_as<T: InodeOps>(&self) -> Option<&T> {
        (&*self.ops as &dyn Any).downcast_ref()
    }

    /// The permission bits.
    #[inline]
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }

    /// The owner.
    #[inline]
    pub fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }

    /// The group.
    #[inline]
    pub fn gid(&self) -> u32 {
        self.gid.load(Ordering::Relaxed)
    }

    /// The number of names.
    pub fn nlink(&self) -> u32 {
        self.nlink.load(Ordering::Relaxed)
    }

    /// Sets the number of names.
    pub fn set_nlink(&self, n: u32) {
        self.nlink.store(n, Ordering::Relaxed);
    }

    /// One name more.
    pub fn add_link(&self) {
        self.nlink.fetch_add(1, Ordering::Relaxed);
        self.changed();
    }

    /// One name less.
    pub fn drop_link(&self) {
        let _ = self.nlink.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        self.changed();
    }

    /// Sets owner and permission bits without a check: for file systems whose attributes change by themselves.
    pub fn set_owner(&self, uid: u32, gid: u32) {
        self.uid.store(uid, Ordering::Relaxed);
        self.gid.store(gid, Ordering::Relaxed);
    }

    /// Takes all attributes over but the time of birth, without a check: for file systems whose attributes are kept elsewhere.
    pub fn mirror(&self, of: &Attributes) {
        self.mode.store(of.mode, Ordering::Relaxed);
        self.set_owner(of.uid, of.gid);
        self.set_nlink(of.nlink);
        self.atime.store(of.atime, Ordering::Relaxed);
        self.mtime.store(of.mtime, Ordering::Relaxed);
        self.ctime.store(of.ctime, Ordering::Relaxed);
    }

    #[inline]
    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) && !self.touched.swap(true, Ordering::AcqRel) {
            self.ops.touched(self);
        }
    }

    /// Have attributes changed since they were stored?
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Its attributes are about to be stored: true if they have changed since the last time.
    pub fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::AcqRel)
    }

    /// Sets the times without a check: for unpacking archives.
    pub fn set_times(&self, atime: i64, mtime: i64) {
        self.atime.store(atime, Ordering::Relaxed);
        self.mtime.store(mtime, Ordering::Relaxed);
        self.touch();
    }

    /// The content was changed: mtime and ctime become now.
    pub fn modified(&self) {
        let now = realtime();
        self.mtime.store(now, Ordering::Relaxed);
        self.ctime.store(now, Ordering::Relaxed);
        self.touch();
    }

    /// The attributes were changed: ctime becomes now.
    pub fn changed(&self) {
        self.ctime.store(realtime(), Ordering::Relaxed);
        self.touch();
    }

    /// The content was read: atime becomes now if it is not later than the last change, or a day old (relatime).
    #[inline]
    pub fn accessed(&self) {
        const DAY: i64 = 86_400 * 1_000_000_000;
        let atime = self.atime.load(Ordering::Relaxed);
        let stale = atime <= self.mtime.load(Ordering::Relaxed) || atime <= self.ctime.load(Ordering::Relaxed);
        let now = realtime();
        if (stale || now.saturating_sub(atime) >= DAY) && !self.superblock.is_read_only() {
            self.atime.store(now, Ordering::Relaxed);
            self.touch();
        }
    }

    /// The attributes now.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            mode: self.mode(),
            uid: self.uid(),
            gid: self.gid(),
            nlink: self.nlink(),
            atime: self.atime.load(Ordering::Relaxed),
            mtime: self.mtime.load(Ordering::Relaxed),
            ctime: self.ctime.load(Ordering::Relaxed),
            btime: self.btime,
        }
    }

    /// What stat(2) tells.
    pub fn metadata(&self) -> Metadata {
        self.ops.refresh(self);
        let mut metadata = Metadata {
            device: self.superblock.device,
            inode: self.number,
            kind: self.kind,
            attributes: self.attributes(),
            rdev: self.rdev,
            size: self.ops.size(),
            blocks: self.ops.blocks(),
            block_size: self.superblock.block_size,
        };
        self.ops.stat(self, &mut metadata);
        metadata
    }

    /// Changes attributes. Permission has been checked. `EPERM`, `EROFS`, `EIO`.
    pub fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.ops.set_attributes(self, change)?;
        let now = realtime();
        let time = |t| match t {
            SetTime::Now => now,
            SetTime::At(nanos) => nanos,
        };
        let store = |to: &AtomicU32, value: Option<u32>| {
            if let Some(value) = value {
                to.store(value, Ordering::Relaxed);
            }
        };
        store(&self.mode, change.mode.map(|m| m & 0o7777));
        store(&self.uid, change.uid);
        store(&self.gid, change.gid);
        if let Some(t) = change.atime {
            self.atime.store(time(t), Ordering::Relaxed);
        }
        if let Some(t) = change.mtime {
            self.mtime.store(time(t), Ordering::Relaxed);
        }
        self.ctime.store(now, Ordering::Relaxed);
        self.touch();
        Ok(())
    }

    /// The locks on it (flock(2), fcntl(2)); `None` if there never were any.
    pub fn locks(&self) -> Option<&FileLocks> {
        self.locks.get().map(|l| &**l)
    }

    /// The locks on it, to add one.
    pub fn locks_or_new(&self) -> &FileLocks {
        self.locks.get_or_init(|| FileLocks::new(self))
    }

    /// Somebody opens it for writing. `ETXTBSY` while it runs.
    pub fn get_write(&self) -> Result<()> {
        let grow = |n: i32| if n < 0 { None } else { n.checked_add(1) };
        self.writers.fetch_update(Ordering::AcqRel, Ordering::Relaxed, grow).map(drop).map_err(|_| Errno::ETXTBSY)
    }

    /// Takes back [`Inode::get_write`].
    pub fn put_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Somebody runs it: nobody may open it for writing. `ETXTBSY` while somebody has.
    pub fn deny_write(&self) -> Result<()> {
        let shrink = |n: i32| if n > 0 { None } else { n.checked_sub(1) };
        self.writers.fetch_update(Ordering::AcqRel, Ordering::Relaxed, shrink).map(drop).map_err(|_| Errno::ETXTBSY)
    }

    /// Takes back [`Inode::deny_write`].
    pub fn allow_write(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// It was made without a name; may link(2) give it one?
    pub(crate) fn set_unnamed(&self, may_gain_name: bool) {
        self.unnamed.store(may_gain_name, Ordering::Relaxed);
    }

    /// May link(2) give it a name though it has none?
    pub(crate) fn may_gain_name(&self) -> bool {
        self.unnamed.load(Ordering::Relaxed)
    }

    /// Somebody opens it only to read.
    pub(crate) fn add_reader(&self) {
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes back [`Inode::add_reader`].
    pub(crate) fn drop_reader(&self) {
        self.readers.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many have it open only for reading, if it is a regular file.
    pub(crate) fn readers(&self) -> i32 {
        self.readers.load(Ordering::Acquire)
    }

    /// The leases on it; `None` if there never were any.
    pub(crate) fn leases(&self) -> Option<&Leases> {
        self.leases.get().map(|leases| &**leases)
    }

    /// The leases on it, to add one.
    pub(crate) fn leases_or_new(&self) -> &Leases {
        self.leases.get_or_init(|| Box::new(Leases::new()))
    }

    /// How many have it open for writing.
    pub fn writers(&self) -> i32 {
        self.writers.load(Ordering::Acquire).max(0)
    }

    /// What a layer above keeps with it, if it is a `T`.
    pub fn attachment<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let attached = self.attachment.lock().clone()?;
        attached.downcast().ok()
    }

    /// Keeps `value` with it, unless there is something: then that is given.
    pub fn attach_or_get<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        if self.attachment.lock().is_none() {
            let made = make();
            let mut slot = self.attachment.lock();
            if slot.is_none() {
                *slot = Some(made);
            }
        }
        self.attachment()
    }

    /// Forgets what is kept with it.
    pub fn detach(&self) {
        let old = self.attachment.lock().take();
        drop(old);
    }
}

/// Now, as inode times are kept.
pub(crate) fn realtime() -> i64 {
    i64::try_from(sched::time::realtime()).unwrap_or(i64::MAX)
}
