//! Where a thread is in the file system: working directory, root, umask, mount namespace. Shared by CLONE_FS.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use fs::{MountNamespace, Path};
use hal::sync::SpinLock;

/// The holder that threads (and CLONE_FS processes) share.
pub struct FsState {
    /// Working directory and root.
    places: SpinLock<(Path, Path)>,
    umask: AtomicU32,
    namespace: SpinLock<Arc<MountNamespace>>,
}

impl FsState {
    /// A holder of these.
    pub fn new(cwd: Path, root: Path, umask: u32, namespace: Arc<MountNamespace>) -> FsState {
        let namespace = SpinLock::new(namespace);
        FsState { places: SpinLock::new((cwd, root)), umask: AtomicU32::new(umask), namespace }
    }

    /// A copy, for fork and unshare(CLONE_FS).
    pub fn duplicate(&self) -> FsState {
        let (cwd, root) = self.places();
        FsState::new(cwd, root, self.umask(), self.namespace())
    }

    /// A copy in a copy of its mount namespace, for CLONE_NEWNS.
    pub fn with_own_namespace(&self) -> FsState {
        let (namespace, pairs) = self.namespace().copy();
        let (cwd, root) = self.places();
        let there = |path| MountNamespace::translate(&pairs, path);
        FsState::new(there(cwd), there(root), self.umask(), namespace)
    }

    /// The mount namespace.
    pub fn namespace(&self) -> Arc<MountNamespace> {
        self.namespace.lock().clone()
    }

    /// setns(2): enters a mount namespace, at its root.
    pub fn enter_namespace(&self, namespace: Arc<MountNamespace>, root: Path) {
        let old = core::mem::replace(&mut *self.namespace.lock(), namespace);
        let places = core::mem::replace(&mut *self.places.lock(), (root.clone(), root));
        drop((old, places));
    }

    /// pivot_root(2): those that were at `old` are at `new`.
    pub fn move_places(&self, old: &Path, new: &Path) {
        let mut places = self.places.lock();
        let mut left = [None, None];
        let (cwd, root) = &mut *places;
        for (place, left) in [cwd, root].into_iter().zip(&mut left) {
            if place == old {
                *left = Some(core::mem::replace(place, new.clone()));
            }
        }
        drop(places);
        drop(left);
    }

    /// Working directory and root.
    pub fn places(&self) -> (Path, Path) {
        self.places.lock().clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.places.lock().0.clone()
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        self.places.lock().1.clone()
    }

    /// chdir(2).
    pub fn set_cwd(&self, cwd: Path) {
        let old = core::mem::replace(&mut self.places.lock().0, cwd);
        drop(old);
    }

    /// chroot(2).
    pub fn set_root(&self, root: Path) {
        let old = core::mem::replace(&mut self.places.lock().1, root);
        drop(old);
    }

    /// The mode bits that new files don't get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// umask(2): the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }
}
