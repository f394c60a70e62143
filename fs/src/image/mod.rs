//! Read-only images: what file systems that are made once and then only read have in common ([`crate::squashfs`],
//! [`crate::erofs`]).
//!
//! An [`Image`] knows how to find and read files on storage; what the VFS asks for is answered here, with the files' content in the page
//! cache. What an image says is checked by who reads it: a wrong one is `EIO`, never more.

mod cache;
mod node;
mod storage;
#[cfg(test)]
pub(crate) mod testing;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::Result;
use hal::sync::Once;

use crate::block::{BlockDev, BlockIo};
use crate::inode_table::InodeTable;
use crate::{Attributes, DeviceNumber, DirEntry, FileKind, FsStats, Inode, SuperBlock, SuperOps};
pub(crate) use cache::Cache;
pub(crate) use storage::{Storage, buffer};

/// What all files have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) number: u64,
    pub(crate) kind: FileKind,
    pub(crate) rdev: DeviceNumber,
    pub(crate) attributes: Attributes,
    pub(crate) size: u64,
    /// What it takes on the image, in units of 512 bytes.
    pub(crate) sectors: u64,
}

/// How files are found and read.
pub(crate) trait Image: Send + Sync + 'static {
    /// A file as it was read from the image.
    type File: Send + Sync;

    /// The identity of the root directory.
    fn root(&self) -> u64;
    /// Reads a file's description. `EIO`, `ENOMEM`.
    fn file(&self, id: u64) -> Result<Self::File>;
    /// What stat(2) tells.
    fn stat(&self, file: &Self::File) -> Stat;
    /// The identity of what a directory has under `name`. `EIO`.
    fn lookup(&self, dir: &Self::File, name: &[u8]) -> Result<Option<u64>>;
    /// Lists a directory without `.` and `..` from `position` (2 at first) on: the position after the last entry taken. `EIO`.
    fn list(&self, dir: &Self::File, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64>;
    /// Fills the buffer with the file's content from `offset` on, and with zeros behind its end. `EIO`, `ENOMEM`.
    fn read(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Where a symbolic link leads. `EIO`.
    fn link(&self, file: &Self::File) -> Result<Vec<u8>>;
    /// Names and values of the extended attributes. `EIO`.
    fn xattrs(&self, file: &Self::File) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Figures for statfs(2), in blocks of [`Image::block_size`].
    fn stats(&self) -> FsStats;
    /// The block size that statfs(2) tells.
    fn block_size(&self) -> u32;
}

/// An image that is mounted.
struct Mounted<I: Image> {
    image: I,
    superblock: Once<Weak<SuperBlock>>,
    known: InodeTable<u64>,
}

/// The instance as its super block has it.
struct Super<I: Image>(Arc<Mounted<I>>, Arc<BlockDev>);

impl<I: Image> SuperOps for Super<I> {
    fn stats(&self) -> FsStats {
        self.0.image.stats()
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

impl<I: Image> Drop for Super<I> {
    fn drop(&mut self) {
        self.1.unclaim();
    }
}

/// What is mounted, by device: a device has one instance, however often it is mounted.
static MOUNTED: sched::Mutex<Vec<(DeviceNumber, &'static str, Weak<Inode>)>> = sched::Mutex::new(Vec::new());

/// The instance on a device: its root directory. `EINVAL` where there is none, `EBUSY`, `EIO`, `ENOMEM`.
pub(crate) fn mount<I: Image>(
    device: &Arc<BlockDev>,
    kind: &'static str,
    magic: u32,
    open: impl FnOnce(Arc<dyn BlockIo>) -> Result<I>,
) -> Result<Arc<Inode>> {
    let mut mounted = MOUNTED.lock();
    mounted.retain(|(_, _, root)| root.strong_count() > 0);
    let same =
        |(number, its_kind, _): &&(DeviceNumber, &str, Weak<Inode>)| *number == device.number() && *its_kind == kind;
    if let Some(root) = mounted.iter().find(same).and_then(|(_, _, root)| root.upgrade()) {
        return Ok(root);
    }
    device.claim()?;
    let made = device.settle().and_then(|()| open(device.clone()));
    let image = match made {
        Ok(image) => image,
        Err(error) => {
            device.unclaim();
            return Err(error);
        }
    };
    let (root, block_size) = (image.root(), image.block_size());
    let mount = Arc::new(Mounted { image, superblock: Once::new(), known: InodeTable::new() });
    let ops = Box::new(Super(mount.clone(), device.clone()));
    let superblock = SuperBlock::on_device(kind, magic, device.number(), (block_size, device.number().encode()), ops);
    let _ = mount.superblock.set(Arc::downgrade(&superblock));
    let root = node::Node::get(&mount, root)?;
    if !root.is_dir() {
        return Err(base::Errno::EINVAL);
    }
    mounted.push((device.number(), kind, Arc::downgrade(&root)));
    Ok(root)
}
