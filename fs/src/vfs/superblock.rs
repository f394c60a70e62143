//! File systems: their kinds, and each mounted instance.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use base::{Errno, Result};
use hal::sync::{Once, SpinLock};

use crate::block::BlockDev;
use crate::notify::{Watched, Watches};
use crate::vfs::handle::Layout;
use crate::vfs::mount::SuperFlags;
use crate::{Dentry, DeviceNumber, FsContext, Inode};

/// What statfs(2) tells of a file system, in blocks of its block size.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs, reason = "statfs(2) names them")]
pub struct FsStats {
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub free_files: u64,
}

/// What a file system does as a whole.
pub trait SuperOps: Any + Send + Sync {
    /// Figures for statfs(2).
    fn stats(&self) -> FsStats {
        FsStats::default()
    }

    /// On how many other file systems it lies: its locks are taken before theirs.
    fn rank(&self) -> u8 {
        0
    }

    /// Writes back what is dirty. `EIO`.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Its own mount options as `/proc/mounts` shows them, each with a leading comma.
    fn show_options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Changes its options (MS_REMOUNT). `EINVAL`, `EROFS`, `EIO`.
    fn reconfigure(&self, read_only: bool, data: &[u8]) -> Result<()> {
        let _ = (read_only, data);
        Ok(())
    }

    /// Its last mount is gone: no file of it is open. What is dirty has to be written now.
    fn unmounted(&self) {}

    /// May names come to lead elsewhere by others' doing, so that [`crate::InodeOps::still_leads`] is asked on each use?
    fn revalidates(&self) -> bool {
        false
    }

    /// Do its files have access control lists?
    fn has_acls(&self) -> bool {
        false
    }

    /// How many file systems lie below it, each on the next (overlayfs).
    fn stacked(&self) -> u32 {
        0
    }

    /// How its file handles look; `None` if it has none.
    fn handle_layout(&self) -> Option<Layout> {
        None
    }

    /// Tells files apart that had the same inode number one after the other.
    fn generation(&self, inode: &Inode) -> u32 {
        let _ = inode;
        0
    }

    /// The inode of a number, which may have no name in the cache of names. `ESTALE`.
    fn inode(&self, number: u64) -> Result<Arc<Inode>> {
        let _ = number;
        Err(Errno::ESTALE)
    }

    /// Can nothing of it be changed, whatever a mount's flags say?
    fn is_read_only(&self) -> bool {
        false
    }
}

/// For file systems with nothing to say as a whole.
pub struct NoSuperOps;

impl SuperOps for NoSuperOps {}

/// A file system instance: what all its inodes share.
pub struct SuperBlock {
    /// The device number that stat(2) shows (major 0: none behind it).
    pub device: DeviceNumber,
    /// The kind's name, as in `/proc/filesystems`.
    pub kind: &'static str,
    /// `f_type` of statfs(2).
    pub magic: u32,
    /// The preferred block size.
    pub block_size: u32,
    /// What statfs(2) gives as `f_fsid`; 0 for what has none.
    pub fsid: u64,
    /// Its own part.
    pub ops: Box<dyn SuperOps>,
    flags: AtomicU32,
    watches: Once<Box<Watches>>,
    next_inode: AtomicU64,
    /// The names' root, which all mounts share, and how many mounts there are.
    root: SpinLock<Weak<Dentry>>,
    mounts: AtomicUsize,
    /// Files that are open to be written.
    writers: AtomicUsize,
    /// Held while anything moves between its directories, so that the tree keeps its shape while we look at who is below whom.
    pub(crate) moving: sched::Mutex<()>,
}

/// A device number for what has no device.
pub fn anonymous_device() -> DeviceNumber {
    static NEXT_MINOR: AtomicU32 = AtomicU32::new(1);
    DeviceNumber::new(0, NEXT_MINOR.fetch_add(1, Ordering::Relaxed))
}

impl SuperBlock {
    /// An instance without a device.
    pub fn new(kind: &'static str, magic: u32, ops: Box<dyn SuperOps>) -> Arc<SuperBlock> {
        SuperBlock::on_device(kind, magic, anonymous_device(), (abi::PAGE_SIZE as u32, 0), ops)
    }

    /// An instance on a device.
    pub fn on_device(
        kind: &'static str,
        magic: u32,
        device: DeviceNumber,
        (block_size, fsid): (u32, u64),
        ops: Box<dyn SuperOps>,
    ) -> Arc<SuperBlock> {
        let moving = sched::Mutex::ranked(ops.rank(), ());
        Arc::new(SuperBlock {
            device,
            kind,
            magic,
            block_size,
            fsid,
            ops,
            flags: AtomicU32::new(0),
            watches: Once::new(),
            next_inode: AtomicU64::new(1),
            root: SpinLock::new(Weak::new()),
            mounts: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            moving,
        })
    }

    /// On how many others it lies: see [`SuperOps::rank`].
    pub(crate) fn rank(&self) -> u8 {
        self.ops.rank()
    }

    /// What holds for it through whichever mount it is seen.
    pub fn flags(&self) -> SuperFlags {
        let kept = SuperFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed));
        if self.ops.is_read_only() { kept | SuperFlags::RDONLY } else { kept }
    }

    /// Sets these flags, at mounting.
    pub(crate) fn set_flags(&self, flags: SuperFlags) {
        self.flags.fetch_or(flags.bits(), Ordering::Relaxed);
    }

    /// Can nothing of it be changed now?
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & SuperFlags::RDONLY.bits() != 0 || self.ops.is_read_only()
    }

    /// Changes its flags and options (MS_REMOUNT). `EINVAL`, `EROFS`, `EIO`; `EBUSY` where files are open to be written that were to
    /// become read-only.
    pub fn reconfigure(&self, flags: SuperFlags, options: &[u8]) -> Result<()> {
        let old = self.flags.load(Ordering::SeqCst);
        let done =
            self.settle_writers(flags).and_then(|()| self.ops.reconfigure(flags.contains(SuperFlags::RDONLY), options));
        self.flags.store(if done.is_ok() { flags.bits() } else { old }, Ordering::SeqCst);
        done
    }

    /// Lets nobody begin to write if it is to become read-only. `EBUSY` where somebody may already.
    fn settle_writers(&self, flags: SuperFlags) -> Result<()> {
        if !flags.contains(SuperFlags::RDONLY) {
            return Ok(());
        }
        self.flags.fetch_or(SuperFlags::RDONLY.bits(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.writers.load(Ordering::SeqCst) > 0 { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// A file is open to be written: called by its mount.
    pub(crate) fn add_writer(&self) {
        self.writers.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes back [`SuperBlock::add_writer`].
    pub(crate) fn drop_writer(&self) {
        self.writers.fetch_sub(1, Ordering::SeqCst);
    }

    /// The root of the cache of names, whose inode is `root`.
    pub(crate) fn root_dentry(&self, root: &Arc<Inode>) -> Arc<Dentry> {
        let made = Dentry::root(root.clone(), b"");
        let mut known = self.root.lock();
        if let Some(dentry) = known.upgrade() {
            drop(known);
            return dentry;
        }
        *known = Arc::downgrade(&made);
        made
    }

    /// Forgets the names that nobody uses ([`Dentry::prune`]).
    pub(crate) fn prune(&self) -> usize {
        let root = self.root.lock().upgrade();
        root.map_or(0, |root| root.prune())
    }

    /// Its root directory, while somebody has it.
    pub(crate) fn root_inode(&self) -> Option<Arc<Inode>> {
        self.root.lock().upgrade()?.inode().cloned()
    }

    /// There is a mount more.
    pub(crate) fn add_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }

    /// There is a mount less. With the last one the cache of names goes, whose entries hold each other.
    pub(crate) fn drop_mount(&self) {
        if self.mounts.fetch_sub(1, Ordering::AcqRel) == 1 {
            let root = self.root.lock().upgrade();
            if let Some(root) = root {
                root.shrink();
            }
            self.ops.unmounted();
        }
    }

    /// An inode number that was not given before.
    pub fn new_inode_number(&self) -> u64 {
        self.next_inode.fetch_add(1, Ordering::Relaxed)
    }

    /// Its own part, if it is a `T`.
    pub fn ops_as<T: SuperOps>(&self) -> Option<&T> {
        (&*self.ops as &dyn Any).downcast_ref()
    }
}

impl Watched for SuperBlock {
    fn watches(&self) -> &Once<Box<Watches>> {
        &self.watches
    }
}

/// A kind of file system.
pub trait FileSystem: Send + Sync {
    /// Its name for mount(2).
    fn name(&self) -> &'static str;
    /// Does it live on a device? (`nodev` in `/proc/filesystems` if not.)
    fn needs_device(&self) -> bool {
        false
    }
    /// Are these options (as mount(2) takes them) all known? `EINVAL`.
    fn check_options(&self, options: &[u8]) -> Result<()> {
        let _ = options;
        Ok(())
    }
    /// An instance: its root directory. `EINVAL` for options it does not know, `ENOMEM`.
    fn mount(&self, source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        let _ = (source, options);
        Err(Errno::EINVAL)
    }
    /// As [`FileSystem::mount`], for kinds whose options name files as the caller sees them.
    fn mount_for(&self, cx: &FsContext, source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        let _ = cx;
        self.mount(source, options)
    }
    /// The instance on a device: its root directory. `EINVAL` where there is none, or for options it does not know; `EROFS`, `EIO`.
    fn mount_device(&self, device: &Arc<BlockDev>, read_only: bool, options: &[u8]) -> Result<Arc<Inode>> {
        let _ = (device, read_only, options);
        Err(Errno::EINVAL)
    }
}

static KINDS: SpinLock<Vec<&'static dyn FileSystem>> = SpinLock::new(Vec::new());

/// Makes a kind known to mount(2).
pub fn register(kind: &'static dyn FileSystem) {
    KINDS.lock().push(kind);
}

/// The kind of that name. `ENODEV`.
pub fn find(name: &[u8]) -> Result<&'static dyn FileSystem> {
    // FUSE's may name the program behind a dot.
    let name = if name.starts_with(b"fuse.") { b"fuse" } else { name };
    KINDS.lock().iter().find(|k| k.name().as_bytes() == name).copied().ok_or(Errno::ENODEV)
}

/// All kinds, for `/proc/filesystems`.
pub fn kinds() -> Vec<&'static dyn FileSystem> {
    KINDS.lock().clone()
}
