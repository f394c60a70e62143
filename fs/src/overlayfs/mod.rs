//! overlayfs: several directory trees shown as one (the kernel's overlayfs document, mount(8)).
//!
//! The lowest layers are only read. Changes go to the upper layer, to which a file is copied first ([`copy_up`]). What is removed is
//! covered there by a whiteout, a character device 0:0; a directory that hides those of its name below is opaque, which an extended
//! attribute says. Layers are reached through their own caches of names ([`real`]), so that they show what is done here.
//!
//! An inode here ([`node`]) knows the files that it stands for. Its content is theirs: an open file ([`file`]) is an open file of a
//! layer. Its attributes are copies, brought up to date when they change or are asked for.
//!
//! Lock order: a directory's content here -> [`Node::copying`] -> [`Overlay::changes`] -> a layer's locks.

mod change;
mod copy_up;
mod file;
mod listing;
mod lookup;
mod mount;
mod node;
mod options;
mod origin;
mod real;
mod xattr;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::Result;
use hal::sync::Once;

use crate::inode_table::InodeTable;
use crate::{Dentry, DeviceNumber, FileSystem, FsContext, FsStats, Inode, Mount, SuperBlock, SuperOps};
use node::Node;
use options::Options;

/// `f_type` of overlayfs.
const MAGIC: u32 = 0x794c_7630;
/// How many file systems may lie on one another, the lowest not counted.
const STACK_MAX: u32 = 2;
/// The most lower layers.
const LAYERS_MAX: usize = 500;

/// A tree that is part of the overlay.
struct Layer {
    root: Arc<Dentry>,
    /// Keeps the file system mounted.
    mount: Arc<Mount>,
}

/// What can be changed: the upper tree and the place where changes are prepared.
struct Upper {
    layer: Layer,
    work: Arc<Dentry>,
    xattrs: bool,
}

/// What stat(2) shows as device for files of one of the file systems below.
struct Below {
    superblock: Option<Arc<SuperBlock>>,
    pseudo: DeviceNumber,
}

/// An instance.
pub(crate) struct Overlay {
    options: Options,
    upper: Option<Upper>,
    lowers: Vec<Layer>,
    /// The file systems that layers are on; the first is the upper layer's.
    below: Vec<Below>,
    /// The bits of inode numbers that say which of them; 0 if numbers are not to be told apart so.
    xino_bits: u32,
    /// How many file systems lie below, on top of each other.
    rank: u8,
    /// Held while the upper tree is changed.
    changes: sched::Mutex<()>,
    next_temporary: AtomicU32,
    /// The inodes that stand for a layer's inode, by the latter's address.
    known: InodeTable<usize>,
    superblock: Once<Weak<SuperBlock>>,
}

impl Overlay {
    /// Are all layers on one file system?
    fn same_fs(&self) -> bool {
        self.below.iter().filter(|below| below.superblock.is_some()).count() == 1
    }

    /// Which of the file systems below has this inode.
    fn fs_of(&self, inode: &Inode) -> usize {
        let is_it = |below: &Below| below.superblock.as_ref().is_some_and(|s| Arc::ptr_eq(s, inode.superblock()));
        self.below.iter().position(is_it).unwrap_or(0)
    }

    /// The inode number to show for `number` of file system `fs`, and the device: `None` for the overlay's own. The number is that of
    /// the layer; with xino the file system is in its upper bits.
    fn shown_number(&self, number: u64, fs: usize, is_dir: bool) -> (u64, Option<DeviceNumber>) {
        if self.same_fs() {
            return (number, None);
        }
        if self.xino_bits > 0 {
            let shift = 64 - self.xino_bits;
            if number >> shift == 0 {
                return (number | (fs as u64) << (shift + 1), None);
            }
        }
        (number, if is_dir { None } else { self.below.get(fs).map(|below| below.pseudo) })
    }

    /// Are the inode numbers of directories those of the layers?
    fn numbers_dirs(&self) -> bool {
        self.same_fs() || self.xino_bits > 0
    }

    /// The prefix of our own extended attributes.
    fn prefix(&self) -> &'static [u8] {
        if self.options.user_xattr { b"user.overlay." } else { b"trusted.overlay." }
    }
}

/// The instance as its super block has it.
struct Super(Arc<Overlay>);

impl SuperOps for Super {
    fn rank(&self) -> u8 {
        self.0.rank
    }

    fn stats(&self) -> FsStats {
        let layer = self.0.upper.as_ref().map(|upper| &upper.layer).or(self.0.lowers.first());
        layer.map_or_else(FsStats::default, |layer| layer.mount.superblock.ops.stats())
    }

    fn sync(&self) -> Result<()> {
        match &self.0.upper {
            Some(upper) if !self.0.options.volatile => upper.layer.mount.superblock.ops.sync(),
            _ => Ok(()),
        }
    }

    fn show_options(&self) -> Vec<u8> {
        self.0.options.show(self.0.upper.is_some(), self.0.xino_bits > 0)
    }

    fn reconfigure(&self, read_only: bool, _data: &[u8]) -> Result<()> {
        if !read_only && self.0.upper.is_none() { Err(base::Errno::EROFS) } else { Ok(()) }
    }

    fn unmounted(&self) {
        if let Err(error) = self.sync() {
            log::warn!("overlayfs: {error} while writing the upper layer back");
        }
    }

    fn is_read_only(&self) -> bool {
        self.0.upper.as_ref().is_none_or(|upper| upper.layer.mount.superblock.is_read_only())
    }

    fn has_acls(&self) -> bool {
        let layers = self.0.lowers.iter().chain(self.0.upper.as_ref().map(|upper| &upper.layer));
        layers.into_iter().any(|layer| layer.mount.superblock.ops.has_acls())
    }

    fn stacked(&self) -> u32 {
        let layers = self.0.lowers.iter().chain(self.0.upper.as_ref().map(|upper| &upper.layer));
        1 + layers.map(|layer| layer.mount.superblock.ops.stacked()).max().unwrap_or(0)
    }
}

/// The kind "overlay" for mount(2).
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn mount_for(&self, cx: &FsContext, _source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        mount::mount(cx, Options::parse(options)?)
    }
}

impl Overlay {
    /// A name for something under construction in the work directory, that nothing else has.
    fn temporary_name(&self) -> Vec<u8> {
        alloc::format!("#{:x}", self.next_temporary.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }
}
