//! rename(2).

use alloc::sync::Arc;

use base::{Errno, Result};

use crate::landlock::{self, Move};
use crate::notify::{self, event};
use crate::vfs::change::may_remove;
use crate::vfs::permission;
use crate::vfs::walk::{Last, Resolve, Tail, Walk};
use crate::{Access, Dentry, DeviceNumber, FileKind, FsContext, Inode, NewInode, Path};

/// How renameat2(2) treats the new name, if it is taken, and the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replaces it; with `whiteout` (RENAME_WHITEOUT) a mark of something deleted stays under the old name (`EINVAL` where the
    /// file system keeps none).
    Replace {
        /// Leave a mark.
        whiteout: bool,
    },
    /// RENAME_NOREPLACE: `EEXIST`.
    NoReplace {
        /// Leave a mark.
        whiteout: bool,
    },
    /// RENAME_EXCHANGE: the two change places.
    Exchange,
}

impl RenameMode {
    fn leaves_whiteout(self) -> bool {
        matches!(self, RenameMode::Replace { whiteout: true } | RenameMode::NoReplace { whiteout: true })
    }
}

/// One of the two ends: the directory, and the name in it.
struct End<'p> {
    dir: Path,
    inode: Arc<Inode>,
    name: &'p [u8],
    slash: bool,
}

impl<'p> End<'p> {
    fn walk(cx: &FsContext, base: Option<&Path>, path: &'p [u8], not_a_name: Errno) -> Result<End<'p>> {
        let mut walk = Walk::new(cx, base, Resolve::empty());
        let Tail { last, slash } = walk.to_parent(path)?;
        let Last::Name(name) = last else { return Err(not_a_name) };
        let inode = walk.at.inode()?.clone();
        Ok(End { dir: walk.at, inode, name, slash })
    }
}

/// renameat2(2). `EXDEV`, `EBUSY` (`.`, `..`, mount points), `EINVAL` (a directory into itself), `ENOTEMPTY`, `EEXIST`, `EISDIR`,
/// `ENOTDIR`, and what permissions give.
pub fn rename(
    cx: &FsContext,
    from: (Option<&Path>, &[u8]),
    to: (Option<&Path>, &[u8]),
    mode: RenameMode,
) -> Result<()> {
    let taken = if matches!(mode, RenameMode::NoReplace { .. }) { Errno::EEXIST } else { Errno::EBUSY };
    let from = End::walk(cx, from.0, from.1, Errno::EBUSY)?;
    let to = End::walk(cx, to.0, to.1, taken)?;
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    permission::writable_mount(&from.dir)?;
    if Arc::ptr_eq(&from.inode, &to.inode) {
        let _held = from.inode.content.lock();
        return rename_locked(cx, &from, &to, mode);
    }
    let _moving = from.dir.mount.superblock.moving.lock();
    // Ancestors first; between strangers, by address.
    let to_is_below = to.dir.dentry.is_below(&from.dir.dentry);
    let from_is_below = from.dir.dentry.is_below(&to.dir.dentry);
    let from_first = to_is_below || !from_is_below && Arc::as_ptr(&from.inode).addr() < Arc::as_ptr(&to.inode).addr();
    let (first, second) = if from_first { (&from.inode, &to.inode) } else { (&to.inode, &from.inode) };
    let _first = first.content.lock();
    let _second = second.content.lock();
    rename_locked(cx, &from, &to, mode)
}

fn rename_locked(cx: &FsContext, from: &End, to: &End, mode: RenameMode) -> Result<()> {
    if from.dir.dentry.is_gone() || to.dir.dentry.is_gone() {
        return Err(Errno::ENOENT);
    }
    let old = from.dir.dentry.lookup_locked(from.name)?;
    let new = to.dir.dentry.lookup_locked(to.name)?;
    let moved = old.inode().ok_or(Errno::ENOENT)?.clone();
    let target = new.inode().cloned();
    match (mode, &target) {
        (RenameMode::NoReplace { .. }, Some(_)) => return Err(Errno::EEXIST),
        (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
        _ => {}
    }
    check_shape(from, to, &old, &new, mode)?;
    let exchanges = mode == RenameMode::Exchange;
    let marks = mode.leaves_whiteout();
    let change = Move { from: &from.dir, old: &old, to: &to.dir, new: &new, removes: true, exchanges, marks };
    landlock::rename(cx, &change)?;
    if target.as_ref().is_some_and(|t| Arc::ptr_eq(t, &moved)) {
        // Two names of one file: rename(2) says to do nothing.
        return Ok(());
    }
    check_rights(cx, from, to, &moved, target.as_ref(), mode)?;
    if old.is_mount_point() || new.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    if marks && !from.inode.ops().keeps_whiteouts() {
        return Err(Errno::EINVAL);
    }
    from.inode.ops().rename((&from.inode, from.name, &moved), (&to.inode, to.name, target.as_ref()), exchanges)?;
    let mark = marks.then(|| make_whiteout(cx, from, to, &moved)).transpose()?;
    after(from, to, (&old, &moved), (&new, target), mode);
    if let Some(mark) = mark {
        from.dir.dentry.instantiate(from.name, mark);
    }
    Ok(())
}

/// Makes the device 0:0 under the old name, which has just become free. If that can't be, the file gets its name back.
fn make_whiteout(cx: &FsContext, from: &End, to: &End, moved: &Arc<Inode>) -> Result<Arc<Inode>> {
    let (uid, gid, mode) = permission::for_new(cx, &from.inode, FileKind::CharDevice, 0);
    let new = NewInode { kind: FileKind::CharDevice, mode, uid, gid, rdev: DeviceNumber::default(), target: b"" };
    let made = from.inode.ops().create(&from.inode, from.name, &new);
    if made.is_err() {
        from.inode.ops().rename((&to.inode, to.name, moved), (&from.inode, from.name, None), false)?;
    }
    made
}

/// No directory may become its own descendant, and what has slashes behind it must be a directory.
fn check_shape(from: &End, to: &End, old: &Arc<Dentry>, new: &Arc<Dentry>, mode: RenameMode) -> Result<()> {
    let is_dir = |d: &Arc<Dentry>| d.inode().is_some_and(|i| i.is_dir());
    if !is_dir(old) && (from.slash || mode != RenameMode::Exchange && to.slash) {
        return Err(Errno::ENOTDIR);
    }
    if mode == RenameMode::Exchange && to.slash && !is_dir(new) {
        return Err(Errno::ENOTDIR);
    }
    if to.dir.dentry.is_below(old) {
        return Err(Errno::EINVAL);
    }
    if from.dir.dentry.is_below(new) {
        return Err(if mode == RenameMode::Exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    Ok(())
}

fn check_rights(
    cx: &FsContext,
    from: &End,
    to: &End,
    moved: &Arc<Inode>,
    target: Option<&Arc<Inode>>,
    mode: RenameMode,
) -> Result<()> {
    may_remove(cx, &from.dir, moved)?;
    match target {
        None => permission::check_path(cx, &to.dir, Access::WRITE | Access::EXEC)?,
        Some(target) => {
            may_remove(cx, &to.dir, target)?;
            if mode != RenameMode::Exchange {
                match (moved.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
    }
    // A directory that changes its parent changes its `..` entry.
    let other_parent = !Arc::ptr_eq(&from.inode, &to.inode);
    if other_parent && moved.is_dir() {
        permission::check(&cx.cred, moved, Access::WRITE)?;
    }
    if let Some(target) = target
        && other_parent
        && mode == RenameMode::Exchange
        && target.is_dir()
    {
        permission::check(&cx.cred, target, Access::WRITE)?;
    }
    Ok(())
}

/// Brings the cache of names, link counts and times up to what the file system did, and tells watchers.
fn after(
    from: &End,
    to: &End,
    old: (&Arc<Dentry>, &Arc<Inode>),
    new: (&Arc<Dentry>, Option<Arc<Inode>>),
    mode: RenameMode,
) {
    let (dentry, moved) = old;
    let other_parent = !Arc::ptr_eq(&from.inode, &to.inode);
    let dir_gone_there = new.1.as_ref().is_some_and(|t| t.is_dir());
    if mode == RenameMode::Exchange {
        Dentry::exchange(dentry, new.0);
        if other_parent && moved.is_dir() != dir_gone_there {
            let (loses, gains) = if moved.is_dir() { (&from.inode, &to.inode) } else { (&to.inode, &from.inode) };
            loses.drop_link();
            gains.add_link();
        }
    } else {
        from.dir.dentry.move_child(dentry, &to.dir.dentry, to.name);
        if let Some(target) = &new.1 {
            if target.is_dir() {
                target.set_nlink(0);
                to.inode.drop_link();
            } else {
                target.drop_link();
            }
            notify::inode_event(target, if target.nlink() == 0 { event::DELETE_SELF } else { event::ATTRIB });
        }
        if other_parent && moved.is_dir() {
            from.inode.drop_link();
            to.inode.add_link();
        }
    }
    from.inode.modified();
    to.inode.modified();
    moved.changed();
    notify::rename_event(moved, (&from.inode, from.name), (&to.inode, to.name));
    notify::inode_event(moved, event::MOVE_SELF);
}
