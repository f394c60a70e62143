//! Changing the tree of mounts: one at a time, under a lock that lookups don't take.

use alloc::sync::Arc;
use alloc::vec::Vec;

use sched::{Mutex, MutexGuard};

use super::propagation::{self, CopyAs, Groups};
use super::{Mount, MountNamespace, Path, place_key};
use crate::Dentry;

static GROUPS: Mutex<Groups> = Mutex::new(Groups::new());

/// A change under way. What it takes away is let go of after the lock, since the last reference to a mount unmounts its file system.
pub(super) struct Change {
    pub(super) groups: MutexGuard<'static, Groups>,
    mounts: Vec<Arc<Mount>>,
    places: Vec<Path>,
    namespaces: Vec<Arc<MountNamespace>>,
}

impl Change {
    /// Waits for other changes.
    pub(super) fn begin() -> Change {
        Change { groups: GROUPS.lock(), mounts: Vec::new(), places: Vec::new(), namespaces: Vec::new() }
    }

    /// Keeps a reference until the lock is released.
    pub(super) fn keep(&mut self, mount: Arc<Mount>) {
        self.mounts.push(mount);
    }

    /// The namespace of a mount, held for as long as the change.
    pub(super) fn namespace_of(&mut self, mount: &Mount) -> Option<Arc<MountNamespace>> {
        let namespace = mount.links.lock().namespace.upgrade()?;
        self.namespaces.push(namespace.clone());
        Some(namespace)
    }
}

/// Puts a mount (and what is attached to it) at `place`. What sits there already comes to sit on its root.
pub(super) fn graft(change: &mut Change, mount: &Arc<Mount>, place: &Path) {
    place.dentry.count_mount(true);
    let covered = place.mount.children.lock().insert(place_key(&place.dentry), mount.clone());
    mount.links.lock().place = Some(place.clone());
    if let Some(upper) = covered {
        place.dentry.count_mount(false);
        mount.root.count_mount(true);
        let on_top = Path { mount: mount.clone(), dentry: mount.root.clone() };
        let replaced = mount.children.lock().insert(place_key(&mount.root), upper.clone());
        change.mounts.extend(replaced);
        let old = upper.links.lock().place.replace(on_top);
        change.places.extend(old);
        change.keep(upper);
    }
}

/// Takes a mount off its place; what is attached to it stays so.
pub(super) fn ungraft(change: &mut Change, mount: &Arc<Mount>) {
    let Some(place) = mount.links.lock().place.take() else { return };
    let key = place_key(&place.dentry);
    let mut children = place.mount.children.lock();
    let ours = children.get(&key).is_some_and(|child| Arc::ptr_eq(child, mount));
    let removed = if ours { children.remove(&key) } else { None };
    drop(children);
    change.mounts.extend(removed);
    place.dentry.count_mount(false);
    change.places.push(place);
}

/// Takes one mount out of tree, namespace and peer group. What sits on its root, and only that, takes its place.
pub(super) fn cut(change: &mut Change, mount: &Arc<Mount>) {
    let topper = mount.children.lock().get(&place_key(&mount.root)).cloned();
    let place = mount.place();
    ungraft(change, mount);
    if let (Some(topper), Some(place)) = (topper, place) {
        ungraft(change, &topper);
        graft(change, &topper, &place);
        change.keep(topper);
    }
    leave_namespace(change, mount);
    propagation::make_private(change, mount);
    change.keep(mount.clone());
}

fn leave_namespace(change: &mut Change, mount: &Arc<Mount>) {
    if let Some(namespace) = change.namespace_of(mount) {
        let removed = namespace.remove(mount);
        change.mounts.extend(removed);
    }
    mount.links.lock().namespace = alloc::sync::Weak::new();
}

/// Makes a mount part of a namespace, out of that which it was in.
pub(super) fn enter_namespace(change: &mut Change, mount: &Arc<Mount>, namespace: &Arc<MountNamespace>) {
    leave_namespace(change, mount);
    mount.links.lock().namespace = Arc::downgrade(namespace);
    namespace.add(mount);
}

/// The mount itself and all that are attached below `from` in it, parents first.
pub(super) fn below(mount: &Arc<Mount>, from: &Arc<Dentry>) -> Vec<Arc<Mount>> {
    let mut found = alloc::vec![mount.clone()];
    let mut next = 0;
    while next < found.len() {
        let children: Vec<Arc<Mount>> = found[next].children.lock().values().cloned().collect();
        let counts = |child: &Arc<Mount>| next > 0 || child.place().is_some_and(|place| place.dentry.is_below(from));
        found.extend(children.into_iter().filter(counts));
        next += 1;
    }
    found
}

/// Copies a mount, showing `root` of it, and all that is attached below, each with what it was copied from; parents first. Mounts that
/// may not be bound are left out with what is below them, unless `unbindable`.
pub(super) fn copy(
    change: &mut Change,
    mount: &Arc<Mount>,
    root: &Arc<Dentry>,
    unbindable: bool,
    kind: CopyAs,
) -> Vec<(Arc<Mount>, Arc<Mount>)> {
    let mut pairs: Vec<(Arc<Mount>, Arc<Mount>)> = Vec::new();
    for old in below(mount, root) {
        if pairs.is_empty() {
            let new = propagation::copy_of(change, &old, root, kind);
            pairs.push((old, new));
            continue;
        }
        let Some(place) = old.place() else { continue };
        let Some(parent) = pairs.iter().find(|(of, _)| Arc::ptr_eq(of, &place.mount)).map(|(_, new)| new.clone())
        else {
            continue;
        };
        if !unbindable && old.is_unbindable() {
            continue;
        }
        let new = propagation::copy_of(change, &old, &old.root, kind);
        graft(change, &new, &Path { mount: parent, dentry: place.dentry });
        pairs.push((old, new));
    }
    pairs
}
