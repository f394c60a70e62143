//! Directory notification (fcntl F_NOTIFY): a signal when something happens in a directory. inotify(7) took its place.

use alloc::sync::{Arc, Weak};

use base::{Errno, Events, Result};
use hal::sync::SpinLock;

use crate::async_notify::{self, OwnerCell};
use crate::notify::{self, Happening, Watcher, event};
use crate::{Fd, Inode, OpenFile};

/// DN_MULTISHOT: signals more than once.
const MULTISHOT: u32 = 0x8000_0000;
/// DN_* and the events that each stands for.
const KINDS: [(u32, u32); 6] = [
    (0x01, event::ACCESS),
    (0x02, event::MODIFY),
    (0x04, event::CREATE | event::MOVED_TO),
    (0x08, event::DELETE | event::MOVED_FROM),
    (0x10, event::MOVED_FROM),
    (0x20, event::ATTRIB),
];

/// What one open directory is to signal.
pub(crate) struct DirectoryWatch {
    inode: Weak<Inode>,
    /// The DN_* bits.
    wanted: SpinLock<u32>,
    owner: OwnerCell,
    fd: Fd,
}

/// F_NOTIFY: adds to what is signalled of the directory, or with 0 ends it. `ENOTDIR`, `ENOMEM`.
pub fn set(open: &OpenFile, fd: Fd, wanted: u32) -> Result<()> {
    let inode = open.inode();
    if wanted & !MULTISHOT == 0 {
        open.set_directory_watch(None);
        return Ok(());
    }
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if let Some(watch) = open.directory_watch() {
        *watch.wanted.lock() |= wanted;
        return Ok(());
    }
    let owner = async_notify::owned(open)?;
    let watch = Arc::new(DirectoryWatch { inode: Arc::downgrade(inode), wanted: SpinLock::new(wanted), owner, fd });
    let watcher: Arc<dyn Watcher> = watch.clone();
    notify::watch(&**inode, &watcher);
    open.set_directory_watch(Some(watch));
    Ok(())
}

impl DirectoryWatch {
    /// Ends it.
    pub(crate) fn end(self: &Arc<DirectoryWatch>) {
        let watcher: Arc<dyn Watcher> = self.clone();
        if let Some(inode) = self.inode.upgrade() {
            notify::unwatch(&*inode, &watcher);
        }
    }
}

impl Watcher for DirectoryWatch {
    fn event(&self, what: &Happening) {
        let here = what.parent.is_some_and(|(dir, _)| core::ptr::eq(self.inode.as_ptr(), Arc::as_ptr(dir)));
        if !here {
            return;
        }
        let mut wanted = self.wanted.lock();
        let hit = KINDS.iter().any(|(bit, events)| *wanted & bit != 0 && what.mask & events != 0);
        if !hit {
            return;
        }
        if *wanted & MULTISHOT == 0 {
            *wanted = 0;
        }
        drop(wanted);
        async_notify::post(&self.owner, self.fd, Events::IN | Events::MSG);
    }
}
