//! Telling watchers (inotify, fanotify) what happens to files.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use base::Result;
use hal::sync::{Once, SpinLock};

use crate::{Dentry, Inode, OpenFile, OpenFlags, Path};

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
    /// Only for fanotify(7).
    pub const OPEN_EXEC: u32 = 0x1000;
    pub const OPEN_PERM: u32 = 0x1_0000;
    pub const ACCESS_PERM: u32 = 0x2_0000;
    pub const OPEN_EXEC_PERM: u32 = 0x4_0000;
    pub const UNMOUNT: u32 = 0x2000;
    /// Both halves of a rename at once; only for fanotify(7).
    pub const RENAME: u32 = 0x1000_0000;
    pub const ISDIR: u32 = 0x4000_0000;
}

/// Something that happened.
#[derive(Clone, Copy)]
pub struct Happening<'a> {
    /// What, in the bits of [`event`].
    pub mask: u32,
    /// The file that it is about; for a change of a directory's entries the file of that name.
    pub object: Option<&'a Arc<Inode>>,
    /// The directory that it has a name in, and the name.
    pub parent: Option<(&'a Arc<Inode>, &'a [u8])>,
    /// The directory and the name that a rename led to.
    pub moved: Option<(&'a Arc<Inode>, &'a [u8])>,
    /// Is it about the directory's entry rather than the file?
    pub of_entry: bool,
    /// How the file was reached, if that is known.
    pub path: Option<&'a Path>,
    /// Ties the two halves of a rename together.
    pub cookie: u32,
}

/// Hears of what happens to what it watches: inodes, all of a mount, or all of a file system.
pub trait Watcher: Send + Sync {
    /// Something happened that concerns one or more of the things that it watches. Must not sleep.
    fn event(&self, what: &Happening);

    /// Something is about to happen. `EPERM` where it must not. May sleep.
    fn ask(&self, what: &Happening) -> Result<()> {
        let _ = what;
        Ok(())
    }
}

/// The watchers of one inode, mount or file system.
#[derive(Default)]
pub struct Watches(SpinLock<Vec<Weak<dyn Watcher>>>);

/// What has watchers.
pub trait Watched {
    /// They, once there was one.
    fn watches(&self) -> &Once<Box<Watches>>;
}

/// How many watches there are anywhere: while there are none, nothing is looked up.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);
/// Was anybody ever to be asked? Until then, nobody is looked for.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Adds a watcher.
pub fn watch(what: &impl Watched, watcher: &Arc<dyn Watcher>) {
    what.watches().get_or_init(Default::default).0.lock().push(Arc::downgrade(watcher));
    TOTAL.fetch_add(1, Ordering::Relaxed);
}

fn same(one: &Weak<dyn Watcher>, other: &Arc<dyn Watcher>) -> bool {
    one.as_ptr().cast::<()>() == Arc::as_ptr(other).cast::<()>()
}

/// Takes a watcher away again.
pub fn unwatch(what: &impl Watched, watcher: &Arc<dyn Watcher>) {
    if let Some(watches) = what.watches().get() {
        let mut list = watches.0.lock();
        let before = list.len();
        list.retain(|other| !same(other, watcher));
        TOTAL.fetch_sub(before - list.len(), Ordering::Relaxed);
    }
}

/// A cookie for the two halves of a rename.
fn next_cookie() -> u32 {
    COOKIE.fetch_add(1, Ordering::Relaxed)
}

fn collect(of: &impl Watched, found: &mut Vec<Arc<dyn Watcher>>) {
    let Some(watches) = of.watches().get() else { return };
    for watcher in watches.0.lock().iter() {
        if !found.iter().any(|other| same(watcher, other)) {
            found.extend(watcher.upgrade());
        }
    }
}

/// Everybody whom it concerns, each once.
fn concerned(what: &Happening) -> Vec<Arc<dyn Watcher>> {
    let mut found = Vec::new();
    for (dir, _) in what.parent.iter().chain(&what.moved) {
        collect(&***dir, &mut found);
    }
    if let Some(object) = what.object.filter(|_| !what.of_entry) {
        collect(&**object, &mut found);
    }
    if let Some(path) = what.path {
        collect(&*path.mount, &mut found);
    }
    if let Some(about) = what.object.or(what.parent.map(|(dir, _)| dir)) {
        collect(&**about.superblock(), &mut found);
    }
    found
}

fn tell(what: &Happening) {
    concerned(what).iter().for_each(|watcher| watcher.event(what));
}

fn with_kind(mask: u32, is_dir: bool) -> u32 {
    if is_dir { mask | event::ISDIR } else { mask }
}

/// `mask` happened to the inode itself, under whatever name.
pub fn inode_event(inode: &Arc<Inode>, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        let mask = with_kind(mask, inode.is_dir());
        tell(&Happening {
            mask,
            object: Some(inode),
            parent: None,
            moved: None,
            of_entry: false,
            path: None,
            cookie: 0,
        });
    }
}

/// `mask` happened to `name`, which is or was that of `object`, in the directory.
pub fn name_event(dir: &Arc<Inode>, mask: u32, name: &[u8], object: &Arc<Inode>, cookie: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        let (mask, parent) = (with_kind(mask, object.is_dir()), Some((dir, name)));
        tell(&Happening { mask, object: Some(object), parent, moved: None, of_entry: true, path: None, cookie });
    }
}

/// `object` was renamed: from a directory and the name there, to others.
pub fn rename_event(object: &Arc<Inode>, from: (&Arc<Inode>, &[u8]), to: (&Arc<Inode>, &[u8])) {
    if TOTAL.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mask = with_kind(event::RENAME, object.is_dir());
    tell(&Happening {
        mask,
        object: Some(object),
        parent: Some(from),
        moved: Some(to),
        of_entry: true,
        path: None,
        cookie: 0,
    });
    let cookie = next_cookie();
    name_event(from.0, event::MOVED_FROM, from.1, object, cookie);
    name_event(to.0, event::MOVED_TO, to.1, object, cookie);
}

/// Calls `act` with what happens to the file that the dentry names.
fn with_dentry<R>(
    dentry: &Arc<Dentry>,
    mask: u32,
    path: Option<&Path>,
    act: impl FnOnce(&Happening) -> R,
) -> Option<R> {
    let inode = dentry.inode()?;
    let mask = with_kind(mask, inode.is_dir());
    let place = dentry.place();
    let parent = place.as_ref().and_then(|(parent, name)| Some((parent.inode()?, name.as_slice())));
    Some(act(&Happening { mask, object: Some(inode), parent, moved: None, of_entry: false, path, cookie: 0 }))
}

fn tell_of_dentry(dentry: &Arc<Dentry>, mask: u32, path: Option<&Path>) {
    with_dentry(dentry, mask, path, tell);
}

/// Somebody wants to be asked from now on ([`ask`]).
pub(crate) fn begin_asking() {
    ASKING.store(true, Ordering::Relaxed);
}

/// Asks everybody whom it concerns whether `mask` may happen to the file at `path`, which is open with these flags, or is about to be.
/// `EPERM`, `EINTR` (a fatal signal).
#[inline]
pub fn ask(path: &Path, flags: OpenFlags, mask: u32) -> Result<()> {
    if !ASKING.load(Ordering::Relaxed) || flags.contains(OpenFlags::UNHEARD) {
        return Ok(());
    }
    let ask = |what: &Happening| concerned(what).iter().try_for_each(|watcher| watcher.ask(what));
    with_dentry(&path.dentry, mask, Some(path), ask).unwrap_or(Ok(()))
}

/// `mask` happened to the file that the dentry names: its directory hears of it too.
pub fn dentry_event(dentry: &Arc<Dentry>, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 {
        tell_of_dentry(dentry, mask, None);
    }
}

/// `mask` happened through an open file.
#[inline]
pub fn open_file_event(open: &OpenFile, mask: u32) {
    if TOTAL.load(Ordering::Relaxed) != 0 && !open.flags().contains(OpenFlags::UNHEARD) {
        let path = open.path();
        tell_of_dentry(&path.dentry, mask, Some(path));
    }
}
