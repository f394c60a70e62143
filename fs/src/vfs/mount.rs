//! Mounts: which file system shows at which place of the tree.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Capability, Errno, Result};
use bitflags::bitflags;
use hal::sync::{Once, SpinLock};

use crate::block::BlockDev;
use crate::{Dentry, FileKind, FsContext, Inode, Path, SuperBlock};

bitflags! {
    /// How a mount restricts what it shows, in the bits of mount(2) and statfs(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// MS_RDONLY.
        const RDONLY = 1;
        /// MS_NOSUID.
        const NOSUID = 2;
        /// MS_NODEV.
        const NODEV = 4;
        /// MS_NOEXEC.
        const NOEXEC = 8;
        /// MS_NOATIME.
        const NOATIME = 1024;
        /// MS_NODIRATIME.
        const NODIRATIME = 2048;
        /// MS_RELATIME: what is done unless another is asked for.
        const RELATIME = 1 << 21;
    }
}

impl MountFlags {
    /// The options as `/proc/mounts` shows them.
    pub fn options(self) -> Vec<u8> {
        let mut text: Vec<u8> = if self.contains(MountFlags::RDONLY) { b"ro".to_vec() } else { b"rw".to_vec() };
        let names: [(MountFlags, &[u8]); 6] = [
            (MountFlags::NOSUID, b",nosuid"),
            (MountFlags::NODEV, b",nodev"),
            (MountFlags::NOEXEC, b",noexec"),
            (MountFlags::NOATIME, b",noatime"),
            (MountFlags::NODIRATIME, b",nodiratime"),
            (MountFlags::RELATIME, b",relatime"),
        ];
        for (flag, name) in names {
            if self.contains(flag) {
                text.extend_from_slice(name);
            }
        }
        text
    }
}

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
    place: SpinLock<Option<Path>>,
    internal: bool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);

#[derive(Default)]
struct Tree {
    /// Keyed by the parent mount's id and the address of the dentry it sits on.
    by_place: BTreeMap<(u64, usize), Arc<Mount>>,
    /// In the order of mounting.
    all: Vec<Arc<Mount>>,
}

static TREE: SpinLock<Tree> = SpinLock::new(Tree { by_place: BTreeMap::new(), all: Vec::new() });
static ROOT: Once<Path> = Once::new();

fn key(place: &Path) -> (u64, usize) {
    (place.mount.id, Arc::as_ptr(&place.dentry).addr())
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
            place: SpinLock::new(None),
            internal,
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

    /// Where it is attached.
    pub fn place(&self) -> Option<Path> {
        self.place.lock().clone()
    }

    /// Is it for the kernel's own use?
    pub fn is_internal(&self) -> bool {
        self.internal
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.superblock.drop_mount();
    }
}

/// Makes `mount` the root of everything. Once, at boot; true if it is.
pub fn set_root(mount: Arc<Mount>) -> bool {
    TREE.lock().all.push(mount.clone());
    let dentry = mount.root.clone();
    ROOT.set(Path { mount, dentry }).is_ok()
}

/// The root of everything.
pub fn root() -> Option<Path> {
    ROOT.get().cloned()
}

/// What is mounted on exactly this place.
#[inline]
pub fn mounted_on(place: &Path) -> Option<Arc<Mount>> {
    TREE.lock().by_place.get(&key(place)).cloned()
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

/// All attached mounts, in the order of mounting.
pub fn list() -> Vec<Arc<Mount>> {
    TREE.lock().all.clone()
}

/// Attaches `mount` at `place`. `ENOENT` where the directory was removed, `ENOTDIR` where a directory meets something else.
pub fn attach(mount: &Arc<Mount>, place: &Path) -> Result<()> {
    if place.dentry.is_gone() {
        return Err(Errno::ENOENT);
    }
    let dir = |d: &Arc<Dentry>| d.inode().is_some_and(|i| i.is_dir());
    if dir(&mount.root) != dir(&place.dentry) {
        return Err(Errno::ENOTDIR);
    }
    let mut tree = TREE.lock();
    // Somebody else may have mounted there between the walk and now: then this one goes on top.
    let mut place = place.clone();
    while let Some(upper) = tree.by_place.get(&key(&place)) {
        place = Path { mount: upper.clone(), dentry: upper.root.clone() };
    }
    place.dentry.count_mount(true);
    tree.by_place.insert(key(&place), mount.clone());
    tree.all.push(mount.clone());
    *mount.place.lock() = Some(place);
    Ok(())
}

/// Only CAP_SYS_ADMIN may change mounts. `EPERM`.
fn may_mount(cx: &FsContext) -> Result<()> {
    if cx.cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
}

/// mount(2) of a new file system of `kind` at `place`. `EPERM`, `ENODEV` (no such kind), `EBUSY` (shows there already), `EINVAL`,
/// `ENOTDIR`.
pub fn mount_new(
    cx: &FsContext,
    place: &Path,
    kind: &[u8],
    source: &[u8],
    flags: MountFlags,
    options: &[u8],
) -> Result<()> {
    may_mount(cx)?;
    let kind = super::superblock::find(kind)?;
    let root = if kind.needs_device() {
        let device = device_at(cx, source)?;
        kind.mount_device(&device, flags.contains(MountFlags::RDONLY), options)?
    } else {
        kind.mount_for(cx, source, options)?
    };
    if place.is_mount_root() && Arc::ptr_eq(&place.mount.superblock, root.superblock()) {
        return Err(Errno::EBUSY);
    }
    attach(&Mount::new(root, source, flags), place)
}

/// The device behind a path, to be mounted. `ENOENT`, `ENOTBLK`, `EACCES` (on a nodev mount), `ENXIO`.
fn device_at(cx: &FsContext, path: &[u8]) -> Result<Arc<BlockDev>> {
    let path = super::walk::lookup(cx, None, path, true)?;
    let inode = path.inode()?;
    if inode.kind() != FileKind::BlockDevice {
        return Err(Errno::ENOTBLK);
    }
    if path.mount.flags().contains(MountFlags::NODEV) {
        return Err(Errno::EACCES);
    }
    crate::block::by_number(inode.rdev())
}

/// mount(2) with MS_BIND: shows `what` at `place` too; with what is mounted below it, if `recursive`. `EPERM`, `EINVAL`, `ENOTDIR`.
pub fn bind(cx: &FsContext, what: &Path, place: &Path, recursive: bool) -> Result<()> {
    may_mount(cx)?;
    if what.mount.is_internal() {
        return Err(Errno::EINVAL);
    }
    let below = if recursive { mounts_below(what) } else { Vec::new() };
    let copy = |mount: &Arc<Mount>, root: &Arc<Dentry>| {
        Mount::with(root.clone(), mount.superblock.clone(), &mount.source, mount.flags(), false)
    };
    let top = copy(&what.mount, &what.dentry);
    attach(&top, place)?;
    let mut copies = alloc::vec![(what.mount.clone(), top)];
    for mount in below {
        let Some(old_place) = mount.place() else { continue };
        let Some((_, parent)) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &old_place.mount)) else { continue };
        let new_place = Path { mount: parent.clone(), dentry: old_place.dentry };
        let new = copy(&mount, &mount.root);
        attach(&new, &new_place)?;
        copies.push((mount, new));
    }
    Ok(())
}

/// The mounts attached somewhere below `what`, parents first.
fn mounts_below(what: &Path) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for mount in list() {
        let Some(place) = mount.place() else { continue };
        let direct = Arc::ptr_eq(&place.mount, &what.mount) && place.dentry.is_below(&what.dentry);
        if direct || found.iter().any(|m| Arc::ptr_eq(m, &place.mount)) {
            found.push(mount);
        }
    }
    found
}

/// mount(2) with MS_REMOUNT: changes the flags of the mount whose root `place` is. `EINVAL` elsewhere, `EPERM`.
pub fn remount(cx: &FsContext, place: &Path, flags: MountFlags, options: Option<&[u8]>) -> Result<()> {
    may_mount(cx)?;
    if !place.is_mount_root() || place.mount.is_internal() {
        return Err(Errno::EINVAL);
    }
    if let Some(options) = options {
        place.mount.superblock.ops.reconfigure(flags.contains(MountFlags::RDONLY), options)?;
    }
    place.mount.flags.store(flags.bits(), Ordering::Relaxed);
    Ok(())
}

/// mount(2) with MS_MOVE. `EINVAL` where `what` is no mount's root, `ELOOP` where `place` is below it, `EPERM`, `ENOTDIR`.
pub fn move_mount(cx: &FsContext, what: &Path, place: &Path) -> Result<()> {
    may_mount(cx)?;
    if !what.is_mount_root() || what.mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    let mut at = Some(place.clone());
    while let Some(path) = at {
        if Arc::ptr_eq(&path.mount, &what.mount) {
            return Err(Errno::ELOOP);
        }
        at = path.mount.place();
    }
    let mount = what.mount.clone();
    detach(&mount);
    attach(&mount, place)
}

fn detach(mount: &Arc<Mount>) {
    let mut tree = TREE.lock();
    tree.all.retain(|m| !Arc::ptr_eq(m, mount));
    let place = mount.place.lock().take();
    let mut gone = None;
    if let Some(place) = &place {
        gone = tree.by_place.remove(&key(place));
        place.dentry.count_mount(false);
    }
    drop(tree);
    drop((gone, place));
}

/// umount2(2) of the mount whose root `path` is; `lazy` (MNT_DETACH) takes it away with what is mounted below, in use or not.
/// `EINVAL` where it is no mount's root, `EBUSY`, `EPERM`.
pub fn unmount(cx: &FsContext, path: Path, lazy: bool) -> Result<()> {
    may_mount(cx)?;
    if !path.is_mount_root() || path.mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    let Path { mount, dentry } = path;
    let below = mounts_below(&Path { mount: mount.clone(), dentry });
    // Two references are the tree's and one is ours: any other is somebody's directory, open file or mapping.
    if !lazy && (!below.is_empty() || Arc::strong_count(&mount) > 3) {
        return Err(Errno::EBUSY);
    }
    for child in below.iter().rev() {
        detach(child);
    }
    detach(&mount);
    mount.superblock.ops.sync()
}

/// pivot_root(2): `new` becomes the root of everything and the old root shows at `put_old`. Not done yet: `EINVAL`, as where the root is
/// an initramfs.
pub fn pivot_root(cx: &FsContext, new: &Path, put_old: &Path) -> Result<()> {
    may_mount(cx)?;
    let _ = (new, put_old);
    Err(Errno::EINVAL)
}
