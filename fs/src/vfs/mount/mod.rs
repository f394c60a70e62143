//! Mounts: which file system shows at which place of the tree.
//!
//! A [`Mount`] knows what is attached to it and where it is attached itself: looking up takes no lock but that of one mount. Changes
//! ([`change`]) go one at a time under a lock of their own ([`tree`]); they reach the mounts' peers and slaves ([`propagation`]), also in
//! other namespaces ([`namespace`]). [`configuration`] is what fsopen(2) and fspick(2) give descriptors of.

pub mod change;
pub mod configuration;
mod flags;
mod namespace;
mod propagation;
mod tree;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use base::{Errno, Result};

use hal::sync::{Once, SpinLock};

use crate::notify::{Watched, Watches};
use crate::{Dentry, Inode, Path, SuperBlock};

pub use flags::{MountFlags, SuperFlags};
pub use namespace::{MOUNTS_MAX, MountNamespace};
pub use propagation::{Propagation, dominating};

/// A file system (or a part of one) attached to the tree, or kept by the kernel alone.
pub struct Mount {
    /// A number for `/proc/PID/mountinfo` and statx(2).
    pub id: u64,
    /// What shows at its place.
    pub root: Arc<Dentry>,
    /// The file system.
    pub superblock: Arc<SuperBlock>,
    /// What mount(2) gave as its source.
    pub source: Box<[u8]>,
    flags: AtomicU32,
    /// Files that are open to be written through it.
    writers: AtomicUsize,
    internal: bool,
    links: SpinLock<Links>,
    /// What is attached to it, by the address of the dentry that it sits on.
    children: SpinLock<BTreeMap<usize, Arc<Mount>>>,
    /// umount2(2) with MNT_EXPIRE found it unused.
    expired: AtomicBool,
    watches: Once<Box<Watches>>,
}

/// How a mount hangs together with others.
#[derive(Default)]
struct Links {
    place: Option<Path>,
    namespace: Weak<MountNamespace>,
    /// Its peer group and the one that it follows; 0 for none.
    group: u64,
    master: u64,
    unbindable: bool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);
static ROOT: Once<Path> = Once::new();

/// What a dentry is called among the places of a mount.
fn place_key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry).addr()
}

impl Mount {
    fn with(
        root: Arc<Dentry>,
        superblock: Arc<SuperBlock>,
        source: &[u8],
        flags: MountFlags,
        internal: bool,
    ) -> Arc<Mount> {
        superblock.add_mount();
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            root,
            superblock,
            source: source.into(),
            flags: AtomicU32::new(flags.bits()),
            writers: AtomicUsize::new(0),
            internal,
            links: SpinLock::new(Links::default()),
            children: SpinLock::new(BTreeMap::new()),
            expired: AtomicBool::new(false),
            watches: Once::new(),
        })
    }

    /// A mount of the whole file system whose root directory is `root`, not yet attached.
    pub fn new(root: Arc<Inode>, source: &[u8], flags: MountFlags) -> Arc<Mount> {
        let superblock = root.superblock().clone();
        Mount::with(superblock.root_dentry(&root), superblock, source, flags, false)
    }

    /// A mount for the kernel's own use, such as that of pipes.
    pub fn internal(root: Arc<Inode>) -> Arc<Mount> {
        let superblock = root.superblock().clone();
        let kind = superblock.kind;
        Mount::with(Dentry::root(root, b""), superblock, kind.as_bytes(), MountFlags::empty(), true)
    }

    /// A mount of what `path` shows for a file system that lies on top of it: it keeps the file system, but is nowhere in the tree.
    pub(crate) fn private(path: &Path) -> Arc<Mount> {
        let of = &path.mount;
        Mount::with(path.dentry.clone(), of.superblock.clone(), &of.source, of.flags(), true)
    }

    /// The flags.
    #[inline]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Is what shows here not to be changed: by the mount, or by the file system?
    pub fn is_read_only(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY) || self.superblock.is_read_only()
    }

    /// A file is about to be open to be written through it, which keeps it and the file system from becoming read-only. `EROFS`.
    pub(crate) fn get_write(&self) -> Result<()> {
        self.writers.fetch_add(1, Ordering::SeqCst);
        self.superblock.add_writer();
        // Who makes it read-only says so before looking at the counts: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_read_only() {
            self.put_write();
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    /// Takes back [`Mount::get_write`].
    pub(crate) fn put_write(&self) {
        self.writers.fetch_sub(1, Ordering::SeqCst);
        self.superblock.drop_writer();
    }

    /// Sets the flags. `EBUSY` where it is to become read-only and files are open to be written through it.
    fn set_flags(&self, flags: MountFlags) -> Result<()> {
        let old = self.flags();
        self.flags.store(flags.bits(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if flags.contains(MountFlags::RDONLY) && self.writers.load(Ordering::SeqCst) > 0 {
            self.flags.store(old.bits(), Ordering::SeqCst);
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Where it is attached.
    pub fn place(&self) -> Option<Path> {
        self.links.lock().place.clone()
    }

    /// Is it for the kernel's own use?
    pub fn is_internal(&self) -> bool {
        self.internal
    }

    /// The numbers of its peer group and of the group that it follows; 0 for none.
    pub fn propagation(&self) -> (u64, u64) {
        let links = self.links.lock();
        (links.group, links.master)
    }

    /// Is it not to be bound (MS_UNBINDABLE)?
    pub fn is_unbindable(&self) -> bool {
        self.links.lock().unbindable
    }

    /// The namespace that it is part of.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.links.lock().namespace.upgrade()
    }

    /// Is it part of that namespace?
    pub fn is_in(&self, namespace: &Arc<MountNamespace>) -> bool {
        core::ptr::eq(self.links.lock().namespace.as_ptr(), Arc::as_ptr(namespace))
    }

    fn same_namespace(&self, other: &Mount) -> bool {
        let ours = self.links.lock().namespace.as_ptr();
        core::ptr::eq(ours, other.links.lock().namespace.as_ptr())
    }

    /// Is it part of no namespace: unmounted while in use, or not mounted yet?
    fn is_detached(&self) -> bool {
        self.links.lock().namespace.strong_count() == 0
    }

    fn is_shared(&self) -> bool {
        self.links.lock().group != 0
    }
}

impl Watched for Mount {
    fn watches(&self) -> &Once<Box<Watches>> {
        &self.watches
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.superblock.drop_mount();
    }
}

/// Makes `mount`, which sits on the root of `base`, the root of everything. Once, at boot; true if it is.
pub fn set_root(base: &Arc<Mount>, mount: Arc<Mount>) -> bool {
    let dentry = mount.root.clone();
    let first = ROOT.set(Path { mount: mount.clone(), dentry }).is_ok();
    if first {
        change::plant(base, &mount);
    }
    first
}

/// The root of everything.
pub fn root() -> Option<Path> {
    ROOT.get().cloned()
}

/// What is mounted on exactly this place.
#[inline]
pub fn mounted_on(place: &Path) -> Option<Arc<Mount>> {
    place.mount.children.lock().get(&place_key(&place.dentry)).cloned()
}

/// Steps into whatever is mounted here, and on that, ...
#[inline]
pub fn enter(mut path: Path) -> Path {
    while path.dentry.is_mount_point() {
        let Some(mount) = mounted_on(&path) else { break };
        path = Path { dentry: mount.root.clone(), mount };
    }
    path
}
