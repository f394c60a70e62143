//! Mount namespaces: the trees of mounts that processes see.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Events, Result};
use hal::sync::{Once, SpinLock};
use sched::WaitQueue;

use super::propagation::CopyAs;
use super::tree::{self, Change};
use super::{Mount, Path};

/// How many mounts one namespace may have (`fs.mount-max`).
pub const MOUNTS_MAX: usize = 100_000;

/// A tree of mounts: that of some processes, or (anonymous) one that only a descriptor of open_tree(2) or fsmount(2) refers to.
pub struct MountNamespace {
    /// The inode number of `/proc/PID/ns/mnt`.
    pub id: u64,
    anonymous: bool,
    /// All its mounts, in the order in which they were made.
    mounts: SpinLock<BTreeMap<u64, Arc<Mount>>>,
    /// Grows with each change, for those who poll `/proc/PID/mounts`.
    changes: AtomicU64,
    queue: Arc<WaitQueue>,
}

/// The number of the first one, as on Linux.
const FIRST_ID: u64 = 0xf000_0001;

static NEXT_ID: AtomicU64 = AtomicU64::new(FIRST_ID);
static INITIAL: Once<Arc<MountNamespace>> = Once::new();

impl MountNamespace {
    pub(super) fn new(anonymous: bool) -> Arc<MountNamespace> {
        Arc::new(MountNamespace {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            anonymous,
            mounts: SpinLock::new(BTreeMap::new()),
            changes: AtomicU64::new(0),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// The one that the first process is in.
    pub fn initial() -> &'static Arc<MountNamespace> {
        INITIAL.get_or_init(|| MountNamespace::new(false))
    }

    /// Does only a descriptor refer to it?
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Its mounts, in the order in which they were made.
    pub fn list(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().values().cloned().collect()
    }

    /// Grows with each change.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Woken at each change.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// Is there room for that many mounts more? `ENOSPC`.
    pub(super) fn reserve(&self, more: usize) -> Result<()> {
        if self.mounts.lock().len() + more > MOUNTS_MAX { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    pub(super) fn add(&self, mount: &Arc<Mount>) {
        self.mounts.lock().insert(mount.id, mount.clone());
        self.changed();
    }

    pub(super) fn remove(&self, mount: &Mount) -> Option<Arc<Mount>> {
        let removed = self.mounts.lock().remove(&mount.id);
        self.changed();
        removed
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.queue.wake_for(Events::ERR | Events::PRI, usize::MAX);
    }

    /// The mount at the root of the tree.
    pub fn top(&self) -> Option<Arc<Mount>> {
        self.mounts.lock().values().find(|mount| mount.place().is_none()).cloned()
    }

    /// A copy for clone(2) and unshare(2) with CLONE_NEWNS, and which mount each became: copies are peers of what they were made of.
    pub fn copy(&self) -> (Arc<MountNamespace>, Vec<(Arc<Mount>, Arc<Mount>)>) {
        let copy = MountNamespace::new(false);
        let mut change = Change::begin();
        let Some(top) = self.top() else { return (copy, Vec::new()) };
        let pairs = tree::copy(&mut change, &top, &top.root, true, CopyAs::Peer);
        for (_, new) in &pairs {
            tree::enter_namespace(&mut change, new, &copy);
        }
        (copy, pairs)
    }

    /// Where `path` shows in a copy that gave these pairs; itself where its mount was not part of it.
    pub fn translate(pairs: &[(Arc<Mount>, Arc<Mount>)], path: Path) -> Path {
        match pairs.iter().find(|(old, _)| Arc::ptr_eq(old, &path.mount)) {
            Some((_, new)) => Path { mount: new.clone(), dentry: path.dentry },
            None => path,
        }
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        let mounts = core::mem::take(&mut *self.mounts.lock());
        if mounts.is_empty() {
            return;
        }
        let mut change = Change::begin();
        for mount in mounts.values().rev() {
            tree::cut(&mut change, mount);
        }
        drop(change);
    }
}
