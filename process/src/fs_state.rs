//! Where a thread is in the file system: working directory, root, umask. Shared by CLONE_FS.

use core::sync::atomic::{AtomicU32, Ordering};

use fs::Path;
use hal::sync::SpinLock;

/// The holder that threads (and CLONE_FS processes) share.
pub struct FsState {
    /// Working directory and root.
    places: SpinLock<(Path, Path)>,
    umask: AtomicU32,
}

impl FsState {
    /// A holder of these.
    pub fn new(cwd: Path, root: Path, umask: u32) -> FsState {
        FsState { places: SpinLock::new((cwd, root)), umask: AtomicU32::new(umask) }
    }

    /// A copy, for fork and unshare(CLONE_FS).
    pub fn duplicate(&self) -> FsState {
        let (cwd, root) = self.places();
        FsState::new(cwd, root, self.umask())
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
