//! May a restricted thread do this to that file? The walk from the file up to the root that gathers what the layers grant.

use alloc::sync::Arc;

use base::{Errno, Result};

use super::domain::{self, Domain, Masks, is_granted};
use super::{KINDS, Rights, rights};
use crate::{Access, Dentry, DeviceNumber, FileKind, FsContext, Inode, Path};

/// Opening it. `EACCES`.
pub(crate) fn open(cx: &FsContext, path: &Path, access: Access) -> Result<()> {
    let Some(domain) = domain::of(&cx.cred) else { return Ok(()) };
    let is_dir = path.inode()?.is_dir();
    let mut wanted = 0;
    if access.contains(Access::READ) {
        wanted |= if is_dir { rights::READ_DIR } else { rights::READ_FILE };
    }
    if access.contains(Access::WRITE) {
        wanted |= rights::WRITE_FILE;
    }
    if access.contains(Access::EXEC) {
        wanted |= rights::EXECUTE;
    }
    check(&domain, path, wanted)
}

/// Making a file of this kind (and device number) in the directory. `EACCES`.
pub(crate) fn make(cx: &FsContext, dir: &Path, kind: FileKind, rdev: DeviceNumber) -> Result<()> {
    domain::of(&cx.cred).map_or(Ok(()), |domain| check(&domain, dir, right_to_make(kind, rdev)))
}

/// Taking a file out of the directory. `EACCES`.
pub(crate) fn remove(cx: &FsContext, dir: &Path, victim: &Inode) -> Result<()> {
    domain::of(&cx.cred).map_or(Ok(()), |domain| check(&domain, dir, right_to_remove(victim)))
}

/// Changing mounts, which a restricted thread can't: they would show files elsewhere. `EPERM`.
pub(crate) fn mount(cx: &FsContext) -> Result<()> {
    if cx.cred.landlock.is_some() { Err(Errno::EPERM) } else { Ok(()) }
}

fn right_to_make(kind: FileKind, rdev: DeviceNumber) -> Rights {
    match kind {
        // The mark of something deleted is no device.
        FileKind::CharDevice if rdev == DeviceNumber::default() => rights::MAKE_REG,
        FileKind::Symlink => rights::MAKE_SYM,
        FileKind::Directory => rights::MAKE_DIR,
        FileKind::CharDevice => rights::MAKE_CHAR,
        FileKind::BlockDevice => rights::MAKE_BLOCK,
        FileKind::Fifo => rights::MAKE_FIFO,
        FileKind::Socket => rights::MAKE_SOCK,
        FileKind::Regular | FileKind::None => rights::MAKE_REG,
    }
}

fn right_to_remove(victim: &Inode) -> Rights {
    if victim.is_dir() { rights::REMOVE_DIR } else { rights::REMOVE_FILE }
}

/// Does the domain allow this below the root of the tree? `EACCES`.
fn check(domain: &Domain, path: &Path, wanted: Rights) -> Result<()> {
    let (wanted, masks) = domain.masks(wanted);
    walk(domain, path, &mut [Side { wanted, masks, child: None }])
}

/// One of the two places that a rename or a link is about.
struct Side {
    /// What is asked for there.
    wanted: Rights,
    masks: Masks,
    /// What leaves that place: what only some layers grant for it itself, and whether it is a directory.
    child: Option<(Masks, bool)>,
}

/// What a rename, or a link, moves: the directories, and the dentries in them.
pub(crate) struct Move<'a> {
    pub(crate) from: &'a Path,
    pub(crate) old: &'a Arc<Dentry>,
    pub(crate) to: &'a Path,
    pub(crate) new: &'a Arc<Dentry>,
    /// A rename, not a link: the names that were there go.
    pub(crate) removes: bool,
    pub(crate) exchanges: bool,
    /// A mark of something deleted stays.
    pub(crate) marks: bool,
}

/// rename(2) and link(2). What changes its directory needs the right to REFER there and here, and may not have more rights afterwards.
/// `EACCES`, `EXDEV` (so that programs copy instead).
pub(crate) fn rename(cx: &FsContext, moved: &Move) -> Result<()> {
    let Some(domain) = domain::of(&cx.cred) else { return Ok(()) };
    let old = moved.old.inode().ok_or(Errno::ENOENT)?;
    let new = moved.new.inode();
    let mut from_wants = match new {
        Some(new) if moved.exchanges => right_to_make(new.kind(), new.rdev()),
        _ if moved.marks => rights::MAKE_REG,
        None if moved.exchanges => return Err(Errno::ENOENT),
        _ => 0,
    };
    let mut to_wants = right_to_make(old.kind(), old.rdev());
    if moved.removes {
        from_wants |= right_to_remove(old);
        to_wants |= new.map_or(0, |new| right_to_remove(new));
    }
    if Arc::ptr_eq(&moved.from.dentry, &moved.to.dentry) {
        return check(&domain, moved.to, from_wants | to_wants);
    }
    // Both are in one mount: from its root on, the way up is the same for both.
    let mut from = Side { wanted: from_wants | rights::REFER, masks: [0; KINDS], child: None };
    let mut to = Side { wanted: to_wants | rights::REFER, masks: [0; KINDS], child: None };
    let root = &moved.to.mount.root;
    let from_free = gather(&domain, root, &moved.from.dentry, &mut from.masks);
    let to_free = gather(&domain, root, &moved.to.dentry, &mut to.masks);
    if from_free && to_free {
        return Ok(());
    }
    from.child = Some(own_masks(&domain, old));
    to.child = new.filter(|_| moved.exchanges).map(|new| own_masks(&domain, new));
    let common = Path { mount: moved.to.mount.clone(), dentry: root.clone() };
    walk(&domain, &common, &mut [from, to])
}

/// What layers still deny for a file itself, and whether it is a directory.
fn own_masks(domain: &Domain, inode: &Arc<Inode>) -> (Masks, bool) {
    let (handled, mut masks) = domain.masks(rights::ALL);
    domain.grant(inode, handled, &mut masks);
    (masks, inode.is_dir())
}

/// What layers still deny from `dir` up to the root of its mount; true if none denies anything.
fn gather(domain: &Domain, root: &Arc<Dentry>, dir: &Arc<Dentry>, masks: &mut Masks) -> bool {
    let (handled, all) = domain.masks(rights::ALL);
    *masks = all;
    let mut at = dir.clone();
    loop {
        if at.inode().is_some_and(|inode| domain.grant(inode, handled, masks)) {
            return true;
        }
        if Arc::ptr_eq(&at, root) {
            return false;
        }
        // A directory that was moved out from under a bind mount is not below its root any more: it counts as if it were.
        at = at.parent().unwrap_or_else(|| root.clone());
    }
}

/// Goes from `path` up to the root, through the mounts, and takes away from each side's masks what is granted there. `EACCES`, `EXDEV`.
fn walk(domain: &Domain, path: &Path, sides: &mut [Side]) -> Result<()> {
    if sides.iter().all(|side| side.wanted == 0) {
        return Ok(());
    }
    // While rights are compared, all count, not only those that are asked for.
    let mut compares = sides.len() == 2;
    let all = domain.masks(rights::ALL).0;
    let mut at = path.clone();
    'up: loop {
        if compares && gains_nothing(sides) {
            for side in sides.iter_mut() {
                forget_others(side);
            }
            if sides.iter().all(|side| is_granted(side.wanted, &side.masks)) {
                return Ok(());
            }
            compares = false;
        }
        if let Some(inode) = at.dentry.inode() {
            let mut granted = true;
            for side in sides.iter_mut() {
                granted &= domain.grant(inode, if compares { all } else { side.wanted }, &mut side.masks);
            }
            if granted {
                return Ok(());
            }
        }
        while at.is_mount_root() {
            match at.mount.place() {
                Some(place) => at = place,
                None if at.mount.is_internal() => return Ok(()),
                None => break 'up,
            }
        }
        match at.dentry.parent() {
            Some(parent) => at.dentry = parent,
            // Internal file systems have no tree: what is there is reached through open files alone.
            None if at.mount.is_internal() => return Ok(()),
            // Moved out from under a bind mount: goes on with that.
            None => at.dentry = at.mount.root.clone(),
        }
    }
    let denied = |side: &Side| !is_granted(side.wanted & !rights::REFER, &side.masks);
    Err(if sides.len() == 1 || sides.iter().any(denied) { Errno::EACCES } else { Errno::EXDEV })
}

/// From here on only what is asked for counts.
fn forget_others(side: &mut Side) {
    for (kind, mask) in side.masks.iter_mut().enumerate() {
        if side.wanted & 1 << kind == 0 {
            *mask = 0;
        }
    }
}

/// Is what leaves each side restricted at least as much at the other?
fn gains_nothing(sides: &[Side]) -> bool {
    let [from, to] = sides else { return true };
    let fits = |child: &Option<(Masks, bool)>, from: &Masks, to: &Masks| {
        let Some((own, is_dir)) = child else { return true };
        (0..KINDS)
            .filter(|kind| *is_dir || rights::OF_FILES & 1 << kind != 0)
            .all(|kind| from[kind] & own[kind] & !to[kind] == 0)
    };
    fits(&from.child, &from.masks, &to.masks) && fits(&to.child, &to.masks, &from.masks)
}
