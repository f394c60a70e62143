//! The changes that system calls make to the tree of mounts: mount(2), umount2(2), pivot_root(2), open_tree(2), move_mount(2),
//! mount_setattr(2).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Result};

use super::propagation::{self, CopyAs};
use super::tree::{self, Change};
use super::{MOUNTS_MAX, Mount, MountFlags, MountNamespace, Path, Propagation, SuperFlags, enter};
use crate::block::BlockDev;
use crate::landlock;
use crate::vfs::{superblock, walk};
use crate::{FileKind, FsContext};

/// Who changes mounts, and in which namespace.
pub struct Changer<'a> {
    /// Credentials, working directory and root.
    pub cx: &'a FsContext,
    /// The caller's namespace.
    pub namespace: &'a Arc<MountNamespace>,
}

/// Makes the first mounts part of the first namespace.
pub(super) fn plant(base: &Arc<Mount>, root: &Arc<Mount>) {
    let mut change = Change::begin();
    tree::graft(&mut change, root, &Path { mount: base.clone(), dentry: base.root.clone() });
    tree::enter_namespace(&mut change, base, MountNamespace::initial());
    tree::enter_namespace(&mut change, root, MountNamespace::initial());
}

fn is_dir(path: &Path) -> bool {
    path.dentry.inode().is_some_and(|inode| inode.is_dir())
}

fn same_kind(mount: &Mount, place: &Path) -> bool {
    mount.root.inode().is_some_and(|inode| inode.is_dir()) == is_dir(place)
}

/// Attaches a tree at `place`, on top of what somebody may have mounted there since the walk, and its copies wherever propagation takes
/// them. `ENOENT` where the directory was removed, `ENOSPC` (fs.mount-max).
fn attach(change: &mut Change, source: &Arc<Mount>, place: &Path) -> Result<()> {
    let place = enter(place.clone());
    if place.dentry.is_gone() {
        return Err(Errno::ENOENT);
    }
    let trees = tree::below(source, &source.root);
    let mut copies = Vec::new();
    if place.mount.is_shared() {
        // Copies that no namespace has room for are not even made.
        if propagation::receivers(change, &place.mount).len().saturating_mul(trees.len()) > MOUNTS_MAX {
            return Err(Errno::ENOSPC);
        }
        trees.iter().for_each(|mount| propagation::make_shared(change, mount));
        copies = propagation::spread(change, source, &place);
    }
    let target = change.namespace_of(&place.mount).ok_or(Errno::EINVAL)?;
    let room = copies.iter().try_for_each(|(_, at)| {
        change.namespace_of(&at.mount).map_or(Ok(()), |namespace| namespace.reserve(trees.len()))
    });
    if let Err(error) = room.and_then(|()| target.reserve(trees.len())) {
        for mount in copies.iter().flat_map(|(copy, _)| tree::below(copy, &copy.root)) {
            tree::cut(change, &mount);
        }
        return Err(error);
    }
    tree::graft(change, source, &place);
    trees.iter().filter(|mount| !mount.is_in(&target)).for_each(|mount| tree::enter_namespace(change, mount, &target));
    for (copy, at) in &copies {
        let Some(namespace) = change.namespace_of(&at.mount) else { continue };
        tree::graft(change, copy, at);
        for mount in tree::below(copy, &copy.root) {
            tree::enter_namespace(change, &mount, &namespace);
        }
    }
    Ok(())
}

impl Changer<'_> {
    /// Only CAP_SYS_ADMIN may change mounts, and none that restricted itself by Landlock. `EPERM`.
    pub fn may_mount(&self) -> Result<()> {
        landlock::mount(self.cx)?;
        if self.cx.cred.capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Only what is mounted in the caller's namespace may be changed. `EINVAL`.
    fn is_ours(&self, mount: &Mount) -> Result<()> {
        if mount.is_in(self.namespace) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// mount(2) of a new file system of `kind` at `place`. `EPERM`, `ENODEV` (no such kind), `EBUSY` (shows there already), `EINVAL`,
    /// `ENOTDIR`, and what the file system says.
    pub fn mount_new(
        &self,
        place: &Path,
        kind: &[u8],
        source: &[u8],
        (flags, of_super): (MountFlags, SuperFlags),
        options: &[u8],
    ) -> Result<()> {
        self.may_mount()?;
        let mount = self.instance(kind, source, (flags, of_super), options)?;
        self.put_new(&mount, place)
    }

    /// A mount of a file system, not attached yet. `ENODEV`, `EINVAL`, and what the file system says.
    pub fn instance(
        &self,
        kind: &[u8],
        source: &[u8],
        (flags, of_super): (MountFlags, SuperFlags),
        options: &[u8],
    ) -> Result<Arc<Mount>> {
        let kind = superblock::find(kind)?;
        let root = if kind.needs_device() {
            let device = self.device_at(source)?;
            kind.mount_device(&device, of_super.contains(SuperFlags::RDONLY), options)?
        } else {
            kind.mount_for(self.cx, source, options)?
        };
        root.superblock().set_flags(of_super);
        Ok(Mount::new(root, source, flags))
    }

    fn put_new(&self, mount: &Arc<Mount>, place: &Path) -> Result<()> {
        self.is_ours(&place.mount)?;
        let again = place.is_mount_root()
            && Arc::ptr_eq(&place.mount.superblock, &mount.superblock)
            && Arc::ptr_eq(&place.mount.root, &mount.root);
        if again {
            return Err(Errno::EBUSY);
        }
        if !same_kind(mount, place) {
            return Err(Errno::ENOTDIR);
        }
        attach(&mut Change::begin(), mount, place)
    }

    /// The device behind a path, to be mounted. `ENOENT`, `ENOTBLK`, `EACCES` (on a nodev mount), `ENXIO`.
    fn device_at(&self, path: &[u8]) -> Result<Arc<BlockDev>> {
        let path = walk::lookup(self.cx, None, path, true)?;
        let inode = path.inode()?;
        if inode.kind() != FileKind::BlockDevice {
            return Err(Errno::ENOTBLK);
        }
        if path.mount.flags().contains(MountFlags::NODEV) {
            return Err(Errno::EACCES);
        }
        crate::block::by_number(inode.rdev())
    }

    /// What MS_BIND and OPEN_TREE_CLONE make: a copy of what shows at `what`, with what is mounted below if `recursive`. `EINVAL`.
    fn bound(&self, change: &mut Change, what: &Path, recursive: bool) -> Result<Arc<Mount>> {
        // The files of namespaces are in none, and may be bound to keep one.
        if what.mount.superblock.kind != "nsfs" {
            self.is_ours(&what.mount)?;
        }
        if what.mount.is_unbindable() {
            return Err(Errno::EINVAL);
        }
        if !recursive {
            return Ok(propagation::copy_of(change, &what.mount, &what.dentry, CopyAs::Peer));
        }
        let pairs = tree::copy(change, &what.mount, &what.dentry, false, CopyAs::Peer);
        pairs.into_iter().next().map(|(_, new)| new).ok_or(Errno::EINVAL)
    }

    /// mount(2) with MS_BIND: shows `what` at `place` too; with what is mounted below it, if `recursive`. `EPERM`, `EINVAL`, `ENOTDIR`.
    pub fn bind(&self, what: &Path, place: &Path, recursive: bool) -> Result<()> {
        self.may_mount()?;
        self.is_ours(&place.mount)?;
        let mut change = Change::begin();
        let copy = self.bound(&mut change, what, recursive)?;
        let attached = if same_kind(&copy, place) { attach(&mut change, &copy, place) } else { Err(Errno::ENOTDIR) };
        if attached.is_err() {
            for mount in tree::below(&copy, &copy.root) {
                tree::cut(&mut change, &mount);
            }
        }
        attached
    }

    /// open_tree(2) with OPEN_TREE_CLONE: such a copy in a namespace of its own. `EPERM`, `EINVAL`.
    pub fn detached_copy(&self, what: &Path, recursive: bool) -> Result<(Path, Arc<MountNamespace>)> {
        self.may_mount()?;
        let mut change = Change::begin();
        let copy = self.bound(&mut change, what, recursive)?;
        Ok(alone(&mut change, copy))
    }

    /// fsmount(2): a new mount in a namespace of its own.
    pub fn detached(&self, mount: Arc<Mount>) -> (Path, Arc<MountNamespace>) {
        alone(&mut Change::begin(), mount)
    }

    /// mount(2) with MS_REMOUNT: changes the flags of the mount whose root `place` is, and of the file system if there are
    /// options. `EINVAL` elsewhere, `EPERM`, and what the file system says.
    pub fn remount(&self, place: &Path, flags: MountFlags, of_super: Option<(SuperFlags, &[u8])>) -> Result<()> {
        self.may_mount()?;
        self.is_ours(&place.mount)?;
        if !place.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        if let Some((super_flags, options)) = of_super {
            place.mount.superblock.reconfigure(super_flags, options)?;
        }
        place.mount.flags.store(flags.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// mount(2) with MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE; with MS_REC for all mounts below too. `EINVAL` where `place` is no
    /// mount's root, `EPERM`.
    pub fn set_propagation(&self, place: &Path, to: Propagation, recursive: bool) -> Result<()> {
        self.may_mount()?;
        if !place.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        self.is_ours(&place.mount)?;
        let mut change = Change::begin();
        for mount in self.selected(place, recursive) {
            propagation::set(&mut change, &mount, to);
        }
        Ok(())
    }

    fn selected(&self, place: &Path, recursive: bool) -> Vec<Arc<Mount>> {
        if recursive { tree::below(&place.mount, &place.dentry) } else { alloc::vec![place.mount.clone()] }
    }

    /// mount_setattr(2): takes the flags in `clear` away and adds those in `set`, and changes propagation. `EINVAL` where `place` is no
    /// mount's root, `EPERM`.
    pub fn set_attributes(
        &self,
        place: &Path,
        (clear, set): (MountFlags, MountFlags),
        propagation: Option<Propagation>,
        recursive: bool,
    ) -> Result<()> {
        self.may_mount()?;
        if !place.is_mount_root() || !self.is_ours_or_alone(&place.mount) {
            return Err(Errno::EINVAL);
        }
        let mut change = Change::begin();
        for mount in self.selected(place, recursive) {
            mount.flags.store(((mount.flags() - clear) | set).bits(), Ordering::Relaxed);
            if let Some(to) = propagation {
                propagation::set(&mut change, &mount, to);
            }
        }
        Ok(())
    }

    /// Is the mount in the caller's namespace, or in one that only a descriptor refers to?
    fn is_ours_or_alone(&self, mount: &Mount) -> bool {
        mount.is_in(self.namespace) || mount.links.lock().namespace.upgrade().is_some_and(|of| of.is_anonymous())
    }

    /// mount(2) with MS_MOVE, move_mount(2). `EINVAL` where `what` is no mount's root, is where propagation holds it, or has parts that
    /// may not be bound and would come to be shared; `ELOOP` where `place` is below it; `EPERM`, `ENOTDIR`.
    pub fn move_mount(&self, what: &Path, place: &Path) -> Result<()> {
        self.may_mount()?;
        self.is_ours(&place.mount)?;
        let mount = &what.mount;
        if !what.is_mount_root() || !self.is_ours_or_alone(mount) {
            return Err(Errno::EINVAL);
        }
        let from = mount.place();
        let ours = mount.is_in(self.namespace);
        let held = from.as_ref().is_some_and(|from| from.mount.is_shared());
        if ours != from.is_some() || held || !same_kind(mount, place) {
            return Err(Errno::EINVAL);
        }
        let mut change = Change::begin();
        let parts = tree::below(mount, &mount.root);
        if place.mount.is_shared() && parts.iter().any(|part| part.is_unbindable()) {
            return Err(Errno::EINVAL);
        }
        let mut at = Some(place.clone());
        while let Some(path) = at {
            if Arc::ptr_eq(&path.mount, mount) {
                return Err(Errno::ELOOP);
            }
            at = path.mount.place();
        }
        tree::ungraft(&mut change, mount);
        let attached = attach(&mut change, mount, place);
        if let (Err(_), Some(from)) = (&attached, from) {
            tree::graft(&mut change, mount, &from);
        }
        attached
    }

    /// move_mount(2) with MOVE_MOUNT_SET_GROUP: `to` becomes a peer of `from`, and a slave of what that follows. `EINVAL` where one is no
    /// mount's root, they show different things, `from` is private, or `to` is not; `EPERM`.
    pub fn set_group(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_mount()?;
        if !from.is_mount_root() || !to.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        self.is_ours(&from.mount)?;
        self.is_ours(&to.mount)?;
        let (model, mount) = (&from.mount, &to.mount);
        let wrong = model.propagation() == (0, 0)
            || mount.propagation() != (0, 0)
            || !Arc::ptr_eq(&model.superblock, &mount.superblock)
            || !mount.root.is_below(&model.root);
        if wrong {
            return Err(Errno::EINVAL);
        }
        propagation::take_after(&mut Change::begin(), mount, model);
        Ok(())
    }

    /// umount2(2) of the mount whose root `path` is; `lazy` (MNT_DETACH) takes it away with what is mounted below, in use or not.
    /// `expire` (MNT_EXPIRE) does so only the second time. The caller's root becomes read-only instead, unless `lazy`. `EINVAL` where it is no mount's root or the caller's own, `EBUSY`, `EAGAIN`,
    /// `EPERM`.
    pub fn unmount(&self, path: Path, lazy: bool, expire: bool) -> Result<()> {
        self.may_mount()?;
        self.is_ours(&path.mount)?;
        let root = Arc::ptr_eq(&path.mount, &self.cx.root.mount);
        if !path.is_mount_root() || path.mount.place().is_none() || expire && root {
            return Err(Errno::EINVAL);
        }
        let Path { mount, .. } = path;
        if root && !lazy {
            // It cannot go, but it can be left in order.
            let superblock = &mount.superblock;
            return superblock.reconfigure(superblock.flags() | SuperFlags::RDONLY, b"");
        }
        let mut change = Change::begin();
        if !lazy && is_busy(&change, &mount) {
            return Err(Errno::EBUSY);
        }
        if expire && !mount.expired.swap(true, Ordering::AcqRel) {
            return Err(Errno::EAGAIN);
        }
        for part in tree::below(&mount, &mount.root).iter().rev() {
            cut_everywhere(&mut change, part);
        }
        drop(change);
        mount.superblock.ops.sync()
    }

    /// pivot_root(2): `new` becomes the root of the namespace and the old root shows at `put_old`. The caller moves the processes whose
    /// root or working directory was the old one. `EPERM`, `ENOENT`, `EBUSY` (one is the current root), `EINVAL` (propagation, no mount's
    /// root, not below each other).
    pub fn pivot_root(&self, new: &Path, put_old: &Path) -> Result<()> {
        self.may_mount()?;
        let root = &self.cx.root;
        let mut change = Change::begin();
        let place = new.mount.place();
        let shared = put_old.mount.is_shared()
            || place.as_ref().is_some_and(|place| place.mount.is_shared())
            || root.mount.place().is_some_and(|place| place.mount.is_shared());
        if shared {
            return Err(Errno::EINVAL);
        }
        self.is_ours(&root.mount)?;
        self.is_ours(&new.mount)?;
        if new.dentry.is_gone() {
            return Err(Errno::ENOENT);
        }
        if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        let Some(root_place) = root.mount.place().filter(|_| root.is_mount_root()) else { return Err(Errno::EINVAL) };
        let below_each_other = is_reachable(put_old, new) && is_reachable(new, root);
        if !new.is_mount_root() || place.is_none() || !below_each_other {
            return Err(Errno::EINVAL);
        }
        let (new, old) = (new.mount.clone(), root.mount.clone());
        tree::ungraft(&mut change, &new);
        tree::ungraft(&mut change, &old);
        tree::graft(&mut change, &old, put_old);
        tree::graft(&mut change, &new, &root_place);
        new.expired.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// Puts a tree in a namespace that only a descriptor will refer to.
fn alone(change: &mut Change, mount: Arc<Mount>) -> (Path, Arc<MountNamespace>) {
    let namespace = MountNamespace::new(true);
    for part in tree::below(&mount, &mount.root) {
        tree::enter_namespace(change, &part, &namespace);
    }
    (Path { dentry: mount.root.clone(), mount }, namespace)
}

/// Can one come from `path` up to `root`?
fn is_reachable(path: &Path, root: &Path) -> bool {
    let mut at = path.clone();
    while !Arc::ptr_eq(&at.mount, &root.mount) {
        match at.mount.place() {
            Some(place) => at = place,
            None => return false,
        }
    }
    at.dentry.is_below(&root.dentry)
}

/// Is the mount, or one that propagation would unmount with it, in use?
fn is_busy(change: &Change, mount: &Arc<Mount>) -> bool {
    // Two references are the tree's and one is the caller's: any other is somebody's directory, open file or mapping.
    let used = |mount: &Arc<Mount>| Arc::strong_count(mount) > 3;
    if !mount.children.lock().is_empty() || used(mount) {
        return true;
    }
    let Some(place) = mount.place() else { return false };
    propagation::counterparts(change, &place).iter().any(|other| other.children.lock().is_empty() && used(other))
}

/// Takes a mount away, and what propagation put elsewhere, unless something else is mounted on that.
fn cut_everywhere(change: &mut Change, mount: &Arc<Mount>) {
    let others = mount.place().map_or(Vec::new(), |place| propagation::counterparts(change, &place));
    tree::cut(change, mount);
    for other in others {
        let children = other.children.lock();
        let free = children.keys().all(|&key| key == super::place_key(&other.root));
        drop(children);
        if free {
            tree::cut(change, &other);
        }
    }
}
