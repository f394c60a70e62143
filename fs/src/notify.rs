//! Telling watchers (inotify) what happens to files.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use hal::sync::SpinLock;

use crate::{Dentry, Inode, OpenFile};

/// What happened, in the bits of inotify(7).
#[allow(missing_docs, reason = "inotify(7) documents each")]
pub mod event {
    pub const ACCESS: u32 = 0x1;
    pub const MODIFY: u32 = 0x2;
    pub const ATTRIB: u32 = 0x4;
    pub const CLOSE_WRITE: u32 = 0x8;
    pub const CLOSE_NOWRITE: u32 = 0x10;
    pub const OPEN: u32 = 0x20;
    pub const MOVED_FROM: u32 = 0x40;
    pub const MOVED_TO: u32 = 0x80;
    pub const CREATE: u32 = 0x100;
    pub const DELETE: u32 = 0x200;
    pub const DELETE_SELF: u32 = 0x400;
    pub const MOVE_SELF: u32 = 0x800;
    pub const UNMOUNT: u32 = 0x2000;
    pub const ISDIR: u32 = 0x4000_0000;
}

/// Hears of events on an inode that it watches.
pub trait Watcher: Send + Sync {
    /// `mask` happened to the inode, or to `name` in it. `cookie` ties the two halves of a rename together. Must not sleep.
    fn event(&self, inode: &Arc<Inode>, mask: u32, name: Option<&[u8]>, cookie: u32);
}

/// The watchers of one inode.
#[derive(Default)]
pub struct Watches(SpinLock<Vec<Weak<dyn Watcher>>>);

/// How many watches there are anywhere: while there are none, nothing is looked up.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

/// Adds a watcher to an inode.
pub fn watch(inode: &Inode, watcher: &Arc<dyn Watcher>) {
    inode.watches.get_or_init(Default::default).0.lock().push(Arc::downgrade(watcher));
    TOTAL.fetch_add(1, Ordering::Relaxed);
}

/// Takes a watcher away again.
pub fn unwatch(inode: &Inode, watcher: &Arc<dyn Watcher>) {
    if let Some(watches) = inode.watches.get() {
        let mut list = watches.0.lock();
        let before = list.len();
        list.retain(|w| w.as_ptr().cast::<()>() != Arc::as_ptr(watcher).cast::<()>());
        TOTAL.fetch_sub(before - list.len(), Ordering::Relaxed);
    }
}

/// A cookie for the two halves of a rename.
pub fn next_cookie() -> u32 {
    COOKIE.fetch_add(1, Ordering::Relaxed)
}

fn tell(inode: &Arc<Inode>, mask: u32, name: Option<&[u8]>, cookie: u32) {
    let Some(watches) = inode.watches.get() else { return };
    let watchers: Vec<_> = watches.0.lock().iter().filter_map(Weak::upgrade).collect();
    for watcher in watchers {
        watcher.event(inode, mask, name, cookie);
    }
}

/// `mask` happened to the inode itself, under whatever name.
pub fn inode_event(inode: &Arc<Inode>, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        let mask = if inode.is_dir() { mask | event::ISDIR } else { mask };
        tell(inode, mask, None, 0);
    }
}

/// `mask` happened to `name` (a directory if `is_dir`) in the directory.
pub fn name_event(dir: &Arc<Inode>, mask: u32, name: &[u8], is_dir: bool, cookie: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        tell(dir, if is_dir { mask | event::ISDIR } else { mask }, Some(name), cookie);
    }
}

/// `mask` happened to the file that the dentry names: its directory hears of it too.
pub fn dentry_event(dentry: &Arc<Dentry>, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) == 0 {
        return;
    }
    let Some(inode) = dentry.inode() else { return };
    if let Some((parent, name)) = dentry.place()
        && let Some(dir) = parent.inode()
    {
        name_event(dir, mask, &name, inode.is_dir(), 0);
    }
    inode_event(inode, mask);
}

/// `mask` happened through an open file.
#[inline]
pub fn open_file_event(open: &OpenFile, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        dentry_event(&open.path().dentry, mask);
    }
}
