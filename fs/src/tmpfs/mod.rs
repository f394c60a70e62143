//! tmpfs: files in memory. Also what the root, `/dev` and memfds are made of.
//!
//! A regular file's page cache is its storage; directories keep their entries in the order of making, so that the position of a
//! listing stays right whatever comes and goes.

mod directory;
mod options;
mod regular;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Result};
use mm::Room;

pub use directory::Directory;
pub use options::Options;
pub use regular::{Regular, seal};

use crate::vfs::handle::Layout;
use crate::xattr::{XattrStore, Xattrs};
use crate::{
    DeviceNumber, FileKind, FileSystem, FsContext, FsStats, Inode, InodeOps, LinkTarget, NewInode, SuperBlock, SuperOps,
};

/// `f_type` of tmpfs.
pub const MAGIC: u32 = 0x0102_1994;

/// How much room an instance has and how much of it is taken.
pub(crate) struct Space {
    max_pages: AtomicU64,
    pages: AtomicU64,
    max_inodes: AtomicU64,
    inodes: AtomicU64,
}

impl Space {
    fn new(options: &Options) -> Arc<Space> {
        Arc::new(Space {
            max_pages: AtomicU64::new(options.pages),
            pages: AtomicU64::new(0),
            max_inodes: AtomicU64::new(options.inodes),
            inodes: AtomicU64::new(0),
        })
    }

    /// Pages that are still free.
    fn free(&self) -> u64 {
        self.max_pages.load(Ordering::Relaxed).saturating_sub(self.pages.load(Ordering::Relaxed))
    }

    /// Counts an inode. `ENOSPC` where there are too many.
    fn take_inode(self: &Arc<Space>) -> Result<InodeSlot> {
        let max = self.max_inodes.load(Ordering::Relaxed);
        let grow = |n: u64| (n < max).then_some(n + 1);
        self.inodes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).map_err(|_| Errno::ENOSPC)?;
        Ok(InodeSlot(self.clone()))
    }
}

impl Room for Space {
    fn take(&self) -> Result<()> {
        let max = self.max_pages.load(Ordering::Relaxed);
        let grow = |n: u64| (n < max).then_some(n + 1);
        self.pages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).map_err(|_| Errno::ENOSPC).map(drop)
    }

    fn give(&self, pages: usize) {
        self.pages.fetch_sub(pages as u64, Ordering::Relaxed);
    }
}

/// An inode counts against its instance until this drops.
pub(crate) struct InodeSlot(Arc<Space>);

impl Drop for InodeSlot {
    fn drop(&mut self) {
        self.0.inodes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An instance.
pub struct Tmpfs {
    space: Arc<Space>,
}

impl SuperOps for Tmpfs {
    fn stats(&self) -> FsStats {
        let blocks = self.space.max_pages.load(Ordering::Relaxed);
        let files = self.space.max_inodes.load(Ordering::Relaxed);
        let free = self.space.free();
        let free_files = files.saturating_sub(self.space.inodes.load(Ordering::Relaxed));
        FsStats { blocks, free, available: free, files, free_files }
    }

    fn has_acls(&self) -> bool {
        true
    }

    fn show_options(&self) -> Vec<u8> {
        let pages = self.space.max_pages.load(Ordering::Relaxed);
        if pages == Options::unlimited().pages {
            return Vec::new();
        }
        alloc::format!(",size={}k,nr_inodes={}", pages * 4, self.space.max_inodes.load(Ordering::Relaxed)).into_bytes()
    }

    fn handle_layout(&self) -> Option<Layout> {
        Some(Layout::Long)
    }

    fn reconfigure(&self, _read_only: bool, data: &[u8]) -> Result<()> {
        let now = Options {
            pages: self.space.max_pages.load(Ordering::Relaxed),
            inodes: self.space.max_inodes.load(Ordering::Relaxed),
            ..Options::default()
        };
        let options = now.parse(data)?;
        if options.pages < self.space.pages.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        self.space.max_pages.store(options.pages, Ordering::Relaxed);
        self.space.max_inodes.store(options.inodes, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes an instance that calls itself `kind`: its root directory. `ENOMEM`, `ENOSPC`.
pub fn instance(kind: &'static str, options: &Options) -> Result<Arc<Inode>> {
    let space = Space::new(options);
    let superblock = SuperBlock::new(kind, MAGIC, Box::new(Tmpfs { space: space.clone() }));
    let root = NewInode {
        kind: FileKind::Directory,
        mode: options.mode,
        uid: options.uid,
        gid: options.gid,
        rdev: DeviceNumber::default(),
        target: b"",
    };
    make(&superblock, &space, &root)
}

fn make(superblock: &Arc<SuperBlock>, space: &Arc<Space>, new: &NewInode) -> Result<Arc<Inode>> {
    refuse_when_low()?;
    let slot = space.take_inode()?;
    let ops: Box<dyn InodeOps> = match new.kind {
        FileKind::Directory => Box::new(Directory::new(slot)),
        FileKind::Regular => Box::new(Regular::new(Some(slot))),
        FileKind::Symlink => Box::new(Symlink { target: copy(new.target)?, xattrs: Xattrs::default(), _slot: slot }),
        _ => Box::new(Special { xattrs: Xattrs::default(), _slot: slot }),
    };
    Ok(Inode::new(superblock, superblock.new_inode_number(), new, ops))
}

/// Names and inodes live in the kernel's heap, which must not grow into its last reserve. `ENOSPC`.
fn refuse_when_low() -> Result<()> {
    if mm::frames::pressure() > mm::frames::Pressure::None { Err(Errno::ENOSPC) } else { Ok(()) }
}

fn copy(bytes: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

/// A symbolic link.
struct Symlink {
    target: Box<[u8]>,
    xattrs: Xattrs,
    _slot: InodeSlot,
}

impl InodeOps for Symlink {
    fn read_link(&self, _cx: &FsContext) -> Result<LinkTarget> {
        Ok(LinkTarget::Path(copy(&self.target)?.into_vec()))
    }

    fn size(&self) -> u64 {
        self.target.len() as u64
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(&self.xattrs)
    }
}

/// A device file, FIFO or socket.
struct Special {
    xattrs: Xattrs,
    _slot: InodeSlot,
}

impl InodeOps for Special {
    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(&self.xattrs)
    }
}

/// The kind "tmpfs" for mount(2).
pub struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn check_options(&self, options: &[u8]) -> Result<()> {
        Options::default().parse(options).map(drop)
    }

    fn mount(&self, _source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        instance("tmpfs", &Options::default().parse(options)?)
    }
}

/// The kind "ramfs": a tmpfs without a limit.
pub struct RamfsKind;

impl FileSystem for RamfsKind {
    fn name(&self) -> &'static str {
        "ramfs"
    }

    fn mount(&self, _source: &[u8], _options: &[u8]) -> Result<Arc<Inode>> {
        instance("ramfs", &Options { mode: 0o755, ..Options::unlimited() })
    }
}
