//! File systems: their kinds, and each mounted instance.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use crate::{DeviceNumber, Inode};

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

    /// Writes back what is dirty. `EIO`.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Its own mount options as `/proc/mounts` shows them, each with a leading comma.
    fn show_options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Changes its options (MS_REMOUNT). `EINVAL`.
    fn reconfigure(&self, data: &[u8]) -> Result<()> {
        let _ = data;
        Ok(())
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
    /// Its own part.
    pub ops: Box<dyn SuperOps>,
    next_inode: AtomicU64,
}

static NEXT_MINOR: AtomicU32 = AtomicU32::new(1);

impl SuperBlock {
    /// An instance without a device.
    pub fn new(kind: &'static str, magic: u32, ops: Box<dyn SuperOps>) -> Arc<SuperBlock> {
        Arc::new(SuperBlock {
            device: DeviceNumber::new(0, NEXT_MINOR.fetch_add(1, Ordering::Relaxed)),
            kind,
            magic,
            block_size: abi::PAGE_SIZE as u32,
            ops,
            next_inode: AtomicU64::new(1),
        })
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

/// A kind of file system.
pub trait FileSystem: Send + Sync {
    /// Its name for mount(2).
    fn name(&self) -> &'static str;
    /// Does it live on a device? (`nodev` in `/proc/filesystems` if not.)
    fn needs_device(&self) -> bool {
        false
    }
    /// An instance: its root directory. `EINVAL` for options it does not know, `ENOMEM`.
    fn mount(&self, source: &[u8], options: &[u8]) -> Result<Arc<Inode>>;
}

static KINDS: SpinLock<Vec<&'static dyn FileSystem>> = SpinLock::new(Vec::new());

/// Makes a kind known to mount(2).
pub fn register(kind: &'static dyn FileSystem) {
    KINDS.lock().push(kind);
}

/// The kind of that name. `ENODEV`.
pub fn find(name: &[u8]) -> Result<&'static dyn FileSystem> {
    KINDS.lock().iter().find(|k| k.name().as_bytes() == name).copied().ok_or(Errno::ENODEV)
}

/// All kinds, for `/proc/filesystems`.
pub fn kinds() -> Vec<&'static dyn FileSystem> {
    KINDS.lock().clone()
}
